//! Tells the program where libtorch lies on the machine that built it, and the linker what CUDA's libraries need.

fn main() {
    if let Ok(root) = std::env::var("DEP_R2O_LIBTORCH_ROOT") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{root}/lib");
    }
    if let Ok(arguments) = std::env::var("DEP_R2O_C10D_LINK_ARGS") {
        println!("cargo:rustc-link-arg={arguments}");
    }
}
