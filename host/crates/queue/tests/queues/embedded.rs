//! Behaviour that only the embedded queues have.

use std::collections::HashSet;
use std::sync::Arc;

use crate::fixture::{Fixture, consume, judge, publish, receive, wait_for_depth};
use loopabull_queue::Verdict;
use loopabull_testbed::cuts;

#[tokio::test]
async fn only_one_process_consumes_a_queue_file() {
    let fixture = Fixture::embedded();
    let first = fixture.open().await;
    let _consumer = consume(&first).await;
    let second = fixture.open().await;
    let error = second.consume(&crate::fixture::workers()).await.unwrap_err().to_string();
    assert!(error.starts_with("another process consumes the queue file `"), "{error}");
    // Another process can still publish to the file.
    publish(&second, [1]).await;
}

/// The first consumer requeues the entries that a dead process had claimed. It must not requeue the entries
/// that consumers claim at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn consumers_that_start_together_requeue_only_the_claims_of_a_dead_process() {
    for _ in 0..20 {
        let fixture = Fixture::embedded();
        let dead = fixture.open().await;
        publish(&dead, 0..10).await;
        let mut consumer = consume(&dead).await;
        for _ in 0..5 {
            receive(&mut consumer).await;
        }
        drop((consumer, dead));
        let queues = Arc::new(fixture.open().await);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let queues = queues.clone();
            workers.spawn(async move {
                let mut consumer = consume(&queues).await;
                receive(&mut consumer).await.entry.id.clone()
            });
        }
        let ids: HashSet<_> = workers.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 10, "two workers claimed the same entry");
    }
}

/// The journal counts attempts that a crash interrupted. The queue has a delivery limit for the case that the
/// journal cannot count them.
#[tokio::test]
async fn an_entry_that_is_never_settled_becomes_a_dead_letter() {
    let fixture = Fixture::embedded();
    publish(&fixture.open().await, [1]).await;
    for _ in 0..100 {
        let queues = fixture.open().await;
        receive(&mut consume(&queues).await).await;
    }
    let queues = fixture.open().await;
    publish(&queues, [2]).await;
    let mut consumer = consume(&queues).await;
    assert_eq!(receive(&mut consumer).await.entry.id.as_str(), "e-2");
    wait_for_depth(&queues, 0, 1).await;
    let letters = judge(&queues, |_| Verdict::Keep).await;
    assert_eq!(letters[0].death.reason, "delivered 100 times and never settled");
}

/// A crash may leave any part of the last transaction on disk. The file must then open with all entries of
/// earlier transactions, and with the last entry either complete or absent.
#[tokio::test]
async fn a_queue_file_cut_within_its_last_transaction_opens_again() {
    let fixture = Fixture::embedded();
    let Fixture::Embedded(folder) = &fixture else { unreachable!() };
    let (file, log) = (folder.path().join("queue.db"), folder.path().join("queue.db-wal"));
    let queues = fixture.open().await;
    publish(&queues, 0..5).await;
    let before = std::fs::metadata(&log).unwrap().len() as usize;
    publish(&queues, [5]).await;
    let (file, log) = (std::fs::read(file).unwrap(), std::fs::read(log).unwrap());
    assert!(log.len() > before);
    for length in cuts(before..log.len()) {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(cut.path().join("queue.db"), &file).unwrap();
        std::fs::write(cut.path().join("queue.db-wal"), &log[..length]).unwrap();
        let cut = Fixture::Embedded(cut);
        let queues = cut.open().await;
        let waiting = queues.depth(&crate::fixture::workers()).await.unwrap().waiting;
        assert_eq!(
            waiting,
            if length == log.len() { 6 } else { 5 },
            "log cut to {length} of {} bytes",
            log.len()
        );
    }
}
