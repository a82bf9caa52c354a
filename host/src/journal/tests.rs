//! Tests of the journal without a daemon: runs, beginnings of attempts, effects, and crashes.

use std::time::Duration;

use loopabull_model::{Counted, Emitted, Exceeded, Output, TaskKind, Usage};

use loopabull_model::{Outcome, StateChanges};

use super::*;

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

/// A run without effects.
fn without_effects(run: Run) -> Record {
    Record { run, message: message(), sends: Vec::new(), state: StateChanges::default() }
}

#[tokio::test]
async fn a_recorded_run_is_found_unchanged() {
    let state = tempfile::tempdir().unwrap();
    let failed = run("r-1", "m-1", retry());
    Journal::open(state.path()).unwrap().record(without_effects(failed.clone())).await.unwrap();
    let journal = Journal::open(state.path()).unwrap();
    assert_eq!(journal.find(RunId::new("r-1")).await.unwrap(), Some(failed));
    assert_eq!(journal.find(RunId::new("r-2")).await.unwrap(), None);
}

async fn begin(journal: &Journal, attempt: u32) -> Begun {
    let (entry, task) = (EntryId::new("entry of m-1"), "t".try_into().unwrap());
    journal.begin(&entry, &task, attempt).await.unwrap()
}

async fn begin_entry(journal: &Journal, entry: &str) -> Begun {
    journal.begin(&EntryId::new(entry), &"t".try_into().unwrap(), 1).await.unwrap()
}

fn retry() -> Outcome {
    Outcome::Retry { reason: "x".into(), after: None }
}

#[tokio::test]
async fn an_entry_that_succeeded_does_not_begin_again() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    journal.record(without_effects(run("r-1", "m-1", Outcome::Success))).await.unwrap();
    assert_eq!(begin(&journal, 1).await, Begun::Succeeded);
    assert_eq!(begin(&journal, 2).await, Begun::Succeeded);
    let other = journal.begin(&EntryId::new("other"), &"t".try_into().unwrap(), 1).await;
    assert_eq!(other.unwrap(), Begun::Run { crashes: 0 });
}

#[tokio::test]
async fn an_attempt_that_had_its_run_does_not_begin_again() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    assert_eq!(begin(&journal, 1).await, Begun::Run { crashes: 0 });
    journal.record(without_effects(run("r-1", "m-1", retry()))).await.unwrap();
    let ended = Begun::Ended { outcome: retry(), attempt: 1, output: "text".into() };
    assert_eq!(begin(&journal, 1).await, ended);
    assert_eq!(begin(&journal, 2).await, Begun::Run { crashes: 0 });
}

#[tokio::test]
async fn an_entry_that_several_daemons_died_with_waits_before_it_runs_again() {
    let state = tempfile::tempdir().unwrap();
    let expected = [
        vec![Begun::Run { crashes: 0 }],
        vec![Begun::Run { crashes: 1 }],
        vec![Begun::Wait { crashes: 2 }, Begun::Run { crashes: 2 }],
        vec![Begun::Run { crashes: 3 }],
    ];
    for life in expected {
        let journal = Journal::open(state.path()).unwrap();
        journal.take_crashed().await.unwrap();
        for begun in life {
            assert_eq!(begin(&journal, 1).await, begun);
        }
    }
    // A run that counts as an attempt ends the count.
    let journal = Journal::open(state.path()).unwrap();
    journal.record(without_effects(run("r-1", "m-1", retry()))).await.unwrap();
    assert_eq!(begin(&journal, 2).await, Begun::Run { crashes: 0 });
}

#[tokio::test]
async fn entries_that_several_daemons_died_with_run_one_after_the_other() {
    let state = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let journal = Journal::open(state.path()).unwrap();
        journal.take_crashed().await.unwrap();
        begin_entry(&journal, "one").await;
        begin_entry(&journal, "other").await;
    }
    let journal = Journal::open(state.path()).unwrap();
    journal.take_crashed().await.unwrap();
    let (wait, run) = (Begun::Wait { crashes: 2 }, Begun::Run { crashes: 2 });
    assert_eq!(begin_entry(&journal, "one").await, wait);
    assert_eq!(begin_entry(&journal, "other").await, wait);
    assert_eq!(begin_entry(&journal, "one").await, run);
    assert_eq!(begin_entry(&journal, "other").await, wait);
    // The end of the first run lets the other entry run.
    journal.abandon(&EntryId::new("one")).await.unwrap();
    assert_eq!(begin_entry(&journal, "other").await, run);
    journal.abandon(&EntryId::new("other")).await.unwrap();
    assert_eq!(begin_entry(&journal, "one").await, run);
    // An entry without crashes is not delayed.
    assert_eq!(begin_entry(&journal, "third").await, Begun::Run { crashes: 0 });
    let journal = Journal::open(state.path()).unwrap();
    journal.take_crashed().await.unwrap();
    // The daemon died while `one` was running, so `other` is not blamed.
    assert_eq!(begin_entry(&journal, "one").await, Begun::Run { crashes: 3 });
    assert_eq!(begin_entry(&journal, "other").await, run);
}

#[tokio::test]
async fn deaths_of_daemons_are_counted_for_each_running_task_until_it_succeeds() {
    let state = tempfile::tempdir().unwrap();
    let die = async || {
        let journal = Journal::open(state.path()).unwrap();
        let crashed = journal.take_crashed().await.unwrap();
        assert_eq!(journal.take_crashed().await.unwrap(), []);
        let entry = EntryId::new(uuid::Uuid::new_v4().to_string());
        journal.begin(&entry, &"t".try_into().unwrap(), 1).await.unwrap();
        crashed.into_iter().map(|crashed| crashed.count).collect::<Vec<_>>()
    };
    assert_eq!(die().await, [0; 0]);
    assert_eq!(die().await, [1]);
    assert_eq!(die().await, [2]);
    let journal = Journal::open(state.path()).unwrap();
    journal.record(without_effects(run("r-1", "m-2", Outcome::Success))).await.unwrap();
    drop(journal);
    assert_eq!(die().await, [1]);
}

/// A crash can leave any part of the last transaction on disk. The journal must then still open,
/// with all earlier runs, and with the last run either complete or missing.
#[tokio::test]
async fn a_journal_cut_within_its_last_transaction_opens_again() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    for number in 0..5 {
        let id = format!("r-{number}");
        journal.record(without_effects(run(&id, "m-1", Outcome::Success))).await.unwrap();
    }
    let files = ["journal.db", "journal.db-wal"].map(|name| state.path().join(name));
    let before = std::fs::metadata(&files[1]).unwrap().len() as usize;
    journal.record(without_effects(run("r-5", "m-1", Outcome::Success))).await.unwrap();
    let [file, log] = files.map(|path| std::fs::read(path).unwrap());
    assert!(log.len() > before);
    for length in loopabull_testbed::cuts(before..log.len()) {
        let cut = tempfile::tempdir().unwrap();
        std::fs::write(cut.path().join("journal.db"), &file).unwrap();
        std::fs::write(cut.path().join("journal.db-wal"), &log[..length]).unwrap();
        let runs = Journal::open(cut.path()).unwrap().count().await.unwrap();
        let expected = if length == log.len() { 6 } else { 5 };
        assert_eq!(runs, [("success".to_owned(), expected)], "{length} of {}", log.len());
    }
}

#[tokio::test]
async fn a_list_is_filtered_and_limited() {
    let state = tempfile::tempdir().unwrap();
    let journal = Journal::open(state.path()).unwrap();
    for number in 0..5 {
        let id = format!("r-{number}");
        journal.record(without_effects(run(&id, "m-1", Outcome::Success))).await.unwrap();
    }
    let list = |filter| async { journal.list(filter).await.unwrap().len() };
    assert_eq!(list(Filter { limit: 3, ..Filter::default() }).await, 3);
    let retries = Filter { outcome: Some("retry".into()), limit: 9, ..Filter::default() };
    assert_eq!(list(retries).await, 0);
    assert_eq!(journal.count().await.unwrap(), [("success".to_owned(), 5)]);
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
        journal.record(Record { run, message: message(), sends, state }).await.unwrap()
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
    journal.record(record).await.unwrap();
    assert_eq!(journal.unsent().await.unwrap(), []);
    let read = journal.state_of(&"t".try_into().unwrap());
    assert_eq!(read("n".into()).await.unwrap(), None);
}

/// Without an index, a list would read and sort all runs.
#[test]
fn a_list_of_runs_uses_the_index_of_its_filter() {
    let connection = Connection::open_in_memory().unwrap();
    for step in SCHEMA.steps {
        connection.execute_batch(step).unwrap();
    }
    for (task, outcome, message, expected) in [
        (None, None, None, "SCAN runs USING INDEX runs_by_time"),
        (Some("t"), None, None, "INDEX runs_of_task (task=?)"),
        (None, Some("exit"), None, "INDEX runs_of_outcome (outcome_name=?)"),
        (None, Some("success"), None, "INDEX runs_of_outcome (outcome_name=?)"),
        (Some("t"), Some("exit"), None, "INDEX runs_of_outcome (outcome_name=?)"),
        (Some("t"), Some("success"), None, "INDEX runs_of_task (task=?)"),
        (Some("t"), Some("exit"), Some("m"), "INDEX runs_of_message (message_id=?)"),
    ] {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let filter =
            Filter { task: text(task), outcome: text(outcome), message: text(message), limit: 5 };
        let query = format!("EXPLAIN QUERY PLAN {}", rows::list(&filter));
        let mut statement = connection.prepare(&query).unwrap();
        let parameters = params![5, task, outcome, message];
        let plan = statement.query_map(parameters, |row| row.get::<_, String>(3)).unwrap();
        let plan = plan.map(Result::unwrap).collect::<Vec<_>>().join("\n");
        assert!(plan.contains(expected), "{filter:?}: {plan}");
    }
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
        ("in-progress", Outcome::Success, 99),
        ("unsent", Outcome::Success, 99),
        ("new", Outcome::Success, 0),
    ];
    for (id, outcome, hours) in runs {
        let run = Run { started_at_ms: now - hours * HOUR, ..run(id, id, outcome) };
        let sends = if id == "unsent" { vec![message()] } else { Vec::new() };
        journal.record(Record { sends, ..without_effects(run) }).await.unwrap();
    }
    // Of this entry a later attempt is in progress.
    let later = EntryId::new("entry of in-progress");
    let mark = move |connection: &Connection| {
        connection.execute("INSERT INTO starts VALUES (?1, 't', 1, 0, 0)", [later.as_str()])
    };
    journal.store.change(mark).await.unwrap();
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let mut retention = Retention { keep: hours(20), keep_failed: hours(40), max_size: u64::MAX };
    let delete = async |retention| {
        while journal.delete_some(retention, now).await.unwrap() > 0 {}
        let runs = journal.list(Filter { limit: 99, ..Filter::default() }).await.unwrap();
        let mut ids: Vec<_> = runs.iter().map(|run| run.id.to_string()).collect();
        ids.sort();
        ids
    };
    let longer = Retention { keep: hours(100), keep_failed: hours(100), max_size: u64::MAX };
    assert_eq!(delete(longer).await.len(), 7);
    let long = Retention { keep: hours(100), ..retention };
    let left = delete(long).await;
    assert_eq!(left, ["in-progress", "new", "old", "old-failed", "recent", "unsent"]);
    let left = delete(retention).await;
    assert_eq!(left, ["in-progress", "new", "old-failed", "recent", "unsent"]);
    retention.max_size = 1;
    assert_eq!(delete(retention).await, ["in-progress", "new", "unsent"]);
    // No setting deletes a run of the last hour.
    retention.keep = Duration::ZERO;
    assert_eq!(delete(retention).await, ["in-progress", "new", "unsent"]);
    assert_eq!(begin_entry(&journal, "entry of new").await, Begun::Succeeded);
}
