//! What only the embedded queues do.

use std::collections::HashSet;
use std::sync::Arc;

use crate::bed::{Bed, consume, judge, publish, receive, wait_for_depth};
use loopabull_queue::Verdict;

#[tokio::test]
async fn only_one_process_works_a_queue_file() {
    let bed = Bed::embedded();
    let first = bed.open().await;
    let _consumer = consume(&first).await;
    let second = bed.open().await;
    let error = second.consume(&crate::bed::workers()).await.unwrap_err().to_string();
    assert!(error.starts_with("another process works the queue file `"), "{error}");
    // But others may publish into it.
    publish(&second, [1]).await;
}

/// The first worker takes back what a dead process had claimed. Those that start beside it must not
/// lose to that what they have just claimed themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_start_together_take_back_only_what_was_left() {
    for _ in 0..20 {
        let bed = Bed::embedded();
        let dead = bed.open().await;
        publish(&dead, 0..10).await;
        let mut consumer = consume(&dead).await;
        for _ in 0..5 {
            receive(&mut consumer).await;
        }
        drop((consumer, dead));
        let queues = Arc::new(bed.open().await);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let queues = queues.clone();
            workers.spawn(async move {
                let mut consumer = consume(&queues).await;
                receive(&mut consumer).await.entry.id
            });
        }
        let ids: HashSet<_> = workers.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 10, "each entry was claimed by one worker");
    }
}

/// The journal counts attempts that were cut off; without it the queue has a limit of its own.
#[tokio::test]
async fn an_entry_that_is_never_settled_is_set_aside_in_the_end() {
    let bed = Bed::embedded();
    publish(&bed.open().await, [1]).await;
    for _ in 0..100 {
        let queues = bed.open().await;
        receive(&mut consume(&queues).await).await;
    }
    let queues = bed.open().await;
    publish(&queues, [2]).await;
    let mut consumer = consume(&queues).await;
    assert_eq!(receive(&mut consumer).await.entry.id.as_str(), "e-2");
    wait_for_depth(&queues, 0, 1).await;
    let letters = judge(&queues, |_| Verdict::Keep).await;
    assert_eq!(letters[0].burial.reason, "claimed 100 times and never settled");
}

/// A crash may leave any part of the last transaction on disk. The file opens again and holds what was
/// published before; of the last entry all or nothing.
#[tokio::test]
async fn a_queue_file_cut_at_every_byte_of_its_last_transaction_opens_again() {
    let bed = Bed::embedded();
    let Bed::Embedded(folder) = &bed else { unreachable!() };
    let (file, log) = (folder.path().join("queue.db"), folder.path().join("queue.db-wal"));
    let queues = bed.open().await;
    publish(&queues, 0..5).await;
    let before = std::fs::metadata(&log).unwrap().len() as usize;
    publish(&queues, [5]).await;
    let (file, log) = (std::fs::read(file).unwrap(), std::fs::read(log).unwrap());
    assert!(log.len() > before);
    // Some ten thousand files are opened and synced: in memory, where there is some for files.
    let memory = std::path::Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    for length in before..=log.len() {
        let cut = tempfile::tempdir_in(&place).unwrap();
        std::fs::write(cut.path().join("queue.db"), &file).unwrap();
        std::fs::write(cut.path().join("queue.db-wal"), &log[..length]).unwrap();
        let cut = Bed::Embedded(cut);
        let queues = cut.open().await;
        let waiting = queues.depth(&crate::bed::workers()).await.unwrap().waiting;
        assert_eq!(waiting, if length == log.len() { 6 } else { 5 }, "{length} of {}", log.len());
    }
}
