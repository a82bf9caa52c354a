//! Tasks that fail in many ways. Each failure has a named outcome, and the worker continues.

use crate::test_host::{TestHost, message, processes_with, text, wait_for};

#[test]
fn components_that_misbehave_have_named_outcomes_and_the_worker_goes_on() {
    let host = TestHost::new();
    let manifest = "[limits]\ntimeout = '300ms'\nmemory = '1MiB'\noutput = '1KiB'\n[retry]\nmax_attempts = 2\npauses = ['100ms']";
    host.add_guest("loops", "a", manifest, "(loop $l br $l) unreachable");
    let grow =
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    host.add_guest("grows", "a", manifest, grow);
    host.add_guest("traps", "a", manifest, "unreachable");
    host.add_guest("rejects", "a", manifest, "i32.const 96");
    host.add_guest("retries", "a", manifest, "i32.const 128");
    host.add_guest("works", "a", manifest, "i32.const 0");
    // This guest prints 100,000 bytes; only the configured amount of output is kept.
    let flood = include_str!("../../host/crates/wasm/tests/guests/flood.wat");
    host.write("tasks/floods.wasm", wat::parse_str(flood).unwrap());
    host.write("tasks/floods.toml", "topics = ['a']\n[limits]\ntimeout = '60s'\noutput = '1KiB'");
    // There is only one worker, so a run that never ended would block all later runs.
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[message("m-1", "a", "{}"), message("m-2", "a", "{}")]);
    daemon.wait_until_idle();
    assert_eq!(daemon.get("/readyz").0, 200);
    assert_eq!(daemon.depth("dead"), Some(10));
    daemon.stop();
    let expected = [
        ("floods success", 2),
        ("grows memory", 4),
        ("loops deadline", 4),
        ("rejects reject", 2),
        ("retries retry", 4),
        ("traps trap", 4),
        ("works success", 2),
    ];
    assert_eq!(host.tally(), expected.map(|(name, count)| (name.to_owned(), count)).into());
    let runs = host.runs();
    let flood = runs.iter().find(|run| run.task.as_str() == "floods").unwrap();
    assert_eq!(flood.output.text.len(), 1024);
    assert_eq!(flood.output.dropped, 100_000 - 1024);
    // No task runs more often than `max_attempts`.
    assert!(runs.iter().all(|run| run.attempt <= 2));
}

#[test]
fn playbooks_that_fail_have_named_outcomes_and_leave_nothing_behind() {
    let host = TestHost::new();
    let manifest = |timeout: &str, attempts: u8| {
        format!(
            "topics = ['a']\n[limits]\ntimeout = '{timeout}'\n\
             [retry]\nmax_attempts = {attempts}\npauses = ['100ms']"
        )
    };
    host.add_playbook("fails", &manifest("60s", 2), "    - command: /bin/false\n");
    host.add_playbook("broken", &manifest("60s", 2), "    - no_such_module: {}\n");
    // The deadline leaves a slow machine time for the start of Ansible. The unusual duration identifies the
    // processes of this test.
    let sleep = "    - shell: (setsid sleep 60017 &); exec sleep 60017\n";
    host.add_playbook("sleeps", &manifest("20s", 1), sleep);
    host.add_playbook("works", &manifest("60s", 2), "    - debug: { msg: done }\n");
    let daemon = host.start(&["--workers", "2"]);
    host.inject(&[message("m-1", "a", "{}")]);
    daemon.wait_until_idle();
    // A playbook that Ansible cannot read does not run.
    assert_eq!(daemon.depth("held"), Some(1));
    daemon.stop();
    let expected = [("fails exit", 2), ("sleeps deadline", 1), ("works success", 1)];
    assert_eq!(host.tally(), expected.map(|(name, count)| (name.to_owned(), count)).into());
    let left: Vec<_> = std::fs::read_dir(host.path("state/runs")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_with("60017"), 0, "a process outlived its run");
    let runs = host.runs();
    let slept = runs.iter().find(|run| run.task.as_str() == "sleeps").unwrap();
    let killed = slept.playbook.as_ref().unwrap().killed;
    assert!(killed >= 1, "the process that left its session must be killed and counted: {killed}");
    let failed = runs.iter().find(|run| run.task.as_str() == "fails").unwrap();
    let results = failed.playbook.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!((results.hosts["localhost"].failed, results.is_complete), (1, true));
    let said = failed.outcome.to_string();
    assert_eq!(said, "exit: exit status 2: task `command` on localhost: non-zero return code");
}

#[test]
fn a_playbook_sees_only_the_environment_that_was_built_for_it() {
    let host = TestHost::new();
    let got = host.shared("environment");
    let tasks = format!("    - shell: env > {}\n", got.display());
    host.add_playbook("a", "", &tasks);
    host.write("message.json", message("m-1", "a", "{}"));
    let output = host
        .command(&["test", "a", "message.json"])
        .env("SSH_AUTH_SOCK", "/secret")
        .env("LOOPABULL_AMQP_URL", "")
        .env("API_TOKEN", "secret")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
    let environment = std::fs::read_to_string(got).unwrap();
    assert!(!environment.contains("secret"), "{environment}");
    assert!(environment.lines().any(|line| line.starts_with("HOME=") && line.contains("/tries/")));
}

#[test]
fn a_topic_that_looks_like_a_path_is_rejected() {
    let host = TestHost::new();
    host.write("outside.yml", "- hosts: localhost\n");
    let publisher = crate::test_host::Publisher::start();
    host.add_guest("all", "#", "", "i32.const 0");
    let daemon = host.start(&["--unsigned", "--fedmsg", &publisher.endpoint]);
    publisher.wait_for_subscriber();
    for topic in ["../outside", "/etc/passwd", "playbooks/../../outside"] {
        publisher.send(&[topic.as_bytes(), br#"{"msg":{}}"#]);
    }
    publisher.send(&[b"outside", br#"{"msg":{}}"#]);
    wait_for("the valid message to run", || (daemon.count("runs") == 1).then_some(()));
    assert_eq!(daemon.count("rejected"), 3);
    daemon.stop();
    assert_eq!(host.tally(), [("all success".to_owned(), 1)].into());
}
