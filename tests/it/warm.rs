//! Warm start: a run out of a process that has Ansible imported does what a cold one does, and leaves
//! nothing for the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use loopabull_model::{PlaybookReport, Run};

use crate::bed::{Bed, Daemon, message, processes_with, wait_for};

/// Runs a message through a task, in this daemon, and returns the record.
fn run(bed: &Bed, daemon: &Daemon, id: &str, topic: &str) -> Run {
    bed.inject(&[message(id, topic, r#"{"word":"{{ 6 * 7 }}"}"#)]);
    daemon.wait_until_idle();
    let runs = bed.runs();
    runs.into_iter().find(|run| run.message_id.to_string() == id).expect("it was run")
}

/// Returns the controllers of a bed, by the number of their folder in the environment, with all that is in their
/// rooms.
fn controllers(bed: &Bed) -> BTreeMap<String, Vec<String>> {
    let home = format!("HOME={}/warm-", bed.path("state/runs").display());
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

/// Sends a signal to all controllers of a bed.
fn signal(bed: &Bed, signal: &str) {
    let pids: Vec<_> = controllers(bed).into_values().flatten().collect();
    assert!(!pids.is_empty());
    let sent = Command::new("kill").arg(format!("-{signal}")).args(pids).status();
    assert!(sent.is_ok());
}

fn report(run: &Run) -> &PlaybookReport {
    run.playbook.as_ref().expect("a playbook has a report")
}

#[test]
fn the_second_run_of_a_playbook_is_a_warm_one() {
    let bed = Bed::new();
    bed.add_playbook("a", "", "    - debug: { msg: 'got {{ msg.word }}' }\n");
    let daemon = bed.start(&["--workers", "1"]);
    let cold = run(&bed, &daemon, "m-1", "a");
    assert_eq!(report(&cold).cold.as_deref(), Some("first"));
    for id in ["m-2", "m-3"] {
        let warm = run(&bed, &daemon, id, "a");
        assert_eq!(report(&warm).cold, None);
        assert_eq!(warm.output, cold.output);
        assert_eq!(report(&warm).results, report(&cold).results);
        assert_eq!(report(&warm).layers, report(&cold).layers);
    }
    assert!(daemon.get("/metrics").1.contains("playbook_cold_starts_total{reason=\"first\"} 1"));
    daemon.stop();
    assert!(fs::read_dir(bed.path("state/runs")).unwrap().next().is_none(), "all folders are gone");
    assert_eq!(processes_with(bed.path("state").to_str().unwrap()), 0);
}

#[test]
fn a_run_finds_nothing_of_the_one_before() {
    let bed = Bed::new();
    // What it finds, before it changes all that it can.
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
        bed.path("shared").display()
    );
    bed.add_playbook("a", "", &tasks);
    let daemon = bed.start(&["--workers", "1"]);
    for id in ["m-1", "m-2", "m-3"] {
        let run = run(&bed, &daemon, id, "a");
        assert!(run.outcome.is_success(), "{}", run.output.text);
        assert!(report(&run).killed >= 1, "what it left was killed");
    }
    // The folder has a name of its own; all else is equal.
    let found = |id: &str| {
        let text = fs::read_to_string(bed.shared(id)).unwrap();
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

/// A mark on a directory that stays would be a word to the next run, or keep it from working at all.
#[test]
fn what_a_run_wrote_on_directories_is_not_there_for_the_next() {
    let bed = Bed::new();
    let python = r"
import os, struct
acl = struct.pack('<I', 2)
acl += b''.join(struct.pack('<HHI', tag, 0, 2**32 - 1) for tag in (1, 4, 32))
for path in os.environ['HOME'], os.environ['TMPDIR'], '/dev/shm':
    for name, value in ('user.left', b'x'), ('system.posix_acl_default', acl):
        try: os.setxattr(path, name, value)
        except OSError as error: print(path, name, error)
";
    let shared = bed.path("shared");
    let look = "import os, sys
paths = os.environ['HOME'], os.environ['TMPDIR'], '/dev/shm'
print(sum([os.listxattr(path) for path in paths], []), file=open(sys.argv[1], 'w'))
";
    bed.write("shared/mark.py", python);
    bed.write("shared/look.py", look);
    let folder = shared.display();
    bed.add_playbook("mark", "", &format!("    - command: python3 {folder}/mark.py\n"));
    let look = format!("    - command: python3 {folder}/look.py {folder}/{{{{ loopabull.id }}}}\n");
    bed.add_playbook("look", "[retry]\nmax_attempts = 1", &look);
    let daemon = bed.start(&["--workers", "1"]);
    for (id, topic) in [("m-1", "look"), ("m-2", "look"), ("m-3", "mark"), ("m-4", "look")] {
        let run = run(&bed, &daemon, id, topic);
        assert!(run.outcome.is_success(), "{id}: {}", run.output.text);
    }
    assert_eq!(fs::read_to_string(bed.shared("m-4")).unwrap(), "[]\n");
    let run = run(&bed, &daemon, "m-5", "look");
    assert_eq!(report(&run).cold, None);
    daemon.stop();
}

#[test]
fn what_took_the_place_of_something_granted_is_what_a_warm_run_sees() {
    let bed = Bed::new();
    let tasks = "    - command: cat what\n      args: { chdir: 'DIR' }\n      register: found\n    \
                 - debug: { msg: 'found {{ found.stdout }}' }\n";
    bed.add_playbook("a", "", &tasks.replace("DIR", bed.path("shared").to_str().unwrap()));
    bed.write("shared/what", "one");
    let daemon = bed.start(&["--workers", "1"]);
    run(&bed, &daemon, "m-1", "a");
    let before = run(&bed, &daemon, "m-2", "a");
    assert_eq!(report(&before).cold, None);
    assert!(before.output.text.contains("found one"));
    fs::rename(bed.path("shared"), bed.path("aside")).unwrap();
    fs::create_dir(bed.path("shared")).unwrap();
    bed.write("shared/what", "two");
    let after = run(&bed, &daemon, "m-3", "a");
    assert!(after.output.text.contains("found two"), "{}", after.output.text);
    daemon.stop();
}

/// Ansible makes up a name for each module that it runs.
fn is_made_up(line: &str) -> bool {
    line.contains("ansible_ansible.legacy.") || line.contains("ansible-tmp-")
}

/// The daemon empties what a run has had, with rights that the run does not have.
#[test]
fn a_run_cannot_make_the_daemon_empty_something_else() {
    let bed = Bed::new();
    fs::create_dir(bed.path("victim")).unwrap();
    bed.write("victim/kept", "");
    let victim = bed.path("victim");
    let tasks = format!(
        "    - shell: |
        for place in $HOME/tmp $HOME/../tmp $HOME/../given $HOME; do
          mv $place $HOME/../gone-$$; rmdir $place; ln -sfn {0} $place; ln -s {0} $HOME/link
        done; mkdir $HOME/shut; chmod 0 $HOME/shut; chmod 0 $HOME $HOME/../tmp /dev/shm; true
",
        victim.display()
    );
    bed.add_playbook("a", "[retry]\nmax_attempts = 1", &tasks);
    bed.add_playbook("b", "", "    - shell: test -d $HOME && echo > $HOME/x && echo > $TMPDIR/x\n");
    let daemon = bed.start(&["--workers", "1"]);
    for id in ["m-1", "m-2", "m-3"] {
        assert!(run(&bed, &daemon, id, "a").outcome.is_success());
        assert!(run(&bed, &daemon, &format!("{id}-b"), "b").outcome.is_success());
    }
    daemon.stop();
    assert!(victim.join("kept").exists());
    assert_eq!(fs::read_dir(bed.path("state/runs")).unwrap().count(), 0);
}

#[test]
fn a_run_that_kills_all_it_can_does_not_take_the_next_with_it() {
    let bed = Bed::new();
    bed.add_playbook("a", "[retry]\nmax_attempts = 1", "    - shell: kill -9 -1\n");
    let daemon = bed.start(&["--workers", "1"]);
    let outcomes = ["m-1", "m-2", "m-3", "m-4"].map(|id| {
        let run = run(&bed, &daemon, id, "a");
        (run.outcome.name(), report(&run).cold.is_none())
    });
    // It ends itself each time; the controller is out of its reach and has the next run too.
    let expected = [("exit", false), ("exit", true), ("exit", true), ("exit", true)];
    assert_eq!(outcomes, expected);
    daemon.stop();
}

#[test]
fn a_controller_that_died_or_is_outdated_is_replaced() {
    let bed = Bed::new();
    bed.write("playbooks/ansible.cfg", "[defaults]\n");
    bed.add_playbook("a", "", "    - debug: { msg: x }\n");
    let daemon = bed.start(&["--workers", "1"]);
    run(&bed, &daemon, "m-1", "a");
    run(&bed, &daemon, "m-2", "a");
    signal(&bed, "KILL");
    // The run that was given to the dead one says so and is tried again; or it was noticed before.
    bed.inject(&[message("m-3", "a", "{}")]);
    wait_for("the message to be worked all the same", || {
        let runs = bed.runs();
        let done = |run: &Run| run.message_id.to_string() == "m-3" && run.outcome.is_success();
        runs.iter().any(done).then_some(())
    });
    let before = run(&bed, &daemon, "m-4", "a");
    assert_eq!(report(&before).cold, None);
    // What it has read is not what is there any more.
    bed.write("playbooks/ansible.cfg", "[defaults]\nstdout_callback = minimal\n");
    let after = run(&bed, &daemon, "m-5", "a");
    assert!(after.outcome.is_success());
    assert_ne!(after.output, before.output);
    daemon.stop();
}

#[test]
fn a_warm_run_ends_at_its_deadline_with_all_it_started() {
    let bed = Bed::new();
    let tasks = "    - shell: test -e go && exit 0; (setsid sleep 60020 &); sleep 60020\n      args: { chdir: 'DIR' }\n";
    let tasks = tasks.replace("DIR", bed.path("shared").to_str().unwrap());
    let manifest = "[limits]\ntimeout = '8s'\n[retry]\nmax_attempts = 1";
    bed.add_playbook("a", manifest, &tasks);
    let daemon = bed.start(&["--workers", "1"]);
    bed.write("shared/go", "");
    run(&bed, &daemon, "m-1", "a");
    run(&bed, &daemon, "m-2", "a");
    fs::remove_file(bed.shared("go")).unwrap();
    let late = run(&bed, &daemon, "m-3", "a");
    assert_eq!((late.outcome.name(), &report(&late).cold), ("deadline", &None));
    assert_eq!(processes_with("60020"), 0);
    bed.write("shared/go", "");
    assert!(run(&bed, &daemon, "m-4", "a").outcome.is_success());
    daemon.stop();
}

#[test]
fn a_controller_has_so_many_runs_and_no_more() {
    let bed = Bed::new();
    bed.write("loopabull.toml", "[playbook]\ncontroller_runs = 2\n");
    bed.add_playbook("a", "", "    - debug: { msg: x }\n");
    let daemon = bed.start(&["--config", "loopabull.toml", "--workers", "1"]);
    let left = ["m-1", "m-2", "m-3", "m-4"].map(|id| {
        let run = run(&bed, &daemon, id, "a");
        let controllers: Vec<_> = controllers(&bed).into_keys().collect();
        (report(&run).cold.is_none(), controllers.join(" "))
    });
    let expected = [(false, ""), (true, "1"), (true, ""), (true, "2")];
    assert_eq!(left, expected.map(|(is_warm, left)| (is_warm, left.to_owned())));
    daemon.stop();
}

#[test]
fn a_controller_that_waits_for_long_is_ended() {
    let bed = Bed::new();
    bed.write("loopabull.toml", "[playbook]\ncontroller_idle = '30s'\n");
    bed.add_playbook("a", "", "    - debug: { msg: x }\n");
    let daemon = bed.start(&["--config", "loopabull.toml", "--workers", "1"]);
    run(&bed, &daemon, "m-1", "a");
    assert_eq!(report(&run(&bed, &daemon, "m-2", "a")).cold, None);
    wait_for("the controller to be ended", || controllers(&bed).is_empty().then_some(()));
    let left = || fs::read_dir(bed.path("state/runs")).unwrap().count();
    wait_for("its folder to be gone", || (left() == 0).then_some(()));
    assert_eq!(report(&run(&bed, &daemon, "m-3", "a")).cold.as_deref(), Some("first"));
    daemon.stop();
}

/// One that does not answer has not taken the run, which is started in the other way.
#[test]
fn a_controller_that_hangs_costs_no_run() {
    let bed = Bed::new();
    bed.add_playbook("a", "[retry]\nmax_attempts = 1", "    - debug: { msg: x }\n");
    let daemon = bed.start(&["--workers", "1"]);
    run(&bed, &daemon, "m-1", "a");
    run(&bed, &daemon, "m-2", "a");
    signal(&bed, "STOP");
    let run_3 = run(&bed, &daemon, "m-3", "a");
    assert!(run_3.outcome.is_success(), "{}", run_3.outcome);
    assert_eq!(report(&run_3).cold.as_deref(), Some("refused"));
    assert!(controllers(&bed).is_empty());
    assert!(daemon.get("/metrics").1.contains("playbook_cold_starts_total{reason=\"refused\"} 1"));
    assert_eq!(report(&run(&bed, &daemon, "m-4", "a")).cold, None);
    daemon.stop();
}

/// One that stops in the middle of a run keeps it only until its deadline.
#[test]
fn a_controller_that_hangs_in_a_run_is_ended_at_the_deadline() {
    let bed = Bed::new();
    let manifest = "[limits]\ntimeout = '8s'\n[retry]\nmax_attempts = 1";
    let tasks =
        "    - shell: test -e go || { touch there; sleep 60024; }\n      args: { chdir: 'DIR' }\n";
    bed.add_playbook("a", manifest, &tasks.replace("DIR", bed.path("shared").to_str().unwrap()));
    bed.write("shared/go", "");
    let daemon = bed.start(&["--workers", "1"]);
    run(&bed, &daemon, "m-1", "a");
    run(&bed, &daemon, "m-2", "a");
    fs::remove_file(bed.shared("go")).unwrap();
    bed.inject(&[message("m-3", "a", r#"{"word":1}"#)]);
    wait_for("the run", || bed.shared("there").exists().then_some(()));
    signal(&bed, "STOP");
    daemon.wait_until_idle();
    let runs = bed.runs();
    assert_eq!((runs[0].message_id.as_str(), runs[0].outcome.name()), ("m-3", "deadline"));
    assert_eq!(processes_with("60024"), 0);
    bed.write("shared/go", "");
    assert!(run(&bed, &daemon, "m-4", "a").outcome.is_success());
    daemon.stop();
}

#[test]
fn chance_is_another_in_each_run() {
    let bed = Bed::new();
    let tasks = "    - debug: { msg: \"{{ 999999999999 | random }}\" }
    - debug: { msg: \"{{ lookup('password', '/dev/null length=20') }}\" }
    - debug: { msg: \"{{ range(1000000) | list | shuffle | first }}\" }
";
    bed.add_playbook("a", "", tasks);
    let daemon = bed.start(&["--workers", "1"]);
    let said = ["m-1", "m-2", "m-3"].map(|id| {
        let run = run(&bed, &daemon, id, "a");
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
