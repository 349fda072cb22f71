//! Checkpoints on a temporary folder, healthy and damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::{Store, open};

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path().to_str().unwrap()).unwrap();
        Self { dir, store }
    }

    fn object(&self, entry: &TensorEntry) -> PathBuf {
        self.dir.path().join(OBJECTS).join(&entry.blake3)
    }

    /// A checkpoint of the given step with one tensor per content.
    async fn commit(&self, step: u64, epoch: u64, contents: &[(&str, &[u8])]) -> Manifest {
        let manifest = manifest(&self.store, step, epoch, contents).await;
        assert_eq!(commit(&self.store, &manifest).await.unwrap(), Committed::Created);
        manifest
    }
}

async fn manifest(store: &Store, step: u64, epoch: u64, contents: &[(&str, &[u8])]) -> Manifest {
    let mut tensors = Vec::new();
    for (name, bytes) in contents {
        let id = write_object(store, bytes.to_vec()).await.unwrap();
        let length = bytes.len() as u64;
        let (name, blake3) = ((*name).to_owned(), id.to_string());
        tensors.push(TensorEntry { name, dtype: "U8".into(), shape: vec![length], blake3, bytes: length });
    }
    Manifest {
        format: Manifest::FORMAT,
        job: "test".into(),
        step,
        epoch,
        generation: 1,
        spec: serde_json::json!({"optimizer": {"weightDecay": 1.0e-6, "trustCoefficient": 0.1 + 0.2}}),
        tensors,
        created_unix_ms: 1_700_000_000_000,
        versions: BTreeMap::from([("r2o".into(), "0.1.0".into())]),
    }
}

#[tokio::test]
async fn a_checkpoint_reads_back_as_it_was_committed() {
    let f = Fixture::new();
    let written = f.commit(10, 1, &[("a", b"alpha"), ("b", b"beta"), ("same", b"alpha")]).await;
    let read = load_manifest(&f.store, 10).await.unwrap();
    assert_eq!(read, written);
    assert_eq!(&read_object(&f.store, read.tensor("b").unwrap()).await.unwrap()[..], b"beta");
    assert_eq!(f.store.list(OBJECTS).await.unwrap().len(), 2, "equal tensors are one object");
    let report = verify(&f.store, 10).await.unwrap();
    assert!(report.is_whole());
    assert_eq!((report.tensors, report.bytes), (3, 9));
}

#[tokio::test]
async fn the_first_manifest_of_a_step_stays() {
    let f = Fixture::new();
    let first = f.commit(10, 1, &[("a", b"alpha")]).await;
    assert_eq!(commit(&f.store, &first).await.unwrap(), Committed::Created, "a repeated put finds itself");
    let other = Manifest { generation: 2, ..first.clone() };
    assert_eq!(commit(&f.store, &other).await.unwrap(), Committed::Exists);
    assert_eq!(load_manifest(&f.store, 10).await.unwrap(), first);
}

#[tokio::test]
async fn an_incomplete_checkpoint_never_exists() {
    let f = Fixture::new();
    let manifest = manifest(&f.store, 10, 1, &[("a", b"alpha"), ("b", b"beta")]).await;
    fs::remove_file(f.object(&manifest.tensors[1])).unwrap();
    let error = commit(&f.store, &manifest).await.unwrap_err();
    assert!(matches!(&error, CheckpointError::Incomplete { missing, .. } if missing == &["b"]), "{error}");
    assert!(list(&f.store).await.unwrap().is_empty());
    assert!(newest(&f.store).await.unwrap().is_none());
}

#[tokio::test]
async fn every_damaged_tensor_is_named() {
    let f = Fixture::new();
    let m = f.commit(7, 1, &[("whole", b"1111"), ("short", b"2222"), ("flipped", b"3333"), ("gone", b"4444")]).await;
    fs::write(f.object(&m.tensors[1]), b"22").unwrap();
    fs::write(f.object(&m.tensors[2]), b"3323").unwrap();
    fs::remove_file(f.object(&m.tensors[3])).unwrap();
    let report = verify(&f.store, 7).await.unwrap();
    let bad: Vec<_> = report.bad.iter().map(|b| (b.tensor.as_str(), b.damage)).collect();
    let short = Damage::Size { expected: 4, found: 2 };
    assert_eq!(bad, [("short", short), ("flipped", Damage::Content), ("gone", Damage::Missing)]);
    let error = read_object(&f.store, &m.tensors[2]).await.unwrap_err().to_string();
    assert!(error.contains("`flipped`") && error.contains(&m.tensors[2].blake3) && error.contains("BLAKE3"), "{error}");
    let error = read_object(&f.store, &m.tensors[1]).await.unwrap_err().to_string();
    assert!(error.contains("truncated to 2 of 4 bytes"), "{error}");
}

#[tokio::test]
async fn a_damaged_object_is_written_anew() {
    let f = Fixture::new();
    let m = f.commit(7, 1, &[("a", b"alpha")]).await;
    fs::write(f.object(&m.tensors[0]), b"alphb").unwrap();
    write_object(&f.store, b"alpha".to_vec()).await.unwrap();
    assert!(verify(&f.store, 7).await.unwrap().is_whole());
}

#[tokio::test]
async fn the_newest_good_checkpoint_is_taken_and_none_good_is_an_error() {
    let f = Fixture::new();
    let first = f.commit(1, 0, &[("a", b"one")]).await;
    let second = f.commit(2, 0, &[("a", b"two")]).await;
    f.commit(3, 1, &[("a", b"three")]).await;
    let third = f.dir.path().join("manifests/000000000003.json");
    let text = fs::read_to_string(&third).unwrap();
    fs::write(&third, text.replace("\"epoch\": 1", "\"epoch\": 2")).unwrap();
    fs::write(f.object(&second.tensors[0]), b"twx").unwrap();
    let found = newest(&f.store).await.unwrap().unwrap();
    assert_eq!(found.manifest, first);
    assert_eq!(found.refused.iter().map(|r| r.step).collect::<Vec<_>>(), [3, 2]);
    assert!(found.refused[0].to_string().contains("000000000003.json"), "{}", found.refused[0]);
    assert!(found.refused[1].to_string().contains("tensor `a`"), "{}", found.refused[1]);

    fs::remove_file(f.object(&first.tensors[0])).unwrap();
    let error = newest(&f.store).await.unwrap_err();
    assert!(matches!(&error, CheckpointError::NoneReadable { refused, .. } if refused.len() == 3));
    assert!(error.to_string().contains("does not start over"), "{error}");
}

#[tokio::test]
async fn a_missing_step_says_how_to_list() {
    let f = Fixture::new();
    let error = load_manifest(&f.store, 5).await.unwrap_err().to_string();
    assert!(error.contains("step 5") && error.contains("r2octl checkpoints ls"), "{error}");
}

#[tokio::test]
async fn retention_deletes_only_what_nobody_uses() {
    let f = Fixture::new();
    for step in 1..=6_u8 {
        let own = [step; 10];
        f.commit(u64::from(step) * 10, u64::from(step), &[("own", &own), ("shared", b"shared")]).await;
    }
    write_object(&f.store, b"of a checkpoint in flight".to_vec()).await.unwrap();
    let keep = Keep { last: 2, every_epochs: Some(3), leased: BTreeSet::from([10, 999]) };
    let removed = retain(&f.store, &keep).await.unwrap();
    assert_eq!((removed.steps, removed.objects, removed.bytes), (vec![20, 40], 2, 20));
    let left: Vec<u64> = list(&f.store).await.unwrap().iter().map(|m| m.step).collect();
    assert_eq!(left, [10, 30, 50, 60]);
    for step in left {
        assert!(verify(&f.store, step).await.unwrap().is_whole());
    }
    assert_eq!(f.store.list(OBJECTS).await.unwrap().len(), 4 + 1 + 1);
    assert_eq!(sweep(&f.store).await.unwrap().objects, 1);
    assert_eq!(retain(&f.store, &keep).await.unwrap(), Removed::default());
}

#[tokio::test]
async fn an_unreadable_manifest_keeps_its_objects() {
    let f = Fixture::new();
    f.commit(1, 0, &[("a", b"one")]).await;
    f.commit(2, 0, &[("a", b"two")]).await;
    fs::write(f.dir.path().join("manifests/000000000001.json"), "{").unwrap();
    f.commit(3, 0, &[("a", b"three")]).await;
    let removed = retain(&f.store, &Keep { last: 1, ..Keep::default() }).await.unwrap();
    assert_eq!((removed.steps, removed.objects), (vec![2], 0));
    assert!(sweep(&f.store).await.is_err());
    assert_eq!(f.store.list(OBJECTS).await.unwrap().len(), 3);
}

proptest! {
    #[test]
    fn retention_keeps_the_last_and_every_mth_epoch(
        steps in prop::collection::btree_set(1_u64..200, 0..30),
        steps_per_epoch in 1_u64..20, last in 0_u32..6, every in prop::option::of(0_u64..6),
    ) {
        let epochs: BTreeMap<u64, u64> = steps.iter().map(|s| (*s, s / steps_per_epoch)).collect();
        let leased: BTreeSet<u64> = steps.iter().take(1).copied().collect();
        let keep = Keep { last, every_epochs: every, leased: leased.clone() };
        let stay = retain::steps_to_keep(&epochs, &keep);
        prop_assert!(stay.is_subset(&steps) && leased.is_subset(&stay));
        let newest: BTreeSet<u64> = steps.iter().rev().take(last.max(1) as usize).copied().collect();
        prop_assert!(newest.is_subset(&stay));
        for (step, epoch) in &epochs {
            let first = epochs.iter().find(|(_, e)| *e == epoch).map(|(s, _)| s) == Some(step);
            let mth = every.is_some_and(|m| m > 0 && *epoch > 0 && epoch % m == 0) && first;
            prop_assert_eq!(stay.contains(step), newest.contains(step) || leased.contains(step) || mth);
        }
    }

    /// No single changed byte of a manifest goes unnoticed.
    #[test]
    fn a_changed_byte_of_a_manifest_is_refused(position in 0.0_f64..1.0, bit in 0_u8..8, cut in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = open("memory:///").unwrap();
            let m = manifest(&store, 4, 1, &[("a", b"alpha")]).await;
            commit(&store, &m).await.unwrap();
            let key = manifest::manifest_key(4);
            let mut bytes = store.get(&key).await.unwrap().to_vec();
            let at = (position * bytes.len() as f64) as usize;
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            store.put(&key, bytes).await.unwrap();
            let read = load_manifest(&store, 4).await;
            assert!(matches!(&read, Err(CheckpointError::DamagedManifest { url, .. }) if url.ends_with(&key)), "{read:?}");
        });
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_read_stays_until_the_lease_is_over() {
    let f = Fixture::new();
    for step in [10, 20, 30] {
        f.commit(step, step / 10, &[("a", format!("step {step}").as_bytes())]).await;
    }
    let now = 1_700_000_000_000;
    let held = lease(&f.store, 10, now).await.unwrap();
    let _left_behind = lease(&f.store, 20, now - 10_000_000).await.unwrap();
    f.store.put("leases/notes.txt", "no lease").await.unwrap();
    let keep = |leased| Keep { last: 1, every_epochs: None, leased };
    let leased_now = leased(&f.store, now).await.unwrap();
    assert_eq!(leased_now, BTreeSet::from([10]), "one that ran out does not count");
    assert_eq!(retain(&f.store, &keep(leased_now)).await.unwrap().steps, [20]);
    assert!(verify(&f.store, 10).await.unwrap().bad.is_empty());
    held.release().await.unwrap();
    let leased_now = leased(&f.store, now).await.unwrap();
    assert_eq!(retain(&f.store, &keep(leased_now)).await.unwrap().steps, [10]);
    assert!(f.store.list("leases").await.unwrap().is_empty());
}
