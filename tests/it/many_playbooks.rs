//! Many runs of playbooks leave nothing: no descriptor, process, file or memory of the host.

use std::fs;
use std::path::Path;

use crate::bed::{Bed, Daemon, message, processes_with};

/// What a daemon holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// KiB.
    memory: u64,
    folders: usize,
    processes: usize,
}

fn look(bed: &Bed, daemon: &Daemon) -> Held {
    let process = Path::new("/proc").join(daemon.id());
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    let status = fs::read_to_string(process.join("status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Held {
        descriptors: count(&process.join("fd")),
        threads: count(&process.join("task")),
        memory: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        folders: count(&bed.path("state/runs")),
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

/// Works so many messages, cold ones among them, and compares what is held then with what was after
/// the first fifty.
fn check(count: usize) {
    let bed = Bed::new();
    // Each leaves a process and a file behind.
    let tasks = "    - shell: (setsid sleep 60021 >/dev/null 2>&1 &); echo > $HOME/left\n";
    bed.add_playbook("warm", "", tasks);
    bed.add_playbook("cold", "ansible.start = 'cold'", tasks);
    let daemon = bed.start(&["--workers", "3"]);
    let work = |range: std::ops::Range<usize>| {
        let topic = |number: usize| if number.is_multiple_of(10) { "cold" } else { "warm" };
        let messages = range.map(|number| message(&format!("m-{number}"), topic(number), "{}"));
        bed.inject(&messages.collect::<Vec<_>>());
        daemon.wait_until_idle_for(std::time::Duration::from_secs(3000));
    };
    work(0..30);
    let before = look(&bed, &daemon);
    work(30..count);
    let after = look(&bed, &daemon);
    println!("{count} runs: {before:?}, then {after:?}");
    assert_eq!(daemon.count("succeeded"), count as u64);
    assert!(after.descriptors <= before.descriptors + 2, "{before:?}, {after:?}");
    assert!(after.threads <= before.threads + 4, "{before:?}, {after:?}");
    assert!(after.memory <= before.memory + (24 << 10), "{before:?}, {after:?}");
    // What waits for another run is as much as there are workers, and no more.
    assert!(after.folders <= 3 && before.folders <= 3, "{before:?}, {after:?}");
    assert!(after.processes <= 3, "{before:?}, {after:?}");
    assert_eq!(processes_with("60021"), 0);
    daemon.stop();
    assert_eq!(fs::read_dir(bed.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn seventy_runs_leave_nothing() {
    check(70);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_playbooks_leave_nothing() {
    check(2000);
}
