//! The lease: taken, renewed, taken over, lost, given back.

use super::*;
use crate::open;

const TTL: i64 = 10_000;

fn memory() -> Store {
    open("memory:///").unwrap()
}

fn holder(url: &str) -> Holder {
    Holder { host: "elsewhere".into(), pid: 1, machine: String::new(), ..Holder::this_process(url) }
}

#[tokio::test]
async fn one_leads_until_its_lease_ends() {
    let store = memory();
    assert_eq!(current(&store).await.unwrap(), None);
    let mut first = acquire(&store, holder("http://a:1"), TTL, 0).await.unwrap();
    let refused = acquire(&store, holder("http://b:2"), TTL, 9_999).await.unwrap_err();
    assert!(matches!(&refused, AcquireError::HeldBy { expires_unix_ms: 10_000, .. }), "{refused:?}");
    let message = refused.to_string();
    assert!(
        message.contains("http://a:1") && message.contains(store.url()) && message.contains("stop it"),
        "{message}"
    );
    first.renew(9_000).await.unwrap();
    assert!(acquire(&store, holder("http://b:2"), TTL, 15_000).await.is_err());
    let second = acquire(&store, holder("http://b:2"), TTL, 19_000).await.unwrap();
    assert!(second.number() > first.number());
    assert!(matches!(first.renew(19_001).await, Err(RenewError::Lost { .. })));
    assert!(first.release().await.is_err());
    let (leader, expires) = current(&store).await.unwrap().unwrap();
    assert_eq!((leader.url.as_str(), expires), ("http://b:2", 29_000));
}

#[tokio::test]
async fn a_lease_given_back_is_free_at_once() {
    let store = memory();
    acquire(&store, holder("http://a:1"), TTL, 0).await.unwrap().release().await.unwrap();
    assert_eq!(current(&store).await.unwrap(), None);
    acquire(&store, holder("http://b:2"), TTL, 1).await.unwrap();
}

#[tokio::test]
async fn an_expired_lease_that_nobody_took_can_be_renewed() {
    let store = memory();
    let mut lease = acquire(&store, holder("http://a:1"), TTL, 0).await.unwrap();
    lease.renew(50_000).await.unwrap();
    assert_eq!(lease.expires_unix_ms(), 60_000);
    assert!(acquire(&store, holder("http://b:2"), TTL, 55_000).await.is_err());
}

#[tokio::test]
async fn a_dead_process_of_this_machine_holds_nothing() {
    let store = memory();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let alive = Holder::this_process("http://a:1");
    assert!(!alive.is_dead());
    let theirs = Holder { pid: child.id(), started: holder::started(child.id()).unwrap(), ..alive };
    assert!(!theirs.is_dead());
    acquire(&store, theirs.clone(), TTL, 0).await.unwrap();
    assert!(acquire(&store, Holder::this_process("http://b:2"), TTL, 1).await.is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(theirs.is_dead());
    acquire(&store, Holder::this_process("http://b:2"), TTL, 1).await.unwrap();
    // Another process of the same id is not the holder; another machine's is unknown.
    let reused = Holder { started: "1".into(), ..Holder::this_process("http://c:3") };
    assert!(reused.is_dead());
    assert!(!Holder { machine: "another".into(), ..reused }.is_dead());
}

#[test]
fn of_many_that_take_over_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path().to_str().unwrap()).unwrap();
    for round in 0..10 {
        let now = round * 100 * TTL;
        let threads: Vec<_> = (0..6)
            .map(|me| {
                let store = store.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(acquire(&store, holder(&format!("http://{me}")), TTL, now)).is_ok()
                })
            })
            .collect();
        let winners = threads.into_iter().map(|t| t.join().unwrap()).filter(|won| *won).count();
        assert_eq!(winners, 1, "round {round}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(store.list("leader")).unwrap().len() <= 2, "old leases are removed");
}

#[tokio::test]
async fn who_waits_goes_by_its_own_clock_not_by_what_the_lease_says_of_its_end() {
    let store = memory();
    let day = 86_400_000;
    // The holder's clock is a day ahead.
    let mut first = acquire(&store, holder("http://a:1"), TTL, day).await.unwrap();
    let mut watch = Watch::new(store.clone());
    let leader = |found: Option<Holder>| found.map(|holder| holder.url);
    assert_eq!(leader(watch.leader(0).await.unwrap()).as_deref(), Some("http://a:1"));
    first.renew(day + 5_000).await.unwrap();
    assert!(watch.leader(9_999).await.unwrap().is_some());
    assert!(watch.leader(19_998).await.unwrap().is_some(), "its length counts from the renewal that was seen");
    assert_eq!(leader(watch.leader(19_999).await.unwrap()), None);
    let second = watch.take_over(holder("http://b:2"), TTL, 0).await.unwrap();
    assert!(second.number() > first.number());
    assert!(matches!(first.renew(day + 20_000).await, Err(RenewError::Lost { .. })));
}

#[tokio::test]
async fn a_lease_that_is_given_back_or_renewed_at_the_last_moment_is_seen() {
    let store = memory();
    let mut watch = Watch::new(store.clone());
    assert_eq!(watch.leader(0).await.unwrap(), None, "nobody ever led");
    let mut first = watch.take_over(holder("http://a:1"), TTL, 0).await.unwrap();
    let mut late = Watch::new(store.clone());
    assert!(late.leader(0).await.unwrap().is_some());
    assert_eq!(late.leader(TTL).await.unwrap(), None);
    first.renew(1).await.unwrap();
    assert!(matches!(late.take_over(holder("http://b:2"), TTL, 0).await, Err(AcquireError::HeldBy { .. })));
    let mut watch = Watch::new(store.clone());
    assert!(watch.leader(0).await.unwrap().is_some());
    first.release().await.unwrap();
    assert_eq!(watch.leader(1).await.unwrap(), None);
    assert_eq!(watch.take_over(holder("http://b:2"), TTL, 7).await.unwrap().had_at(), 7);
}
