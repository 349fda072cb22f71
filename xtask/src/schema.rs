//! The JSON schema of job.yaml, checked in so that editors can use it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use r2o_types::TrainJob;

use crate::{check::Violation, repo};

/// From the root of the repository.
const PATH: &str = "docs/job.schema.json";

fn path() -> PathBuf {
    repo::root().join(PATH)
}

fn generate() -> Result<String> {
    Ok(serde_json::to_string_pretty(&TrainJob::schema())? + "\n")
}

/// Writes the schema anew.
pub(crate) fn write() -> Result<()> {
    fs::write(path(), generate()?).with_context(|| format!("cannot write {}", path().display()))?;
    println!("wrote {PATH}");
    Ok(())
}

/// The checked-in schema is that of the types.
pub(crate) fn check() -> Vec<Violation> {
    let there = fs::read_to_string(path()).unwrap_or_default();
    match generate() {
        Ok(now) => compare(&there, &now).into_iter().collect(),
        Err(error) => vec![Violation::new(PATH, format!("cannot be generated: {error}"))],
    }
}

fn compare(there: &str, now: &str) -> Option<Violation> {
    (there != now).then(|| Violation::new(PATH, "is not that of r2o-types: type `cargo xtask schema`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_schema_is_found() {
        assert!(compare("{}\n", &generate().unwrap()).is_some());
        assert!(compare(&generate().unwrap(), &generate().unwrap()).is_none());
    }
}
