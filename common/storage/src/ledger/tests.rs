//! Folding and unfolding, roll-backs, and planted damage: each is named.

use std::collections::BTreeMap;

use proptest::prelude::*;
use r2o_types::{ChunkRef, EpochPlan, sample_digest};

use super::proof::{Flaw, FlawKind, Plan, first_differing, prove};
use super::*;
use crate::history::LaneRecord;
use crate::open;

/// Two epochs of 8 steps of 3 lanes of 4 samples; 4 of 100 samples are left out.
fn plan() -> Plan {
    let chunks = (0..10).map(|n| ChunkRef { shard: 0, first: n * 10, samples: 10 }).collect();
    Plan { chunks, seed: 7, epochs: 2, lanes: 3, samples_per_lane: 4, window_chunks: 3 }
}

/// The step as a right run commits it.
fn committed(plan: &Plan, generation: u64, step: u64) -> StepRecord {
    let (epoch, at) = (step / plan.steps_per_epoch(), step % plan.steps_per_epoch());
    let of = EpochPlan::new(&plan.chunks, plan.seed, epoch, plan.lanes, plan.samples_per_lane, plan.window_chunks);
    let of = of.unwrap();
    let lane = |lane| LaneRecord {
        lane,
        first_position: of.first_position(at, lane),
        sample_digest: sample_digest(&of.samples(at, lane)),
        ..LaneRecord::default()
    };
    StepRecord { step, epoch, generation, lanes: (0..plan.lanes).map(lane).collect(), ..StepRecord::default() }
}

fn fold(records: impl IntoIterator<Item = StepRecord>) -> Vec<Range> {
    let mut segments = vec![Segment::default()];
    for record in records {
        if !segments.last_mut().unwrap().add(&record, record.step as i64) {
            let mut next = Segment::default();
            assert!(next.add(&record, record.step as i64), "an empty segment takes anything");
            segments.push(next);
        }
    }
    segments.into_iter().flat_map(|segment| segment.ranges).collect()
}

fn steps(plan: &Plan, generation: u64, steps: Steps<u64>) -> Vec<StepRecord> {
    steps.map(|step| committed(plan, generation, step)).collect()
}

/// Two generations; the second goes back from step 7 to step 5.
fn run(plan: &Plan) -> Vec<Range> {
    fold([steps(plan, 1, 0..7), steps(plan, 2, 5..16)].concat())
}

fn flaw(ranges: Vec<Range>) -> Flaw {
    prove(&plan(), &kept(ranges), 16).unwrap_err()
}

#[test]
fn regular_steps_of_an_epoch_are_one_range_and_are_proven() {
    let (plan, ranges) = (plan(), run(&plan()));
    let seen: Vec<_> = ranges.iter().map(|r| (r.step, r.steps, r.epoch, r.generation, r.stride)).collect();
    assert_eq!(seen, [(0, 7, 0, 1, 4), (5, 3, 0, 2, 4), (8, 8, 1, 2, 4)]);
    assert_eq!((ranges[2].first_unix_ms, ranges[2].last_unix_ms), (8, 15));
    let proven = prove(&plan, &kept(ranges.clone()), 16).unwrap();
    let epochs: Vec<_> = proven.epochs.iter().map(|e| (e.steps, e.samples, e.left_out)).collect();
    assert_eq!(epochs, [(8, 96, 4), (8, 96, 4)]);
    assert_eq!(proven.epochs[0].generations, [1, 2]);
    let half = prove(&plan, &kept(ranges[..1].to_vec()), 4).unwrap();
    assert_eq!((half.steps, half.epochs[0].steps), (4, 7), "what is beyond the checkpoint is compared as well");
}

#[test]
fn planted_damage_is_named_by_step_and_lane() {
    let ranges = run(&plan());
    let with = |change: &dyn Fn(&mut Vec<Range>)| {
        let mut ranges = ranges.clone();
        change(&mut ranges);
        flaw(ranges)
    };
    let said = with(&|r| _ = r.remove(1));
    assert_eq!(said.to_string(), "step 7: no range of the ledger has it; missing from there on: 1");
    let said = with(&|r| _ = r.pop());
    assert_eq!((said.step, said.kind), (8, FlawKind::Missing { missing: 8 }));
    let said = with(&|r| r.push(r[2].clone()));
    assert_eq!((said.step, said.kind), (8, FlawKind::Twice { first: 2, second: 2 }));
    let said = with(&|r| r[2].digest ^= 1);
    assert!(matches!(said.kind, FlawKind::OtherSamplesInRange { step: 8, end: 16, .. }), "{said}");
    let said = with(&|r| r[0].digest ^= 1);
    assert_eq!(said.step, 0, "a range that was rolled back in part is compared as a whole");
    let said = with(&|r| r[2].lanes.swap(0, 1));
    assert_eq!(said.to_string(), "step 8, lane 0: the ledger has lane 1 where the plan has lane 0");
    let said = with(&|r| (r[2].lanes[0].1, r[2].lanes[1].1) = (r[2].lanes[1].1, r[2].lanes[0].1));
    assert_eq!((said.step, said.lane, said.kind), (8, Some(0), FlawKind::OtherPosition { said: 32, planned: 0 }));
    let said = with(&|r| _ = r[2].lanes.pop());
    assert_eq!(said.to_string(), "step 8, lane 2: the ledger has no more lanes where the plan has lane 2");
    let said = with(&|r| r[2].stride = 5);
    assert_eq!((said.step, said.lane), (9, Some(0)));
    let said = with(&|r| r[2].epoch = 0);
    assert_eq!((said.step, said.kind), (8, FlawKind::OtherEpoch { said: 0, planned: 1 }));
    let said = with(&|r| r[1].steps = 4);
    assert!(matches!(said.kind, FlawKind::OtherEpoch { said: 0, planned: 1 }), "{said}");
    let said = with(&|r| r[2].steps = 9);
    assert_eq!((said.step, said.kind), (16, FlawKind::BeyondEnd { steps: 16 }));
}

#[test]
fn a_lane_that_read_other_samples_is_named_where_the_history_has_it() {
    let plan = plan();
    let mut records = steps(&plan, 1, 0..16);
    records[11].lanes[2].sample_digest ^= 1;
    let said = prove(&plan, &kept(fold(records.clone())), 16).unwrap_err();
    let FlawKind::OtherSamplesInRange { step, end, .. } = said.kind else { panic!("{said}") };
    let exact = first_differing(&plan, &records, step..end).unwrap();
    assert_eq!((exact.step, exact.lane), (11, Some(2)));
    assert_eq!(first_differing(&plan, &records[..11], step..end), None);
}

#[tokio::test]
async fn segments_come_back_and_a_cut_or_misnamed_one_is_named() {
    let (store, ranges) = (open("memory:///").unwrap(), run(&plan()));
    write_segment(&store, &ranges[..1]).await.unwrap();
    write_segment(&store, &ranges[1..2]).await.unwrap();
    write_segment(&store, &ranges[1..]).await.unwrap();
    assert_eq!(read_all(&store).await.unwrap(), ranges, "a longer segment replaces the shorter");
    write_segment(&store, &[]).await.unwrap();
    let whole = store.get(&key(5, 2)).await.unwrap();
    for cut in [0, 20, whole.len() / 2, whole.len() - 1] {
        store.put(&key(5, 2), whole.slice(..cut)).await.unwrap();
        let error = read_all(&store).await.unwrap_err().to_string();
        assert!(error.contains("ledger/000000000005-2.jsonl is damaged"), "{error}");
    }
    store.put(&key(5, 2), store.get(&key(0, 1)).await.unwrap()).await.unwrap();
    let error = read_all(&store).await.unwrap_err().to_string();
    assert!(error.contains("its name says generation 2, a range in it says 1"), "{error}");
    store.delete(&key(5, 2)).await.unwrap();
    store.put("ledger/notes.txt", "?").await.unwrap();
    assert!(read_all(&store).await.unwrap_err().to_string().contains("ledger/notes.txt"));
}

#[test]
fn a_segment_ends_with_its_generation_or_when_it_is_full() {
    let lanes: Vec<_> = (0..1024).map(|lane| LaneRecord { lane, ..LaneRecord::default() }).collect();
    let record = |generation, step| StepRecord { step, generation, lanes: lanes.clone(), ..StepRecord::default() };
    let mut segment = Segment::default();
    assert!(segment.add(&record(1, 0), 0) && segment.add(&record(1, 1), 0) && segment.add(&record(1, 9), 0));
    assert_eq!(segment.ranges().len(), 2);
    assert!(segment.add(&record(1, 10), 0), "the last range still grows");
    assert!(!segment.add(&record(1, 12), 0) && !segment.add(&record(2, 11), 0));
}

/// Steps of random generations that go on, go back, jump, lose lanes or move them.
fn commits() -> impl Strategy<Value = Vec<StepRecord>> {
    let event = (0_u8..12, 0_u64..6, 0_u32..4);
    proptest::collection::vec(event, 1..60).prop_map(|events| {
        let (mut generation, mut step, mut records) = (1, 0_u64, Vec::new());
        for (n, (kind, by, odd)) in (0_u64..).zip(events) {
            match kind {
                0 => (generation, step) = (generation + 1, step.saturating_sub(by)),
                1 => step += by,
                _ => {}
            }
            let lane = |lane: u32| LaneRecord {
                lane,
                first_position: u64::from(lane) * 100 + step * 4 + u64::from(kind == 2 && lane == odd),
                sample_digest: n * 10 + u64::from(lane),
                ..LaneRecord::default()
            };
            let mut lanes: Vec<_> = (0..4).map(lane).collect();
            match kind {
                3 => _ = lanes.remove(odd as usize),
                4 => lanes.swap(0, odd as usize),
                5 => lanes.clear(),
                _ => {}
            }
            records.push(StepRecord { step, epoch: step / 10, generation, lanes, ..StepRecord::default() });
            step += 1;
        }
        records
    })
}

type Lanes = BTreeMap<u64, (u64, Vec<(u32, u64)>)>;

proptest! {
    /// Nothing hides in a range: unfolded in order they are what was committed, step by step and lane by lane.
    #[test]
    fn what_was_folded_unfolds_to_the_same_lanes(records in commits()) {
        let ranges = fold(records.clone());
        let unfolded: Vec<_> = ranges.iter().flat_map(|r| r.unfold().map(|(s, l, at)| (r.generation, s, l, at))).collect();
        let lanes = |r: &StepRecord| {
            let (generation, step) = (r.generation, r.step);
            r.lanes.iter().map(move |l| (generation, step, l.lane, l.first_position)).collect::<Vec<_>>()
        };
        prop_assert_eq!(unfolded, records.iter().flat_map(lanes).collect::<Vec<_>>());
        prop_assert_eq!(ranges.iter().map(|r| r.steps).sum::<u64>(), records.len() as u64);
        let mut digests = records.iter().flat_map(|r| r.lanes.iter().map(|l| l.sample_digest));
        for range in &ranges {
            let mut digest = Digest::default();
            digests.by_ref().take(range.lanes.len() * range.steps as usize).for_each(|d| digest.add(d));
            prop_assert_eq!(digest.value(), range.digest);
        }
    }

    /// The ledger keeps the steps that the history keeps.
    #[test]
    fn what_was_rolled_back_is_gone_and_the_rest_stays(records in commits()) {
        let mut expected: Lanes = BTreeMap::new();
        let mut latest = 0;
        for record in &records {
            if record.generation != latest {
                latest = record.generation;
                expected.split_off(&record.step);
            }
            let lanes = record.lanes.iter().map(|l| (l.lane, l.first_position)).collect();
            expected.insert(record.step, (record.generation, lanes));
        }
        let mut found: Lanes = BTreeMap::new();
        for one in kept(fold(records)) {
            for step in one.steps.clone() {
                let at = |(lane, first): &(u32, u64)| (*lane, first + (step - one.range.step) * one.range.stride);
                let lanes = one.range.lanes.iter().map(at).collect();
                prop_assert!(found.insert(step, (one.range.generation, lanes)).is_none(), "step {} is kept twice", step);
            }
        }
        prop_assert_eq!(found, expected);
    }
}
