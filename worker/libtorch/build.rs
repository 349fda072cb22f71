//! Says what to type when libtorch is missing, before torch-sys fails with a riddle: this script depends on nothing and
//! so runs first.

use std::{env, path::PathBuf, process::exit};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let root = PathBuf::from(env::var_os("LIBTORCH").unwrap_or_default());
    let library = root.join("lib/libtorch_cpu.so");
    println!("cargo:rerun-if-changed={}", library.display());
    if !library.exists() {
        println!(
            "cargo:warning=no libtorch at {}: type `cargo xtask setup` (or set LIBTORCH to a libtorch 2.11 folder)",
            root.display()
        );
        eprintln!(
            "no libtorch at {}: type `cargo xtask setup`, or set LIBTORCH to a libtorch 2.11 folder",
            root.display()
        );
        exit(1);
    }
    println!("cargo:root={}", root.display());
}
