//! Commands that read a run's folder: checkpoints, export, report. A state with ResNet-18's shapes stands for a trained one.

#![allow(clippy::unwrap_used)]

#[path = "kit/output.rs"]
mod output;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use output::printed;
use r2o_storage::checkpoint::{Manifest, TensorEntry, commit, write_object};
use r2o_storage::history::{StepRecord, append_segment};
use r2o_storage::{Store, open};
use safetensors::SafeTensors;
use serde_json::json;

fn r2octl(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_r2octl"));
    command.args(args).env("R2O_COORDINATOR", "http://127.0.0.1:1").output().unwrap()
}

/// Names and shapes of torchvision's ResNet-18 without `fc` and without counters.
fn resnet18() -> Vec<(String, Vec<u64>)> {
    let mut tensors = Vec::new();
    let norm = |tensors: &mut Vec<_>, name: &str, channels: u64| {
        for part in ["weight", "bias", "running_mean", "running_var"] {
            tensors.push((format!("{name}.{part}"), vec![channels]));
        }
    };
    tensors.push(("conv1.weight".to_owned(), vec![64, 3, 7, 7]));
    norm(&mut tensors, "bn1", 64);
    let mut inside = 64;
    for (layer, channels) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let name = format!("layer{layer}.{block}");
            tensors.push((format!("{name}.conv1.weight"), vec![channels, inside, 3, 3]));
            norm(&mut tensors, &format!("{name}.bn1"), channels);
            tensors.push((format!("{name}.conv2.weight"), vec![channels, channels, 3, 3]));
            norm(&mut tensors, &format!("{name}.bn2"), channels);
            if inside != channels {
                tensors.push((format!("{name}.downsample.0.weight"), vec![channels, inside, 1, 1]));
                norm(&mut tensors, &format!("{name}.downsample.1"), channels);
            }
            inside = channels;
        }
    }
    tensors
}

/// Commits a checkpoint of the given step; every element of tensor i of the online network is i / 1000 + step, half more in
/// the target's. Large tensors are left out where `large` is exceeded.
async fn checkpoint(store: &Store, step: u64, large: u64) {
    let mut tensors = Vec::new();
    for (network, offset) in [("online", 0.0), ("target", 0.5)] {
        let state = resnet18().into_iter().enumerate();
        for (i, (name, shape)) in state.filter(|(_, (_, shape))| shape.iter().product::<u64>() <= large) {
            let value = (i as f32 / 1000.0 + offset + step as f32).to_le_bytes();
            let bytes = value.repeat(shape.iter().product::<u64>() as usize);
            let id = write_object(store, bytes.clone()).await.unwrap();
            let (name, dtype, blake3) = (format!("{network}.backbone.{name}"), "F32".into(), id.to_string());
            tensors.push(TensorEntry { name, dtype, shape, blake3, bytes: bytes.len() as u64 });
        }
    }
    let manifest = Manifest {
        format: Manifest::FORMAT,
        job: "demo".into(),
        step,
        epoch: step / 10,
        generation: 1,
        spec: json!({"metadata": {"name": "demo"}, "spec": {"model": {"backbone": "resnet18"}}}),
        tensors,
        created_unix_ms: 1_700_000_000_000,
        versions: BTreeMap::new(),
    };
    commit(store, &manifest).await.unwrap();
}

/// Tensors of at most so many elements: enough for names, quick to write.
const SMALL: u64 = 10_000;

fn run_folder(steps: &[u64], large: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path().to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for step in steps {
            checkpoint(&store, *step, large).await;
        }
    });
    folder
}

/// The object of one tensor of a checkpoint.
fn object(folder: &Path, step: u64, tensor: &str) -> std::path::PathBuf {
    let manifest = std::fs::read(folder.join(format!("manifests/{step:012}.json"))).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let tensors = manifest["tensors"].as_array().unwrap();
    let entry = tensors.iter().find(|t| t["name"] == tensor).unwrap();
    folder.join("objects").join(entry["blake3"].as_str().unwrap())
}

#[test]
fn the_exported_backbone_has_torchvisions_names_and_loads_there() {
    let folder = run_folder(&[10], u64::MAX);
    let (run, out) = (folder.path().to_str().unwrap(), folder.path().join("out/backbone.safetensors"));
    let text = printed(&r2octl(&["export", run, "--out", out.to_str().unwrap()]), 0);
    assert!(text.contains("wrote 120 tensors") && text.contains("after step 10"), "{text}");
    let file = std::fs::read(&out).unwrap();
    let read = SafeTensors::deserialize(&file).unwrap();
    for (i, (name, shape)) in resnet18().into_iter().enumerate() {
        let tensor = read.tensor(&name).unwrap();
        assert_eq!(tensor.shape().iter().map(|n| *n as u64).collect::<Vec<_>>(), shape, "{name}");
        assert_eq!(tensor.data()[..4], (i as f32 / 1000.0 + 10.0).to_le_bytes(), "{name}");
    }
    assert_eq!(read.tensor("layer4.1.bn2.num_batches_tracked").unwrap().data(), 10_i64.to_le_bytes());
    printed(&r2octl(&["export", run, "--out", out.to_str().unwrap()]), 0);
    assert_eq!(std::fs::read(&out).unwrap(), file, "the same checkpoint gives the same bytes");
    torchvision_loads(&out);
}

fn torchvision_loads(file: &Path) {
    const SCRIPT: &str = "
import sys, torch
from safetensors.torch import load_file
from torchvision.models import resnet18
model = resnet18()
missing, unexpected = model.load_state_dict(load_file(sys.argv[1]), strict=False)
assert sorted(missing) == ['fc.bias', 'fc.weight'] and not unexpected, (missing, unexpected)
model.fc = torch.nn.Identity()
model.load_state_dict(load_file(sys.argv[1]), strict=True)
assert model.conv1.weight.flatten()[0].item() == 10.0
assert int(model.bn1.num_batches_tracked) == 10
model(torch.zeros(2, 3, 64, 64))
print('loaded by torchvision')
";
    let python = std::env::var("R2O_PYTHON").unwrap_or("python3".into());
    let known = Command::new(&python).args(["-c", "import torch, torchvision, safetensors"]).output();
    if !known.is_ok_and(|out| out.status.success()) {
        println!("not run: export loaded by torchvision: needs R2O_PYTHON to have torch, torchvision and safetensors");
        return;
    }
    let loaded = Command::new(&python).args(["-c", SCRIPT]).arg(file).output().unwrap();
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
}

#[test]
fn other_layouts_networks_and_steps() {
    let folder = run_folder(&[10, 20], SMALL);
    let (run, out) = (folder.path().to_str().unwrap(), folder.path().join("x.safetensors"));
    let export = |more: &[&str]| {
        printed(&r2octl(&[&["export", run, "--out", out.to_str().unwrap()], more].concat()), 0);
        std::fs::read(&out).unwrap()
    };
    let file = export(&["--format", "detectron2", "--step", "10"]);
    let read = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(read.tensor("stem.conv1.weight").unwrap().data()[..4], 10_f32.to_le_bytes());
    assert!(read.names().iter().all(|name| !name.contains("num_batches_tracked")));
    let file = export(&["--format", "mmsegmentation", "--network", "target"]);
    let read = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(read.tensor("backbone.conv1.weight").unwrap().data()[..4], 20.5_f32.to_le_bytes());
    let file = export(&["--format", "state"]);
    let small = resnet18().iter().filter(|(_, shape)| shape.iter().product::<u64>() <= SMALL).count();
    assert_eq!(SafeTensors::deserialize(&file).unwrap().len(), 2 * small);
    let error = printed(&r2octl(&["export", run, "--step", "15", "--out", out.to_str().unwrap()]), 3);
    assert!(error.contains("no checkpoint of step 15"), "{error}");
}

#[test]
fn checkpoints_are_listed_and_every_damaged_tensor_is_named() {
    let folder = run_folder(&[10, 20], SMALL);
    let run = folder.path().to_str().unwrap();
    let text = printed(&r2octl(&["checkpoints", "ls", run]), 0);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(printed(&r2octl(&["checkpoints", "verify", run]), 0).contains("ok"));
    std::fs::write(object(folder.path(), 20, "online.backbone.bn1.bias"), b"short").unwrap();
    std::fs::remove_file(object(folder.path(), 20, "target.backbone.bn1.bias")).unwrap();
    let text = printed(&r2octl(&["checkpoints", "verify", run]), 4);
    assert!(text.contains("online.backbone.bn1.bias: truncated to 5 of 256 bytes"), "{text}");
    assert!(text.contains("target.backbone.bn1.bias: the object is missing"), "{text}");
    assert!(text.contains("1 of 2 checkpoints"), "{text}");
    printed(&r2octl(&["checkpoints", "verify", run, "--step", "10"]), 0);
    // The damaged one is passed over, and said so.
    let out = folder.path().join("x.safetensors");
    let text = printed(&r2octl(&["export", run, "--out", out.to_str().unwrap()]), 0);
    assert!(text.contains("passed over: step 20") && text.contains("after step 10"), "{text}");
    let text = printed(&r2octl(&["export", run, "--step", "20", "--out", out.to_str().unwrap()]), 4);
    assert!(text.contains("damaged"), "{text}");
}

#[test]
fn empty_and_unreachable_runs_are_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().to_str().unwrap();
    assert!(printed(&r2octl(&["checkpoints", "ls", run]), 0).contains("no checkpoints"));
    assert!(printed(&r2octl(&["export", run]), 3).contains("no checkpoints"));
    assert!(printed(&r2octl(&["report", run]), 3).contains("holds no run"));
    assert!(printed(&r2octl(&["checkpoints", "ls", "ftp://host/run"]), 4).contains("not a storage URL"));
    assert!(printed(&r2octl(&["checkpoints", "ls", "demo"]), 5).contains("./demo"));
    assert!(printed(&r2octl(&["checkpoints", "ls", "http://127.0.0.1:1/run"]), 5).contains("cannot be reached"));
}

#[test]
fn a_report_is_written_or_printed() {
    let folder = run_folder(&[10], SMALL);
    let store = open(folder.path().to_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let record = StepRecord { step: 0, k: 16, loss: 1.5, images: 8, seconds: 0.5, ..StepRecord::default() };
    runtime.block_on(append_segment(&store, 1, &[record])).unwrap();
    let (run, out) = (folder.path().to_str().unwrap(), folder.path().join("r.html"));
    let text = printed(&r2octl(&["report", run, "--out", out.to_str().unwrap()]), 0);
    assert!(text.contains("report of 1 step ") && text.contains("r.html"), "{text}");
    assert!(std::fs::read_to_string(&out).unwrap().contains("resnet18"));
    assert!(printed(&r2octl(&["report", run, "--out", "-"]), 0).starts_with("<!DOCTYPE html>"));
    let figure = folder.path().join("f.png");
    let text = printed(&r2octl(&["report", run, "--figure", figure.to_str().unwrap()]), 3);
    assert!(text.contains("no pictures of masks yet"), "{text}");
}
