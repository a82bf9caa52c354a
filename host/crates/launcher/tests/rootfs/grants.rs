//! Tests of the file descriptors, environment variables and files that a program gets.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use loopabull_launcher::{Environment, Report, User, exit, send_plan};

use crate::fixture::{Fixture, LAUNCHER, VARIANTS};

#[test]
fn named_descriptors_are_passed_on_and_no_others() {
    let script = "echo told >&3; cat <&4; ls /proc/self/fd";
    let mut fixture = Fixture::new(script, &[]);
    // The launcher receives the file descriptors with ascending numbers. The numbers here are in descending
    // order, so that one file descriptor could overwrite another.
    fixture.confinement.descriptors = vec![4, 3];
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(b"asked\n").unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    let (mut told, writer) = std::io::pipe().unwrap();
    let (_, printed) = fixture.run(&[input.into(), writer.into()]);
    // File descriptor 5 is the directory that `ls` itself reads.
    assert_eq!(printed, "asked\n0\n1\n2\n3\n4\n5\n");
    let mut text = String::new();
    told.read_to_string(&mut text).unwrap();
    assert_eq!(text, "told\n");
}

/// Some variables in the launcher's own environment could change how the privileged launcher behaves.
#[test]
fn variables_are_never_in_the_launchers_environment() {
    let mut fixture = Fixture::new("echo $WANTED $OTHER; echo > ready; sleep 600", &[]);
    fixture.confinement.environment = vec!["WANTED".into()];
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut launcher = Command::new(LAUNCHER);
    launcher.args(["--control", "0"]).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
    let mut child = launcher.stdout(Stdio::piped()).spawn().unwrap();
    let variables = [("WANTED", "loopabull-wanted"), ("OTHER", "x")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.into()));
    send_plan(&ours, &fixture.confinement, &Environment::from(variables), &[]).unwrap();
    fixture.wait_for("ready");
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
    let (_, printed) = Fixture::new("readlink /proc/self/fd/0; cat", &[]).run(&[]);
    assert_eq!(printed, "/dev/null\n");
}

#[test]
fn a_grant_of_a_missing_path_is_an_error() {
    let mut fixture = Fixture::new("exit 0", &[]);
    fixture.confinement.files.read.push("/no/such/place".into());
    let (reports, _) = fixture.run(&[]);
    let reason = "cannot apply layer `files`: cannot grant `/no/such/place`: \
                  No such file or directory (os error 2)";
    let reason = reason.to_owned();
    assert!(reports.contains(&Report::Failed { code: exit::LAYER_FAILED, reason }), "{reports:?}");
}

#[test]
fn a_grant_with_a_symbolic_link_in_its_path_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let outside = outside.path().canonicalize().unwrap();
    fs::create_dir_all(outside.join("granted")).unwrap();
    for target in ["/", "/root", "granted"] {
        let link = outside.join("link");
        std::os::unix::fs::symlink(target, &link).unwrap();
        for without in VARIANTS {
            let mut fixture = Fixture::new("ls /root /usr", without);
            fixture.confinement.files.write.push(link.clone());
            let (reports, printed) = fixture.run(&[]);
            let is_refused = |report: &Report| match report {
                Report::Failed { reason, .. } => reason.contains("contains a symbolic link"),
                _ => false,
            };
            assert!(reports.iter().any(is_refused), "{reports:?}");
            assert_eq!(printed, "");
        }
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn the_files_of_a_readable_grant_cannot_be_changed() {
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
    let mut fixture = Fixture::new(&script, &[]);
    fixture.confinement.files.read.push(outside.clone());
    // A writable grant inside the readable grant may be changed.
    fixture.confinement.files.write.push(outside.join("inner"));
    assert_eq!(fixture.run(&[]).1, "inner\n");
}

#[test]
fn the_root_filesystem_is_readable_for_another_user_with_any_umask() {
    let fixture = Fixture::new("cat /etc/hostname > /dev/null && echo read", &[]);
    let mut confinement = fixture.confinement.clone();
    confinement.user = Some(User { uid: 65534, gid: 65534 });
    confinement.files.write.clear();
    confinement.directory = "/usr".into();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\"", LAUNCHER]).args(confinement.to_args());
    assert_eq!(command.output().unwrap().stdout, b"read\n");
}

#[test]
fn home_and_temporary_files_are_in_the_given_directories() {
    let script = "echo ~root; getent passwd 0 | cut -d: -f1,3,6; echo > /tmp/x; ls /var/tmp";
    let mut fixture = Fixture::new(script, &[]);
    // The home must not be in `/tmp` or `/var/tmp`, because `--tmp` mounts another directory there.
    let target = env!("CARGO_TARGET_TMPDIR");
    let is_hidden = ["/tmp/", "/var/tmp/"].iter().any(|place| target.starts_with(place));
    fixture.folder = tempfile::tempdir_in(if is_hidden { "/srv" } else { target }).unwrap();
    fixture.confinement.program = "/bin/bash".into();
    fixture.confinement.user = Some(User { uid: 0, gid: 0 });
    let folder = fixture.folder.path().canonicalize().unwrap();
    fs::create_dir(folder.join("tmp")).unwrap();
    fixture.confinement.directory = folder.clone();
    fixture.confinement.files.write = vec![folder.clone()];
    fixture.confinement.home = Some(folder.clone());
    fixture.confinement.tmp = Some(folder.join("tmp"));
    let home = folder.display();
    assert_eq!(fixture.run(&[]).1, format!("{home}\nroot:0:{home}\nx\n"));
    assert!(folder.join("tmp/x").exists());
    // A user who is missing in `/etc/passwd` is added.
    fixture.confinement.user = Some(User { uid: 54321, gid: 54321 });
    fixture.confinement.arguments[1] = "getent passwd 54321 | cut -d: -f3,4,6".into();
    assert_eq!(fixture.run(&[]).1, format!("54321:54321:{home}\n"));
}
