//! Tests of the journal without a daemon: runs, effects, and their retention.

use std::path::PathBuf;
use std::time::Duration;

use loopabull_model::{
    Counted, Emitted, Entry, Exceeded, Outcome, Output, QueueName, Settlement, StateChanges,
    TaskKind, Usage,
};
use loopabull_queue::{Backend, Config, Queues, Received};
use tokio_util::sync::CancellationToken;

use super::*;

mod search;

fn run(id: &str, message: &str, outcome: Outcome) -> Run {
    Run {
        id: RunId::new(id),
        entry: EntryId::new(format!("entry of {message}")),
        message_id: message.try_into().unwrap(),
        topic: "a.b".try_into().unwrap(),
        task: "t".try_into().unwrap(),
        kind: TaskKind::Component,
        attempt: 1,
        worker: 2,
        started_at_ms: 3,
        duration: Duration::from_micros(4),
        outcome,
        output: Output { text: "text".into(), dropped: 5 },
        notes: vec![("k".into(), "v".into())],
        grants: vec!["call https://a.example".into()],
        usage: Usage { memory: 6, host_calls: 7, requests: vec!["GET".into()] },
        emitted: Vec::new(),
        playbook: None,
    }
}

fn message() -> Message {
    serde_json::from_str(r#"{"id":"m-1","topic":"a.b","body":{}}"#).unwrap()
}

/// The time of a search that takes as long as it needs.
const NO_LIMIT: Duration = Duration::MAX;

/// A run without effects.
fn without_effects(run: Run) -> Record {
    let state = StateChanges::default();
    let (message, sends, queue) = (message(), Vec::new(), None);
    Record { run, message, sends, state, ends_count: false, queue }
}

async fn record(journal: &Journal, record: Record) -> Option<Outcome> {
    journal.record(Arc::new(vec![record])).await.unwrap().remove(0)
}

/// Returns the ids of the runs that a search finds, in parts of this size.
async fn found(journal: &Journal, text: &str, limit: usize) -> Vec<String> {
    let search = Search::parse(text, "2026-11-30T12:00:00Z".parse().unwrap()).unwrap();
    let (mut ids, mut place) = (Vec::new(), None);
    loop {
        let part = journal.search(search.clone(), place, limit, NO_LIMIT).await.unwrap();
        assert!(part.runs.len() <= limit);
        ids.extend(part.runs.iter().map(|run| run.id.as_str().to_owned()));
        place = match part.next {
            Some(next) => Some(next.to_string().parse().unwrap()),
            None => return ids,
        };
    }
}

#[tokio::test]
async fn a_recorded_run_is_found_unchanged() {
    let state = tempfile::tempdir().unwrap();
    let failed = run("r-1", "m-1", retry());
    record(&Journal::open(state.path()).unwrap(), without_effects(failed.clone())).await;
    let journal = Journal::open(state.path()).unwrap();
    assert_eq!(journal.find(RunId::new("r-1")).await.unwrap(), Some(failed));
    assert_eq!(journal.find(RunId::new("r-2")).await.unwrap(), None);
}

fn retry() -> Outcome {
    Outcome::Retry { reason: "x".into(), after: None }
}

/// A crash can leave any part of the last transaction on disk. The journal must then still open,
/// with all earlier runs, and with the last run either complete or missing.
#[tokio::test]
async fn a_journal_cut_within_its_last_transaction_opens_again() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    for number in 0..5 {
        let id = format!("r-{number}");
        record(&journal, without_effects(run(&id, "m-1", Outcome::Success))).await;
    }
    let files = ["journal.db", "journal.db-wal"].map(|name| state.path().join(name));
    let before = std::fs::metadata(&files[1]).unwrap().len() as usize;
    record(&journal, without_effects(run("r-5", "m-1", Outcome::Success))).await;
    let [file, log] = files.map(|path| std::fs::read(path).unwrap());
    assert!(log.len() > before);
    for length in loopabull_testbed::cuts(before..log.len()) {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(cut.path().join("journal.db"), &file).unwrap();
        std::fs::write(cut.path().join("journal.db-wal"), &log[..length]).unwrap();
        let runs = Journal::open(cut.path()).unwrap().count().await.unwrap();
        let expected = if length == log.len() { 6 } else { 5 };
        assert_eq!(runs, [("success".to_owned(), expected)].into(), "{length} of {}", log.len());
    }
}

#[tokio::test]
async fn a_list_is_filtered_and_limited() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    for number in 0..5 {
        let id = format!("r-{number}");
        record(&journal, without_effects(run(&id, "m-1", Outcome::Success))).await;
    }
    let all = journal.search(Search::default(), None, 3, NO_LIMIT).await.unwrap();
    assert_eq!((all.runs.len(), all.next.is_some()), (3, true));
    assert_eq!(found(&journal, "outcome:retry", 9).await, Vec::<String>::new());
    assert_eq!(journal.count().await.unwrap(), [("success".to_owned(), 5)].into());
}

fn changes(read: Option<&str>, written: &str) -> StateChanges {
    let bytes = |text: &str| text.as_bytes().to_vec();
    StateChanges {
        read: [("n".to_owned(), read.map(bytes))].into(),
        written: [("n".to_owned(), Some(bytes(written)))].into(),
        allowed: 10,
    }
}

#[tokio::test]
async fn a_run_has_effects_only_if_the_state_it_read_is_unchanged() {
    let state = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(state.path()).unwrap());
    let read = journal.state_of(&"t".try_into().unwrap());
    let record = async |id: &str, state: StateChanges| {
        let sends = vec![message()];
        let mut run = run(id, id, Outcome::Success);
        run.emitted = vec![Emitted { id: sends[0].id.clone(), topic: sends[0].topic.clone() }];
        let changed = record(&journal, Record { sends, state, ..without_effects(run) }).await;
        let recorded = journal.find(RunId::new(id)).await.unwrap().unwrap();
        assert_eq!(changed.is_none(), recorded.outcome.is_success());
        recorded
    };
    assert_eq!(record("r-1", changes(None, "1")).await.outcome, Outcome::Success);
    assert_eq!(read("n".into()).await.unwrap(), Some(b"1".to_vec()));

    let conflicting = record("r-2", changes(None, "2")).await;
    assert_eq!(conflicting.outcome, Outcome::Conflict { key: "n".into() });
    assert_eq!(conflicting.emitted, []);
    assert_eq!(read("n".into()).await.unwrap(), Some(b"1".to_vec()));

    let large = record("r-3", changes(Some("1"), "1234567890")).await;
    let exceeded = Exceeded::Count { what: Counted::StateBytes, allowed: 10, wanted: 11 };
    assert_eq!(large.outcome, Outcome::Limit { exceeded });

    let entries = journal.unsent().await.unwrap();
    assert_eq!(entries, [EntryId::new("entry of r-1")]);
    assert_eq!(journal.outbox(&entries[0]).await.unwrap(), [message()]);
    journal.set_queued(&entries[0], AfterQueues::Bus).await.unwrap();
    let waiting = journal.awaiting_bus().await.unwrap();
    assert_eq!(waiting, [(entries[0].clone(), 0, message())]);
    journal.forget_published(&entries[0], 0).await.unwrap();
    assert_eq!(journal.awaiting_bus().await.unwrap(), []);
    assert_eq!(journal.unsent().await.unwrap(), []);
    assert_eq!(journal.message(RunId::new("r-1")).await.unwrap(), Some(message()));
}

#[tokio::test]
async fn a_failed_run_has_no_effects() {
    let state = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(state.path()).unwrap());
    let record = Record {
        sends: vec![message()],
        state: changes(None, "1"),
        ..without_effects(run("r-1", "m-1", retry()))
    };
    super::tests::record(&journal, record).await;
    assert_eq!(journal.unsent().await.unwrap(), []);
    let read = journal.state_of(&"t".try_into().unwrap());
    assert_eq!(read("n".into()).await.unwrap(), None);
}

#[tokio::test]
async fn the_size_of_the_queue_is_known_if_the_file_is_large() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    assert_eq!(journal.bytes_of_queue(0).await.unwrap(), 0);
    let size = |connection: &Connection| {
        let id = EntryId::new("e");
        let queue = QueueName::default();
        let entry = Entry { id, queue, task: "t".try_into().unwrap(), message: message() };
        loopabull_queue::insert(connection, &entry)
    };
    journal.file().change(size).await.unwrap();
    let bytes = journal.bytes_of_queue(1).await.unwrap();
    assert!((300..600).contains(&bytes), "{bytes}");
    assert_eq!(journal.bytes_of_queue(1 << 30).await.unwrap(), 0);
}

#[tokio::test]
async fn old_runs_are_deleted_unless_they_are_needed() {
    const HOUR: i64 = 3_600_000;
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    let exit = || Outcome::Exit { status: "1".into() };
    let now = 1000 * HOUR;
    let runs = [
        ("old", Outcome::Success, 30),
        ("old-failed", exit(), 30),
        ("older-failed", exit(), 60),
        ("recent", Outcome::Success, 10),
        ("crashed", exit(), 99),
        ("unsent", Outcome::Success, 99),
        ("new", Outcome::Success, 0),
    ];
    for (id, outcome, hours) in runs {
        let run = Run { started_at_ms: now - hours * HOUR, ..run(id, id, outcome) };
        let sends = if id == "unsent" { vec![message()] } else { Vec::new() };
        record(&journal, Record { sends, ..without_effects(run) }).await;
    }
    // A daemon died with a later attempt of this entry.
    let entry = EntryId::new("entry of crashed");
    let cut = InterruptedRun { entry, task: "t".try_into().unwrap(), attempt: 2 };
    journal.count_crash(vec![cut]).await.unwrap();
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let mut retention = Retention { keep: hours(20), keep_failed: hours(40), max_size: u64::MAX };
    let delete_beside = async |retention, queue| {
        while journal.delete_some(retention, queue, now).await.unwrap() > 0 {}
        let mut ids = found(&journal, "", 99).await;
        ids.sort();
        ids
    };
    let delete = async |retention| delete_beside(retention, 0).await;
    let longer = Retention { keep: hours(100), keep_failed: hours(100), max_size: u64::MAX };
    assert_eq!(delete(longer).await.len(), 7);
    let long = Retention { keep: hours(100), ..retention };
    let left = delete(long).await;
    assert_eq!(left, ["crashed", "new", "old", "old-failed", "recent", "unsent"]);
    let left = delete(retention).await;
    assert_eq!(left, ["crashed", "new", "old-failed", "recent", "unsent"]);
    retention.max_size = 1;
    // The file is large because of its queue.
    assert_eq!(delete_beside(retention, 1 << 30).await.len(), 5);
    assert_eq!(delete(retention).await, ["crashed", "new", "unsent"]);
    // No setting deletes a run of the last hour.
    retention.keep = Duration::ZERO;
    assert_eq!(delete(retention).await, ["crashed", "new", "unsent"]);
    let ended = journal.ended(&EntryId::new("entry of new")).unwrap().unwrap();
    assert_eq!(ended.outcome, Outcome::Success);
}

/// Has one delivery received, and records its run with the changes in the queue. Returns the outcome that was changed.
async fn record_with_queue(
    journal: &Arc<Journal>,
    queues: &Queues,
    id: &str,
    after: AfterQueues,
    state: StateChanges,
) -> Result<Option<Outcome>, StoreError> {
    let queue = QueueName::default();
    let task: TaskName = "t".try_into().unwrap();
    let entry = Entry { id: EntryId::new(id), queue: queue.clone(), task, message: message() };
    queues.publish(&entry).await.unwrap();
    let mut consumer = queues.consume(&queue).await.unwrap();
    let received = consumer.receive(&CancellationToken::new()).await.unwrap().unwrap();
    let Received::Delivery(delivery) = received else { unreachable!() };
    let sent = EntryId::new(format!("sent by {id}"));
    let entries = vec![Entry { id: sent, queue: "sent".try_into().unwrap(), ..entry }];
    let settlement = delivery.file_settlement(&Settlement::Ack).unwrap();
    let record = Record {
        sends: vec![message()],
        state,
        queue: Some(QueueChanges { entries, after, settlement }),
        ..without_effects(run("r-1", id, Outcome::Success))
    };
    journal.record(Arc::new(vec![record])).await.map(|mut changed| changed.remove(0))
}

#[tokio::test]
async fn a_run_its_messages_and_its_settlement_are_recorded_together() {
    for (after, conflicts) in
        [(AfterQueues::Done, false), (AfterQueues::Bus, false), (AfterQueues::Done, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::open(folder.path()).unwrap());
        let backend = Backend::Embedded { file: PathBuf::new(), schema: tables::SCHEMA };
        let config = Config { backend, queues: Vec::new() };
        let open = async || Queues::open_in(&config, journal.file(), has_runs).await.unwrap();
        let waiting = async || {
            let queues = open().await;
            let names = ["workers", "sent"].map(|name| QueueName::try_from(name).unwrap());
            let depths =
                [queues.depth(&names[0]).await.unwrap(), queues.depth(&names[1]).await.unwrap()];
            depths.map(|depth| depth.waiting)
        };
        let state = if conflicts { changes(Some("9"), "1") } else { changes(None, "1") };
        let changed =
            record_with_queue(&journal, &open().await, "e-1", after, state).await.unwrap();
        assert_eq!(changed.is_some(), conflicts);
        assert_eq!(waiting().await, if conflicts { [1, 0] } else { [0, 1] }, "{after:?}");
        assert_eq!(journal.unsent().await.unwrap(), []);
        let on_bus = usize::from(after == AfterQueues::Bus);
        assert_eq!(journal.awaiting_bus().await.unwrap().len(), on_bus);
        // The id of this run exists, so it is not recorded, and nothing else happens.
        let before = waiting().await;
        let none = StateChanges::default();
        record_with_queue(&journal, &open().await, "e-2", after, none).await.unwrap_err();
        assert_eq!(waiting().await, [before[0] + 1, before[1]], "{after:?}");
        assert_eq!(journal.awaiting_bus().await.unwrap().len(), on_bus);
    }
}
