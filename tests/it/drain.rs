//! SIGTERM drains; a second one gives back what runs.

use std::io::Write;

use loopabull_testbed::Rabbit;

use crate::bed::{Bed, Publisher, message, text, wait_for};

/// A playbook that says when it runs, and then waits for a file to appear.
fn bed() -> Bed {
    let bed = Bed::new();
    let (running, go) = (bed.shared("running"), bed.shared("go"));
    let tasks = format!(
        "    - shell: touch {}; while ! test -e {}; do sleep 0.1; done\n",
        running.display(),
        go.display()
    );
    bed.add_playbook("waits", "", &tasks);
    bed
}

#[test]
fn a_run_may_end_and_nothing_new_is_taken() {
    let bed = bed();
    let daemon = bed.start(&["--workers", "1"]);
    bed.inject(&[message("m-1", "waits", "{}"), message("m-2", "waits", "{}")]);
    wait_for("the playbook to run", || bed.shared("running").exists().then_some(()));
    daemon.signal("TERM");
    wait_for("readiness to go", || {
        let (status, text) = daemon.get("/readyz");
        (status == 503 && text.contains("draining")).then_some(())
    });
    bed.write("shared/go", "");
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(bed.tally(), [("waits success".to_owned(), 1)].into());
    // The other message is still there, and the next daemon works it.
    let daemon = bed.start(&["--workers", "1"]);
    wait_for("the other message", || (daemon.count("succeeded") == 1).then_some(()));
    daemon.stop();
}

#[test]
fn a_client_that_does_not_end_does_not_keep_the_daemon() {
    let bed = bed();
    let daemon = bed.start(&[]);
    let mut client = std::net::TcpStream::connect(daemon.address()).unwrap();
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").unwrap();
    // It is being served once another has been.
    assert_eq!(daemon.get("/livez").0, 200);
    daemon.stop();
}

/// Under an alarm the broker confirms nothing; the daemon ends all the same, and what it could not queue
/// waits on disk for the next.
#[test]
fn a_blocked_broker_does_not_keep_the_daemon() {
    // A node of its own: an alarm stops every publisher of a node.
    let rabbit: &'static Rabbit = Box::leak(Box::new(Rabbit::start()));
    let vhost = rabbit.vhost();
    let (bed, publisher, url) = (bed(), Publisher::start(), vhost.url());
    bed.add_guest("good", "x", "", "i32.const 0");
    bed.write("loopabull.toml", "grace = '1s'\n");
    let source = ["--unsigned", "--fedmsg", &publisher.endpoint, "--amqp-url", &url];
    let daemon = bed.start(&[&["--config", "loopabull.toml"], &source[..]].concat());
    publisher.wait_for_subscriber();
    let send = |id: &str| publisher.send(&[b"x", message(id, "x", "{}").as_bytes()]);
    send("m-1");
    wait_for("the first message", || (daemon.count("runs") == 1).then_some(()));
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    // The broker tells of its alarm when it is published to.
    send("m-2");
    wait_for("readiness to go", || {
        let (status, text) = daemon.get("/readyz");
        (status == 503 && text.contains("memory or disk alarm")).then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(1));
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    let daemon = bed.start(&[&["--config", "loopabull.toml"], &source[..]].concat());
    wait_for("what waited", || {
        let runs = bed.runs();
        runs.iter().any(|run| run.message_id.as_str() == "m-2").then_some(())
    });
    daemon.stop();
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let bed = bed();
    let daemon = bed.start(&[]);
    let output = bed.run(&["--listen", "127.0.0.1:0"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another daemon is using the state directory `state`\nhint: "), "{said}");
    assert!(bed.path("state/daemon.json").exists());
    daemon.stop();
    assert!(!bed.path("state/daemon.json").exists());
}

#[test]
fn a_second_signal_gives_the_run_back_without_counting_the_attempt() {
    let bed = bed();
    let daemon = bed.start(&["--workers", "1"]);
    bed.inject(&[message("m-1", "waits", "{}")]);
    wait_for("the playbook to run", || bed.shared("running").exists().then_some(()));
    daemon.signal("TERM");
    daemon.signal("TERM");
    // Signals of one kind that come together are one; so this may need another.
    wait_for("the log to say that it cancels", || {
        daemon.signal("TERM");
        bed.log().contains("cancelling").then_some(())
    });
    assert_eq!(daemon.wait(), Some(1), "it says that runs were cancelled");
    bed.write("shared/go", "");
    let daemon = bed.start(&["--workers", "1"]);
    wait_for("the message to come back", || (daemon.count("succeeded") == 1).then_some(()));
    daemon.stop();
    let runs = bed.runs();
    let attempts: Vec<_> = runs.iter().map(|run| (run.outcome.name(), run.attempt)).collect();
    assert_eq!(attempts, [("success", 1), ("cancelled", 1)]);
}
