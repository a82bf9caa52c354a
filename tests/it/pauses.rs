//! Pauses. An operator can pause tasks and queues. The daemon itself pauses tasks and workers after failures.

use loopabull_testbed::Rabbit;

use crate::test_host::{Daemon, TestHost, message, text, wait_for};

fn run(host: &TestHost, arguments: &[&str]) -> String {
    let output = host.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn inject(host: &TestHost, flags: &[&str], messages: &[(&str, &str)]) {
    let messages: Vec<String> =
        messages.iter().map(|(id, topic)| message(id, topic, "{}")).collect();
    host.run_with_input(&[&["inject", "-"], flags].concat(), &messages.join("\n"));
}

/// Returns the message ids of the runs of a task, oldest first.
fn messages_run(host: &TestHost, task: &str) -> Vec<String> {
    let mut runs = host.runs();
    runs.reverse();
    let runs = runs.into_iter().filter(|run| run.task.as_str() == task);
    runs.map(|run| run.message_id.to_string()).collect()
}

fn wait_for_runs(daemon: &Daemon, count: u64) {
    wait_for("the runs", || (daemon.count("runs") >= count).then_some(()));
}

fn check_task(flags: &[&str]) {
    let host = TestHost::new();
    host.add_guest("good", "x", "", "i32.const 0").add_guest("other", "y", "", "i32.const 0");
    assert_eq!(
        run(&host, &["pause", "--task", "good"]),
        "task `good` is paused for the next daemon: none is running\n"
    );
    let one = [&["--workers", "1"], flags].concat();
    let daemon = host.start(&one);
    inject(&host, flags, &[("m-1", "x"), ("m-2", "y"), ("m-3", "x"), ("m-4", "y")]);
    wait_for_runs(&daemon, 2);
    wait_for("two messages to be held", || (daemon.depth("held") == Some(2)).then_some(()));
    assert_eq!((messages_run(&host, "good").len(), messages_run(&host, "other").len()), (0, 2));
    let status = run_status(&host, flags);
    assert!(status.contains("paused   task `good` by the operator since 20"), "{status}");
    // The pause continues after a restart.
    daemon.stop();
    let daemon = host.start(&one);
    inject(&host, flags, &[("m-5", "x"), ("m-6", "y")]);
    wait_for_runs(&daemon, 1);
    wait_for("three messages to be held", || (daemon.depth("held") == Some(3)).then_some(()));
    assert_eq!(run(&host, &["resume", "--task", "good"]), "task `good` is resumed\n");
    wait_for_runs(&daemon, 4);
    assert_eq!(messages_run(&host, "good"), ["m-1", "m-3", "m-5"], "the order was not kept");
    assert_eq!(daemon.depth("held"), Some(0));
    daemon.stop();
    let output = host.run(&["resume", "--task", "good"]);
    assert_eq!(output.status.code(), Some(1));
}

fn run_status(host: &TestHost, flags: &[&str]) -> String {
    text(&host.run(&[&["status"], flags].concat()).stdout)
}

#[test]
fn messages_of_a_paused_task_wait_in_order_in_the_embedded_queue() {
    check_task(&[]);
}

#[test]
fn messages_of_a_paused_task_wait_in_order_in_rabbitmq() {
    let url = Rabbit::shared().vhost().url();
    check_task(&["--amqp-url", &url]);
}

fn check_queue(flags: &[&str]) {
    let host = TestHost::new();
    host.add_guest("good", "x", "", "i32.const 0");
    host.add_guest("other", "y", "queue = 'slow'", "i32.const 0");
    let daemon = host.start(flags);
    assert_eq!(run(&host, &["pause", "--queue", "slow"]), "queue `slow` is paused\n");
    wait_for("the daemon to report the pause", || {
        let status = daemon.status();
        (status["pauses"].as_array().unwrap().len() == 1).then_some(())
    });
    inject(&host, flags, &[("m-1", "y"), ("m-2", "x")]);
    wait_for_runs(&daemon, 1);
    let waiting = || daemon.status()["queues"][1]["waiting"].as_u64();
    wait_for("the message to wait in the paused queue", || (waiting() == Some(1)).then_some(()));
    assert!(messages_run(&host, "other").is_empty());
    assert_eq!(run(&host, &["resume", "--all"]), "queue `slow` is resumed\n");
    wait_for_runs(&daemon, 2);
    assert_eq!(messages_run(&host, "other"), ["m-1"]);
    daemon.stop();
}

#[test]
fn no_message_is_taken_from_a_paused_queue() {
    check_queue(&[]);
    let url = Rabbit::shared().vhost().url();
    check_queue(&["--amqp-url", &url]);
}

#[test]
fn a_task_that_fails_repeatedly_is_paused_and_other_tasks_continue() {
    let host = TestHost::new();
    let manifest = "[retry]\nmax_attempts = 1\n[breaker]\nfailures = 3";
    host.add_guest("traps", "x", manifest, "unreachable").add_guest("good", "y", "", "i32.const 0");
    let daemon = host.start(&["--workers", "1"]);
    let messages: Vec<String> = (0..6).map(|n| message(&format!("m-{n}"), "x", "{}")).collect();
    host.inject(&messages);
    wait_for("the breaker to pause the task", || (daemon.depth("held") == Some(3)).then_some(()));
    host.inject(&[message("m-9", "y", "{}")]);
    wait_for("the run of the other task", || {
        (messages_run(&host, "good").len() == 1).then_some(())
    });
    let status = run_status(&host, &[]);
    assert!(status.contains("3 consecutive failures within 10m; last outcome: trap"), "{status}");
    assert_eq!(daemon.metric("loopabull_pauses{kind=\"task\"}"), Some(1.0));
    assert_eq!(daemon.get("/readyz").0, 200, "a paused task must not make the daemon unready");
    // After the task is resumed, one message is tried. It fails, so the others still wait.
    run(&host, &["resume", "--task", "traps"]);
    wait_for("the trial", || (daemon.depth("dead") == Some(4)).then_some(()));
    wait_for("the pause", || {
        run_status(&host, &[]).contains("paused   task `traps`").then_some(())
    });
    assert_eq!(daemon.depth("held"), Some(2));
    host.add_guest("traps", "x", manifest, "i32.const 0");
    wait_for("the new version", || host.log().contains("changed: traps").then_some(()));
    run(&host, &["resume", "--task", "traps"]);
    wait_for("the runs", || (host.tally().get("traps success") == Some(&2)).then_some(()));
    assert_eq!(daemon.depth("dead"), Some(4));
    daemon.stop();
}

/// Nobody resumes the task: the breaker tries one message after each pause, and a restart does not end the pause.
fn check_breaker(flags: &[&str]) {
    let host = TestHost::new();
    let manifest = "[retry]\nmax_attempts = 1\n[breaker]\nfailures = 2\npause = '2s'";
    host.add_guest("traps", "x", manifest, "unreachable");
    let daemon = host.start(&[&["--workers", "2"], flags].concat());
    inject(&host, flags, &[("m-1", "x"), ("m-2", "x"), ("m-3", "x"), ("m-4", "x"), ("m-5", "x")]);
    wait_for("a trial", || (daemon.depth("dead") >= Some(3)).then_some(()));
    assert!(run_status(&host, flags).contains("one message is tried after"));
    daemon.stop();
    let daemon = host.start(&[&["--workers", "2"], flags].concat());
    assert!(run_status(&host, flags).contains("paused   task `traps`"));
    host.add_guest("traps", "x", manifest, "i32.const 0");
    wait_for("the new version", || host.log().contains("changed: traps").then_some(()));
    let dead = daemon.depth("dead").unwrap();
    wait_for("the runs", || {
        let done = host.tally().get("traps success").copied().unwrap_or_default() as u64;
        (done + dead == 5).then_some(())
    });
    wait_for("the end of the pause", || {
        (!run_status(&host, flags).contains("paused")).then_some(())
    });
    assert!(host.log().contains("task `traps` works again"));
    daemon.stop();
}

#[test]
fn a_breaker_tries_one_message_after_a_while_in_the_embedded_queue() {
    check_breaker(&[]);
}

#[test]
fn a_breaker_tries_one_message_after_a_while_in_rabbitmq() {
    let url = Rabbit::shared().vhost().url();
    check_breaker(&["--amqp-url", &url]);
}

#[test]
fn a_failed_task_can_stop_its_worker_until_the_worker_is_resumed() {
    let host = TestHost::new();
    let manifest = "[retry]\non_failure = 'stop-worker'";
    host.add_guest("traps", "x", manifest, "unreachable").add_guest("good", "y", "", "i32.const 0");
    let daemon = host.start(&["--workers", "2"]);
    host.inject(&[message("m-1", "x", "{}")]);
    wait_for("the daemon to be unready", || (daemon.get("/readyz").0 == 503).then_some(()));
    let reasons = daemon.get("/readyz").1;
    assert!(reasons.contains("stopped: task `traps` on message m-1: trap"), "{reasons}");
    assert_eq!(daemon.depth("dead"), Some(1), "the message is not dead-lettered");
    // The second worker continues until a failed task stops it too. Then no worker takes a message.
    host.inject(&[message("m-2", "y", "{}")]);
    wait_for_runs(&daemon, 2);
    host.inject(&[message("m-3", "x", "{}")]);
    wait_for("workers to stop", || {
        (daemon.get("/readyz").1.matches(": stopped: ").count() == 2).then_some(())
    });
    host.inject(&[message("m-4", "y", "{}")]);
    assert_eq!(run(&host, &["resume", "--worker", "1"]), "worker `1` is resumed\n");
    wait_for_runs(&daemon, 4);
    assert_eq!(messages_run(&host, "good"), ["m-2", "m-4"]);
    run(&host, &["resume", "--all"]);
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
}
