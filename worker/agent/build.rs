//! Tells the program where libtorch lies on the machine that built it.

fn main() {
    if let Ok(root) = std::env::var("DEP_R2O_LIBTORCH_ROOT") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{root}/lib");
    }
}
