//! What NVIDIA's management library (NVML) tells of this worker's GPU: its memory and how busy it is.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::metrics::Metrics;

/// The GPU that this worker computes on.
#[derive(Debug)]
pub(crate) struct Gpu {
    library: Nvml,
    which: Which,
}

/// How NVML finds a GPU.
#[derive(Debug, PartialEq, Eq)]
enum Which {
    Number(u32),
    Uuid(String),
}

impl Gpu {
    /// The first GPU that this process may use. Nothing depends on knowing it: without the library there are no figures.
    pub(crate) fn open() -> Option<Self> {
        let gpu = Nvml::init().map(|library| Self {
            library,
            which: first_visible(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()),
        });
        let known = gpu.and_then(|gpu| gpu.device().map(drop).map(|()| gpu));
        known.inspect_err(|error| tracing::warn!("memory and utilization of the GPU are not known: NVML: {error}")).ok()
    }

    fn device(&self) -> Result<Device<'_>, NvmlError> {
        match &self.which {
            Which::Number(number) => self.library.device_by_index(*number),
            Which::Uuid(uuid) => self.library.device_by_uuid(uuid.as_str()),
        }
    }

    /// Takes over what it is doing now. Of a share of a GPU (MIG) the utilization is not known.
    pub(crate) fn look(&self, metrics: &Metrics) {
        let Ok(device) = self.device() else { return };
        if let Ok(memory) = device.memory_info() {
            metrics.gpu_memory_used.set(&[], memory.used as f64);
            metrics.gpu_memory_size.set(&[], memory.total as f64);
        }
        if let Ok(busy) = device.utilization_rates() {
            metrics.gpu_utilization.set(&[], f64::from(busy.gpu) / 100.0);
        }
    }
}

/// What CUDA calls its device 0, by `CUDA_VISIBLE_DEVICES` (CUDA C++ Programming Guide, environment variables). Unlike CUDA, NVML
/// counts GPUs of different kinds by their place on the bus and not by their speed.
fn first_visible(listed: Option<&str>) -> Which {
    let first = listed.and_then(|listed| listed.split(',').next()).unwrap_or_default().trim();
    match first.parse() {
        Ok(number) => Which::Number(number),
        Err(_) if first.is_empty() => Which::Number(0),
        Err(_) => Which::Uuid(first.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_cuda_shows_is_looked_at() {
        assert_eq!(first_visible(None), Which::Number(0));
        assert_eq!(first_visible(Some("")), Which::Number(0));
        assert_eq!(first_visible(Some("3,1")), Which::Number(3));
        let uuid = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6";
        assert_eq!(first_visible(Some(&format!("{uuid},1"))), Which::Uuid(uuid.to_owned()));
    }
}
