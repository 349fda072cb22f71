//! Where the programs under test are.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};

/// The root of the repository.
pub fn repository() -> &'static Path {
    let kit = Path::new(env!("CARGO_MANIFEST_DIR"));
    kit.ancestors().nth(2).unwrap_or(kit)
}

/// The path of one of our programs (`r2octl`, `r2o-coordinator`, `r2o-worker`), from the build that the running test
/// belongs to, or from `R2O_BIN_DIR`.
///
/// Errors: the program was not built; `cargo xtask test` builds it first.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match env::var_os("R2O_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let running = env::current_exe().context("cannot find the running program's path")?;
            let folder = running.parent().context("the running program lies in no target folder")?;
            // target/PROFILE/PROGRAM, or target/PROFILE/deps/TEST-HASH
            if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned()
        }
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built: type `cargo build --bin {name}`, or run the tests by `cargo xtask test`",
            path.display()
        );
    }
    Ok(path)
}

/// Runs one of our programs to its end and gives back its status and output, whatever the status is.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Result<Output> {
    let path = binary(name)?;
    Command::new(&path).args(arguments).output().with_context(|| format!("cannot run {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_has_a_workspace() {
        assert!(repository().join("Cargo.toml").is_file());
        assert!(repository().join("tests/kit").is_dir());
    }

    #[test]
    fn a_missing_program_says_what_to_type() {
        let error = binary("r2o-no-such-program").unwrap_err().to_string();
        assert!(error.contains("cargo build --bin r2o-no-such-program"), "{error}");
    }
}
