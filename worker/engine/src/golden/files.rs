//! safetensors in and out, with errors that name file and tensor.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tch::{Kind, Tensor};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no safetensors file.
    #[error("{} is not a whole safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: safetensors::SafeTensorError,
    },
    /// A tensor is not what it should be.
    #[error("{}: `{name}` {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl FileError {
    pub(super) fn tensor(path: &Path, name: &str, reason: String) -> Self {
        Self::Tensor { path: path.to_owned(), name: name.to_owned(), reason }
    }
}

/// The tensors of a file.
#[derive(Debug)]
pub(super) struct Tensors {
    path: PathBuf,
    pub(super) tensors: HashMap<String, Tensor>,
}

impl Tensors {
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = std::fs::read(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|source| FileError::Format { path: path.to_owned(), source })?;
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let tensor = load(&view).map_err(|reason| FileError::tensor(path, name, reason))?;
                Ok((name.to_owned(), tensor))
            })
            .collect::<Result<_, FileError>>()?;
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Takes a tensor out, which must be of one of the kinds.
    pub(super) fn take(&mut self, name: &str, kinds: &[Kind]) -> Result<Tensor, FileError> {
        let tensor =
            self.tensors.remove(name).ok_or_else(|| FileError::tensor(&self.path, name, "is missing".to_owned()))?;
        if kinds.contains(&tensor.kind()) {
            return Ok(tensor);
        }
        let reason = format!("is of type {:?}, expected {:?}", tensor.kind(), kinds[0]);
        Err(FileError::tensor(&self.path, name, reason))
    }
}

fn load(view: &TensorView<'_>) -> Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => return Err(format!("is of type {other:?}, which is not supported")),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|error| format!("cannot be loaded: {error}"))
}

pub(super) fn read_text(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|source| FileError::Io { path: path.to_owned(), source })
}

/// Writes float32 and int64 tensors.
pub(super) fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), FileError> {
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.detach().contiguous();
        let (dtype, width) = if tensor.kind() == Kind::Int64 { (Dtype::I64, 8) } else { (Dtype::F32, 4) };
        let mut bytes = vec![0; tensor.numel() * width];
        tensor
            .f_copy_data_u8(&mut bytes, tensor.numel())
            .map_err(|error| FileError::tensor(path, name, format!("cannot be copied: {error}")))?;
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        parts.push((name.clone(), dtype, shape, bytes));
    }
    let format = |source| FileError::Format { path: path.to_owned(), source };
    let views = parts
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            Ok((name.clone(), TensorView::new(*dtype, shape.clone(), bytes).map_err(format)?))
        })
        .collect::<Result<Vec<_>, FileError>>()?;
    safetensors::serialize_to_file(views, None, path).map_err(|source| match source {
        safetensors::SafeTensorError::IoError(source) => FileError::Io { path: path.to_owned(), source },
        source => format(source),
    })
}
