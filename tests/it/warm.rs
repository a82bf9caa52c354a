//! Warm starts. A warm run is started by a controller, which is a process that has already imported Ansible.
//! It does the same as a cold run, and leaves nothing behind for the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use loopabull_model::{PlaybookReport, Run};

use crate::test_host::{Daemon, TestHost, message, processes_with, wait_for};

/// Runs a message in this daemon and returns the record of the run.
fn run(host: &TestHost, daemon: &Daemon, id: &str, topic: &str) -> Run {
    host.inject(&[message(id, topic, r#"{"word":"{{ 6 * 7 }}"}"#)]);
    daemon.wait_until_idle();
    let runs = host.runs();
    runs.into_iter().find(|run| run.message_id.to_string() == id).expect("the message was run")
}

/// Returns the ids of all processes of each controller of a test host. The key is the number in the name of
/// the controller's folder, which is part of `HOME` in the environment of its processes.
fn controllers(host: &TestHost) -> BTreeMap<String, Vec<String>> {
    let home = format!("HOME={}/warm-", host.path("state/runs").display());
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        if let Some((_, rest)) = environment.split_once(&home) {
            let name = rest.split('/').next().unwrap().to_owned();
            found.entry(name).or_default().push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

/// Sends a signal to all controllers of a test host.
fn signal(host: &TestHost, signal: &str) {
    let pids: Vec<_> = controllers(host).into_values().flatten().collect();
    assert!(!pids.is_empty());
    let sent = Command::new("kill").arg(format!("-{signal}")).args(pids).status();
    assert!(sent.is_ok());
}

fn report(run: &Run) -> &PlaybookReport {
    run.playbook.as_ref().expect("a playbook has a report")
}

#[test]
fn the_second_run_of_a_playbook_is_warm() {
    let host = TestHost::new();
    host.add_playbook("a", "", "    - debug: { msg: 'got {{ msg.word }}' }\n");
    let daemon = host.start(&["--workers", "1"]);
    let cold = run(&host, &daemon, "m-1", "a");
    assert_eq!(report(&cold).cold.as_deref(), Some("first"));
    for id in ["m-2", "m-3"] {
        let warm = run(&host, &daemon, id, "a");
        assert_eq!(report(&warm).cold, None);
        assert_eq!(warm.output, cold.output);
        assert_eq!(report(&warm).results, report(&cold).results);
        assert_eq!(report(&warm).layers, report(&cold).layers);
    }
    assert!(daemon.get("/metrics").1.contains("playbook_cold_starts_total{reason=\"first\"} 1"));
    daemon.stop();
    assert!(
        fs::read_dir(host.path("state/runs")).unwrap().next().is_none(),
        "a folder of a run is left"
    );
    assert_eq!(processes_with(host.path("state").to_str().unwrap()), 0);
}

#[test]
fn without_namespaces_every_run_is_cold_and_that_is_said_once() {
    let host = TestHost::new();
    host.write("loopabull.toml", "[playbook]\nwithout = ['cgroup', 'namespaces']\n");
    host.add_playbook("a", "", "    - debug: { msg: x }\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    for (id, reason) in [("m-1", "first"), ("m-2", "no-controller"), ("m-3", "no-controller")] {
        assert_eq!(report(&run(&host, &daemon, id, "a")).cold.as_deref(), Some(reason));
    }
    daemon.stop();
    assert_eq!(host.log().matches("every playbook is started cold").count(), 1, "{}", host.log());
    assert!(!host.log().contains("cannot start a controller"), "{}", host.log());
}

#[test]
fn a_run_finds_nothing_of_the_previous_run() {
    let host = TestHost::new();
    // The play first records the files, processes and variables that it finds. Then it leaves files, a
    // process and a variable behind.
    let tasks = format!(
        "    - shell: ls -A $HOME; ls -A /dev/shm; env | sort; umask; pwd; pgrep -x sleep | wc -l; ulimit -a
      register: found
    - copy: {{ content: '{{{{ found.stdout }}}}', dest: '{}/{{{{ loopabull.id }}}}' }}
    - shell: |
        echo > $HOME/left; mkdir -m 0 $HOME/shut; echo > /dev/shm/left; cd $HOME
        (setsid sleep 60019 &)
    - set_fact: {{ left: here }}
    - debug: {{ msg: '{{{{ left }}}}' }}
",
        host.path("shared").display()
    );
    host.add_playbook("a", "", &tasks);
    let daemon = host.start(&["--workers", "1"]);
    for id in ["m-1", "m-2", "m-3"] {
        let run = run(&host, &daemon, id, "a");
        assert!(run.outcome.is_success(), "{}", run.output.text);
        assert!(report(&run).killed >= 1, "the process that the run left was not killed");
    }
    // Only the name of the folder may differ between the runs.
    let found = |id: &str| {
        let text = fs::read_to_string(host.shared(id)).unwrap();
        let without_names = |line: &str| match line.find("/state/runs/") {
            Some(start) => {
                let rest = &line[start + "/state/runs/".len()..];
                let end = rest.find(['/', ' ', ':']).unwrap_or(rest.len());
                format!("{}RUN{}", &line[..start], &rest[end..])
            }
            None => line.to_owned(),
        };
        text.lines().map(without_names).filter(|line| !is_made_up(line)).collect::<Vec<_>>()
    };
    let (first, second, third) = (found("m-1"), found("m-2"), found("m-3"));
    assert_eq!(first, second);
    assert_eq!(second, third);
    assert!(!third.iter().any(|line| line.contains("left") || line.contains("60019")), "{third:?}");
    daemon.stop();
}

/// The first play changes everything that it can change in its mounts, and the others need it. They may find
/// only mounts that are new for each run, that the controller compares, or that are granted.
#[test]
fn a_run_cannot_break_the_mounts_of_the_next_run() {
    let host = TestHost::new();
    let look = "import os, pty, sys, time
os.close(pty.openpty()[0])
open('/dev/shm/x', 'w').close()
os.unlink('/dev/shm/x')
open('/proc/version').read()
mounts = [line.split() for line in open('/proc/self/mountinfo')]
writable = sorted(m[4] for m in mounts if 'rw' in m[5].split(','))
print(' '.join(writable), file=open(sys.argv[1], 'w'))
";
    host.write("shared/look.py", look);
    let folder = host.path("shared").display().to_string();
    let look = format!("    - command: python3 {folder}/look.py {folder}/{{{{ loopabull.id }}}}\n");
    let harm = "    - shell: chmod 0 /dev/pts/ptmx /dev/pts /dev/shm /proc/version /dev/null /tmp; \
                chown 1 /dev/pts/ptmx; true\n";
    host.add_playbook("look", "[retry]\nmax_attempts = 1", &look);
    host.add_playbook("harm", "[retry]\nmax_attempts = 1", harm);
    let daemon = host.start(&["--workers", "1"]);
    let topics = ["look", "look", "harm", "look", "look"];
    for (id, topic) in ["m-1", "m-2", "m-3", "m-4", "m-5"].into_iter().zip(topics) {
        let run = run(&host, &daemon, id, topic);
        assert!(run.outcome.is_success(), "{id}: {}\n{}", run.outcome, run.output.text);
    }
    let state = host.path("state/runs").canonicalize().unwrap();
    for id in ["m-1", "m-2", "m-4", "m-5"] {
        let found = fs::read_to_string(host.shared(id)).unwrap();
        let is_known = |place: &&str| {
            ["/dev/shm", "/dev/pts", "/tmp", "/var/tmp", &folder].contains(place)
                || std::path::Path::new(place).starts_with(&state)
        };
        let others: Vec<_> = found.split_whitespace().filter(|place| !is_known(place)).collect();
        assert!(others.is_empty(), "{id}: {others:?} can be written");
    }
    daemon.stop();
}

/// An extended attribute that stays on a directory could pass data to the next run, or make the next run
/// fail.
#[test]
fn attributes_that_a_run_set_on_directories_are_gone_in_the_next_run() {
    let host = TestHost::new();
    let python = r"
import os, struct
acl = struct.pack('<I', 2)
acl += b''.join(struct.pack('<HHI', tag, 0, 2**32 - 1) for tag in (1, 4, 32))
for path in os.environ['HOME'], os.environ['TMPDIR'], '/dev/shm':
    for name, value in ('user.left', b'x'), ('system.posix_acl_default', acl):
        try: os.setxattr(path, name, value)
        except OSError as error: print(path, name, error)
";
    let shared = host.path("shared");
    let look = "import os, sys
paths = os.environ['HOME'], os.environ['TMPDIR'], '/dev/shm'
print(sum([os.listxattr(path) for path in paths], []), file=open(sys.argv[1], 'w'))
";
    host.write("shared/mark.py", python);
    host.write("shared/look.py", look);
    let folder = shared.display();
    host.add_playbook("mark", "", &format!("    - command: python3 {folder}/mark.py\n"));
    let look = format!("    - command: python3 {folder}/look.py {folder}/{{{{ loopabull.id }}}}\n");
    host.add_playbook("look", "[retry]\nmax_attempts = 1", &look);
    let daemon = host.start(&["--workers", "1"]);
    for (id, topic) in [("m-1", "look"), ("m-2", "look"), ("m-3", "mark"), ("m-4", "look")] {
        let run = run(&host, &daemon, id, topic);
        assert!(run.outcome.is_success(), "{id}: {}", run.output.text);
    }
    assert_eq!(fs::read_to_string(host.shared("m-4")).unwrap(), "[]\n");
    let run = run(&host, &daemon, "m-5", "look");
    assert_eq!(report(&run).cold, None);
    daemon.stop();
}

#[test]
fn a_warm_run_sees_a_new_directory_that_replaced_a_granted_one() {
    let host = TestHost::new();
    let tasks = "    - command: cat what\n      args: { chdir: 'DIR' }\n      register: found\n    \
                 - debug: { msg: 'found {{ found.stdout }}' }\n";
    host.add_playbook("a", "", &tasks.replace("DIR", host.path("shared").to_str().unwrap()));
    host.write("shared/what", "one");
    let daemon = host.start(&["--workers", "1"]);
    run(&host, &daemon, "m-1", "a");
    let before = run(&host, &daemon, "m-2", "a");
    assert_eq!(report(&before).cold, None);
    assert!(before.output.text.contains("found one"));
    fs::rename(host.path("shared"), host.path("aside")).unwrap();
    fs::create_dir(host.path("shared")).unwrap();
    host.write("shared/what", "two");
    let after = run(&host, &daemon, "m-3", "a");
    assert!(after.output.text.contains("found two"), "{}", after.output.text);
    daemon.stop();
}

/// Returns whether a line contains a name that Ansible chose at random for a module.
fn is_made_up(line: &str) -> bool {
    line.contains("ansible_ansible.legacy.") || line.contains("ansible-tmp-")
}

/// The daemon empties the folders of a run, and has more privileges than the run. So a run must not be able
/// to replace these folders by links.
#[test]
fn a_run_cannot_make_the_daemon_empty_another_folder() {
    let host = TestHost::new();
    fs::create_dir(host.path("victim")).unwrap();
    host.write("victim/kept", "");
    let victim = host.path("victim");
    let tasks = format!(
        "    - shell: |
        for place in $HOME/tmp $HOME/../tmp $HOME/../given $HOME; do
          mv $place $HOME/../gone-$$; rmdir $place; ln -sfn {0} $place; ln -s {0} $HOME/link
        done; mkdir $HOME/shut; chmod 0 $HOME/shut; chmod 0 $HOME $HOME/../tmp /dev/shm; true
",
        victim.display()
    );
    host.add_playbook("a", "[retry]\nmax_attempts = 1", &tasks);
    host.add_playbook(
        "b",
        "",
        "    - shell: test -d $HOME && echo > $HOME/x && echo > $TMPDIR/x\n",
    );
    let daemon = host.start(&["--workers", "1"]);
    for id in ["m-1", "m-2", "m-3"] {
        assert!(run(&host, &daemon, id, "a").outcome.is_success());
        assert!(run(&host, &daemon, &format!("{id}-b"), "b").outcome.is_success());
    }
    daemon.stop();
    assert!(victim.join("kept").exists());
    assert_eq!(fs::read_dir(host.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn a_run_that_kills_every_process_it_can_does_not_affect_the_next_run() {
    let host = TestHost::new();
    host.add_playbook("a", "[retry]\nmax_attempts = 1", "    - shell: kill -9 -1\n");
    let daemon = host.start(&["--workers", "1"]);
    let outcomes = ["m-1", "m-2", "m-3", "m-4"].map(|id| {
        let run = run(&host, &daemon, id, "a");
        (run.outcome.name(), report(&run).cold.is_none())
    });
    // The play kills itself each time. It cannot kill the controller, which starts the next run.
    let expected = [("exit", false), ("exit", true), ("exit", true), ("exit", true)];
    assert_eq!(outcomes, expected);
    daemon.stop();
}

#[test]
fn a_dead_or_outdated_controller_is_replaced() {
    let host = TestHost::new();
    host.write("playbooks/ansible.cfg", "[defaults]\n");
    host.add_playbook("a", "", "    - debug: { msg: x }\n");
    let daemon = host.start(&["--workers", "1"]);
    run(&host, &daemon, "m-1", "a");
    run(&host, &daemon, "m-2", "a");
    signal(&host, "KILL");
    // The daemon may not have noticed that the controller is dead. Then the run fails and is retried.
    host.inject(&[message("m-3", "a", "{}")]);
    wait_for("a successful run of the message", || {
        let runs = host.runs();
        let done = |run: &Run| run.message_id.to_string() == "m-3" && run.outcome.is_success();
        runs.iter().any(done).then_some(())
    });
    let before = run(&host, &daemon, "m-4", "a");
    assert_eq!(report(&before).cold, None);
    // A controller has already read `ansible.cfg`. After a change of this file, a new controller is needed.
    host.write("playbooks/ansible.cfg", "[defaults]\nstdout_callback = minimal\n");
    let after = run(&host, &daemon, "m-5", "a");
    assert!(after.outcome.is_success());
    assert_ne!(after.output, before.output);
    daemon.stop();
}

#[test]
fn a_warm_run_and_its_processes_end_at_the_deadline() {
    let host = TestHost::new();
    let tasks = "    - shell: test -e go && exit 0; (setsid sleep 60020 &); sleep 60020\n      args: { chdir: 'DIR' }\n";
    let tasks = tasks.replace("DIR", host.path("shared").to_str().unwrap());
    let manifest = "[limits]\ntimeout = '8s'\n[retry]\nmax_attempts = 1";
    host.add_playbook("a", manifest, &tasks);
    let daemon = host.start(&["--workers", "1"]);
    host.write("shared/go", "");
    run(&host, &daemon, "m-1", "a");
    run(&host, &daemon, "m-2", "a");
    fs::remove_file(host.shared("go")).unwrap();
    let late = run(&host, &daemon, "m-3", "a");
    assert_eq!((late.outcome.name(), &report(&late).cold), ("deadline", &None));
    assert_eq!(processes_with("60020"), 0);
    host.write("shared/go", "");
    assert!(run(&host, &daemon, "m-4", "a").outcome.is_success());
    daemon.stop();
}

#[test]
fn a_controller_has_a_limited_number_of_runs() {
    let host = TestHost::new();
    host.write("loopabull.toml", "[playbook]\ncontroller_runs = 2\n");
    host.add_playbook("a", "", "    - debug: { msg: x }\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    let left = ["m-1", "m-2", "m-3", "m-4"].map(|id| {
        let run = run(&host, &daemon, id, "a");
        let controllers: Vec<_> = controllers(&host).into_keys().collect();
        (report(&run).cold.is_none(), controllers.join(" "))
    });
    let expected = [(false, ""), (true, "1"), (true, ""), (true, "2")];
    assert_eq!(left, expected.map(|(is_warm, left)| (is_warm, left.to_owned())));
    daemon.stop();
}

#[test]
fn an_idle_controller_is_ended_after_its_limit() {
    let host = TestHost::new();
    host.write("loopabull.toml", "[playbook]\ncontroller_idle = '30s'\n");
    host.add_playbook("a", "", "    - debug: { msg: x }\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    run(&host, &daemon, "m-1", "a");
    assert_eq!(report(&run(&host, &daemon, "m-2", "a")).cold, None);
    wait_for("the controller to be ended", || controllers(&host).is_empty().then_some(()));
    let left = || fs::read_dir(host.path("state/runs")).unwrap().count();
    wait_for("the folder of the controller to be deleted", || (left() == 0).then_some(()));
    assert_eq!(report(&run(&host, &daemon, "m-3", "a")).cold.as_deref(), Some("first"));
    daemon.stop();
}

/// A controller that does not answer has not accepted the run, so the daemon uses a cold start.
#[test]
fn no_run_fails_because_its_controller_hangs() {
    let host = TestHost::new();
    host.add_playbook("a", "[retry]\nmax_attempts = 1", "    - debug: { msg: x }\n");
    let daemon = host.start(&["--workers", "1"]);
    run(&host, &daemon, "m-1", "a");
    run(&host, &daemon, "m-2", "a");
    signal(&host, "STOP");
    let run_3 = run(&host, &daemon, "m-3", "a");
    assert!(run_3.outcome.is_success(), "{}", run_3.outcome);
    assert_eq!(report(&run_3).cold.as_deref(), Some("refused"));
    assert!(controllers(&host).is_empty());
    assert!(daemon.get("/metrics").1.contains("playbook_cold_starts_total{reason=\"refused\"} 1"));
    assert_eq!(report(&run(&host, &daemon, "m-4", "a")).cold, None);
    daemon.stop();
}

/// If a controller hangs during a run, the run ends at its deadline.
#[test]
fn a_controller_that_hangs_in_a_run_is_ended_at_the_deadline() {
    let host = TestHost::new();
    let manifest = "[limits]\ntimeout = '8s'\n[retry]\nmax_attempts = 1";
    let tasks =
        "    - shell: test -e go || { touch there; sleep 60024; }\n      args: { chdir: 'DIR' }\n";
    host.add_playbook("a", manifest, &tasks.replace("DIR", host.path("shared").to_str().unwrap()));
    host.write("shared/go", "");
    let daemon = host.start(&["--workers", "1"]);
    run(&host, &daemon, "m-1", "a");
    run(&host, &daemon, "m-2", "a");
    fs::remove_file(host.shared("go")).unwrap();
    host.inject(&[message("m-3", "a", r#"{"word":1}"#)]);
    wait_for("the run to start its command", || host.shared("there").exists().then_some(()));
    signal(&host, "STOP");
    daemon.wait_until_idle();
    let runs = host.runs();
    assert_eq!((runs[0].message_id.as_str(), runs[0].outcome.name()), ("m-3", "deadline"));
    assert_eq!(processes_with("60024"), 0);
    host.write("shared/go", "");
    assert!(run(&host, &daemon, "m-4", "a").outcome.is_success());
    daemon.stop();
}

#[test]
fn each_run_gets_different_random_values() {
    let host = TestHost::new();
    let tasks = "    - debug: { msg: \"{{ 999999999999 | random }}\" }
    - debug: { msg: \"{{ lookup('password', '/dev/null length=20') }}\" }
    - debug: { msg: \"{{ range(1000000) | list | shuffle | first }}\" }
";
    host.add_playbook("a", "", tasks);
    let daemon = host.start(&["--workers", "1"]);
    let said = ["m-1", "m-2", "m-3"].map(|id| {
        let run = run(&host, &daemon, id, "a");
        assert!(run.outcome.is_success(), "{}", run.output.text);
        let said = run.output.text.lines().filter(|line| line.contains("\"msg\":"));
        said.map(str::to_owned).collect::<Vec<_>>()
    });
    for value in 0..3 {
        let values: BTreeSet<_> = said.iter().map(|said| &said[value]).collect();
        assert_eq!(values.len(), 3, "{said:?}");
    }
    daemon.stop();
}
