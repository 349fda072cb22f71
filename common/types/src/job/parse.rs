//! From text to a job whose every value is possible, or to the list of all that is wrong.

use std::fmt;

use serde_json::Value;

use super::TrainJob;

/// One thing that is wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// Where: `spec.batch.lanes`. Empty for the document as a whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl SpecError {
    pub(super) fn new(path: &str, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.path, self.reason) }
    }
}

/// Everything that is wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<SpecError>);

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

impl TrainJob {
    /// Reads a job from YAML or JSON, fills in what was left out, and validates it.
    ///
    /// # Errors
    /// Text that is neither, an unknown or missing field, a value of another type, or an impossible value: each with its
    /// path.
    pub fn parse(text: &str) -> Result<Self, SpecErrors> {
        let one = |path: &str, reason: String| SpecErrors(vec![SpecError::new(path, reason)]);
        let value: Value =
            serde_saphyr::from_str(text).map_err(|error| one("", format!("not YAML or JSON: {error}")))?;
        if !value.is_object() {
            return Err(one("", "not a job: expected apiVersion, kind, metadata and spec".to_owned()));
        }
        let mut job: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            one(path.trim_matches('.'), error.into_inner().to_string())
        })?;
        if job.spec.batch.norm_group_lanes == 0 {
            job.spec.batch.norm_group_lanes = job.spec.batch.lanes;
        }
        job.validate()?;
        Ok(job)
    }

    /// The job as JSON, which [`TrainJob::parse`] reads back to an equal one.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A tree of plain fields with string keys always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// JSON schema (draft 2020-12) of a job, for editors and CI.
    #[must_use]
    pub fn schema() -> Value {
        schemars::schema_for!(Self).to_value()
    }
}
