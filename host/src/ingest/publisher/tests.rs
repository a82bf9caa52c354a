//! Tests of the publisher: where each entry is stored, and that it is counted once.

use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{EntryId, Manifest, Message, Task, TaskKind};
use loopabull_queue::{AmqpError, Backend, Config};
use tempfile::TempDir;

use super::*;
use crate::tables;

pub(in crate::ingest) const TOPIC: &str = "org.example.hello";

/// Returns a publisher with an embedded queue. The limits of the spool and the quarantine are in
/// bytes.
async fn publisher(folder: &TempDir, spool: u64, quarantine: u64) -> Publisher {
    publisher_with(folder, spool, quarantine, &Arc::default()).await
}

/// Like `publisher`, with metrics of the caller.
pub(in crate::ingest) async fn publisher_with(
    folder: &TempDir,
    spool: u64,
    quarantine: u64,
    metrics: &Arc<Metrics>,
) -> Publisher {
    let path = |name: &str| folder.path().join(name);
    let backend = Backend::Embedded { file: path("journal.db"), schema: tables::SCHEMA };
    let queues = Queues::open(&Config { backend, queues: Vec::new() }).await.unwrap();
    Publisher::new(
        Arc::new(queues),
        Spool::open(&path("spool.db"), spool).await.unwrap(),
        Quarantine::with_limit(folder.path(), quarantine).unwrap(),
        Arc::default(),
        Arc::default(),
        Arc::clone(metrics),
        CancellationToken::new(),
    )
}

pub(in crate::ingest) fn task() -> Task {
    Task {
        name: "hello".try_into().unwrap(),
        kind: TaskKind::Component,
        manifest: Manifest { topics: Some(vec![TOPIC.try_into().unwrap()]), ..Manifest::default() },
    }
}

pub(in crate::ingest) fn message(id: &str) -> Message {
    let body = format!("{{\"msg\":{{}},\"msg_id\":\"{id}\"}}");
    let envelope = Envelope::parse(&[TOPIC.as_bytes(), body.as_bytes()], 2).unwrap();
    Verifier::Off.verify(envelope, 0).unwrap()
}

/// Makes every publish fail, until [`repair_queue`] is called.
pub(in crate::ingest) fn break_queue(folder: &TempDir) {
    change(folder, "journal.db", "ALTER TABLE entries RENAME TO away");
}

fn repair_queue(folder: &TempDir) {
    change(folder, "journal.db", "ALTER TABLE away RENAME TO entries");
}

fn change(folder: &TempDir, file: &str, sql: &str) {
    let file = rusqlite::Connection::open(folder.path().join(file)).unwrap();
    file.execute_batch(sql).unwrap();
}

async fn publish(publisher: &Publisher, id: &str) -> Accepted {
    publisher.publish(&[entry(id)]).await[0]
}

fn entry(id: &str) -> Entry {
    Entry::new(EntryId::new(id), &task(), &message(id))
}

fn refusal() -> QueueError {
    let text = |text: &str| text.to_owned();
    let (broker, routing_key, reason) = (text("b"), text("q"), text("too large"));
    QueueError::Amqp(AmqpError::TooLarge { broker, routing_key, reason })
}

/// The four counters of entries.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::ingest) struct Counts {
    pub published: u64,
    pub spooled: u64,
    pub quarantined: u64,
    pub lost: u64,
}

pub(in crate::ingest) const NONE: Counts =
    Counts { published: 0, spooled: 0, quarantined: 0, lost: 0 };

pub(in crate::ingest) fn counts(metrics: &Metrics) -> Counts {
    let task = ByTask { task: "hello".to_owned() };
    Counts {
        published: metrics.entries.get_or_create(&task).get(),
        spooled: metrics.spooled_entries.get(),
        quarantined: metrics.quarantined.get(),
        lost: metrics.lost.get(),
    }
}

/// Runs the forwarding until the spool is empty.
async fn forward_all(publisher: &Publisher) {
    let is_empty = async {
        while publisher.spool.depth() != (0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = publisher.forward() => panic!("forwarding ended before the daemon drains"),
        ended = tokio::time::timeout(Duration::from_secs(30), is_empty) => ended.unwrap(),
    }
}

#[tokio::test]
async fn a_queued_entry_counts_as_published() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 10_000, 10_000).await;
    assert_eq!(publish(&publisher, "1").await, Accepted::Queued);
    assert_eq!(publisher.publish_kept("bus", &entry("2")).await, Ok(Accepted::Queued));
    assert_eq!(counts(&publisher.metrics), Counts { published: 2, ..NONE });
}

#[tokio::test]
async fn a_spooled_entry_counts_as_published_only_when_it_is_forwarded() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 10_000, 10_000).await;
    break_queue(&folder);
    assert_eq!(publish(&publisher, "1").await, Accepted::Spooled);
    // The second entry must not overtake the first, which is still in the spool.
    repair_queue(&folder);
    assert_eq!(publish(&publisher, "2").await, Accepted::Spooled);
    assert_eq!(counts(&publisher.metrics), Counts { spooled: 2, ..NONE });
    assert!(publisher.health.problems()[0].contains("messages wait in the spool"));
    forward_all(&publisher).await;
    assert_eq!(counts(&publisher.metrics), Counts { published: 2, spooled: 2, ..NONE });
    assert_eq!(publish(&publisher, "3").await, Accepted::Queued);
    assert!(publisher.health.problems().is_empty());
}

#[tokio::test]
async fn an_entry_beyond_the_limit_of_the_spool_is_lost_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 1, 10_000).await;
    break_queue(&folder);
    assert_eq!(publish(&publisher, "1").await, Accepted::Lost);
    assert_eq!(counts(&publisher.metrics), Counts { lost: 1, ..NONE });
    assert_eq!(publisher.activity.snapshot().losses.unwrap().count, 1);
    assert!(publisher.health.problems()[0].contains("messages are lost: the spool is full"));
}

#[tokio::test]
async fn an_entry_that_its_queue_refuses_is_quarantined() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 10_000, 10_000).await;
    let accepted = publisher.quarantine(&entry("1"), &refusal()).await;
    assert_eq!(accepted, Ok(Accepted::Quarantined));
    assert_eq!(std::fs::read_dir(folder.path().join("quarantine")).unwrap().count(), 1);
    publisher.count(&entry("1"), Accepted::Quarantined);
    assert_eq!(counts(&publisher.metrics), Counts { quarantined: 1, ..NONE });
}

#[tokio::test]
async fn an_entry_that_a_full_quarantine_cannot_store_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 10_000, 1).await;
    let accepted = publisher.quarantine(&entry("1"), &refusal()).await;
    assert_eq!(accepted, Ok(Accepted::Lost));
    publisher.count(&entry("1"), Accepted::Lost);
    assert_eq!(counts(&publisher.metrics), Counts { lost: 1, ..NONE });
    assert_eq!(publisher.activity.snapshot().losses.unwrap().count, 1);
}

#[tokio::test]
async fn a_delivery_that_a_full_quarantine_cannot_store_is_counted_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 10_000, 1).await;
    let delivery = Unusable {
        reason: "no JSON",
        topic: TOPIC,
        id: None,
        headers: &[],
        content_encoding: None,
        body: b"x",
    };
    assert_eq!(publisher.quarantine_delivery(&delivery).await, Ok(()));
    assert_eq!(publisher.metrics.lost_envelopes.get(), 1);
    assert_eq!(publisher.activity.snapshot().losses.unwrap().count, 1);
    assert_eq!(counts(&publisher.metrics), NONE);
}

#[tokio::test]
async fn a_kept_message_waits_for_the_queue_and_is_not_counted_if_the_daemon_stops_before() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 10_000, 10_000).await;
    break_queue(&folder);
    let (first, second) = (entry("1"), entry("2"));
    let publish = publisher.publish_kept("bus", &first);
    let (accepted, ()) = tokio::join!(publish, async {
        while publisher.health.problems().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        repair_queue(&folder);
    });
    assert_eq!(accepted, Ok(Accepted::Queued));
    assert!(publisher.health.problems().is_empty());
    publisher.drain.cancel();
    assert_eq!(publisher.publish_kept("bus", &second).await, Err(Stopping));
    assert_eq!(counts(&publisher.metrics), Counts { published: 1, ..NONE });
}

#[tokio::test]
async fn an_entry_of_the_spool_that_cannot_be_read_is_lost_and_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let publisher = publisher(&folder, 10_000, 10_000).await;
    break_queue(&folder);
    assert_eq!(publish(&publisher, "1").await, Accepted::Spooled);
    assert_eq!(publish(&publisher, "2").await, Accepted::Spooled);
    change(&folder, "spool.db", "UPDATE spooled SET task = '' WHERE entry = '1'");
    repair_queue(&folder);
    forward_all(&publisher).await;
    assert_eq!(counts(&publisher.metrics), Counts { published: 1, spooled: 2, lost: 1, ..NONE });
    assert_eq!(publisher.activity.snapshot().losses.unwrap().count, 1);
}
