//! Prints the JSON schema of a job; `cargo xtask schema` writes it to deploy/jobs/schema.

fn main() -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string_pretty(&r2o_types::TrainJob::schema())?);
    Ok(())
}
