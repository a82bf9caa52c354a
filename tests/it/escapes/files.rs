//! Escapes through files: a component can use its granted directories, and no path, link or swapped directory
//! leads out of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{NOWHERE, add_probe, check, operations};
use crate::test_host::{TestHost, message, text, wait_for};

/// The error text of the standard library for a path outside all granted directories.
const NO_GRANT: &str = "uncategorized error";

/// Returns a test host whose probe may read `ro` and change `rw`; `outside` is not granted.
fn host() -> TestHost {
    let host = TestHost::new();
    for folder in ["ro", "ro/sub", "rw", "rw/sub", "outside"] {
        fs::create_dir(host.path(folder)).unwrap();
    }
    host.write("ro/file", "inside").write("ro/sub/file", "below");
    host.write("rw/file", "mine").write("rw/sub/file", "below");
    host.write("outside/secret", "secret");
    for folder in ["ro", "rw"] {
        let link = |target: &Path, name: &str| {
            symlink(target, host.path(&format!("{folder}/{name}"))).unwrap();
        };
        link(Path::new("file"), "within");
        link(Path::new("../outside"), "out");
        link(Path::new("../outside/secret"), "out-file");
        link(&host.path("outside"), "absolute");
        link(Path::new("/proc/self"), "proc");
        link(Path::new("round"), "round");
    }
    let [ro, rw] = ["ro", "rw"].map(|name| host.path(name).display().to_string());
    let dirs = format!(
        "dirs = [{{ host = '{ro}', guest = '/ro' }}, \
         {{ host = '{rw}', guest = '/rw', access = 'read-write' }}]"
    );
    add_probe(&host, &format!("{NOWHERE}\n{dirs}"));
    host
}

/// Makes the probe try these operations, and checks that `outside` and `ro` are unchanged.
fn check_in(host: &TestHost, expected: &[(&str, &str)]) {
    check(host, expected);
    let content = |name: &str| fs::read_to_string(host.path(name)).unwrap();
    assert_eq!(content("outside/secret"), "secret");
    assert_eq!(names(host, "outside"), ["secret"]);
    assert_eq!(content("ro/file"), "inside");
    let all = ["absolute", "file", "out", "out-file", "proc", "round", "sub", "within"];
    assert_eq!(names(host, "ro"), all);
    assert_eq!(names(host, "ro/sub"), ["file"]);
}

fn names(host: &TestHost, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(host.path(folder)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn granted_operations_succeed() {
    check_in(
        &host(),
        &[
            ("granted", "ok /ro /rw"),
            ("list /ro sub", "ok file"),
            ("read /ro file", "ok inside"),
            ("read /ro sub/../file", "ok inside"),
            ("read /ro within", "ok inside"),
            ("std-read /ro/file", "ok inside"),
            ("write /rw new made", "ok"),
            ("read /rw new", "ok made"),
            ("overwrite /rw new MA", "ok"),
            ("read /rw new", "ok MAde"),
            ("truncate /rw new", "ok"),
            ("stat /rw new", "ok 0 bytes"),
            ("create-dir /rw made", "ok"),
            ("rename /rw new /rw made/renamed", "ok"),
            ("link /rw made/renamed /rw linked", "ok"),
            ("symlink /rw made/renamed pointer", "ok"),
            ("read-link /rw pointer", "ok made/renamed"),
            ("touch /rw made/renamed", "ok"),
            ("delete /rw made/renamed", "ok"),
            ("remove-dir /rw made", "ok"),
            ("list /rw .", "ok absolute file linked out out-file pointer proc round sub within"),
        ],
    );
}

#[test]
fn no_path_leads_out_of_a_granted_directory() {
    let host = host();
    let absolute = host.path("outside/secret").display().to_string();
    let [read, std] = ["read /ro", "std-read"].map(|read| format!("{read} {absolute}"));
    let expected = [
        ("read /ro ../outside/secret", "not-permitted"),
        ("read /ro sub/../../outside/secret", "not-permitted"),
        ("read /ro ./.././outside/secret", "not-permitted"),
        ("read /ro ..", "not-permitted"),
        ("list /ro ..", "not-permitted"),
        ("list /ro ../", "not-permitted"),
        ("stat /ro ../outside/secret", "not-permitted"),
        (&read, "not-permitted"),
        ("read /ro /etc/passwd", "not-permitted"),
        ("read /ro //etc/passwd", "not-permitted"),
        ("read /ro /proc/self/root/etc/passwd", "not-permitted"),
        ("read /ro /ro/file", "not-permitted"),
        ("list /ro /", "not-permitted"),
        ("write /rw ../outside/secret x", "not-permitted"),
        ("write /rw sub/../../outside/new x", "not-permitted"),
        ("create /rw ../new", "not-permitted"),
        ("create-dir /rw ../new", "not-permitted"),
        ("delete /rw ../outside/secret", "not-permitted"),
        ("remove-dir /rw ../outside", "not-permitted"),
        ("rename /rw ../outside/secret /rw got", "not-permitted"),
        ("rename /rw file /rw ../outside/got", "not-permitted"),
        ("link /rw ../outside/secret /rw got", "not-permitted"),
        ("link /rw file /rw ../outside/got", "not-permitted"),
        ("touch /rw ../outside/secret", "not-permitted"),
        ("std-read /ro/../outside/secret", "permission denied"),
        (&std, NO_GRANT),
        ("std-read /etc/passwd", NO_GRANT),
        ("std-read /proc/self/root/etc/passwd", NO_GRANT),
        ("std-list /", NO_GRANT),
    ];
    check_in(&host, &expected);
}

#[test]
fn no_symbolic_link_leads_out_of_a_granted_directory() {
    let host = host();
    let target = host.path("outside").display().to_string();
    let symlink = format!("symlink /rw {target} made-absolute");
    let expected = [
        ("read /ro out-file", "not-permitted"),
        ("read /ro out-file/", "not-permitted"),
        ("read-itself /ro out-file", "loop"),
        ("read /ro out/secret", "not-permitted"),
        ("read /ro absolute/secret", "not-permitted"),
        ("read /ro proc/root/etc/passwd", "not-permitted"),
        ("read /ro proc/cwd/outside/secret", "not-permitted"),
        ("read /ro round", "loop"),
        ("stat /ro out/secret", "not-permitted"),
        ("list /ro out", "not-permitted"),
        ("list /ro out/", "not-permitted"),
        ("list /ro out//", "not-permitted"),
        ("list /ro out/.", "not-permitted"),
        ("list /ro absolute/", "not-permitted"),
        ("list /ro proc/root/", "not-permitted"),
        // Changes through a link. The link is the end of the path, is followed by a slash at the end, or is
        // inside the path.
        ("write /rw out-file x", "not-permitted"),
        ("write /rw out-file/ x", "is-directory"),
        ("write /rw out/new x", "not-permitted"),
        ("create /rw out/new", "not-permitted"),
        ("create-dir /rw out/new", "not-permitted"),
        ("create-dir /rw out/new/", "not-permitted"),
        ("create-in /rw out new", "not-permitted"),
        ("create-in /rw out/ new", "not-permitted"),
        ("touch /rw out/secret", "not-permitted"),
        ("touch /rw out-file", "not-permitted"),
        ("delete /rw out/secret", "not-permitted"),
        ("delete /rw out/", "not-permitted"),
        ("remove-dir /rw out/", "not-permitted"),
        ("remove-dir /rw out", "not-directory"),
        ("rename /rw out/secret /rw got", "not-permitted"),
        ("rename /rw file /rw out/got", "not-permitted"),
        ("rename /rw sub /rw out/", "not-directory"),
        ("rename /rw out/ /rw got", "not-directory"),
        ("link /rw out/secret /rw got", "not-permitted"),
        ("link /rw file /rw out/got", "not-permitted"),
        ("link-target /rw out-file /rw got", "invalid"),
        // The guest cannot create an absolute link. It can create a relative link that leads outside, but
        // cannot follow the link.
        (&symlink, "not-permitted"),
        ("symlink /rw /proc/self/root made-root", "not-permitted"),
        ("symlink /rw ../outside made", "ok"),
        ("read /rw made/secret", "not-permitted"),
        ("list /rw made/", "not-permitted"),
        ("symlink /rw x out/new", "not-permitted"),
        ("symlink /rw x ../outside/new", "not-permitted"),
        // A link that was renamed or hard-linked still cannot be followed.
        ("rename /rw out /rw renamed", "ok"),
        ("read /rw renamed/secret", "not-permitted"),
        ("rename /rw absolute /rw sub/absolute", "ok"),
        ("read /rw sub/absolute/secret", "not-permitted"),
        ("link /rw out-file /rw linked", "ok"),
        ("read /rw linked", "not-permitted"),
        ("rename /rw out-file /rw sub/out-file", "ok"),
        ("read /rw sub/out-file", "no-entry"),
        ("delete /rw renamed", "ok"),
    ];
    check_in(&host, &expected);
    assert_eq!(fs::read_to_string(host.path("rw/file")).unwrap(), "mine");
}

#[test]
fn a_read_only_directory_cannot_be_changed() {
    check_in(
        &host(),
        &[
            ("write /ro file x", "not-permitted"),
            ("write /ro new x", "not-permitted"),
            ("overwrite /ro file x", "not-permitted"),
            ("create /ro new", "not-permitted"),
            ("truncate /ro file", "not-permitted"),
            ("truncate-by-opening /ro file", "not-permitted"),
            ("truncate-by-reader /ro file", "not-permitted"),
            ("write-by-reader /ro file x", "not-permitted"),
            ("touch /ro file", "not-permitted"),
            ("create-dir /ro new", "not-permitted"),
            ("create-in /ro sub new", "not-permitted"),
            ("remove-dir /ro sub", "not-permitted"),
            ("delete /ro file", "not-permitted"),
            ("delete /ro within", "not-permitted"),
            ("symlink /ro file new", "not-permitted"),
            ("rename /ro file /ro new", "not-permitted"),
            ("link /ro file /ro new", "not-permitted"),
            // Files cannot be moved or linked from one granted directory to the other. Otherwise a file of
            // `/ro` could become writable in `/rw`.
            ("rename /ro file /rw got", "not-permitted"),
            ("rename /rw file /ro got", "not-permitted"),
            ("link /ro file /rw got", "not-permitted"),
            ("link /rw file /ro got", "not-permitted"),
            ("read /ro file", "ok inside"),
        ],
    );
}

#[test]
fn a_component_without_a_grant_sees_no_files() {
    let host = TestHost::new();
    add_probe(&host, NOWHERE);
    let nothing = "no such directory is granted";
    check(
        &host,
        &[
            ("granted", "ok"),
            ("read / etc/passwd", nothing),
            ("list . .", nothing),
            ("std-read /etc/passwd", NO_GRANT),
            ("std-read message.json", NO_GRANT),
            ("std-list /", NO_GRANT),
            ("std-list .", NO_GRANT),
        ],
    );
}

#[test]
fn a_directory_that_is_swapped_after_the_task_was_loaded_stays_the_granted_one() {
    let host = host();
    let daemon = host.start(&[]);
    swap(&host, "rw");
    let tries = ["read /rw file", "list /rw .", "read /rw secret", "write /rw new made"];
    host.inject(&[operations("m-1", tries)]);
    daemon.wait_until_idle();
    daemon.stop();
    let output = &host.runs()[0].output.text;
    assert!(output.contains("info: read /rw file: ok mine\n"), "{output}");
    assert!(output.contains("info: read /rw secret: no-entry\n"), "{output}");
    assert!(output.contains("info: write /rw new made: ok \n"), "{output}");
    assert_eq!(names(&host, "outside"), ["secret"]);
    assert_eq!(fs::read_to_string(host.path("rw-as-it-was/new")).unwrap(), "made");
}

#[test]
fn a_directory_that_is_swapped_during_a_run_stays_the_granted_one() {
    let host = host();
    let tries = ["write /rw ready x", "wait /rw go", "read /rw secret", "write /rw new made"];
    host.write("message.json", operations("m-1", tries));
    let mut command = host.command(&["test", "probe", "message.json"]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the run to begin", || host.path("rw/ready").exists().then_some(()));
    swap(&host, "rw");
    host.write("rw-as-it-was/go", "");
    let said = text(&child.wait_with_output().unwrap().stdout);
    assert!(said.contains("info: read /rw secret: no-entry\n"), "{said}");
    assert!(said.contains("info: write /rw new made: ok \n"), "{said}");
    assert_eq!(names(&host, "outside"), ["secret"]);
    assert_eq!(fs::read_to_string(host.path("rw-as-it-was/new")).unwrap(), "made");
}

/// Replaces a directory with a link to `outside`.
fn swap(host: &TestHost, name: &str) {
    let path = host.path(name);
    fs::rename(&path, host.path(&format!("{name}-as-it-was"))).unwrap();
    symlink(host.path("outside"), path).unwrap();
}

#[test]
fn a_path_that_changes_during_the_lookup_does_not_lead_out() {
    let host = host();
    host.write("outside/file", "secret");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // `sub` alternates: it is a directory, does not exist, is a link to `outside`, does not exist.
        scope.spawn(|| {
            let [sub, aside] = ["ro/sub", "ro/aside"].map(|name| host.path(name));
            while !is_over.load(Ordering::Relaxed) {
                fs::rename(&sub, &aside).unwrap();
                symlink("../outside", &sub).unwrap();
                fs::remove_file(&sub).unwrap();
                fs::rename(&aside, &sub).unwrap();
            }
        });
        host.write("message.json", operations("m-1", ["race /ro sub/file 5000"]));
        let said = text(&host.run(&["test", "probe", "message.json"]).stdout);
        // Stops the other thread before any assertion can fail, because the scope waits for that thread.
        is_over.store(true, Ordering::Relaxed);
        let seen =
            said.lines().find_map(|line| line.strip_prefix("info: race /ro sub/file 5000: ok "));
        let seen = seen.expect(&said);
        assert!(!seen.contains("secret"), "{seen}");
        assert!(seen.contains("below") && seen.contains("not-permitted"), "{seen}");
    });
}

#[test]
fn a_missing_granted_directory_is_reported_before_the_task_runs() {
    let host = TestHost::new();
    add_probe(&host, &format!("{NOWHERE}\ndirs = [{{ host = '/nowhere', guest = '/x' }}]"));
    host.write("message.json", message("m-1", "probe", "[]"));
    let output = host.run(&["test", "probe", "message.json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("cannot open the granted directory `/nowhere`"), "{said}");
}
