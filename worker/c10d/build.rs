//! Compiles the C++ shim over libtorch's c10d, and its CUDA part with the feature `cuda`.

use std::env;
use std::path::{Path, PathBuf};

const SOURCES: [&str; 7] =
    ["store.cpp", "abortable.cpp", "group.cpp", "reducer.cpp", "norm.cpp", "norm_cpu.cpp", "norm_cuda.cpp"];

/// The same kernels for three kinds of processor; norm_cpu.cpp chooses at run time.
const LEVELS: [(&str, &[&str]); 3] = [
    ("avx512", &["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]),
    ("avx2", &["-mavx2", "-mfma"]),
    ("base", &[]),
];

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-env-changed=R2O_CUDA_ROOT");
    let libtorch = PathBuf::from(env::var_os("DEP_R2O_LIBTORCH_ROOT").unwrap_or_default());
    let mut shim = cxx(&libtorch);
    shim.files(SOURCES.iter().map(|name| format!("cpp/{name}")));
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        cuda(&mut shim);
    }
    shim.compile("r2o_c10d");
    kernels();

    let lib = libtorch.join("lib");
    println!("cargo:rustc-link-search=native={}", lib.display());
    for name in ["torch_cpu", "c10", "gomp"] {
        println!("cargo:rustc-link-lib=dylib={name}");
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

fn cxx(libtorch: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("USE_C10D_GLOO", None)
        .flag("-fopenmp")
        .include("cpp")
        .include("cpp/gloo")
        .include(libtorch.join("include"))
        .include(libtorch.join("include/torch/csrc/api/include"));
    build
}

/// Headers and libtorch_cuda from `R2O_CUDA_ROOT`; no GPU and no driver is needed to build.
fn cuda(shim: &mut cc::Build) {
    let root = PathBuf::from(env::var_os("R2O_CUDA_ROOT").unwrap_or_default());
    let library = root.join("lib/libtorch_cuda.so");
    println!("cargo:rerun-if-changed={}", library.display());
    if !library.exists() {
        eprintln!(
            "the feature `cuda` needs R2O_CUDA_ROOT, a folder with include/ and lib/libtorch_cuda.so: type `cargo xtask \
             setup --cuda`; worker/c10d/CUDA.md gives the layout"
        );
        std::process::exit(1);
    }
    shim.define("USE_C10D_NCCL", None)
        .define("USE_CUDA", None)
        .include("cpp/cuda")
        .include(root.join("include"))
        .file("cpp/nccl.cpp");
    println!("cargo:rustc-link-search=native={}", root.join("lib").display());
    println!("cargo:rustc-link-lib=dylib=torch_cuda");
    println!("cargo:rustc-link-lib=dylib=c10_cuda");
    // Also in a program that calls nothing of them: loading them is what brings the kernels.
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed,-ltorch_cuda,-lc10_cuda,--as-needed");
    // Inline functions of libtorch's headers call the runtime, which lies beside the CPU libtorch, too.
    println!("cargo:rustc-link-lib=dylib:+verbatim=libcudart.so.13");
    // libtorch_cuda's own libraries (cuBLAS, cuDNN, NCCL: 2.5 GB) are looked up on the machine that runs the program.
    println!("cargo:rustc-link-arg=-Wl,--allow-shlib-undefined");
    println!("cargo:link_args=-Wl,--allow-shlib-undefined");
}

fn kernels() {
    println!("cargo:rerun-if-changed=cpp/norm_kernels.cpp");
    for (level, flags) in LEVELS {
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").opt_level(3).debug(false).define("R2O_LEVEL", level).file("cpp/norm_kernels.cpp");
        for flag in ["-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros"] {
            build.flag(flag);
        }
        for flag in flags {
            build.flag(flag);
        }
        build.compile(&format!("r2o_norm_{level}"));
    }
}
