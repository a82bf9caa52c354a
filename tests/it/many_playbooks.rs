//! Many runs of playbooks leave nothing behind: no process, no file, and no file descriptor or memory in the
//! daemon.

use std::fs;
use std::path::Path;

use crate::test_host::{Daemon, TestHost, message, processes_with};

/// The resources that a daemon uses.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// Resident memory in KiB.
    memory: u64,
    folders: usize,
    processes: usize,
}

fn look(host: &TestHost, daemon: &Daemon) -> Held {
    let process = Path::new("/proc").join(daemon.id());
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    let status = fs::read_to_string(process.join("status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Held {
        descriptors: count(&process.join("fd")),
        threads: count(&process.join("task")),
        memory: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        folders: count(&host.path("state/runs")),
        processes: children(&daemon.id()),
    }
}

/// Counts the children of a process.
fn children(parent: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_child = |stat: &String| {
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').nth(1) == Some(parent));
        fields.unwrap_or(false)
    };
    stats.filter(is_child).count()
}

/// Runs `count` messages, every tenth with a cold start. Compares the resources that the daemon uses at the
/// end with those after the first 30 messages.
fn check(count: usize) {
    let host = TestHost::new();
    // Each run leaves a process and a file behind.
    let tasks = "    - shell: (setsid sleep 60021 >/dev/null 2>&1 &); echo > $HOME/left\n";
    host.add_playbook("warm", "", tasks);
    host.add_playbook("cold", "ansible.start = 'cold'", tasks);
    let daemon = host.start(&["--workers", "3"]);
    let work = |range: std::ops::Range<usize>| {
        let topic = |number: usize| if number.is_multiple_of(10) { "cold" } else { "warm" };
        let messages = range.map(|number| message(&format!("m-{number}"), topic(number), "{}"));
        host.inject(&messages.collect::<Vec<_>>());
        daemon.wait_until_idle_for(std::time::Duration::from_secs(3000));
    };
    work(0..30);
    let before = look(&host, &daemon);
    work(30..count);
    let after = look(&host, &daemon);
    println!("{count} runs: {before:?}, then {after:?}");
    assert_eq!(daemon.count("succeeded"), count as u64);
    // Each file of the state keeps up to four idle connections for queries.
    assert!(after.descriptors <= before.descriptors + 16, "{before:?}, {after:?}");
    assert!(after.threads <= before.threads + 4, "{before:?}, {after:?}");
    assert!(after.memory <= before.memory + (24 << 10), "{before:?}, {after:?}");
    // Each of the three workers may keep one process and one folder for the next warm run.
    assert!(after.folders <= 3 && before.folders <= 3, "{before:?}, {after:?}");
    assert!(after.processes <= 3, "{before:?}, {after:?}");
    assert_eq!(processes_with("60021"), 0);
    daemon.stop();
    assert_eq!(fs::read_dir(host.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn seventy_playbook_runs_leave_nothing_behind() {
    check(70);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_playbooks_leave_nothing_behind() {
    check(2000);
}
