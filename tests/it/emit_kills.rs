//! `kill -9` of the daemon while tasks emit messages. Each emitted message has exactly one successful run.
//! The messages of a failed run are never published.

use std::collections::BTreeMap;
use std::sync::Arc;

use loopabull_host::config::Config;
use loopabull_host::journal::{AfterQueues, Journal, Record};
use loopabull_host::tasks::discovery::Discovery;
use loopabull_model::{
    Body, Emission, Emitted, Entry, EntryId, Message, Outcome, Run, RunId, Settlement,
    StateChanges, TaskKind, Usage,
};
use loopabull_queue::{Delivery, Queues, Received};
use loopabull_testbed::Rabbit;
use tokio_util::sync::CancellationToken;

use crate::emit::sender;
use crate::test_host::{TestHost, message, wait_for};

/// The point at which a daemon dies while it processes a delivery.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Died {
    BeforeTheRecord,
    BeforeItSent,
    BeforeItForgot,
    BeforeItSettled,
    AfterItSettled,
}

/// Processes the only delivery in the queue step by step, as a daemon does with RabbitMQ and as one of an earlier version did
/// with the embedded queue, up to the point where it dies.
async fn work_until(host: &TestHost, died: Died) {
    let config = Config {
        tasks: host.path("tasks"),
        playbooks: host.path("playbooks"),
        state: host.path("state"),
        ..Config::default()
    };
    let discovery = Discovery::read(&config, None);
    let queues = Queues::open(&config.queues(&discovery.tasks)).await.unwrap();
    let workers = "workers".try_into().unwrap();
    let mut consumer = queues.consume(&workers).await.unwrap();
    let received = consumer.receive(&CancellationToken::new()).await.unwrap().unwrap();
    let Received::Delivery(delivery) = received else { panic!("only our own entries are queued") };
    let journal = Journal::open(&config.state).unwrap();
    let entry = &delivery.entry;
    let sends = vec![emission().into_message(entry, 0, 1)];
    if died > Died::BeforeTheRecord {
        journal.record(Arc::new(vec![record(&delivery, sends.clone())])).await.unwrap();
    }
    if died > Died::BeforeItSent {
        let task = discovery.tasks.iter().find(|task| task.name.as_str() == "b").unwrap();
        let id = EntryId::derived(&sends[0], &task.name);
        queues.publish(&Entry::new(id, task, &sends[0])).await.unwrap();
    }
    if died > Died::BeforeItForgot {
        journal.set_queued(&entry.id, AfterQueues::Done).await.unwrap();
    }
    if died > Died::BeforeItSettled {
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

/// Returns the message that `sender("b", 1, …)` publishes.
fn emission() -> Emission {
    let body = Body::parse(r#"{"n":1}"#).unwrap();
    Emission { topic: "b".try_into().unwrap(), headers: Vec::new(), body }
}

fn record(delivery: &Delivery, sends: Vec<Message>) -> Record {
    let Entry { id, task, message, .. } = delivery.entry.clone();
    let emitted =
        |message: &Message| Emitted { id: message.id.clone(), topic: message.topic.clone() };
    let run = Run {
        id: RunId::new("r-1"),
        entry: id,
        message_id: message.id.clone(),
        topic: message.topic.clone(),
        task,
        kind: TaskKind::Component,
        attempt: delivery.attempt,
        worker: 1,
        started_at_ms: 1,
        duration: std::time::Duration::from_millis(1),
        outcome: Outcome::Success,
        output: Default::default(),
        notes: Vec::new(),
        grants: Vec::new(),
        usage: Usage::default(),
        emitted: sends.iter().map(emitted).collect(),
        playbook: None,
    };
    let state = StateChanges::default();
    Record { run, message, sends, state, ends_count: false, queue: None }
}

#[test]
fn a_published_message_is_run_once_wherever_the_daemon_dies() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for died in [
        Died::BeforeTheRecord,
        Died::BeforeItSent,
        Died::BeforeItForgot,
        Died::BeforeItSettled,
        Died::AfterItSettled,
    ] {
        let host = TestHost::new();
        host.write("tasks/sends.wasm", sender("b", 1, "i32.const 0"));
        host.write("tasks/sends.toml", "topics = ['a']\ngrants.emit = ['b']");
        host.add_guest("b", "b", "", "i32.const 0");
        host.inject(&[message("m-1", "a", "{}")]);
        runtime.block_on(work_until(&host, died));
        let daemon = host.start(&[]);
        wait_for("both runs", || (host.runs().len() >= 2).then_some(()));
        daemon.wait_until_idle();
        daemon.stop();
        let expected = [("b success".to_owned(), 1), ("sends success".to_owned(), 1)];
        assert_eq!(host.tally(), expected.into(), "{died:?}");
        let runs = host.runs();
        let sent: Vec<_> = runs.iter().flat_map(|run| &run.emitted).map(|e| &e.id).collect();
        let got = runs.iter().find(|run| run.task.as_str() == "b").unwrap();
        assert_eq!(sent, [&got.message_id], "{died:?}");
    }
}

/// Kills the daemon several times while tasks publish, and checks that each message succeeds once.
fn check(host: &TestHost, count: usize, kills: usize, flags: &[&str]) {
    let retry = "[retry]\nmax_attempts = 2\npauses = ['100ms']\n[breaker]\nfailures = 0";
    host.write("tasks/sends.wasm", sender("b", 2, "i32.const 0"));
    host.write("tasks/sends.toml", "topics = ['a']\ngrants.emit = ['b']");
    host.write("tasks/fails.wasm", sender("b", 2, "i32.const 128"));
    host.write("tasks/fails.toml", format!("topics = ['a']\ngrants.emit = ['b']\n{retry}"));
    host.add_guest("b", "b", "", "i32.const 0");
    let messages: Vec<_> = (0..count).map(|n| message(&format!("m-{n}"), "a", "{}")).collect();
    let inject: Vec<_> = ["inject", "-"].iter().chain(flags).copied().collect();
    host.run_with_input(&inject, &messages.join("\n"));
    for kill in 1..=kills {
        let daemon = host.start(flags);
        let some = 3 * count * kill / (kills + 2);
        wait_for("some more runs", || (host.runs().len() >= some).then_some(()));
        daemon.signal("KILL");
        assert_eq!(daemon.wait(), None, "the signal must end the daemon");
    }
    let daemon = host.start(flags);
    wait_for("all runs to end", || {
        daemon.wait_until_idle();
        daemon.depth("dead").is_some_and(|dead| dead >= count as u64).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();

    let mut runs_by_message = BTreeMap::<String, usize>::new();
    let mut sent = Vec::new();
    for run in host.runs() {
        if run.task.as_str() == "b" && run.outcome.is_success() {
            *runs_by_message.entry(run.message_id.to_string()).or_default() += 1;
        }
        assert!(run.outcome.is_success() || run.emitted.is_empty(), "{run:?}");
        if run.outcome.is_success() {
            sent.extend(run.emitted.iter().map(|emitted| emitted.id.to_string()));
        }
    }
    sent.sort();
    assert_eq!(sent.len(), 2 * count, "each message must have one run that published");
    assert_eq!(runs_by_message.keys().cloned().collect::<Vec<_>>(), sent);
    assert!(runs_by_message.values().all(|&runs| runs == 1), "{runs_by_message:?}");
}

#[test]
fn kills_neither_lose_nor_repeat_published_messages_with_the_embedded_queue() {
    // At most four kills: after five deaths in a row the daemon pauses a task that was running and never
    // succeeds, here `fails`.
    check(&TestHost::new(), 300, 4, &[]);
}

#[test]
fn kills_neither_lose_nor_repeat_published_messages_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    check(&TestHost::new(), 100, 4, &["--amqp-url", &url]);
}
