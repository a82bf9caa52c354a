//! `status`, `/readyz` and `/warnings` tell the truth about the daemon, its sources and held messages.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::process::Stdio;

use loopabull_testbed::Rabbit;

use crate::test_host::{Daemon, TestHost, message, text, wait_for};

/// Runs the command `status`. Returns its output and whether it succeeded.
fn status(host: &TestHost, flags: &[&str]) -> (String, bool) {
    let output = host.run(&[&["status"], flags].concat());
    (text(&output.stdout) + &text(&output.stderr), output.status.success())
}

/// `--watch` shows each change, until nobody reads its output any more.
#[test]
fn the_status_is_watched_until_its_reader_ends() {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    let daemon = host.start(&[]);
    let mut command = host.command(&["status", "--watch", "--interval", "500ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line == "runs     none"));
    host.inject(&[message("m-1", "good", "{}")]);
    assert!(lines.by_ref().any(|line| line == "runs     1 success"));
    drop(lines);
    let code = wait_for("the end of the command", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(0));
    let (said, _) = status(&host, &["--watch", "--interval", "1ms"]);
    assert!(said.contains("the shortest time is 500ms"), "{said}");
    daemon.stop();
}

#[test]
fn a_daemon_that_drains_is_not_ready() {
    let host = TestHost::new();
    let go = host.shared("go");
    let tasks = format!("    - shell: while ! test -e {}; do sleep 0.1; done\n", go.display());
    host.add_playbook("waits", "", &tasks);
    let daemon = host.start(&[]);
    host.inject(&[message("m-1", "waits", "{}")]);
    wait_for("the run to start", || daemon.get("/api/v1/status").1.contains("m-1").then_some(()));
    wait_for("the daemon to be ready", || status(&host, &[]).1.then_some(()));
    daemon.signal("TERM");
    wait_for("the drain", || status(&host, &[]).0.starts_with("daemon   draining\n").then_some(()));
    assert!(!status(&host, &[]).1);
    assert_eq!(daemon.get("/readyz").0, 503);
    std::fs::write(go, "").unwrap();
    assert_eq!(daemon.wait(), Some(0));
    assert!(status(&host, &[]).0.starts_with("daemon   not running\n"));
}

#[test]
fn a_daemon_that_cannot_be_asked_is_not_called_dead() {
    let host = TestHost::new();
    let daemon = host.start(&[]);
    daemon.signal("STOP");
    let (said, is_ready) = status(&host, &[]);
    assert!(said.starts_with("daemon   running, but does not answer: timeout"), "{said}");
    assert!(!is_ready);
    daemon.signal("CONT");
    daemon.stop();
    let (said, _) = status(&host, &["--state", "elsewhere"]);
    assert!(said.contains("`elsewhere`, which does not exist"), "{said}");
    // A file that the user of the command may not read.
    let file = host.path("state/daemon.json");
    drop(std::fs::remove_file(&file));
    symlink(&file, &file).unwrap();
    let (said, is_ready) = status(&host, &[]);
    assert!(said.contains("cannot read the daemon file") && !is_ready, "{said}");
    assert!(said.contains("hint: run the command as root or as the user of the daemon"), "{said}");
}

#[test]
fn a_source_that_is_not_connected_is_a_problem() {
    let host = TestHost::new();
    let (here, gone) = (crate::test_host::Publisher::start(), "tcp://127.0.0.1:1");
    let flags = ["--unsigned", "--fedmsg", &here.endpoint, "--fedmsg", gone];
    let daemon = host.start(&flags);
    let said = wait_for("the problem", || {
        let (code, said) = daemon.get("/readyz");
        (code == 503).then_some(said)
    });
    assert!(
        said.contains("127.0.0.1:1: unavailable for 3") && said.contains("cannot connect"),
        "{said}"
    );
    assert!(!said.contains(&here.endpoint), "{said}");
    daemon.stop();
}

fn wait_for_held(daemon: &Daemon, count: u64) {
    wait_for("held messages", || (daemon.depth("held") == Some(count)).then_some(()));
}

/// One task is paused, one is refused, and one is not installed any more.
fn check_held(flags: &[&str], knows_time: bool) {
    let host = TestHost::new();
    host.add_guest("away", "a", "", "i32.const 0");
    host.add_guest("paused", "a", "", "i32.const 0");
    host.add_playbook("broken", "topics = ['a']\n", "    - no_such_module:\n");
    let run = |arguments: &[&str]| {
        let output = host.run(&[arguments, flags].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    run(&["pause", "--task", "paused", "--reason", "a test"]);
    host.write("two.json", [message("m-1", "a", "{}"), message("m-2", "a", "{}")].join("\n"));
    run(&["inject", "two.json"]);
    for name in ["away.wasm", "away.toml"] {
        std::fs::remove_file(host.path("tasks").join(name)).unwrap();
    }
    let daemon = host.start(flags);
    wait_for_held(&daemon, 6);
    let (said, is_ready) = status(&host, flags);
    assert!(!is_ready);
    for (task, reason) in [
        ("away", "refused: it is not installed"),
        ("broken", "refused: "),
        ("paused", "paused by the operator: a test"),
    ] {
        let start = format!("held     2 messages of task `{task}` in queue `workers`");
        let line = said.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{task} is not in:\n{said}"));
        assert!(line.contains(reason), "{line}");
        assert_eq!(line.contains(", the oldest for "), knows_time, "{line}");
    }
    let (code, warnings) = daemon.get("/warnings");
    assert_eq!(code, 503);
    assert!(
        warnings.contains("queue `workers`: 2 messages are held for task `paused`"),
        "{warnings}"
    );
    assert!(warnings.contains("task `paused` is paused by the operator: a test"), "{warnings}");
    run(&["resume", "--task", "paused"]);
    wait_for_held(&daemon, 4);
    assert!(!daemon.get("/warnings").1.contains("`paused`"));
    daemon.stop();
}

#[test]
fn held_messages_are_shown_by_task_with_the_embedded_queue() {
    check_held(&[], true);
}

#[test]
fn held_messages_are_shown_by_task_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    check_held(&["--amqp-url", &vhost.url()], false);
}
