//! Behaviour that only the embedded queues have.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::fixture::{Fixture, Storage, consume, publish, receive, wait_for_depth};
use loopabull_model::Settlement;
use loopabull_queue::{Backend, Config, Delivery, Queues, Release, TABLES};
use loopabull_store::{Schema, Store};
use loopabull_testbed::cuts;
use rusqlite::Connection;

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

/// No two consumers claim the same entry, and entries that a dropped consumer had claimed wait again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn consumers_that_start_together_share_the_entries() {
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

/// A crash may leave any part of the last transaction on disk. The file must then open with all entries of
/// earlier transactions, and with the last entry either complete or absent.
#[tokio::test]
async fn a_queue_file_cut_within_its_last_transaction_opens_again() {
    let fixture = Fixture::embedded();
    let Storage::Embedded(folder) = &fixture.storage else { unreachable!() };
    let (file, log) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
    let queues = fixture.open().await;
    publish(&queues, 0..5).await;
    let before = std::fs::metadata(&log).unwrap().len() as usize;
    publish(&queues, [5]).await;
    let (file, log) = (std::fs::read(file).unwrap(), std::fs::read(log).unwrap());
    assert!(log.len() > before);
    for length in cuts(before..log.len()) {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(cut.path().join("a.db"), &file).unwrap();
        std::fs::write(cut.path().join("a.db-wal"), &log[..length]).unwrap();
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
    first.give_back();
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

/// An entry is settled in a transaction of the caller, together with other changes of it or not at all.
#[tokio::test]
async fn a_delivery_is_settled_in_a_transaction_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let schema = Schema { oldest: 1, steps: &[TABLES, "CREATE TABLE t (n INTEGER PRIMARY KEY)"] };
    let store = Arc::new(Store::open(&path, schema).unwrap());
    let backend = Backend::Embedded { file: path, schema };
    let config = Config { backend, queues: Vec::new() };
    let queues = Queues::open_in(&config, Arc::clone(&store), |_, _| Ok(true)).await.unwrap();
    publish(&queues, 0..2).await;
    let mut consumer = consume(&queues).await;
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.has_runs, Some(true));
    let settle = |delivery: &Delivery, number: u32| {
        let settlement = delivery.file_settlement(&Settlement::Ack).unwrap();
        store.change(move |connection| {
            settlement.carry_out(connection)?;
            connection.execute("INSERT INTO t VALUES (?1)", [number])
        })
    };
    settle(&delivery, 1).await.unwrap();
    delivery.end(&Settlement::Ack);
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.entry.id.as_str(), "e-1");
    settle(&delivery, 1).await.unwrap_err();
    drop((consumer, queues));
    let queues = Queues::open_in(&config, store, |_, _| Ok(false)).await.unwrap();
    assert_eq!(receive(&mut consume(&queues).await).await.entry.id.as_str(), "e-1");
}

/// The file that the version before this one wrote: one dead, held, claimed, delayed and waiting entry.
const EARLIER: &str = include_str!("../../../../../tests/fixtures/upgrade/queue-3.sql");

fn write_earlier(folder: &Path) -> Connection {
    let earlier = Connection::open(folder.join("queue.db")).unwrap();
    earlier.pragma_update(None, "journal_mode", "WAL").unwrap();
    earlier.execute_batch(EARLIER).unwrap();
    earlier
}

#[tokio::test]
async fn the_file_of_an_earlier_version_is_taken_over_once() {
    let fixture = Fixture::embedded();
    let Storage::Embedded(folder) = &fixture.storage else { unreachable!() };
    let earlier = folder.path().join("queue.db");
    // A copy of the file, and a process that was killed before it deleted the file.
    for _ in 0..2 {
        drop(write_earlier(folder.path()));
        let depth = fixture.open().await.depth(&crate::fixture::workers()).await.unwrap();
        let depths = [depth.waiting, depth.delayed, depth.held.len() as u64, depth.dead];
        assert_eq!(depths, [2, 1, 1, 1]);
        assert!(!earlier.exists());
    }
}

/// Another process would publish into a file that is deleted.
#[tokio::test]
async fn a_file_of_an_earlier_version_that_is_in_use_is_not_taken_over() {
    let fixture = Fixture::embedded();
    let Storage::Embedded(folder) = &fixture.storage else { unreachable!() };
    let user = write_earlier(folder.path());
    let config = fixture.config();
    let open = tokio::spawn(async move { Queues::open(&config).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!open.is_finished());
    let count = |user: &Connection| {
        user.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!(count(&user), 5);
    drop(user);
    open.await.unwrap().unwrap();
    assert!(!folder.path().join("queue.db").exists());
}

/// A command of the earlier version may publish while a daemon of this one works.
#[tokio::test]
async fn a_file_of_an_earlier_version_that_appears_later_is_taken_over_too() {
    let fixture = Fixture::embedded();
    let Storage::Embedded(folder) = &fixture.storage else { unreachable!() };
    let queues = fixture.open().await;
    let _consumer = consume(&queues).await;
    let user = write_earlier(folder.path());
    let wait = async |is_reached: &dyn Fn(Option<String>) -> bool| {
        for _ in 0..600 {
            if is_reached(queues.problem()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the problem is {:?}", queues.problem());
    };
    wait(&|problem| problem.is_some_and(|problem| problem.contains("queue.db"))).await;
    drop(user);
    wait(&|problem| problem.is_none()).await;
    assert!(!folder.path().join("queue.db").exists());
    wait_for_depth(&queues, 2, 1).await;
}

#[tokio::test]
async fn an_unknown_version_of_the_earlier_file_is_refused_and_kept() {
    let fixture = Fixture::embedded();
    let Storage::Embedded(folder) = &fixture.storage else { unreachable!() };
    write_earlier(folder.path()).pragma_update(None, "user_version", 2).unwrap();
    let error = Queues::open(&fixture.config()).await.unwrap_err().to_string();
    assert!(error.ends_with("has version 2, and only version 3 can be taken over"), "{error}");
    assert!(folder.path().join("queue.db").exists());
}
