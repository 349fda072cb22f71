//! The rendezvous is of one generation only.

use r2o_proto::v1::coordinator_message::Kind as To;
use r2o_proto::v1::rendezvous_client::RendezvousClient;
use r2o_proto::v1::*;
use tonic::Code;

use super::kit::*;

fn scope(generation: u64) -> Option<Scope> {
    Some(Scope { job: "a".to_owned(), generation })
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_counted_compared_and_fenced() {
    let place = Place::new();
    let handle = place.start().await;
    let mut store = RendezvousClient::connect(handle.url()).await.unwrap();
    let early = store.set(SetRequest { scope: scope(1), key: "k".into(), value: vec![1] }).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition);

    submit(&handle, &place.job("a", 9)).await.unwrap();
    let mut worker = FakeWorker::join(&handle, "w").await;
    worker.work_until(|o| matches!(o, To::Assignment(_))).await;

    // A get waits for the set.
    let mut other = store.clone();
    let get = GetRequest { scope: scope(1), key: "k".into(), timeout_ms: 20_000 };
    let waiting = r2o_telemetry::spawn("get", r2o_telemetry::TaskKind::Work, async move { other.get(get).await });
    store.set(SetRequest { scope: scope(1), key: "k".into(), value: vec![1, 2] }).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().value, [1, 2]);

    let add = |delta| AddRequest { scope: scope(1), key: "n".into(), delta };
    assert_eq!(store.add(add(2)).await.unwrap().into_inner().value, 2);
    assert_eq!(store.add(add(-3)).await.unwrap().into_inner().value, -1);
    let read = GetRequest { scope: scope(1), key: "n".into(), timeout_ms: 0 };
    assert_eq!(store.get(read).await.unwrap().into_inner().value, b"-1");

    let swap = |expected: &[u8], desired: &[u8]| CompareSetRequest {
        scope: scope(1),
        key: "c".into(),
        expected: expected.to_vec(),
        desired: desired.to_vec(),
    };
    assert_eq!(store.compare_set(swap(b"", b"a")).await.unwrap().into_inner().value, b"a");
    assert_eq!(store.compare_set(swap(b"x", b"b")).await.unwrap().into_inner().value, b"a");
    assert_eq!(store.compare_set(swap(b"a", b"b")).await.unwrap().into_inner().value, b"b");

    let check = |keys: &[&str]| CheckRequest { scope: scope(1), keys: keys.iter().map(|k| (*k).to_owned()).collect() };
    assert!(store.check(check(&["k", "c"])).await.unwrap().into_inner().present);
    assert!(!store.check(check(&["k", "z"])).await.unwrap().into_inner().present);
    let delete = DeleteRequest { scope: scope(1), key: "k".into() };
    assert!(store.delete(delete.clone()).await.unwrap().into_inner().deleted);
    assert!(!store.delete(delete).await.unwrap().into_inner().deleted);

    let late = store.get(GetRequest { scope: scope(1), key: "z".into(), timeout_ms: 10 }).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let wrong = store.get(GetRequest { scope: scope(7), key: "n".into(), timeout_ms: 10 }).await.unwrap_err();
    assert_eq!(wrong.code(), Code::FailedPrecondition);
    names(wrong.message(), &["generation 7", "job a", "1"]);

    // The end of the generation wakes whoever waits.
    let mut other = store.clone();
    let get = GetRequest { scope: scope(1), key: "never".into(), timeout_ms: 600_000 };
    let waiting = r2o_telemetry::spawn("get", r2o_telemetry::TaskKind::Work, async move { other.get(get).await });
    drop(worker);
    let woken = waiting.await.unwrap().unwrap_err();
    assert_eq!(woken.code(), Code::FailedPrecondition);
    names(woken.message(), &["job a", "generation 1"]);
}
