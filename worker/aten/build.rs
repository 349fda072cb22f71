//! Compiles the C++ shim over libtorch.

use std::env;
use std::path::PathBuf;

const SOURCES: [&str; 8] =
    ["tensor.cpp", "update.cpp", "kmeans.cpp", "sums.cpp", "allocator.cpp", "fan_out.cpp", "transfer.cpp", "mark.cpp"];

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    let libtorch = PathBuf::from(env::var_os("DEP_R2O_LIBTORCH_ROOT").unwrap_or_default());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // The shim is hot in tests and in the demo as well.
        .opt_level(3)
        .debug(false)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag("-fopenmp")
        .flag("-fno-math-errno")
        .flag("-fno-trapping-math")
        .include("cpp")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"))
        .files(SOURCES.iter().map(|name| format!("cpp/{name}")))
        // Nobody calls what sums.cpp does before `main`.
        .link_lib_modifier("+whole-archive")
        .compile("r2o_aten");

    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "c10", "gomp"] {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
