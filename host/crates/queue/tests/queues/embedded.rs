//! Behaviour that only the embedded queues have.

use std::collections::HashSet;
use std::sync::Arc;

use crate::fixture::{Fixture, Storage, consume, judge, publish, receive, wait_for_depth};
use loopabull_model::Settlement;
use loopabull_queue::{Release, Verdict};
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
    let Storage::Embedded(folder) = &fixture.storage else { unreachable!() };
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
        let cut = Fixture { storage: Storage::Embedded(cut), prefetch: 1 };
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

/// A consumer that is fast claims entries in advance. Another one gets them when the first one gives them back, also if
/// it is dropped.
#[tokio::test]
async fn entries_that_were_claimed_in_advance_can_be_given_back() {
    let fixture = Fixture::embedded().ahead();
    let queues = fixture.open().await;
    publish(&queues, 0..20).await;
    let mut first = consume(&queues).await;
    let mut number = 0;
    let mut expect = |delivery: &loopabull_queue::Delivery| {
        assert_eq!(delivery.entry.id.as_str(), format!("e-{number}"));
        number += 1;
    };
    for _ in 0..4 {
        let delivery = receive(&mut first).await;
        expect(&delivery);
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    let claimed = queues.depth(&crate::fixture::workers()).await.unwrap().claimed.unwrap();
    assert!(claimed > 1, "nothing was claimed in advance");
    first.give_back().await.unwrap();
    let claimed = queues.depth(&crate::fixture::workers()).await.unwrap().claimed;
    assert_eq!(claimed, Some(0));
    let mut second = consume(&queues).await;
    for _ in 0..4 {
        let delivery = receive(&mut second).await;
        expect(&delivery);
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    // Without a word, as after an error.
    drop(second);
    for _ in 8..20 {
        let delivery = receive(&mut first).await;
        expect(&delivery);
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    wait_for_depth(&queues, 0, 0).await;
}

/// Entries that are released go before those that a consumer has claimed in advance.
#[tokio::test]
async fn released_entries_go_before_those_claimed_in_advance() {
    let fixture = Fixture::embedded().ahead();
    let queues = fixture.open().await;
    publish(&queues, 0..20).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..3 {
        receive(&mut consumer).await.settle(&Settlement::Hold).await.unwrap();
    }
    let claimed = queues.depth(&crate::fixture::workers()).await.unwrap().claimed.unwrap();
    assert!(claimed > 0, "nothing was claimed in advance");
    queues.release(|_| Release::All).await.unwrap();
    for number in 0..20 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry.id.as_str(), format!("e-{number}"));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}
