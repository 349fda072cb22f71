//! The suite up to the device: every row on the CPU, and what it says where there is no GPU.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn suite(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_r2o-gpu-suite")).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[test]
fn every_row_passes_on_the_cpu() {
    let (output, table) = suite(&["--device", "cpu", "--quick"]);
    assert_eq!(output.status.code(), Some(0), "{table}");
    let rows: Vec<_> = table.lines().skip(2).collect();
    assert_eq!(rows.len(), 7, "{table}");
    assert!(rows.iter().all(|row| row.contains("| pass |")), "{table}");
    assert!(table.contains("world 2") && table.contains("images/s, resnet18 at 32, batch 8, K 4, bfloat16"), "{table}");
    println!("{table}");
}

#[test]
fn without_a_gpu_it_says_so_and_how() {
    if std::path::Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let (output, table) = suite(&[]);
    assert_eq!(output.status.code(), Some(3), "{table}");
    assert!(table.lines().skip(2).all(|row| row.contains("| not run: needs a GPU |")), "{table}");
}
