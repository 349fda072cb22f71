//! `r2o-chaos`: disturbs a run by faults from a seed, and prints how long the fleet took to recover from each kind.
//! `cargo xtask chaos` builds what it needs and starts it.

use anyhow::{Context, Result};
use clap::Parser;
use r2o_chaos::{Chaos, draw, table};

/// Faults at random moments of a run of the demo's job, on real processes.
#[derive(Parser)]
#[command(name = "r2o-chaos")]
struct Arguments {
    /// The same seed gives the same faults after the same numbers of steps.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 15)]
    faults: usize,
    /// Faults per run; every run ends with the comparison.
    #[arg(long, default_value_t = 15)]
    per_run: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let faults = draw(arguments.seed, arguments.faults);
    let mut outcomes = Vec::new();
    for (number, part) in faults.chunks(arguments.per_run.max(1)).enumerate() {
        let mut chaos = Chaos::start(&format!("chaos-{number}"), 8 * part.len() as u64).await?;
        for fault in part {
            let outcome = chaos.suffer(fault).await.with_context(|| {
                format!("seed {}, fault {} of {}", arguments.seed, outcomes.len() + 1, arguments.faults)
            })?;
            println!(
                "{:>3}. {}: next step after {:.2} s, {} steps done again",
                outcomes.len() + 1,
                outcome.kind,
                outcome.recovered.as_secs_f64(),
                outcome.lost
            );
            outcomes.push(outcome);
        }
        chaos.finish().await.with_context(|| format!("seed {}, run {number}", arguments.seed))?;
        println!("run {number}: every step once, and the weights of an undisturbed run bit by bit");
    }
    println!("\n{}", table(&outcomes));
    Ok(())
}
