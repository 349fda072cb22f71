//! Writing safetensors (https://github.com/huggingface/safetensors#format): eight bytes of header length, a JSON header,
//! the tensors. Written out here because the same input must give the same bytes, and the crate's metadata has no order.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// One tensor of the file.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    /// safetensors' word for the element type.
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    /// Little-endian, contiguous.
    pub(super) data: Vec<u8>,
}

/// The file's bytes.
pub(super) fn encode(tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut end = 0;
    for (name, tensor) in ordered(tensors) {
        let begin = end;
        end += tensor.data.len();
        let info = json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), info);
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = Vec::with_capacity(8 + text.len() + end);
    file.extend_from_slice(&(text.len() as u64).to_le_bytes());
    file.extend_from_slice(&text);
    for (_, tensor) in ordered(tensors) {
        file.extend_from_slice(&tensor.data);
    }
    file
}

/// Wide element types first, then by name: so every tensor starts at a multiple of its element size.
fn ordered(tensors: &BTreeMap<String, Tensor>) -> Vec<(&String, &Tensor)> {
    let mut all: Vec<_> = tensors.iter().collect();
    all.sort_by_key(|(name, tensor)| (std::cmp::Reverse(width(&tensor.dtype)), *name));
    all
}

/// Bits per element, as the word ends with.
fn width(dtype: &str) -> u32 {
    let digits: String = dtype.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use ::safetensors::SafeTensors;

    use super::*;

    fn tensor(dtype: &str, shape: &[u64], data: &[u8]) -> Tensor {
        Tensor { dtype: dtype.into(), shape: shape.into(), data: data.into() }
    }

    #[test]
    fn the_reference_reader_reads_it_and_tensors_are_aligned() {
        let tensors = BTreeMap::from([
            ("a".to_owned(), tensor("U8", &[3], &[1, 2, 3])),
            ("b".to_owned(), tensor("F32", &[2, 1], &[0, 0, 128, 63, 0, 0, 0, 64])),
            ("n".to_owned(), tensor("I64", &[], &7_i64.to_le_bytes())),
        ]);
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned()), ("x".to_owned(), "y".to_owned())]);
        let file = encode(&tensors, &metadata);
        assert_eq!(file, encode(&tensors, &metadata));
        let read = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("b").unwrap().shape(), [2, 1]);
        assert_eq!(read.tensor("n").unwrap().data(), 7_i64.to_le_bytes());
        assert_eq!(read.tensor("a").unwrap().data(), [1, 2, 3]);
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
        assert_eq!(header["__metadata__"]["format"], "pt");
        assert_eq!(header["n"]["data_offsets"][0], 0);
        assert_eq!(header["b"]["data_offsets"][0], 8);
    }
}
