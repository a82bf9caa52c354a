//! Tests of the beginnings of attempts, without a daemon.

use loopabull_model::{Message, StateChanges};

use super::*;
use crate::journal::Record;

/// The answer of `begin`, without the guard.
#[derive(Debug, Eq, PartialEq)]
enum Answer {
    Run(u32),
    Wait,
    Succeeded,
    Ended(u32),
}

/// A daemon that dies when it is dropped: its marks stay.
struct Daemon {
    starts: Starts,
    in_progress: Vec<InProgress>,
}

impl Daemon {
    async fn start(state: &Path) -> (Self, Vec<u32>) {
        let starts = Starts::open(Arc::new(Journal::open(state).unwrap()), state).unwrap();
        let crashed = starts.take_crashed().await.unwrap();
        assert_eq!(starts.take_crashed().await.unwrap(), []);
        let counts = crashed.into_iter().map(|crashed| crashed.count).collect();
        (Self { starts, in_progress: Vec::new() }, counts)
    }

    fn begin(&mut self, entry: &str, attempt: u32) -> Answer {
        let task = "t".try_into().unwrap();
        match self.starts.begin(&EntryId::new(entry), &task, attempt, None).unwrap() {
            Begun::Run { crashes, in_progress } => {
                self.in_progress.push(in_progress);
                Answer::Run(crashes)
            }
            Begun::Wait => Answer::Wait,
            Begun::Succeeded => Answer::Succeeded,
            Begun::Ended { attempt, .. } => Answer::Ended(attempt),
        }
    }

    /// Ends all runs.
    fn end(&mut self) {
        self.in_progress.drain(..).for_each(InProgress::end);
    }

    /// Records a run.
    async fn record(&mut self, entry: &str, outcome: Outcome) {
        let message: Message =
            serde_json::from_str(r#"{"id":"m-1","topic":"a.b","body":{}}"#).unwrap();
        let json = serde_json::json!({
            "id": uuid::Uuid::now_v7().to_string(), "entry": entry, "message_id": "m-1", "topic": "a.b",
            "task": "t", "kind": "component", "attempt": 1, "worker": 1, "started_at_ms": 1,
            "duration": {"secs": 0, "nanos": 1}, "outcome": outcome, "output": {"text": "", "dropped": 0},
            "notes": [], "grants": [], "usage": {"memory": 0, "host_calls": 0, "requests": []},
            "emitted": [], "playbook": null,
        });
        let run: Run = serde_json::from_value(json).unwrap();
        let ends_count = self.starts.ends_count(&run);
        let state = StateChanges::default();
        let (sends, queue) = (Vec::new(), None);
        let record = Record { run: run.clone(), message, sends, state, ends_count, queue };
        self.starts.journal.record(Arc::new(vec![record])).await.unwrap();
        self.starts.end_count(&run);
    }
}

fn retry() -> Outcome {
    Outcome::Retry { reason: "x".into(), after: None }
}

#[tokio::test]
async fn an_entry_that_had_its_run_does_not_begin_again() {
    let state = tempfile::tempdir().unwrap();
    let (mut daemon, _) = Daemon::start(state.path()).await;
    daemon.record("good", Outcome::Success).await;
    daemon.record("failed", retry()).await;
    daemon.record("cut", Outcome::Cancelled).await;
    for attempt in [1, 2] {
        assert_eq!(daemon.begin("good", attempt), Answer::Succeeded);
    }
    assert_eq!(daemon.begin("failed", 1), Answer::Ended(1));
    assert_eq!(daemon.begin("failed", 2), Answer::Run(0));
    assert_eq!(daemon.begin("cut", 1), Answer::Run(0));
    assert_eq!(daemon.begin("other", 1), Answer::Run(0));
}

#[tokio::test]
async fn an_entry_that_several_daemons_died_with_waits_before_it_runs_again() {
    let state = tempfile::tempdir().unwrap();
    let expected = [
        vec![Answer::Run(0)],
        vec![Answer::Run(1)],
        vec![Answer::Wait, Answer::Run(2)],
        vec![Answer::Run(3)],
    ];
    for life in expected {
        let (mut daemon, _) = Daemon::start(state.path()).await;
        for answer in life {
            assert_eq!(daemon.begin("e", 1), answer);
        }
    }
    // A run that is no attempt does not end the count; one that is does, also for the next daemon.
    let (mut daemon, _) = Daemon::start(state.path()).await;
    daemon.record("e", Outcome::Cancelled).await;
    assert_eq!(daemon.begin("e", 2), Answer::Run(4));
    daemon.record("e", retry()).await;
    assert_eq!(daemon.begin("e", 2), Answer::Run(0));
    daemon.end();
    drop(daemon);
    let (mut daemon, _) = Daemon::start(state.path()).await;
    assert_eq!(daemon.begin("e", 2), Answer::Run(0));
}

#[tokio::test]
async fn entries_that_several_daemons_died_with_run_one_after_the_other() {
    let state = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let (mut daemon, _) = Daemon::start(state.path()).await;
        daemon.begin("one", 1);
        daemon.begin("other", 1);
    }
    let (mut daemon, _) = Daemon::start(state.path()).await;
    assert_eq!(daemon.begin("one", 1), Answer::Wait);
    assert_eq!(daemon.begin("other", 1), Answer::Wait);
    assert_eq!(daemon.begin("one", 1), Answer::Run(2));
    assert_eq!(daemon.begin("other", 1), Answer::Wait);
    // The end of the first run lets the other entry run.
    daemon.end();
    assert_eq!(daemon.begin("other", 1), Answer::Run(2));
    daemon.end();
    assert_eq!(daemon.begin("one", 1), Answer::Run(2));
    // An entry without crashes is not delayed.
    assert_eq!(daemon.begin("third", 1), Answer::Run(0));
    drop(daemon);
    let (mut daemon, _) = Daemon::start(state.path()).await;
    // The daemon died while `one` was running, so `other` is not blamed.
    assert_eq!(daemon.begin("one", 1), Answer::Run(3));
    assert_eq!(daemon.begin("other", 1), Answer::Wait);
    assert_eq!(daemon.begin("other", 1), Answer::Run(2));
}

#[tokio::test]
async fn deaths_of_daemons_are_counted_for_each_running_task_until_it_succeeds() {
    let state = tempfile::tempdir().unwrap();
    for expected in [vec![], vec![1], vec![2]] {
        let (mut daemon, counts) = Daemon::start(state.path()).await;
        assert_eq!(counts, expected);
        // Two entries of a task are one crash of the task.
        daemon.begin(&format!("one {expected:?}"), 1);
        daemon.begin(&format!("other {expected:?}"), 1);
    }
    let (mut daemon, counts) = Daemon::start(state.path()).await;
    assert_eq!(counts, [3]);
    daemon.record("x", Outcome::Success).await;
    daemon.begin("y", 1);
    drop(daemon);
    assert_eq!(Daemon::start(state.path()).await.1, [1]);
    // The last daemon ended while nothing ran.
    assert_eq!(Daemon::start(state.path()).await.1, [0; 0]);
}

/// The daemon died between the record of a run and the end of its mark.
#[tokio::test]
async fn the_mark_of_a_recorded_run_is_no_crash() {
    let state = tempfile::tempdir().unwrap();
    let (mut daemon, _) = Daemon::start(state.path()).await;
    for entry in ["good", "failed", "cut"] {
        daemon.begin(entry, 1);
    }
    daemon.record("good", Outcome::Success).await;
    daemon.record("failed", retry()).await;
    daemon.record("cut", Outcome::Cancelled).await;
    drop(daemon);
    let (mut daemon, counts) = Daemon::start(state.path()).await;
    assert_eq!((counts, daemon.begin("failed", 2)), (vec![1], Answer::Run(0)));
    assert_eq!(daemon.begin("cut", 1), Answer::Run(1));
}
