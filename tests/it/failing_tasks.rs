//! Tasks that fail in every way: each has its outcome by name, and the worker goes on.

use crate::bed::{Bed, message, processes_with, text, wait_for};

#[test]
fn components_that_misbehave_have_named_outcomes_and_the_worker_goes_on() {
    let bed = Bed::new();
    let manifest = "[limits]\ntimeout = '300ms'\nmemory = '1MiB'\noutput = '1KiB'\n[retry]\nmax_attempts = 2\npauses = ['100ms']";
    bed.add_guest("loops", "a", manifest, "(loop $l br $l) unreachable");
    let grow =
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    bed.add_guest("grows", "a", manifest, grow);
    bed.add_guest("traps", "a", manifest, "unreachable");
    bed.add_guest("rejects", "a", manifest, "i32.const 96");
    bed.add_guest("retries", "a", manifest, "i32.const 128");
    bed.add_guest("works", "a", manifest, "i32.const 0");
    // Prints without end: what is kept is capped, and so is its time.
    let flood = include_str!("../../host/crates/wasm/tests/guests/flood.wat");
    bed.write("tasks/floods.wasm", wat::parse_str(flood).unwrap());
    bed.write("tasks/floods.toml", "topics = ['a']\n[limits]\ntimeout = '60s'\noutput = '1KiB'");
    // One worker: whatever one task does, the next delivery waits for this worker.
    let daemon = bed.start(&["--workers", "1"]);
    bed.inject(&[message("m-1", "a", "{}"), message("m-2", "a", "{}")]);
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
    assert_eq!(bed.tally(), expected.map(|(name, count)| (name.to_owned(), count)).into());
    let runs = bed.runs();
    let flood = runs.iter().find(|run| run.task.as_str() == "floods").unwrap();
    assert_eq!(flood.output.text.len(), 1024);
    assert_eq!(flood.output.dropped, 100_000 - 1024);
    // The last attempt is the last.
    assert!(runs.iter().all(|run| run.attempt <= 2));
}

#[test]
fn playbooks_that_fail_have_named_outcomes_and_leave_nothing_behind() {
    let bed = Bed::new();
    let manifest = |timeout: &str| {
        format!(
            "topics = ['a']\n[limits]\ntimeout = '{timeout}'\n[retry]\nmax_attempts = 2\npauses = ['100ms']"
        )
    };
    bed.add_playbook("fails", &manifest("60s"), "    - command: /bin/false\n");
    bed.add_playbook("broken", &manifest("60s"), "    - no_such_module: {}\n");
    // A number that no other sleeper on this machine has.
    let sleep = "    - shell: (setsid sleep 60017 &); exec sleep 60017\n";
    bed.add_playbook("sleeps", &manifest("5s"), sleep);
    bed.add_playbook("works", &manifest("60s"), "    - debug: { msg: done }\n");
    let daemon = bed.start(&["--workers", "2"]);
    bed.inject(&[message("m-1", "a", "{}")]);
    daemon.wait_until_idle();
    daemon.stop();
    let expected = [
        // What Ansible cannot read is not tried again.
        ("broken unreadable", 1),
        ("fails exit", 2),
        ("sleeps deadline", 2),
        ("works success", 1),
    ];
    assert_eq!(bed.tally(), expected.map(|(name, count)| (name.to_owned(), count)).into());
    let left: Vec<_> = std::fs::read_dir(bed.path("state/runs")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes_with("60017"), 0, "the sleepers are gone when the run has ended");
    let runs = bed.runs();
    let slept = runs.iter().find(|run| run.task.as_str() == "sleeps").unwrap();
    let killed = slept.playbook.as_ref().unwrap().killed;
    assert!(killed >= 1, "the one that left its session was killed and counted, {killed}");
    let failed = runs.iter().find(|run| run.task.as_str() == "fails").unwrap();
    let results = failed.playbook.as_ref().unwrap().results.as_ref().unwrap();
    assert_eq!((results.hosts["localhost"].failed, results.is_complete), (1, true));
    let said = failed.outcome.to_string();
    assert_eq!(said, "exit: exit status 2: task `command` on localhost: non-zero return code");
}

#[test]
fn a_playbook_sees_only_the_environment_that_was_built_for_it() {
    let bed = Bed::new();
    let got = bed.shared("environment");
    let tasks = format!("    - shell: env > {}\n", got.display());
    bed.add_playbook("a", "", &tasks);
    bed.write("message.json", message("m-1", "a", "{}"));
    let output = bed
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
fn a_topic_is_never_a_path() {
    let bed = Bed::new();
    bed.write("outside.yml", "- hosts: localhost\n");
    let publisher = crate::bed::Publisher::start();
    bed.add_guest("all", "#", "", "i32.const 0");
    let daemon = bed.start(&["--unsigned", "--fedmsg", &publisher.endpoint]);
    publisher.wait_for_subscriber();
    for topic in ["../outside", "/etc/passwd", "playbooks/../../outside"] {
        publisher.send(&[topic.as_bytes(), br#"{"msg":{}}"#]);
    }
    publisher.send(&[b"outside", br#"{"msg":{}}"#]);
    wait_for("the good one", || (daemon.count("runs") == 1).then_some(()));
    assert_eq!(daemon.count("rejected"), 3);
    daemon.stop();
    assert_eq!(bed.tally(), [("all success".to_owned(), 1)].into());
}
