//! Tests of the end of a program: signals, processes left behind, and the death of the launcher.

use std::fs;
use std::io::Read;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use loopabull_launcher::Report;
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Fixture, LAUNCHER, VARIANTS, wait_until};

/// The user id of `nobody` on Debian and Fedora.
const NOBODY: u32 = 65534;
/// A script that leaves a daemon, an orphan and a child behind. All three keep standard output open.
const LITTER: &str = "(setsid sleep 600 &) ; (sleep 600 &) ; sleep 600 & echo there > there";

#[test]
fn processes_left_behind_are_killed_and_counted() {
    for without in VARIANTS {
        let fixture = Fixture::new(&format!("{LITTER}; exit 4"), without);
        let (reports, _) = fixture.run(&[]);
        assert!(reports.contains(&Report::Killed { count: 3 }), "{reports:?}");
        assert!(reports.contains(&Report::Exited { status: 4 }), "{reports:?}");
        assert_eq!(fixture.living(), 0);
    }
}

#[test]
fn a_program_can_clean_up_after_the_first_signal() {
    for without in VARIANTS {
        let script = "trap 'echo bye; exit 7' TERM; echo > ready; sleep 600 & wait";
        let fixture = Fixture::new(script, without);
        let (mut child, _control) = fixture.start(&[]);
        fixture.wait_for("ready");
        kill_process(pid(&child), Signal::TERM).unwrap();
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "bye\n");
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert_eq!(fixture.living(), 0);
    }
}

#[test]
fn a_second_signal_kills_a_program_that_ignores_the_first() {
    for without in VARIANTS {
        let script = "trap '' TERM; (trap '' TERM; sleep 600) & echo > ready; sleep 600";
        let fixture = Fixture::new(script, without);
        let (mut child, _control) = fixture.start(&[]);
        fixture.wait_for("ready");
        // The launcher ignores a second signal during the first half second, so the test repeats the signal.
        wait_until(|| {
            kill_process(pid(&child), Signal::TERM).ok();
            child.try_wait().unwrap().is_some()
        });
        assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
        assert_eq!(fixture.living(), 0);
    }
}

#[test]
fn the_program_is_killed_when_the_control_socket_closes() {
    for without in VARIANTS {
        let fixture = Fixture::new(&format!("{LITTER}; sleep 600"), without);
        let (mut child, control) = fixture.start(&[]);
        fixture.wait_for("there");
        drop(control);
        child.wait().unwrap();
        assert_eq!(fixture.living(), 0);
    }
}

#[test]
fn the_program_is_killed_when_the_launcher_dies() {
    for without in VARIANTS {
        let fixture = Fixture::new(&format!("{LITTER}; sleep 600"), without);
        let (mut child, _control) = fixture.start(&[]);
        fixture.wait_for("there");
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until(|| fixture.living() == 0);
    }
}

#[test]
fn a_program_cannot_limit_its_supervisor() {
    let script =
        "prlimit --pid $PPID --nofile=3:3 && echo limited; ionice -c3 -p $PPID && echo idle";
    for without in VARIANTS {
        let fixture = Fixture::new(&format!("({script}) 2>/dev/null; {LITTER}"), without);
        let (reports, printed) = fixture.run(&[]);
        assert_eq!(printed, "");
        assert!(reports.contains(&Report::Killed { count: 3 }), "{reports:?}");
        assert_eq!(fixture.living(), 0);
    }
}

/// A launcher without privileges runs as the same user as the program, so file permissions and users alone do
/// not protect the launcher.
#[test]
fn a_program_cannot_slow_down_processes_of_the_same_user() {
    let script = "exec 2>/dev/null; chrt --idle -p 0 $PPID && echo yielding; \
         mask=$(taskset -p $PPID); taskset -p ${mask##* } $PPID > mask && echo bound; \
         renice -n 1 -p $PPID > nice && echo nice; ionice -c3 -p $PPID && echo idle; echo end";
    for without in VARIANTS {
        let fixture = Fixture::new(script, without);
        // The user `nobody` may have no access to the build directory, so the launcher is copied.
        let launcher = fixture.folder.path().join("launch");
        fs::copy(LAUNCHER, &launcher).unwrap();
        chown(fixture.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = Command::new(launcher);
        command.args(fixture.confinement.to_args()).uid(NOBODY).gid(NOBODY);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "end\n", "{output:?}");
    }
}

/// Programs such as `nice` and `taskset` change themselves before they execute another program.
#[test]
fn a_program_can_limit_itself() {
    let script = "taskset -c 0 echo bound; nice echo nice; ionice -c3 echo idle; \
         chrt --idle 0 echo yielding";
    for without in VARIANTS {
        assert_eq!(Fixture::new(script, without).run(&[]).1, "bound\nnice\nidle\nyielding\n");
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}
