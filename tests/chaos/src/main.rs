//! `r2o-chaos`: disturbs runs by faults from a seed, and prints how long the fleet took to recover from each kind.
//! `cargo xtask chaos` builds what it needs and starts it.

use anyhow::{Result, ensure};
use clap::Parser;
use r2o_chaos::{Kind, Place, Size, Trial, run, table};

/// Faults at random moments of runs of the demo's job, on real processes.
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
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    per_run: u16,
    /// Only faults of these kinds.
    #[arg(long)]
    kind: Vec<Kind>,
    /// Side of the images, in pixels.
    #[arg(long, default_value_t = 64)]
    image_size: u32,
    /// Images of each of the four lanes.
    #[arg(long, default_value_t = 8)]
    samples_per_lane: u32,
    /// In the mode that is not reproducible, which most jobs use: steps and samples are compared, weights cannot be.
    #[arg(long)]
    fast: bool,
    /// Only in this place; otherwise runs take turns.
    #[arg(long)]
    place: Option<Place>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let places = arguments.place.map_or(vec![Place::Disk, Place::Hosts], |place| vec![place]);
    let mut outcomes = Vec::new();
    let (mut left, mut number) = (arguments.faults, 0);
    while left > 0 {
        let place = places[number % places.len()];
        let faults = left.min(arguments.per_run.into());
        let mut at = outcomes.len();
        let heard = |outcome: &r2o_chaos::Outcome| {
            at += 1;
            let seconds = outcome.recovered.as_secs_f64();
            println!("{at:>3}. {}: next step after {seconds:.2} s, {} steps done again", outcome.kind, outcome.lost);
        };
        let trial = Trial {
            place,
            seed: arguments.seed,
            number: number as u64,
            faults,
            kinds: arguments.kind.clone(),
            size: Size {
                image: arguments.image_size,
                samples_per_lane: arguments.samples_per_lane,
                reproducible: !arguments.fast,
            },
        };
        match run(&trial, heard).await? {
            Ok(more) => {
                let proof = if arguments.fast { "the samples" } else { "the samples and, bit by bit, the weights" };
                println!("run {number}: every step once, with {proof} of an undisturbed run");
                outcomes.extend(more);
            }
            Err(lacks) => {
                println!("not run: {faults} faults in place {place:?}: {lacks}");
                ensure!(places.len() > 1, "nothing could be run: {lacks}");
            }
        }
        left -= faults;
        number += 1;
    }
    println!("\n{}", table(&outcomes));
    Ok(())
}
