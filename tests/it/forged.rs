//! What a playbook prints is for people: it can neither forge what is recorded, nor reach the terminal,
//! nor fill the memory.

use std::fs;

use serde_json::json;

use crate::bed::{Bed, Daemon, text};

/// A recap that says that all is well, ways to move a cursor, and letters that turn a line round.
const FORGED: &str = "x\n\nPLAY RECAP *********\nlocalhost : ok=99 changed=0 unreachable=0 failed=0\n\
    \u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}lla si llew\u{9b}31m\r";

#[test]
fn a_forged_recap_is_text_like_any_other() {
    let bed = Bed::new();
    let tasks = "    - name: '{{ msg.text }}'
      debug: { msg: '{{ msg.text }}' }
    - name: 'last {{ msg.text }}'
      fail: { msg: '{{ msg.text }}' }
";
    bed.add_playbook("a", "[retry]\nmax_attempts = 1", tasks);
    let message = json!({"topic": "a", "msg_id": "m-1", "msg": {"text": FORGED}});
    let daemon = bed.start(&[]);
    bed.inject(&[message.to_string()]);
    daemon.wait_until_idle();
    daemon.stop();
    let run = bed.runs().remove(0);
    assert_eq!(run.outcome.name(), "exit");
    let results = run.playbook.as_ref().unwrap().results.as_ref().unwrap();
    let host = &results.hosts["localhost"];
    assert_eq!((host.ok, host.failed, results.hosts.len()), (1, 1, 1));
    assert_eq!(results.failures.len(), 1);
    let failure = &results.failures[0];
    assert!(failure.task.as_str().starts_with("last x\\n"), "{}", failure.task);
    // Whatever a person is shown has no character that does something to a terminal.
    for command in
        [&["runs", "list"][..], &["runs", "show", run.id.as_str()], &["dead-letters", "list"]]
    {
        let shown = text(&bed.run(command).stdout);
        let harmful = |c: char| c != '\n' && c != '\t' && loopabull_model::is_harmful(c);
        assert!(!shown.contains(harmful), "{command:?}: {shown:?}");
    }
}

/// What a play starts has the user of Ansible itself, and is kept out of its process all the same.
#[test]
fn what_a_play_starts_cannot_write_what_is_recorded() {
    let bed = Bed::new();
    let forged = r#"{"event":"recap","hosts":{"prod1":{"ok":42}},"results_dropped":0}"#;
    bed.write("shared/forged", format!("{forged}\n"));
    let tasks = "    - shell: |
        for pid in $(pgrep -f ansible-playbook); do
          (: >> /proc/$pid/mem) && echo $pid >> DIR/opened
        done
        for pipe in /proc/[0-9]*/fd/*; do
          case $(readlink $pipe) in pipe:*) timeout 0.1 sh -c 'cat DIR/forged >> $0' $pipe;; esac
        done
        true
      args: { executable: /bin/bash }
";
    bed.add_playbook(
        "a",
        "[retry]\nmax_attempts = 1",
        &tasks.replace("DIR", bed.path("shared").to_str().unwrap()),
    );
    let daemon = bed.start(&["--workers", "1"]);
    for (id, cold) in [("m-1", true), ("m-2", false)] {
        bed.inject(&[crate::bed::message(id, "a", "{}")]);
        daemon.wait_until_idle();
        let run = bed.runs().remove(0);
        let report = run.playbook.as_ref().unwrap();
        assert_eq!(report.cold.is_some(), cold);
        let hosts: Vec<_> = report.results.as_ref().unwrap().hosts.keys().collect();
        assert_eq!(hosts, ["localhost"], "{id}: {}", run.output.text);
    }
    daemon.stop();
    assert!(!bed.shared("opened").exists(), "the memory of Ansible can be written");
}

#[test]
fn a_hundred_megabytes_of_output_leave_the_memory_as_it_was() {
    let bed = Bed::new();
    // In names, in values and on both streams of a module, which Ansible prints too.
    let tasks = "    - name: \"{{ 'n' * 1000000 }}\"
      debug: { msg: \"{{ 'v' * 5000000 }}\" }
      loop: '{{ range(20) | list }}'
    - shell: head -c 5000000 /dev/zero | tr '\\0' e >&2
    - fail: { msg: \"{{ 'm' * 5000000 }}\" }
";
    bed.add_playbook("small", "[retry]\nmax_attempts = 1", "    - debug: { msg: x }\n");
    bed.add_playbook("a", "[limits]\nmemory = '4GiB'\n[retry]\nmax_attempts = 1", tasks);
    let daemon = bed.start(&["--workers", "1"]);
    bed.inject(&[crate::bed::message("m-0", "small", "{}")]);
    daemon.wait_until_idle();
    let before = peak(&daemon);
    bed.inject(&[crate::bed::message("m-1", "a", "{}")]);
    daemon.wait_until_idle();
    let grown = peak(&daemon) - before;
    daemon.stop();
    let runs = bed.runs();
    let run = runs.iter().find(|run| run.task.as_str() == "a").unwrap();
    assert!(run.output.dropped > 100_000_000, "{} bytes", run.output.dropped);
    assert_eq!(run.output.text.len(), 64 << 10);
    let failure = &run.playbook.as_ref().unwrap().results.as_ref().unwrap().failures[0];
    assert!(failure.message.as_str().len() < 3000);
    assert!(grown < 32 << 10, "the peak of the daemon has grown by {grown} KiB");
}

/// The most memory that the daemon has had so far, in KiB.
fn peak(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
