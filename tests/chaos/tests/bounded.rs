//! A bounded part of the chaos, in every gate; `cargo xtask chaos --seed N --faults M` goes on where this ends.

use anyhow::Result;
use r2o_chaos::{Chaos, draw, table};

#[tokio::test(flavor = "multi_thread")]
async fn ten_faults_leave_no_trace_in_the_weights() -> Result<()> {
    let faults = draw(1, 10);
    let mut chaos = Chaos::start("chaos", 8 * faults.len() as u64).await?;
    let mut outcomes = Vec::new();
    for fault in &faults {
        outcomes.push(chaos.suffer(fault).await?);
    }
    chaos.finish().await?;
    println!("{}", table(&outcomes));
    Ok(())
}
