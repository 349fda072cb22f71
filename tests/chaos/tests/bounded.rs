//! A bounded part of the chaos, on small images, in every gate; `cargo xtask chaos --seed N --faults M` goes on where this
//! ends.

use anyhow::Result;
use r2o_chaos::{Place, Size, Trial, run, table};
use r2o_test_kit::not_run;

async fn suffer(place: Place, faults: usize) -> Result<()> {
    let size = Size { image: 32, samples_per_lane: 8, reproducible: true };
    let trial = Trial { place, seed: 1, number: 0, faults, kinds: Vec::new(), size };
    match run(&trial, |outcome| println!("{outcome:?}")).await? {
        Ok(outcomes) => println!("{}", table(&outcomes)),
        Err(lacks) => not_run(&lacks),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_faults_on_one_machine_leave_no_trace_in_the_weights() -> Result<()> {
    suffer(Place::Disk, 8).await
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_faults_among_hosts_leave_no_trace_in_the_weights() -> Result<()> {
    suffer(Place::Hosts, 7).await
}
