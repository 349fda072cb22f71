//! Segments, overlapping generations, damage, and numbers that JSON lacks.

use super::*;
use crate::open;

fn records(generation: u64, steps: std::ops::Range<u64>) -> Vec<StepRecord> {
    steps.map(|step| StepRecord { step, generation, loss: step as f64 / 7.0, ..StepRecord::default() }).collect()
}

#[tokio::test]
async fn later_generations_have_the_last_word() {
    let store = open("memory:///").unwrap();
    append_segment(&store, 1, &records(1, 0..5)).await.unwrap();
    append_segment(&store, 1, &records(1, 5..12)).await.unwrap();
    append_segment(&store, 10, &records(10, 8..9)).await.unwrap();
    append_segment(&store, 2, &records(2, 10..14)).await.unwrap();
    let read = read_all(&store).await.unwrap();
    let seen: Vec<(u64, u64)> = read.iter().map(|r| (r.step, r.generation)).collect();
    let mut expected: Vec<(u64, u64)> = (0..8).map(|s| (s, 1)).collect();
    expected.push((8, 10));
    assert_eq!(seen, expected, "what was rolled back is gone, and generations are compared as numbers");
    for step in 0..12 {
        let alone = read_step(&store, step).await.unwrap();
        assert_eq!(alone.as_ref(), read.iter().find(|r| r.step == step), "step {step}");
    }
    append_segment(&store, 10, &records(10, 8..11)).await.unwrap();
    assert_eq!(read_all(&store).await.unwrap().len(), 11);
    assert!(matches!(append_segment(&store, 1, &[]).await, Err(HistoryError::Empty)));
}

#[tokio::test]
async fn records_read_back_exactly() {
    let store = open("memory:///").unwrap();
    let lane = LaneRecord { lane: 3, loss: f64::MIN_POSITIVE, sample_digest: u64::MAX, ..LaneRecord::default() };
    let timings = BTreeMap::from([("forward".to_owned(), 0.1 + 0.2)]);
    let learning_rate = 0.010_897_687_145_305_217; // one that a hasty reader of JSON gets wrong in the last bit
    let record =
        StepRecord { step: 4, loss: 1.0 / 3.0, learning_rate, timings, lanes: vec![lane], ..StepRecord::default() };
    let lost = StepRecord { step: 5, loss: f64::NAN, ..StepRecord::default() };
    append_segment(&store, 1, &[record.clone(), lost]).await.unwrap();
    let read = read_all(&store).await.unwrap();
    assert_eq!(read[0], record);
    assert!(read[1].loss.is_nan());
}

#[tokio::test]
async fn a_damaged_line_is_named() {
    let store = open("memory:///").unwrap();
    append_segment(&store, 1, &records(1, 0..3)).await.unwrap();
    let mut text = store.get(&key(0, 1)).await.unwrap().to_vec();
    text.truncate(text.len() - 10);
    store.put(&key(0, 1), text).await.unwrap();
    let error = read_all(&store).await.unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("history/000000000000-1.jsonl"), "{error}");
}
