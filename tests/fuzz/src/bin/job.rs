//! job.yaml, as a submitter sends it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r2o_types::TrainJob;

fuzz_target!(|text: &str| {
    if let Ok(job) = TrainJob::parse(text) {
        // What is accepted comes back from its own resolved form.
        assert!(TrainJob::parse(&job.to_json()).is_ok_and(|again| again == job));
    }
});
