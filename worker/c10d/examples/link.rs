//! Forms a group of one over Gloo, and over NCCL where the program has it and the machine a GPU: shows that what was
//! linked also loads.

use std::sync::Arc;
use std::time::Duration;

use r2o_c10d::{CUDA, GlooOptions, MemoryStore, NcclOptions, ProcessGroup};
use tch::{Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gloo = ProcessGroup::gloo(Arc::new(MemoryStore::new()), 0, 1, GlooOptions::default())?;
    println!("{}", sum(&gloo)?);
    if !CUDA || !tch::Cuda::is_available() {
        println!("no NCCL: built with cuda: {CUDA}, a GPU is there: {}", tch::Cuda::is_available());
        return Ok(());
    }
    let options = NcclOptions { device: 0, timeout: Duration::from_secs(60) };
    let nccl = ProcessGroup::nccl(Arc::new(MemoryStore::new()), 0, 1, options)?;
    println!("{}", sum(&nccl)?);
    Ok(())
}

fn sum(group: &ProcessGroup) -> Result<String, r2o_c10d::Error> {
    let mut ones = Tensor::ones([4], (Kind::Float, group.device()));
    group.all_reduce_sum(&mut ones)?;
    Ok(format!("{group:?}: {ones:?}"))
}
