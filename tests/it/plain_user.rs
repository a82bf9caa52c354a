//! The whole daemon as a plain user, who has no capability: with user namespaces, and without any namespace or control
//! group.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use loopabull_model::{LayerState, Run};

use crate::test_host::{TestHost, message, processes_with, untried, wait_for};

/// A user that no other test uses.
const USER: u32 = 64_020;

fn has_namespaces(run: &Run) -> bool {
    let layers = &run.playbook.as_ref().unwrap().layers;
    layers.iter().any(|layer| layer.layer == "namespaces" && layer.state == LayerState::Active)
}

fn may_make_namespaces() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--mount", "--pid", "true"]).uid(USER).gid(USER);
    unshare.status().is_ok_and(|status| status.success())
}

#[test]
fn a_daemon_without_any_capability_keeps_the_promises() {
    let outside = tempfile::tempdir_in("/srv").unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let hidden = outside.path().join("hidden");
    fs::write(&hidden, "x").unwrap();
    let without = "[playbook]\nwithout = ['cgroup', 'namespaces']\n";
    let mut modes = vec![(without, true, "60022")];
    if may_make_namespaces() {
        modes.push(("", false, "60021"));
    } else {
        untried("this user may make no namespaces, UNTRIED: a daemon of a plain user with them");
    }
    for (config, names_layers, sleep) in modes {
        let host = TestHost::of_user(USER);
        host.write("loopabull.toml", format!("grace = '2s'\n{config}"));
        host.add_guest("component", "component", "", "i32.const 0");
        let tasks = format!(
            "    - shell: \"(setsid sleep {sleep} &); id -u; cat {0} || echo denied\"\n      register: said\n    \
                 - copy: {{ content: '{{{{ said.stdout }}}}', dest: '{1}' }}\n",
            hidden.display(),
            host.shared("said").display()
        );
        host.add_playbook("playbook", "", &tasks);
        let waits = format!(
            "    - file: {{ path: '{}', state: touch }}\n    - command: sleep {sleep}\n      when: not again.stat.exists\n",
            host.shared("began").display()
        );
        let seen = format!(
            "    - stat: {{ path: '{}' }}\n      register: again\n",
            host.shared("began").display()
        );
        host.add_playbook("waits", "", &format!("{seen}{waits}"));
        let flags = ["--config", "loopabull.toml", "--workers", "2"];
        let daemon = host.start(&flags);
        host.inject(&[message("m-1", "component", "{}"), message("m-2", "playbook", "{}")]);
        daemon.wait_until_idle();
        let runs = host.runs();
        assert!(runs.len() == 2 && runs.iter().all(|run| run.outcome.is_success()), "{runs:?}");
        let play = runs.iter().find(|run| run.playbook.is_some()).unwrap();
        assert_eq!(has_namespaces(play), !names_layers, "{play:?}");
        let said = fs::read_to_string(host.shared("said")).unwrap();
        assert_eq!(said, format!("{USER}\ndenied"));
        assert_eq!(processes_with(&format!("sleep\0{sleep}")), 0, "a process is left");
        for entry in fs::read_dir(host.path("state")).unwrap().map(Result::unwrap) {
            let found = entry.metadata().unwrap();
            assert_eq!(found.uid(), USER, "{entry:?}");
            assert!(entry.file_name() == "ansible" || found.mode() & 0o077 == 0, "{entry:?}");
        }
        // The daemon dies during a run: the run ends too, and the message is not lost.
        host.inject(&[message("m-3", "waits", "{}")]);
        wait_for("the run to begin", || host.shared("began").exists().then_some(()));
        daemon.signal("KILL");
        drop(daemon);
        wait_for("the run to end", || {
            (processes_with(&format!("sleep\0{sleep}")) == 0).then_some(())
        });
        let daemon = host.start(&flags);
        daemon.wait_until_idle();
        assert_eq!(host.tally().get("waits success"), Some(&1), "{:?}", host.tally());
        assert_eq!(daemon.depth("dead"), Some(0));
        daemon.stop();
    }
}
