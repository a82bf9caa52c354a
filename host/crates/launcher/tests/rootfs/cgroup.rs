//! Tests of the control group of a program, which contains all of its processes.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use loopabull_launcher::{Layer, LayerState, Report, User, exit};

use crate::fixture::{Fixture, LAUNCHER, state, wait_until};

/// Returns the folder of the control group in which this test runs.
fn group_folder() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let places =
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|place| Path::new(place).join(own));
    places.into_iter().find(|place| place.join("cgroup.kill").exists() || is_root_group(place))
}

/// Returns whether a folder is the root of the hierarchy of control groups. The root has no `cgroup.kill`.
fn is_root_group(place: &Path) -> bool {
    place.join("cgroup.controllers").exists() && !place.join("cgroup.type").exists()
}

/// Returns whether control groups can be created here.
fn has_groups() -> bool {
    use rustix::fs::{Access, access};
    group_folder().is_some_and(|folder| access(folder, Access::WRITE_OK).is_ok())
}

/// Returns whether control groups can be created here. If not, checks that a program runs without a control
/// group, and prints the name of the skipped check. The line is written directly to standard error, because
/// the test harness hides the captured output of tests that pass.
fn has_groups_for(what: &str) -> bool {
    if has_groups() {
        return true;
    }
    let line = format!("no control group can be created here, UNTRIED: {what}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
    let fixture = Fixture::new("exit 3", &[]);
    let (reports, _) = fixture.run(&[]);
    assert_eq!(state(&reports, Layer::Cgroup), Some(LayerState::Degraded), "{reports:?}");
    assert!(reports.contains(&Report::Exited { status: 3 }), "{reports:?}");
    false
}

/// Runs the fixture as in a container without control groups. An empty mount hides the control groups of the
/// machine from the launcher.
fn run_without_groups(fixture: &Fixture) -> (Vec<Report>, String) {
    let hide = "mount -t tmpfs -o ro none /sys/fs/cgroup && exec \"$@\"";
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "/bin/sh", "-c", hide, "sh", LAUNCHER, "--report"]);
    let output = command.args(fixture.confinement.to_args()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let reports = stderr.lines().filter_map(|line| line.strip_prefix("loopabull-launch: "));
    let reports: Vec<_> = reports.filter_map(|line| line.parse().ok()).collect();
    assert!(!reports.is_empty(), "{stderr}");
    (reports, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_program_runs_without_a_control_group_unless_it_is_required() {
    let mut fixture = Fixture::new("sleep 600 & echo it ran", &[]);
    fixture.confinement.limits.processes = Some(1000);
    let (reports, printed) = run_without_groups(&fixture);
    assert_eq!(printed, "it ran\n", "{reports:?}");
    assert_eq!(state(&reports, Layer::Cgroup), Some(LayerState::Degraded), "{reports:?}");
    // The kernel does not apply RLIMIT_NPROC to root, so only a control group could limit processes.
    assert_eq!(state(&reports, Layer::Processes), Some(LayerState::Degraded), "{reports:?}");
    assert!(reports.contains(&Report::Killed { count: 1 }), "{reports:?}");
    assert_eq!(fixture.living(), 0);
    fixture.confinement.required.insert(Layer::Cgroup);
    let (reports, printed) = run_without_groups(&fixture);
    assert_eq!(printed, "", "{reports:?}");
    assert!(reports.iter().any(is_refused), "{reports:?}");
}

fn is_refused(report: &Report) -> bool {
    matches!(report, Report::Failed { code: exit::LAYER_FAILED, .. })
}

/// Without namespaces, a control group and a user of its own, nothing tells a program's processes from others.
#[test]
fn a_program_that_cannot_be_told_from_others_runs_only_if_both_layers_are_left_out() {
    let mut fixture = Fixture::new("echo it ran", &[Layer::Namespaces]);
    let (reports, printed) = run_without_groups(&fixture);
    assert_eq!(printed, "", "{reports:?}");
    let reason = |report: &Report| match report {
        Report::Failed { code: exit::LAYER_FAILED, reason } => reason.contains("as another user"),
        _ => false,
    };
    assert!(reports.iter().any(reason), "{reports:?}");
    fixture.confinement.without.insert(Layer::Cgroup);
    assert_eq!(run_without_groups(&fixture).1, "it ran\n");
    fixture.confinement.without.remove(&Layer::Cgroup);
    fixture.confinement.directory = "/".into();
    fixture.confinement.user = Some(User { uid: 64_003, gid: 64_003 });
    assert_eq!(run_without_groups(&fixture).1, "it ran\n");
}

#[test]
fn the_control_group_of_a_program_is_removed_at_its_end() {
    if !has_groups_for("a program has its own control group") {
        return;
    }
    for without in [&[][..], &[Layer::Namespaces]] {
        let mut fixture = Fixture::new("cat /proc/self/cgroup", without);
        if without.is_empty() {
            fixture.confinement.files.read.push("/proc".into());
        }
        let (reports, printed) = fixture.run(&[]);
        let group = printed.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert_eq!(state(&reports, Layer::Cgroup), Some(LayerState::Active), "{reports:?}");
        let name = group.rsplit('/').next().unwrap();
        assert!(name.starts_with("loopabull-launch-"), "{group}");
        assert!(!group_folder().unwrap().join(name).exists(), "{group}");
    }
}

/// The group of a systemd service with `Delegate=` and `DelegateSubgroup=` has processes only in its
/// subgroups. Controllers can therefore be enabled in the group, and the launcher must create its group
/// there.
#[test]
fn the_group_is_created_beside_the_daemons_group_in_a_delegated_service() {
    if !has_groups_for("a group is created in a delegated service") {
        return;
    }
    let service = group_folder().unwrap().join(format!("loopabull-test-{}", std::process::id()));
    let daemon = service.join("daemon");
    fs::create_dir_all(&daemon).unwrap();
    rustix::fs::setxattr(&service, "user.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let fixture = Fixture::new("cat /proc/self/cgroup", &[Layer::Namespaces]);
    let mut command = Command::new("/bin/sh");
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", daemon.display());
    command.args(["-c", &enter, "sh", LAUNCHER]).args(fixture.confinement.to_args());
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let gone = fs::remove_dir(&daemon).and_then(|()| fs::remove_dir(&service));
    assert!(gone.is_ok(), "cannot remove the control group {}: {gone:?}", service.display());
    let group = printed.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let name = service.file_name().unwrap().to_str().unwrap();
    assert!(group.contains(&format!("{name}/loopabull-launch-")), "{group}");
}

#[test]
fn requiring_a_group_that_is_left_out_is_bad_usage() {
    let mut fixture = Fixture::new("exit 3", &[Layer::Cgroup]);
    let (reports, _) = fixture.run(&[]);
    assert_eq!(state(&reports, Layer::Cgroup), Some(LayerState::Off), "{reports:?}");
    fixture.confinement.required.insert(Layer::Cgroup);
    let (reports, _) = fixture.run(&[]);
    assert!(matches!(&reports[..], [Report::Failed { code: exit::USAGE, .. }]), "{reports:?}");
}

/// The name of the process is invalid UTF-8, and its first thread has ended.
#[test]
fn a_process_with_an_odd_name_and_a_dead_main_thread_is_killed() {
    let mut left_out = vec![&[Layer::Namespaces, Layer::Cgroup][..]];
    if has_groups_for("an odd process is killed by its group") {
        left_out.push(&[Layer::Namespaces]);
    }
    for without in left_out {
        let program = "
import ctypes, os, threading, time
read, write = os.pipe()
if os.fork():
    os.read(read, 1)
    os._exit(5)
os.setsid()
libc = ctypes.CDLL(None)
libc.prctl(15, b'a\\xff', 0, 0, 0)
with open('pid', 'w') as file:
    file.write(str(os.getpid()))
def stay():
    os.write(write, b'x')
    time.sleep(600)
threading.Thread(target=stay).start()
libc.syscall(60, 0)
";
        let mut fixture = Fixture::new("", without);
        fixture.confinement.program = "/usr/bin/python3".into();
        fixture.confinement.arguments = vec!["-c".into(), program.into()];
        let (reports, _) = fixture.run(&[]);
        assert!(reports.contains(&Report::Exited { status: 5 }), "{reports:?}");
        assert!(reports.contains(&Report::Killed { count: 1 }), "{reports:?}");
        let pid = fs::read_to_string(fixture.folder.path().join("pid")).unwrap();
        // The killed process stays a zombie in `/proc` until process 1 reaps it.
        wait_until(|| !Path::new("/proc").join(&pid).exists());
    }
}

/// Each process forks a new process and then ends, so the launcher may find no process of the program in
/// `/proc`.
#[test]
fn a_program_that_forks_all_the_time_is_killed() {
    let program = "
import os
if os.fork():
    os._exit(5)
while True:
    if os.fork():
        os._exit(0)
";
    let mut left_out = vec![&[Layer::Cgroup][..], &[Layer::Namespaces, Layer::Cgroup]];
    if has_groups_for("a program that forks all the time is killed by its group") {
        left_out.push(&[Layer::Namespaces]);
    }
    for without in left_out {
        let mut fixture = Fixture::new("", without);
        fixture.confinement.program = "/usr/bin/python3".into();
        fixture.confinement.arguments = vec!["-c".into(), program.into()];
        let (reports, _) = fixture.run(&[]);
        assert!(reports.contains(&Report::Exited { status: 5 }), "{without:?} in {reports:?}");
        assert_eq!(fixture.living(), 0, "{without:?}");
    }
}
