//! Compiles the .proto files in pure Rust: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["r2o/v1/fleet.proto", "r2o/v1/rendezvous.proto", "r2o/v1/jobs.proto"];
    println!("cargo:rerun-if-changed=r2o");
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
