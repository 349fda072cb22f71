//! Tests that need what a machine may not have.

use std::{env, path::PathBuf};

/// Says that the running test was not run and why: `needs` names the missing thing, as in "needs Python with torch 2.11".
/// `cargo xtask test` collects these lines. With `R2O_REQUIRE_ALL=1` (CI) this fails the test instead.
pub fn not_run(needs: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    assert!(env::var_os("R2O_REQUIRE_ALL").is_none_or(|all| all != "1"), "{test} cannot run: {needs}");
    println!("not run: {needs} ({test})");
}

/// The Python that has the reference implementations' packages: `R2O_PYTHON`, which `cargo xtask test` sets once
/// `cargo xtask setup --python` has been run.
pub fn python() -> Option<PathBuf> {
    env::var_os("R2O_PYTHON").map(PathBuf::from).filter(|path| path.is_file())
}
