//! What is killed, what is handed over and what is reported.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use loopabull_launcher::{Environment, Held, Layer, Report, User, exit, send_plan};
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, LAUNCHER, WAYS, held, wait_until};

/// Debian's and Fedora's `nobody`.
const NOBODY: u32 = 65534;
/// Leaves a daemon, an orphan and a child behind, all with standard output.
const LITTER: &str = "(setsid sleep 600 &) ; (sleep 600 &) ; sleep 600 & echo there > there";

#[test]
fn every_layer_is_reported_once() {
    for without in WAYS {
        // A descriptor of the program's must not take the place of the socket.
        let mut bed = Bed::new("exit 3", without);
        bed.confinement.descriptors = vec![3];
        let (reports, _) = bed.run(&[fs::File::open("/dev/null").unwrap().into()]);
        for layer in Layer::ALL {
            let lines = reports.iter().filter(
                |report| matches!(report, Report::Layer { layer: other, .. } if *other == layer),
            );
            assert_eq!(lines.count(), 1, "{layer} in {reports:?}");
        }
        let expected = if without.is_empty() { Held::Yes } else { Held::Off };
        assert_eq!(held(&reports, Layer::Namespaces), Some(expected));
        assert_eq!(held(&reports, Layer::Files), Some(Held::Yes));
        assert!(reports.contains(&Report::Exited { status: 3 }));
    }
}

#[test]
fn what_is_left_behind_is_killed_and_counted() {
    for without in WAYS {
        let bed = Bed::new(&format!("{LITTER}; exit 4"), without);
        let (reports, _) = bed.run(&[]);
        assert!(reports.contains(&Report::Killed { count: 3 }), "{reports:?}");
        assert!(reports.contains(&Report::Exited { status: 4 }), "{reports:?}");
        assert_eq!(bed.living(), 0);
    }
}

#[test]
fn a_signal_ends_the_program_which_may_say_goodbye() {
    for without in WAYS {
        let script = "trap 'echo bye; exit 7' TERM; echo > ready; sleep 600 & wait";
        let bed = Bed::new(script, without);
        let (mut child, _control) = bed.start(&[]);
        bed.wait_for("ready");
        kill_process(pid(&child), Signal::TERM).unwrap();
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "bye\n");
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert_eq!(bed.living(), 0);
    }
}

#[test]
fn a_second_signal_kills_a_program_that_does_not_want_to_end() {
    for without in WAYS {
        let script = "trap '' TERM; (trap '' TERM; sleep 600) & echo > ready; sleep 600";
        let bed = Bed::new(script, without);
        let (mut child, _control) = bed.start(&[]);
        bed.wait_for("ready");
        // The second must come half a second later, so it is sent until one does.
        wait_until(|| {
            kill_process(pid(&child), Signal::TERM).ok();
            child.try_wait().unwrap().is_some()
        });
        assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
        assert_eq!(bed.living(), 0);
    }
}

#[test]
fn the_end_of_the_daemon_is_the_end_of_the_program() {
    for without in WAYS {
        let bed = Bed::new(&format!("{LITTER}; sleep 600"), without);
        let (mut child, control) = bed.start(&[]);
        bed.wait_for("there");
        drop(control);
        child.wait().unwrap();
        assert_eq!(bed.living(), 0);
    }
}

#[test]
fn the_death_of_the_launcher_is_the_end_of_the_program() {
    for without in WAYS {
        let bed = Bed::new(&format!("{LITTER}; sleep 600"), without);
        let (mut child, _control) = bed.start(&[]);
        bed.wait_for("there");
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until(|| bed.living() == 0);
    }
}

#[test]
fn descriptors_are_handed_over_under_their_numbers_and_no_others() {
    let script = "echo told >&3; cat <&4; ls /proc/self/fd";
    let mut bed = Bed::new(script, &[]);
    // Crosswise to the numbers that they are likely to come in under.
    bed.confinement.descriptors = vec![4, 3];
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(b"asked\n").unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    let (mut told, writer) = std::io::pipe().unwrap();
    let (_, printed) = bed.run(&[input.into(), writer.into()]);
    // Descriptor 5 is the directory that ls itself reads.
    assert_eq!(printed, "asked\n0\n1\n2\n3\n4\n5\n");
    let mut text = String::new();
    told.read_to_string(&mut text).unwrap();
    assert_eq!(text, "told\n");
}

/// The launcher has privileges that a variable could misuse.
#[test]
fn variables_are_the_programs_and_never_the_launchers() {
    let mut bed = Bed::new("echo $WANTED $OTHER; echo > ready; sleep 600", &[]);
    bed.confinement.environment = vec!["WANTED".into()];
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut launcher = Command::new(LAUNCHER);
    launcher.args(["--control", "0"]).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
    let mut child = launcher.stdout(Stdio::piped()).spawn().unwrap();
    let variables = [("WANTED", "loopabull-wanted"), ("OTHER", "x")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.into()));
    send_plan(&ours, &bed.confinement, &Environment::from(variables), &[]).unwrap();
    bed.wait_for("ready");
    let environment = fs::read(format!("/proc/{}/environ", child.id())).unwrap_or_default();
    assert_eq!(environment, b"");
    drop(ours);
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "loopabull-wanted\n");
    child.wait().unwrap();
}

#[test]
fn standard_input_is_not_the_control_socket() {
    let (_, printed) = Bed::new("readlink /proc/self/fd/0; cat", &[]).run(&[]);
    assert_eq!(printed, "/dev/null\n");
}

#[test]
fn another_number_of_descriptors_than_was_named_is_refused() {
    let mut bed = Bed::new("exit 0", &[]);
    bed.confinement.descriptors = vec![3];
    let (reports, _) = bed.run(&[]);
    let reason = "1 descriptors are named and 0 were handed over".to_owned();
    assert_eq!(reports, [Report::Failed { code: exit::USAGE, reason }]);
}

#[test]
fn a_layer_that_is_required_and_cannot_be_had_keeps_the_program_from_running() {
    // Inside a confinement no namespaces can be made.
    let mut inner = Bed::new("echo it ran", &[]);
    inner.confinement.required.insert(Layer::Namespaces);
    let mut outer = Bed::new("", &[]);
    outer.confinement.program = LAUNCHER.into();
    outer.confinement.arguments = inner.confinement.to_args();
    outer.confinement.files.read.push(LAUNCHER.into());
    outer.confinement.files.write.push(inner.folder.path().canonicalize().unwrap());
    let (reports, printed) = outer.run(&[]);
    assert_eq!(printed, "");
    let status = i32::from(exit::LAYER_FAILED);
    assert!(reports.contains(&Report::Exited { status }), "{reports:?}");
    // Not required, it is done without.
    inner.confinement.required.clear();
    outer.confinement.arguments = inner.confinement.to_args();
    assert_eq!(outer.run(&[]).1, "it ran\n");
}

#[test]
fn a_grant_of_what_is_not_there_is_an_error() {
    let mut bed = Bed::new("exit 0", &[]);
    bed.confinement.files.read.push("/no/such/place".into());
    let (reports, _) = bed.run(&[]);
    let reason = "cannot hold the layer `files`: grant `/no/such/place`: No such file or directory (os error 2)";
    let reason = reason.to_owned();
    assert!(reports.contains(&Report::Failed { code: exit::LAYER_FAILED, reason }), "{reports:?}");
}

#[test]
fn a_link_on_the_way_to_a_grant_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let outside = outside.path().canonicalize().unwrap();
    fs::create_dir_all(outside.join("granted")).unwrap();
    for target in ["/", "/root", "granted"] {
        let link = outside.join("link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        for without in WAYS {
            let mut bed = Bed::new("ls /root /usr", without);
            bed.confinement.files.write.push(link.clone());
            let (reports, printed) = bed.run(&[]);
            let is_told = |report: &Report| matches!(report, Report::Failed { reason, .. } if reason.contains("a link on the way"));
            assert!(reports.iter().any(is_told), "{reports:?}");
            assert_eq!(printed, "");
        }
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn what_may_be_read_cannot_be_changed_in_any_way() {
    let outside = tempfile::tempdir().unwrap();
    let outside = outside.path().canonicalize().unwrap();
    fs::write(outside.join("file"), "x").unwrap();
    fs::create_dir(outside.join("inner")).unwrap();
    let script = format!(
        "cd {}; for what in 'chmod 4755' 'touch -d 2001-01-01' 'chown 0:0'; do \
         $what file 2>/dev/null && echo $what; done; chmod 4777 /usr /bin/sh /dev/null /etc/hosts \
         2>/dev/null && echo system; echo > inner/new && echo inner",
        outside.display()
    );
    let mut bed = Bed::new(&script, &[]);
    bed.confinement.files.read.push(outside.clone());
    // What may be written in it is another matter.
    bed.confinement.files.write.push(outside.join("inner"));
    assert_eq!(bed.run(&[]).1, "inner\n");
}

#[test]
fn a_room_is_for_another_user_whatever_the_umask_is() {
    let bed = Bed::new("cat /etc/hostname > /dev/null && echo read", &[]);
    let mut confinement = bed.confinement.clone();
    confinement.user = Some(User { uid: 65534, gid: 65534 });
    confinement.files.write.clear();
    confinement.directory = "/usr".into();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\"", LAUNCHER]).args(confinement.to_args());
    assert_eq!(command.output().unwrap().stdout, b"read\n");
}

#[test]
fn a_program_cannot_limit_who_watches_over_it() {
    let script =
        "prlimit --pid $PPID --nofile=3:3 && echo limited; ionice -c3 -p $PPID && echo idle";
    for without in WAYS {
        let bed = Bed::new(&format!("({script}) 2>/dev/null; {LITTER}"), without);
        let (reports, printed) = bed.run(&[]);
        assert_eq!(printed, "");
        assert!(reports.contains(&Report::Killed { count: 3 }), "{reports:?}");
        assert_eq!(bed.living(), 0);
    }
}

/// A launcher that never had privileges is nothing better than the program, to the kernel.
#[test]
fn a_program_cannot_slow_down_who_is_the_same_user() {
    let script = "exec 2>/dev/null; chrt --idle -p 0 $PPID && echo yielding; \
         mask=$(taskset -p $PPID); taskset -p ${mask##* } $PPID > mask && echo bound; \
         renice -n 1 -p $PPID > nice && echo nice; ionice -c3 -p $PPID && echo idle; echo end";
    for without in WAYS {
        let bed = Bed::new(script, without);
        // Where the build is, the user may not be let in.
        let launcher = bed.folder.path().join("launch");
        fs::copy(LAUNCHER, &launcher).unwrap();
        chown(bed.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = Command::new(launcher);
        command.args(bed.confinement.to_args()).uid(NOBODY).gid(NOBODY);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "end\n", "{output:?}");
    }
}

/// What sets its own processor and priority, as programs do that start others.
#[test]
fn a_program_may_limit_itself() {
    let script = "taskset -c 0 echo bound; nice echo nice; ionice -c3 echo idle; \
         chrt --idle 0 echo yielding";
    for without in WAYS {
        assert_eq!(Bed::new(script, without).run(&[]).1, "bound\nnice\nidle\nyielding\n");
    }
}

#[test]
fn home_and_temporary_files_are_where_they_are_told_to_be() {
    let script = "echo ~root; getent passwd 0 | cut -d: -f1,3,6; echo > /tmp/x; ls /var/tmp";
    let mut bed = Bed::new(script, &[]);
    // Elsewhere than beneath what is mounted, which would hide it.
    let target = env!("CARGO_TARGET_TMPDIR");
    let is_hidden = ["/tmp/", "/var/tmp/"].iter().any(|place| target.starts_with(place));
    bed.folder = tempfile::tempdir_in(if is_hidden { "/srv" } else { target }).unwrap();
    bed.confinement.program = "/bin/bash".into();
    bed.confinement.user = Some(User { uid: 0, gid: 0 });
    let folder = bed.folder.path().canonicalize().unwrap();
    fs::create_dir(folder.join("tmp")).unwrap();
    bed.confinement.directory = folder.clone();
    bed.confinement.files.write = vec![folder.clone()];
    bed.confinement.home = Some(folder.clone());
    bed.confinement.tmp = Some(folder.join("tmp"));
    let home = folder.display();
    assert_eq!(bed.run(&[]).1, format!("{home}\nroot:0:{home}\nx\n"));
    assert!(folder.join("tmp/x").exists());
    // Somebody who is not in the list is in it then.
    bed.confinement.user = Some(User { uid: 54321, gid: 54321 });
    bed.confinement.arguments[1] = "getent passwd 54321 | cut -d: -f3,4,6".into();
    assert_eq!(bed.run(&[]).1, format!("54321:54321:{home}\n"));
}

#[test]
fn a_report_by_hand_is_for_a_person() {
    let bed = Bed::new("exit 0", &[]);
    let mut command = Command::new(LAUNCHER);
    let output = command.arg("--report").args(bed.confinement.to_args()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("loopabull-launch: layer files held Landlock ABI "), "{stderr}");
    assert!(stderr.ends_with("loopabull-launch: killed 0\nloopabull-launch: exited 0\n"));
    assert_eq!(bed.by_hand().output().unwrap().stderr, b"");
}

#[test]
fn a_plan_is_printed_and_nothing_is_run() {
    let mut bed = Bed::new("echo it ran", &[Layer::Scopes]);
    bed.confinement.required.insert(Layer::Tcp);
    let output = Command::new(LAUNCHER)
        .arg("--print-plan")
        .args(bed.confinement.to_args())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in ["echo it ran", "files           required", "tcp             required"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains("scopes          left out\n"));
    assert!(text.contains("sockets         if it can be had\n"));
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}
