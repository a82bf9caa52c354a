//! The control group of a program: all that it starts is in it, and is killed with it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use loopabull_launcher::{Held, Layer, Report, exit};

use crate::bed::{Bed, LAUNCHER, WAYS, held, wait_until};

/// Returns the folder of the control group in which this test is.
fn group_folder() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let places =
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|place| Path::new(place).join(own));
    places.into_iter().find(|place| place.join("cgroup.kill").exists() || is_root_group(place))
}

/// The root of the hierarchy cannot be killed.
fn is_root_group(place: &Path) -> bool {
    place.join("cgroup.controllers").exists() && !place.join("cgroup.type").exists()
}

/// Tells whether groups can be made here.
fn has_groups() -> bool {
    use rustix::fs::{Access, access};
    group_folder().is_some_and(|folder| access(folder, Access::WRITE_OK).is_ok())
}

/// Tells whether groups can be made here. If not, says what is untried, past what keeps the output of
/// tests that pass, and tries what must hold instead.
fn has_groups_for(what: &str) -> bool {
    if has_groups() {
        return true;
    }
    let line = format!("no control group can be made here, UNTRIED: {what}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
    let bed = Bed::new("exit 3", &[Layer::Namespaces]);
    let (reports, _) = bed.run(&[]);
    assert_eq!(held(&reports, Layer::Cgroup), Some(Held::No), "{reports:?}");
    assert!(reports.contains(&Report::Exited { status: 3 }), "{reports:?}");
    false
}

/// As in a container that has none: the machine's are put out of sight of the launcher.
fn run_without_groups(bed: &Bed) -> (Vec<Report>, String) {
    let hide = "mount -t tmpfs -o ro none /sys/fs/cgroup && exec \"$@\"";
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "/bin/sh", "-c", hide, "sh", LAUNCHER, "--report"]);
    let output = command.args(bed.confinement.to_args()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let reports = stderr.lines().filter_map(|line| line.strip_prefix("loopabull-launch: "));
    let reports: Vec<_> = reports.filter_map(|line| line.parse().ok()).collect();
    assert!(!reports.is_empty(), "{stderr}");
    (reports, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn program_runs_without_a_control_group_unless_that_is_required() {
    for without in WAYS {
        let mut bed = Bed::new("sleep 600 & echo it ran", without);
        bed.confinement.limits.processes = Some(1000);
        let (reports, printed) = run_without_groups(&bed);
        assert_eq!(printed, "it ran\n", "{reports:?}");
        assert_eq!(held(&reports, Layer::Cgroup), Some(Held::No), "{reports:?}");
        // Root is counted by nothing else.
        assert_eq!(held(&reports, Layer::Processes), Some(Held::No), "{reports:?}");
        assert!(reports.contains(&Report::Killed { count: 1 }), "{reports:?}");
        assert_eq!(bed.living(), 0);
        bed.confinement.required.insert(Layer::Cgroup);
        let (reports, printed) = run_without_groups(&bed);
        assert_eq!(printed, "", "{reports:?}");
        let is_told =
            |report: &Report| matches!(report, Report::Failed { code: exit::LAYER_FAILED, .. });
        assert!(reports.iter().any(is_told), "{reports:?}");
    }
}

#[test]
fn program_is_in_a_control_group_that_is_gone_with_it() {
    if !has_groups_for("a program is in a group of its own") {
        return;
    }
    for without in WAYS {
        let mut bed = Bed::new("cat /proc/self/cgroup", without);
        if without.is_empty() {
            bed.confinement.files.read.push("/proc".into());
        }
        let (reports, printed) = bed.run(&[]);
        let group = printed.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert_eq!(held(&reports, Layer::Cgroup), Some(Held::Yes), "{reports:?}");
        let name = group.rsplit('/').next().unwrap();
        assert!(name.starts_with("loopabull-launch-"), "{group}");
        assert!(!group_folder().unwrap().join(name).exists(), "{group}");
    }
}

/// A service of systemd with `Delegate=` and `DelegateSubgroup=` has a group whose processes are all in
/// groups below it: there controllers can be handed on.
#[test]
fn group_is_beside_the_daemons_in_what_a_service_was_given() {
    if !has_groups_for("a group is beside the daemon's in a service's") {
        return;
    }
    let service = group_folder().unwrap().join(format!("loopabull-test-{}", std::process::id()));
    let daemon = service.join("daemon");
    fs::create_dir_all(&daemon).unwrap();
    rustix::fs::setxattr(&service, "user.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let bed = Bed::new("cat /proc/self/cgroup", &[Layer::Namespaces]);
    let mut command = Command::new("/bin/sh");
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", daemon.display());
    command.args(["-c", &enter, "sh", LAUNCHER]).args(bed.confinement.to_args());
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let gone = fs::remove_dir(&daemon).and_then(|()| fs::remove_dir(&service));
    assert!(gone.is_ok(), "something is left in {}: {gone:?}", service.display());
    let group = printed.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let name = service.file_name().unwrap().to_str().unwrap();
    assert!(group.contains(&format!("{name}/loopabull-launch-")), "{group}");
}

#[test]
fn group_that_is_required_and_left_out_is_bad_usage() {
    let mut bed = Bed::new("exit 3", &[Layer::Cgroup]);
    let (reports, _) = bed.run(&[]);
    assert_eq!(held(&reports, Layer::Cgroup), Some(Held::Off), "{reports:?}");
    bed.confinement.required.insert(Layer::Cgroup);
    let (reports, _) = bed.run(&[]);
    assert!(matches!(&reports[..], [Report::Failed { code: exit::USAGE, .. }]), "{reports:?}");
}

/// A process may have a name that is no text, and a first thread that has ended.
#[test]
fn what_hides_from_a_list_of_processes_is_killed() {
    for without in [&[Layer::Namespaces, Layer::Cgroup][..], &[Layer::Namespaces]] {
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
        let mut bed = Bed::new("", without);
        bed.confinement.program = "/usr/bin/python3".into();
        bed.confinement.arguments = vec!["-c".into(), program.into()];
        let (reports, _) = bed.run(&[]);
        assert!(reports.contains(&Report::Exited { status: 5 }), "{reports:?}");
        assert!(reports.contains(&Report::Killed { count: 1 }), "{reports:?}");
        let pid = fs::read_to_string(bed.folder.path().join("pid")).unwrap();
        // It lies there until the first process of all looks.
        wait_until(|| !Path::new("/proc").join(&pid).exists());
    }
}

/// Whoever looks where it is finds that it is somebody else by now.
#[test]
fn what_never_stays_one_process_is_killed() {
    let program = "
import os
if os.fork():
    os._exit(5)
while True:
    if os.fork():
        os._exit(0)
";
    // Either is enough.
    let mut ways = vec![Layer::Cgroup];
    if has_groups_for("what never stays one process is killed by its group") {
        ways.push(Layer::Namespaces);
    }
    for without in ways {
        let mut bed = Bed::new("", &[without]);
        bed.confinement.program = "/usr/bin/python3".into();
        bed.confinement.arguments = vec!["-c".into(), program.into()];
        let (reports, _) = bed.run(&[]);
        assert!(reports.contains(&Report::Exited { status: 5 }), "{without} in {reports:?}");
        assert_eq!(bed.living(), 0, "{without}");
    }
}
