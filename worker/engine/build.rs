//! Tells this crate's tests and examples where libtorch lies on the machine that built them.

fn main() {
    if let Ok(root) = std::env::var("DEP_R2O_LIBTORCH_ROOT") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{root}/lib");
    }
    if let Ok(flags) = std::env::var("DEP_R2O_C10D_LINK_ARGS") {
        println!("cargo:rustc-link-arg={flags}");
    }
}
