//! The output of a playbook cannot forge the recorded results, control the terminal of a reader, or fill the
//! memory of the daemon.

use std::fs;

use serde_json::json;

use crate::test_host::{Daemon, TestHost, text};

/// A recap that claims success, control sequences for a terminal, and a character that reverses text.
const FORGED: &str = "x\n\nPLAY RECAP *********\nlocalhost : ok=99 changed=0 unreachable=0 failed=0\n\
    \u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}lla si llew\u{9b}31m\r";

#[test]
fn a_forged_recap_does_not_change_the_results() {
    let host = TestHost::new();
    let tasks = "    - name: '{{ msg.text }}'
      debug: { msg: '{{ msg.text }}' }
    - name: 'last {{ msg.text }}'
      fail: { msg: '{{ msg.text }}' }
";
    host.add_playbook("a", "[retry]\nmax_attempts = 1", tasks);
    let message = json!({"topic": "a", "msg_id": "m-1", "msg": {"text": FORGED}});
    let daemon = host.start(&[]);
    host.inject(&[message.to_string()]);
    daemon.wait_until_idle();
    daemon.stop();
    let run = host.runs().remove(0);
    assert_eq!(run.outcome.name(), "exit");
    let results = run.playbook.as_ref().unwrap().results.as_ref().unwrap();
    let counts = &results.hosts["localhost"];
    assert_eq!((counts.ok, counts.failed, results.hosts.len()), (1, 1, 1));
    assert_eq!(results.failures.len(), 1);
    let failure = &results.failures[0];
    assert!(failure.task.as_str().starts_with("last x\\n"), "{}", failure.task);
    // No command prints a character that controls a terminal.
    for command in
        [&["runs", "list"][..], &["runs", "show", run.id.as_str()], &["dead-letters", "list"]]
    {
        let shown = text(&host.run(command).stdout);
        let harmful = |c: char| c != '\n' && c != '\t' && loopabull_model::is_harmful(c);
        assert!(!shown.contains(harmful), "{command:?}: {shown:?}");
    }
}

/// The processes of a play have the same user as Ansible, but cannot access the process of Ansible.
#[test]
fn processes_of_a_play_cannot_forge_the_recorded_results() {
    let host = TestHost::new();
    let forged = r#"{"event":"recap","hosts":{"prod1":{"ok":42}},"results_dropped":0}"#;
    host.write("shared/forged", format!("{forged}\n"));
    let tasks = "    - shell: |
        for pid in $(pgrep -f ansible-playbook | grep -vx $$); do
          echo $pid >> DIR/processes
          (: >> /proc/$pid/mem) && echo $pid >> DIR/opened
        done
        for pipe in /proc/[0-9]*/fd/*; do
          case $pipe in /proc/$$/*) continue;; esac
          case $(readlink $pipe) in pipe:*)
            echo $pipe >> DIR/pipes
            timeout 0.1 sh -c 'cat DIR/forged >> $0' $pipe;;
          esac
        done
        true
      args: { executable: /bin/bash }
";
    host.add_playbook(
        "a",
        "[retry]\nmax_attempts = 1",
        &tasks.replace("DIR", host.path("shared").to_str().unwrap()),
    );
    let daemon = host.start(&["--workers", "1"]);
    for (id, cold) in [("m-1", true), ("m-2", false)] {
        host.inject(&[crate::test_host::message(id, "a", "{}")]);
        daemon.wait_until_idle();
        let run = host.runs().remove(0);
        let report = run.playbook.as_ref().unwrap();
        assert_eq!(report.cold.is_some(), cold);
        let hosts: Vec<_> = report.results.as_ref().unwrap().hosts.keys().collect();
        assert_eq!(hosts, ["localhost"], "{id}: {}", run.output.text);
    }
    daemon.stop();
    for tried in ["processes", "pipes"] {
        assert!(host.shared(tried).exists(), "the play found no {tried} to write to");
    }
    assert!(!host.shared("opened").exists(), "a process of the play opened the memory of Ansible");
}

#[test]
fn a_hundred_megabytes_of_output_do_not_fill_the_memory() {
    let host = TestHost::new();
    // The output is in a task name, in values, in the standard error of a command, and in a failure message.
    // Ansible prints all of them.
    let tasks = "    - name: \"{{ 'n' * 1000000 }}\"
      debug: { msg: \"{{ 'v' * 5000000 }}\" }
      loop: '{{ range(20) | list }}'
    - shell: head -c 5000000 /dev/zero | tr '\\0' e >&2
    - fail: { msg: \"{{ 'm' * 5000000 }}\" }
";
    host.add_playbook("small", "[retry]\nmax_attempts = 1", "    - debug: { msg: x }\n");
    host.add_playbook("a", "[limits]\nmemory = '4GiB'\n[retry]\nmax_attempts = 1", tasks);
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[crate::test_host::message("m-0", "small", "{}")]);
    daemon.wait_until_idle();
    let before = peak(&daemon);
    host.inject(&[crate::test_host::message("m-1", "a", "{}")]);
    daemon.wait_until_idle();
    let grown = peak(&daemon) - before;
    daemon.stop();
    let runs = host.runs();
    let run = runs.iter().find(|run| run.task.as_str() == "a").unwrap();
    assert!(run.output.dropped > 100_000_000, "{} bytes", run.output.dropped);
    assert_eq!(run.output.text.len(), 64 << 10);
    let failure = &run.playbook.as_ref().unwrap().results.as_ref().unwrap().failures[0];
    assert!(failure.message.as_str().len() < 3000);
    assert!(grown < 32 << 10, "the peak memory of the daemon has grown by {grown} KiB");
}

/// Returns the peak memory of the daemon so far, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
