//! safetensors files in plain memory.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A tensor.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    pub(crate) shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Values {
    pub(crate) fn f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { shape: shape.to_vec(), dtype: Dtype::F32, bytes }
    }

    pub(crate) fn i64(shape: &[usize], values: &[i64]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { shape: shape.to_vec(), dtype: Dtype::I64, bytes }
    }

    pub(crate) fn floats(&self) -> Vec<f64> {
        match self.dtype {
            Dtype::F32 => self.chunks().map(|b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::F64 => self.chunks().map(f64::from_le_bytes).collect(),
            Dtype::F16 => self.chunks().map(half).collect(),
            other => panic!("{other:?} is no float"),
        }
    }

    pub(crate) fn integers(&self) -> Vec<i64> {
        match self.dtype {
            Dtype::I64 => self.chunks().map(i64::from_le_bytes).collect(),
            Dtype::U8 => self.bytes.iter().map(|&b| i64::from(b)).collect(),
            other => panic!("{other:?} is no integer"),
        }
    }

    pub(crate) fn as_f32(&self) -> Self {
        let values: Vec<f32> = self.floats().iter().map(|&v| v as f32).collect();
        Self::f32(&self.shape, &values)
    }

    fn chunks<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        self.bytes.chunks_exact(N).map(|chunk| chunk.try_into().unwrap())
    }
}

/// A float16 that is zero or normal.
fn half(bytes: [u8; 2]) -> f64 {
    let bits = u16::from_le_bytes(bytes);
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
    if exponent == 0 { sign * fraction * 2_f64.powi(-14) } else { sign * (1.0 + fraction) * 2_f64.powi(exponent - 15) }
}

pub(crate) fn read(path: &Path) -> HashMap<String, Values> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: &TensorView<'_>| Values {
        shape: view.shape().to_vec(),
        dtype: view.dtype(),
        bytes: view.data().to_vec(),
    };
    file.iter().map(|(name, view)| (name.to_owned(), values(&view))).collect()
}

pub(crate) fn write(path: &Path, tensors: &HashMap<String, Values>) {
    let views = tensors.iter().map(|(name, v)| (name, TensorView::new(v.dtype, v.shape.clone(), &v.bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}
