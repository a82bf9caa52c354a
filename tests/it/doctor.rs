//! `doctor` finds what is wrong with a machine, and says what to do about it.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use loopabull_testbed::Rabbit;
use serde_json::Value;

use crate::actions::OPERATE;
use crate::test_host::{TestHost, message, text, wait_for};

/// Returns the findings, as `level about: text` with the hint, and the exit code.
fn examine(host: &TestHost, flags: &[&str]) -> (Vec<String>, i32) {
    // Another daemon of this machine may have the default port.
    host.write("port.toml", "listen = '127.0.0.1:0'\n");
    let settings: &[&str] =
        if flags.contains(&"--config") { &[] } else { &["--config", "port.toml"] };
    findings(&host.run(&[settings, flags, &["doctor", "--json"]].concat()))
}

fn findings(output: &Output) -> (Vec<String>, i32) {
    let line = |line: &str| {
        let finding: Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {} [{}]", word("level"), word("about"), word("text"), word("hint"))
    };
    assert_eq!(text(&output.stderr), "");
    (text(&output.stdout).lines().map(line).collect(), output.status.code().unwrap())
}

fn has(found: &[String], start: &str, part: &str) {
    let is_there = found.iter().any(|line| line.starts_with(start) && line.contains(part));
    assert!(is_there, "no `{start}` with `{part}` in {found:#?}");
}

#[test]
fn a_good_machine_has_no_problem() {
    let host = TestHost::new();
    host.add_playbook("play", "", "    - command: 'true'\n");
    let (found, code) = examine(&host, &[]);
    assert_eq!(code, 0, "{found:#?}");
    has(&found, "note state directory", "does not exist; the daemon creates it");
    has(&found, "note daemon", "none is running");
    assert!(!host.path("state").exists(), "it has changed something");
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[message("m-1", "play", "{}")]);
    wait_for("the run", || (host.runs().len() == 1).then_some(()));
    let (found, code) = examine(&host, &[]);
    assert_eq!(code, 0, "{found:#?}");
    for about in [
        "configuration: its values are valid",
        "state directory: `state` belongs to user",
        "disk: ",
        "file descriptors: the daemon may open",
        "clock: it says 20",
        "tasks: there is 1",
        "playbooks: layer syscalls is active",
        "queue: it is embedded",
        "daemon: it is ready",
    ] {
        has(&found, &format!("good {about}"), "");
    }
    let plain = host.run(&["--config", "port.toml", "doctor"]);
    assert!(text(&plain.stdout).contains("good     daemon: it is ready\n"), "{plain:?}");
    daemon.stop();
}

#[test]
fn each_fault_is_found_and_has_a_hint() {
    let host = TestHost::new();
    host.add_playbook("play", "", "    - command: 'true'\n");
    host.write("playbooks/bad.toml", "topics = 1").write("playbooks/bad.yml", "[]");
    host.write("operate", OPERATE).write("short", "x");
    fs::set_permissions(host.path("operate"), Permissions::from_mode(0o644)).unwrap();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let listen = taken.local_addr().unwrap();
    host.write(
        "loopabull.toml",
        format!(
            "listen = '{listen}'\noperate_token_file = 'operate'\namqp_url = 'amqp://127.0.0.1:1'\n\
             [warnings]\nfree = '1000PiB'\n[playbook]\nansible_playbook = '/nothing'\n"
        ),
    );
    fs::create_dir(host.path("state")).unwrap();
    fs::set_permissions(host.path("state"), Permissions::from_mode(0o755)).unwrap();
    let flags = ["--config", "loopabull.toml"];
    let (found, code) = examine(&host, &flags);
    assert_eq!(code, 1);
    for (start, part) in [
        ("problem configuration", "or make a token"),
        ("warning state directory", "chmod go-rwx"),
        ("problem port: no daemon can listen on `0.0.0.0:", "[name a free address"),
        ("problem disk", "[make room"),
        ("problem token: other users can read or change `operate`", "[`chmod go-w,o-r operate`]"),
        ("problem tasks: `bad` is refused", "topics"),
        ("problem playbooks", "/nothing"),
        ("problem queue", "127.0.0.1:1"),
    ] {
        has(&found, start, part);
    }
    host.write("loopabull.toml", "token_file = 'short'\n");
    has(&examine(&host, &flags).0, "problem token", "the token in `short` cannot be used");

    host.write(
        "loopabull.toml",
        "playbooks = 'nowhere'\nfedora_messaging_config = 'nothing.toml'\n",
    );
    let (found, code) = examine(&host, &flags);
    assert_eq!(code, 1);
    has(&found, "problem tasks: the daemon does not start: `nowhere`", "create the directory");
    has(&found, "problem configuration", "nothing.toml");
    host.write("state/journal.db", "no database, but some text that is long enough for one");
    has(&examine(&host, &[]).0, "problem state directory", "journal.db");
    // No password is shown.
    host.write("loopabull.toml", "workers = 1\namqp_url = \"amqp://u:s3cret@h/\n");
    let said = host.run(&["--config", "loopabull.toml", "doctor"]);
    let said = text(&said.stdout) + &text(&said.stderr);
    assert!(said.contains("TOML parse error at line 2") && !said.contains("s3cret"), "{said}");
    host.write("loopabull.toml", "workers = \"amqp://u:s3cret@h/\"\n");
    let said = text(&host.run(&["--config", "loopabull.toml", "doctor"]).stderr);
    assert!(said.contains("TOML parse error at line 1") && !said.contains("s3cret"), "{said}");

    // A limit of the daemon, or else of the shell.
    let mut command = std::process::Command::new("sh");
    command.current_dir(host.path("")).arg("-c").arg("ulimit -n 512; exec \"$0\" doctor --json");
    let output = command.arg(host.command(&[]).get_program()).output().unwrap();
    let (found, _) = findings(&output);
    has(&found, "warning file descriptors: a daemon started from here may open 512", "LimitNOFILE");
}

/// A clock that was set back.
#[test]
fn a_run_in_the_future_is_found() {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[message("m-1", "good", "{}")]);
    wait_for("the run", || (host.runs().len() == 1).then_some(()));
    daemon.stop();
    has(&examine(&host, &[]).0, "good clock", "");
    let journal = rusqlite::Connection::open(host.path("state/journal.db")).unwrap();
    journal.execute("UPDATE runs SET started_at_ms = started_at_ms + 3600000", []).unwrap();
    drop(journal);
    has(&examine(&host, &[]).0, "problem clock", "time service");
    let daemon = host.start(&["--workers", "1"]);
    has(&examine(&host, &[]).0, "problem clock", "time service");
    daemon.signal("STOP");
    let (found, code) = examine(&host, &[]);
    assert_eq!(code, 1);
    has(&found, "problem daemon", "does not answer");
    daemon.signal("CONT");
    daemon.stop();
}

#[test]
fn a_broker_is_examined() {
    let vhost = Rabbit::shared().vhost();
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    let url = vhost.url();
    let (found, code) = examine(&host, &["--amqp-url", &url]);
    assert_eq!(code, 0, "{found:#?}");
    has(&found, "good queue: RabbitMQ ", "answers");
    has(&found, "note queue", "queues are missing on the broker");
    let secret = url.split("//").nth(1).and_then(|rest| rest.split('@').next()).unwrap();
    assert!(secret.contains(':') && found.iter().all(|line| !line.contains(secret)), "{found:#?}");
}
