//! SIGTERM drains the daemon: running tasks finish, and no new one starts. A second SIGTERM cancels the runs
//! and requeues their entries.

use std::io::Write;

use loopabull_testbed::Rabbit;

use crate::test_host::{Publisher, TestHost, message, text, wait_for};

/// Returns a host with a playbook that creates the file `running` and waits for the file `go`.
fn host() -> TestHost {
    let host = TestHost::new();
    let (running, go) = (host.shared("running"), host.shared("go"));
    let tasks = format!(
        "    - shell: touch {}; while ! test -e {}; do sleep 0.1; done\n",
        running.display(),
        go.display()
    );
    host.add_playbook("waits", "", &tasks);
    host
}

#[test]
fn a_drain_lets_the_run_end_and_starts_no_other() {
    let host = host();
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[message("m-1", "waits", "{}"), message("m-2", "waits", "{}")]);
    wait_for("the playbook to run", || host.shared("running").exists().then_some(()));
    daemon.signal("TERM");
    wait_for("the daemon to become unready", || {
        let (status, text) = daemon.get("/readyz");
        (status == 503 && text.contains("draining")).then_some(())
    });
    host.write("shared/go", "");
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(host.tally(), [("waits success".to_owned(), 1)].into());
    // The second message is still queued, and the next daemon runs it.
    let daemon = host.start(&["--workers", "1"]);
    wait_for("the second message to run", || (daemon.count("succeeded") == 1).then_some(()));
    daemon.stop();
}

#[test]
fn a_client_with_an_unfinished_request_does_not_block_the_exit() {
    let host = host();
    let daemon = host.start(&[]);
    let mut client = std::net::TcpStream::connect(daemon.address()).unwrap();
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").unwrap();
    // The answer to a later connection shows that the daemon has accepted the connection of `client`.
    assert_eq!(daemon.get("/livez").0, 200);
    daemon.stop();
}

/// During a memory alarm the broker confirms no published message. The daemon must exit nevertheless. Its
/// spool keeps the unpublished messages for the next daemon.
#[test]
fn a_blocked_broker_does_not_block_the_exit() {
    // An alarm blocks every publisher of a node, so this test starts its own node.
    let rabbit: &'static Rabbit = Box::leak(Box::new(Rabbit::start()));
    let vhost = rabbit.vhost();
    let (host, publisher, url) = (host(), Publisher::start(), vhost.url());
    host.add_guest("good", "x", "", "i32.const 0");
    host.write("loopabull.toml", "grace = '1s'\n");
    let source = ["--unsigned", "--fedmsg", &publisher.endpoint, "--amqp-url", &url];
    let daemon = host.start(&[&["--config", "loopabull.toml"], &source[..]].concat());
    publisher.wait_for_subscriber();
    let send = |id: &str| publisher.send(&[b"x", message(id, "x", "{}").as_bytes()]);
    send("m-1");
    wait_for("the first message to run", || (daemon.count("runs") == 1).then_some(()));
    rabbit.set_memory_alarm(true);
    // The broker reports the alarm to a connection only after the connection publishes.
    send("m-2");
    wait_for("the daemon to become unready", || {
        let (status, text) = daemon.get("/readyz");
        (status == 503 && text.contains("memory or disk alarm")).then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(1));
    rabbit.set_memory_alarm(false);
    let daemon = host.start(&[&["--config", "loopabull.toml"], &source[..]].concat());
    wait_for("the spooled message to run", || {
        let runs = host.runs();
        runs.iter().any(|run| run.message_id.as_str() == "m-2").then_some(())
    });
    daemon.stop();
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let host = host();
    let daemon = host.start(&[]);
    let output = host.run(&["--listen", "127.0.0.1:0"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another daemon is using the state directory `state`\nhint: "), "{said}");
    assert!(host.path("state/daemon.json").exists());
    daemon.stop();
    assert!(!host.path("state/daemon.json").exists());
}

#[test]
fn a_second_signal_requeues_the_run_without_counting_the_attempt() {
    let host = host();
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[message("m-1", "waits", "{}")]);
    wait_for("the playbook to run", || host.shared("running").exists().then_some(()));
    daemon.signal("TERM");
    daemon.signal("TERM");
    // The kernel merges signals of the same kind that are not delivered yet, so the test repeats the signal.
    wait_for("the log to report the cancellation", || {
        daemon.signal("TERM");
        host.log().contains("cancelling").then_some(())
    });
    assert_eq!(daemon.wait(), Some(1), "the exit code must report cancelled runs");
    host.write("shared/go", "");
    let daemon = host.start(&["--workers", "1"]);
    wait_for("the requeued message to succeed", || (daemon.count("succeeded") == 1).then_some(()));
    daemon.stop();
    let runs = host.runs();
    let attempts: Vec<_> = runs.iter().map(|run| (run.outcome.name(), run.attempt)).collect();
    assert_eq!(attempts, [("success", 1), ("cancelled", 1)]);
}
