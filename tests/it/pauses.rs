//! What rests: tasks and queues by hand, tasks and workers by themselves.

use loopabull_testbed::Rabbit;

use crate::bed::{Bed, Daemon, message, text, wait_for};

fn run(bed: &Bed, arguments: &[&str]) -> String {
    let output = bed.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn inject(bed: &Bed, flags: &[&str], messages: &[(&str, &str)]) {
    let messages: Vec<String> =
        messages.iter().map(|(id, topic)| message(id, topic, "{}")).collect();
    bed.run_with_input(&[&["inject", "-"], flags].concat(), &messages.join("\n"));
}

/// The ids of the messages that a task has worked, in order.
fn worked(bed: &Bed, task: &str) -> Vec<String> {
    let mut runs = bed.runs();
    runs.reverse();
    let runs = runs.into_iter().filter(|run| run.task.as_str() == task);
    runs.map(|run| run.message_id.to_string()).collect()
}

fn wait_for_runs(daemon: &Daemon, count: u64) {
    wait_for("runs", || (daemon.count("runs") >= count).then_some(()));
}

fn check_task(flags: &[&str]) {
    let bed = Bed::new();
    bed.add_guest("good", "x", "", "i32.const 0").add_guest("other", "y", "", "i32.const 0");
    assert_eq!(run(&bed, &["pause", "--task", "good"]), "task `good` is paused\n");
    let one = [&["--workers", "1"], flags].concat();
    let daemon = bed.start(&one);
    inject(&bed, flags, &[("m-1", "x"), ("m-2", "y"), ("m-3", "x"), ("m-4", "y")]);
    wait_for_runs(&daemon, 2);
    wait_for("the others to be held", || (daemon.depth("held") == Some(2)).then_some(()));
    assert_eq!((worked(&bed, "good").len(), worked(&bed, "other").len()), (0, 2));
    let status = run_status(&bed, flags);
    assert!(status.contains("paused   task `good` since 20"), "{status}");
    // Over a restart too.
    daemon.stop();
    let daemon = bed.start(&one);
    inject(&bed, flags, &[("m-5", "x"), ("m-6", "y")]);
    wait_for_runs(&daemon, 1);
    wait_for("another to be held", || (daemon.depth("held") == Some(3)).then_some(()));
    assert_eq!(run(&bed, &["resume", "--task", "good"]), "task `good` is resumed\n");
    wait_for_runs(&daemon, 4);
    assert_eq!(worked(&bed, "good"), ["m-1", "m-3", "m-5"], "in their order");
    assert_eq!(daemon.depth("held"), Some(0));
    daemon.stop();
    let output = bed.run(&["resume", "--task", "good"]);
    assert_eq!(output.status.code(), Some(1));
}

fn run_status(bed: &Bed, flags: &[&str]) -> String {
    text(&bed.run(&[&["status"], flags].concat()).stdout)
}

#[test]
fn a_paused_task_of_the_embedded_queue_waits_in_order() {
    check_task(&[]);
}

#[test]
fn a_paused_task_of_rabbitmq_waits_in_order() {
    let url = Rabbit::shared().vhost().url();
    check_task(&["--amqp-url", &url]);
}

fn check_queue(flags: &[&str]) {
    let bed = Bed::new();
    bed.add_guest("good", "x", "", "i32.const 0");
    bed.add_guest("other", "y", "queue = 'slow'", "i32.const 0");
    let daemon = bed.start(flags);
    assert_eq!(run(&bed, &["pause", "--queue", "slow"]), "queue `slow` is paused\n");
    wait_for("the daemon to hear of it", || {
        let status = daemon.status();
        (status["pauses"].as_array().unwrap().len() == 1).then_some(())
    });
    inject(&bed, flags, &[("m-1", "y"), ("m-2", "x")]);
    wait_for_runs(&daemon, 1);
    let waiting = || daemon.status()["queues"][1]["waiting"].as_u64();
    wait_for("the other to wait", || (waiting() == Some(1)).then_some(()));
    assert!(worked(&bed, "other").is_empty());
    assert_eq!(run(&bed, &["resume", "--all"]), "queue `slow` is resumed\n");
    wait_for_runs(&daemon, 2);
    assert_eq!(worked(&bed, "other"), ["m-1"]);
    daemon.stop();
}

#[test]
fn nothing_is_taken_from_a_paused_queue() {
    check_queue(&[]);
    let url = Rabbit::shared().vhost().url();
    check_queue(&["--amqp-url", &url]);
}

#[test]
fn a_task_that_fails_again_and_again_is_paused_and_others_go_on() {
    let bed = Bed::new();
    let manifest = "[retry]\nmax_attempts = 1\n[breaker]\nfailures = 3";
    bed.add_guest("traps", "x", manifest, "unreachable").add_guest("good", "y", "", "i32.const 0");
    let daemon = bed.start(&["--workers", "1"]);
    let messages: Vec<String> = (0..6).map(|n| message(&format!("m-{n}"), "x", "{}")).collect();
    bed.inject(&messages);
    wait_for("the breaker", || (daemon.depth("held") == Some(3)).then_some(()));
    bed.inject(&[message("m-9", "y", "{}")]);
    wait_for("the other task", || (worked(&bed, "good").len() == 1).then_some(()));
    let status = run_status(&bed, &[]);
    assert!(status.contains("it failed 3 times in a row within 10m, the last: trap"), "{status}");
    assert_eq!(daemon.metric("loopabull_pauses{kind=\"task\"}"), Some(1.0));
    assert_eq!(daemon.get("/readyz").0, 200, "the daemon itself is well");
    run(&bed, &["resume", "--task", "traps"]);
    wait_for("the rest", || (daemon.depth("dead") == Some(6)).then_some(()));
    daemon.stop();
}

#[test]
fn a_worker_stops_for_a_task_that_wants_it_and_comes_back() {
    let bed = Bed::new();
    let manifest = "[retry]\non_failure = 'stop-worker'";
    bed.add_guest("traps", "x", manifest, "unreachable").add_guest("good", "y", "", "i32.const 0");
    let daemon = bed.start(&["--workers", "2"]);
    bed.inject(&[message("m-1", "x", "{}")]);
    wait_for("readiness to go", || (daemon.get("/readyz").0 == 503).then_some(()));
    let reasons = daemon.get("/readyz").1;
    assert!(reasons.contains("stopped: task `traps` on message m-1: trap"), "{reasons}");
    assert_eq!(daemon.depth("dead"), Some(1), "the message is parked");
    // The other worker goes on, until it stops as well; then nobody takes anything.
    bed.inject(&[message("m-2", "y", "{}")]);
    wait_for_runs(&daemon, 2);
    bed.inject(&[message("m-3", "x", "{}")]);
    wait_for("both to stop", || (daemon.get("/readyz").1.lines().count() == 2).then_some(()));
    bed.inject(&[message("m-4", "y", "{}")]);
    assert_eq!(run(&bed, &["resume", "--worker", "1"]), "worker `1` is resumed\n");
    wait_for_runs(&daemon, 4);
    assert_eq!(worked(&bed, "good"), ["m-2", "m-4"]);
    run(&bed, &["resume", "--all"]);
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
}
