//! The journal on a temporary folder, with one writer and with two.

use proptest::prelude::*;

use super::*;
use crate::open;

fn memory() -> Store {
    open("memory:///").unwrap()
}

#[tokio::test]
async fn records_replay_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path().to_str().unwrap()).unwrap();
    let (mut journal, replay) = Journal::open(&store).await.unwrap();
    assert!(replay.is_empty());
    for number in 0..40 {
        journal.append(number, format!("record {number}\n").as_bytes()).await.unwrap();
    }
    journal.append(40, b"").await.unwrap();
    let (mut journal, replay) = Journal::open(&store).await.unwrap();
    assert_eq!(journal.next(), 41);
    assert_eq!(replay.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (0..41).collect::<Vec<_>>());
    assert_eq!(replay[7].1, b"record 7\n");
    trim(&store, 30).await.unwrap();
    journal.append(41, b"more").await.unwrap();
    let (journal, replay) = Journal::open(&store).await.unwrap();
    assert_eq!((journal.next(), replay[0].0, replay.len()), (42, 30, 12));
}

#[tokio::test]
async fn the_second_writer_of_a_number_lost_its_place() {
    let store = memory();
    let (mut old, _) = Journal::open(&store).await.unwrap();
    old.append(0, b"a").await.unwrap();
    let (mut new, replay) = Journal::open(&store).await.unwrap();
    assert_eq!(replay, [(0, b"a".to_vec())]);
    new.append(1, b"b").await.unwrap();
    let lost = old.append(1, b"b").await.unwrap_err();
    assert!(matches!(lost, AppendError::LostLeadership { number: 1, .. }), "equal content is no excuse: {lost:?}");
    assert_eq!(old.next(), 1);
    new.append(2, b"c").await.unwrap();
    assert!(matches!(new.append(2, b"c").await, Err(AppendError::OutOfOrder { number: 2, expected: 3 })));
}

#[tokio::test]
async fn a_put_that_was_done_twice_is_ones_own() {
    let store = memory();
    let (mut journal, _) = Journal::open(&store).await.unwrap();
    // The put reached the store, its answer did not reach us.
    store.put(&key(0), frame(&journal.writer, b"a")).await.unwrap();
    journal.append(0, b"a").await.unwrap();
    assert_eq!(journal.next(), 1);
}

#[tokio::test]
async fn damage_and_gaps_are_named() {
    let store = memory();
    let (mut journal, _) = Journal::open(&store).await.unwrap();
    for number in 0..4 {
        journal.append(number, b"payload").await.unwrap();
    }
    let mut bytes = store.get(&key(2)).await.unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    store.put(&key(2), bytes).await.unwrap();
    let error = Journal::open(&store).await.unwrap_err().to_string();
    assert!(error.contains("journal/000000000002.rec") && error.contains("damaged"), "{error}");
    store.delete(&key(2)).await.unwrap();
    let error = Journal::open(&store).await.unwrap_err();
    assert!(matches!(error, JournalError::Gap { missing: 2, .. }), "{error:?}");
}

#[test]
fn racing_coordinators_never_both_append() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path().to_str().unwrap()).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|me: u8| {
            let store = store.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let mut mine = Vec::new();
                    loop {
                        let (mut journal, replay) = Journal::open(&store).await.unwrap();
                        if replay.len() >= 60 {
                            break;
                        }
                        // Leads until it loses, as a coordinator does.
                        for _ in 0..5 {
                            let number = journal.next();
                            match journal.append(number, &[me]).await {
                                Ok(()) => mine.push(number),
                                Err(AppendError::LostLeadership { .. }) => break,
                                Err(e) => panic!("{e}"),
                            }
                        }
                    }
                    (me, mine)
                })
            })
        })
        .collect();
    let claimed: Vec<(u8, Vec<u64>)> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (_, replay) = runtime.block_on(Journal::open(&store)).unwrap();
    for (me, numbers) in &claimed {
        for number in numbers {
            assert_eq!(replay[*number as usize].1, [*me]);
        }
    }
    assert_eq!(claimed.iter().map(|(_, n)| n.len()).sum::<usize>(), replay.len());
}

proptest! {
    #[test]
    fn any_payload_survives_and_any_change_is_seen(payload in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut record = frame("writer", &payload);
        prop_assert_eq!(unframe(&record).unwrap(), &payload[..]);
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        // A change in the writer's name is harmless to the payload.
        if let Ok(read) = unframe(&record) {
            prop_assert_eq!(read, &payload[..]);
        }
        record.truncate(at);
        prop_assert!(unframe(&record).map_or(true, |read| read == &payload[..] && at == record.len()));
    }
}

#[tokio::test]
async fn a_number_that_is_free_again_is_of_no_use_to_who_was_away() {
    let store = memory();
    let (mut first, _) = Journal::open(&store).await.unwrap();
    let (mut away_from_the_start, _) = Journal::open(&store).await.unwrap();
    for number in 0..3 {
        first.append(number, b"first").await.unwrap();
    }
    let (mut away, _) = Journal::open(&store).await.unwrap();
    let (mut second, _) = Journal::open(&store).await.unwrap();
    for number in 3..8 {
        second.append(number, b"second").await.unwrap();
    }
    trim(&store, 6).await.unwrap();
    let lost = away.append(3, b"late").await.unwrap_err();
    assert!(matches!(lost, AppendError::LostLeadership { number: 3, .. }), "{lost}");
    let lost = away_from_the_start.append(0, b"late").await.unwrap_err();
    assert!(matches!(lost, AppendError::LostLeadership { number: 0, .. }), "{lost}");
    second.append(8, b"second").await.unwrap();
    let (journal, replay) = Journal::open(&store).await.unwrap();
    assert_eq!((journal.next(), replay[0].0, replay.len()), (9, 6, 3), "nothing of the late ones counts");
    trim(&store, 7).await.unwrap();
    let there = store.list(PREFIX).await.unwrap();
    let records = there.iter().filter(|(key, _)| key.ends_with(".rec")).count();
    assert_eq!(records, 2, "a trim sweeps what the late ones put and its own: {there:?}");
}

/// A coordinator that stands still between its put and its answer, while another reads that record and goes on.
#[tokio::test]
async fn a_record_that_others_built_on_stays() {
    for built_on in 0..3 {
        let store = memory();
        let (mut slow, _) = Journal::open(&store).await.unwrap();
        for number in 0..built_on {
            slow.append(number, b"before").await.unwrap();
        }
        // Its put arrived; what it does afterwards comes late.
        store.put(&key(built_on), frame(&slow.writer, b"a snapshot")).await.unwrap();
        let (mut quick, replay) = Journal::open(&store).await.unwrap();
        assert_eq!(replay.len() as u64, built_on + 1);
        quick.append(built_on + 1, b"next").await.unwrap();
        trim(&store, built_on).await.unwrap();
        slow.append(built_on, b"a snapshot").await.unwrap();
        let (_, replay) = Journal::open(&store).await.unwrap();
        assert_eq!(replay, [(built_on, b"a snapshot".to_vec()), (built_on + 1, b"next".to_vec())]);
    }
}

#[tokio::test]
async fn a_journal_without_its_beginning_is_no_new_one() {
    let store = memory();
    let (mut journal, _) = Journal::open(&store).await.unwrap();
    for number in 0..4 {
        journal.append(number, b"a").await.unwrap();
    }
    let lacks = |error: JournalError| match error {
        JournalError::Gap { missing, .. } => missing,
        other => panic!("{other}"),
    };
    store.delete(&key(0)).await.unwrap();
    assert_eq!(lacks(Journal::open(&store).await.unwrap_err()), 0);
    trim(&store, 3).await.unwrap();
    store.delete(&key(3)).await.unwrap();
    assert_eq!(lacks(Journal::open(&store).await.unwrap_err()), 3, "not even where all records are gone");
    assert_eq!(inspect(&store).await.unwrap(), [(3, Found::Missing)]);
}

/// It dies before it can learn that it was late.
#[tokio::test]
async fn a_late_record_of_a_dead_coordinator_is_no_gap() {
    let store = memory();
    let (mut journal, _) = Journal::open(&store).await.unwrap();
    for number in 0..6 {
        journal.append(number, b"a").await.unwrap();
    }
    trim(&store, 5).await.unwrap();
    store.put(&key(0), frame("dead", b"late")).await.unwrap();
    let (_, replay) = Journal::open(&store).await.unwrap();
    assert_eq!(replay, [(5, b"a".to_vec())]);
    let found = inspect(&store).await.unwrap();
    assert_eq!(found, [(5, Found::Record(b"a".to_vec()))]);
}
