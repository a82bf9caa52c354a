//! Tests of the guarantees in the launcher's help text.
//!
//! Each test starts a real program through the real launcher. The tests do not use the launcher's code,
//! except its options.

#![expect(
    clippy::disallowed_methods,
    reason = "the launcher itself is under test, so nothing can start it but the test"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use loopabull_launcher::{Confinement, Files, Layer, Limits, User, Watch, exit};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_loopabull-launch");

fn confined(program: &str, arguments: &[&str]) -> Confinement {
    Confinement {
        directory: "/usr".into(),
        home: None,
        tmp: None,
        environment: Vec::new(),
        files: Files { system: true, ..Files::default() },
        tcp: Vec::new(),
        watch: Watch::Nothing,
        landlock_abi: None,
        user: None,
        groups: Vec::new(),
        required: BTreeSet::new(),
        without: BTreeSet::new(),
        descriptors: Vec::new(),
        limits: Limits::none(),
        program: program.into(),
        arguments: arguments.iter().map(OsString::from).collect(),
    }
}

fn launcher(confinement: &Confinement) -> Command {
    let mut command = Command::new(LAUNCHER);
    command.args(confinement.to_args());
    command
}

/// Returns a command that runs the launcher from a shell. The shell first executes `setup`.
fn launcher_after(setup: &str, confinement: &Confinement) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{setup}; exec \"$0\" \"$@\""), LAUNCHER]);
    command.args(confinement.to_args());
    command
}

fn output(mut command: Command) -> Output {
    command.output().expect("the launcher can be started")
}

fn stdout(command: Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("the program prints UTF-8")
}

fn refused(command: Command, code: u8, message: &str) {
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, format!("loopabull-launch: {message}\n"));
    assert_eq!(output.status.code(), Some(i32::from(code)));
    assert_eq!(output.stdout, b"");
}

/// Returns the value of the field `name` in the text of `/proc/self/status`.
fn status_field(status: &str, name: &str) -> String {
    let prefix = format!("{name}:");
    let line = status.lines().find_map(|line| line.strip_prefix(&prefix));
    line.expect("the kernel prints this field").trim().into()
}

/// Returns the soft and the hard limit with this name in the text of `/proc/self/limits`.
fn limit(limits: &str, name: &str) -> (String, String) {
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.expect("the kernel prints this limit").split_whitespace();
    let mut word = || words.next().expect("each line has two limits").to_owned();
    (word(), word())
}

fn both(limit: &str) -> (String, String) {
    (limit.into(), limit.into())
}

/// Returns the process id, the process group and the session in the text of `/proc/self/stat`.
fn ids(stat: &str) -> [String; 3] {
    let words: Vec<&str> = stat.split(' ').collect();
    [words[0], words[4], words[5]].map(str::to_owned)
}

#[test]
fn a_program_cannot_gain_privileges() {
    let status = stdout(launcher(&confined("/bin/cat", &["/proc/self/status"])));
    assert_eq!(status_field(&status, "NoNewPrivs"), "1");
}

#[test]
fn the_environment_has_only_the_named_variables() {
    let mut confinement = confined("/usr/bin/env", &[]);
    confinement.environment = vec!["WANTED".into(), "EMPTY".into(), "WANTED".into()];
    let mut command = launcher(&confinement);
    command.env("WANTED", "a=b").env("EMPTY", "");
    command.env("SECRET", "hunter2");
    assert_eq!(stdout(command), "EMPTY=\nWANTED=a=b\n");
}

#[test]
fn a_variable_that_is_not_set_is_skipped() {
    let mut confinement = confined("/usr/bin/env", &[]);
    confinement.environment = vec!["LOOPABULL_UNSET".into()];
    let mut command = launcher(&confinement);
    command.env_remove("LOOPABULL_UNSET");
    assert_eq!(stdout(command), "");
}

#[test]
fn descriptors_beyond_the_first_three_are_closed() {
    let confinement = confined("/bin/ls", &["/proc/self/fd"]);
    let command = launcher_after("exec 9</etc/passwd 5>&1", &confinement);
    // File descriptor 3 is the directory that `ls` itself reads.
    assert_eq!(stdout(command), "0\n1\n2\n3\n");
}

#[test]
fn core_dumps_are_always_off() {
    let limits = stdout(launcher(&confined("/bin/cat", &["/proc/self/limits"])));
    assert_eq!(limit(&limits, "Max core file size"), both("0"));
}

#[test]
fn limits_are_both_soft_and_hard() {
    let mut confinement = confined("/bin/cat", &["/proc/self/limits"]);
    confinement.limits = Limits {
        open_files: Some(64),
        file_size: Some(1_048_576),
        cpu_seconds: Some(30),
        memory: Some(1_073_741_824),
        processes: Some(100),
    };
    let limits = stdout(launcher(&confinement));
    assert_eq!(limit(&limits, "Max core file size"), both("0"));
    assert_eq!(limit(&limits, "Max open files"), both("64"));
    assert_eq!(limit(&limits, "Max file size"), both("1048576"));
    assert_eq!(limit(&limits, "Max cpu time"), both("30"));
    assert_eq!(limit(&limits, "Max address space"), both("1073741824"));
    assert_eq!(limit(&limits, "Max processes"), both("100"));
}

#[test]
fn an_inherited_limit_is_never_raised() {
    let mut confinement = confined("/bin/cat", &["/proc/self/limits"]);
    confinement.limits.open_files = Some(1024);
    let limits = stdout(launcher_after("ulimit -n 100", &confinement));
    assert_eq!(limit(&limits, "Max open files"), both("100"));
}

#[test]
fn created_files_are_accessible_only_to_their_owner() {
    let command = launcher_after("umask 0", &confined("/bin/sh", &["-c", "umask"]));
    assert_eq!(stdout(command), "0077\n");
}

#[test]
fn a_program_leads_its_own_process_group_and_session() {
    let command = launcher(&confined("/bin/cat", &["/proc/self/stat"]));
    let [process, group, session] = ids(&stdout(command));
    assert_eq!((&group, &session), (&process, &process));
}

#[test]
fn a_program_that_dies_by_a_signal_has_the_exit_code_that_shells_report() {
    let mut command = launcher(&confined("/bin/sh", &["-c", "kill -9 $$"]));
    let status = command.status().expect("the launcher can be started");
    assert_eq!(status.code(), Some(128 + 9));
}

#[test]
fn signal_masks_and_ignored_signals_are_reset() {
    let mut command = Command::new("/usr/bin/env");
    command.args(["--block-signal=TERM", "--ignore-signal=PIPE", LAUNCHER]);
    command.args(confined("/bin/cat", &["/proc/self/status"]).to_args());
    let status = stdout(command);
    assert_eq!(status_field(&status, "SigBlk"), "0000000000000000");
    let ignored = u64::from_str_radix(&status_field(&status, "SigIgn"), 16);
    assert_eq!(ignored.expect("the kernel prints the mask in hexadecimal") & (1 << 12), 0);
}

#[test]
fn the_program_runs_in_the_given_working_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let directory = directory.path().canonicalize().expect("the directory was just created");
    let mut confinement = confined("/bin/sh", &["-c", "pwd -P"]);
    confinement.directory.clone_from(&directory);
    confinement.files.read.push(directory.clone());
    let printed = stdout(launcher(&confinement));
    assert_eq!(Path::new(printed.trim_end()), directory);
}

#[test]
fn arguments_are_passed_on_unchanged() {
    let arguments = ["%s\\n", "--env", "--", "", "a b", "é"];
    let command = launcher(&confined("/usr/bin/printf", &arguments));
    assert_eq!(stdout(command), "--env\n--\n\na b\né\n");
}

#[test]
fn the_exit_code_of_the_program_is_passed_on() {
    let output = output(launcher(&confined("/bin/sh", &["-c", "exit 3"])));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_missing_program_is_reported_as_not_found() {
    refused(
        launcher(&confined("/nonexistent/program", &[])),
        exit::NOT_FOUND,
        "cannot execute `/nonexistent/program`: No such file or directory (os error 2)",
    );
}

#[test]
fn a_file_without_execute_permission_cannot_be_executed() {
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let program = directory.path().join("program");
    fs::write(&program, "#!/bin/sh\n").expect("the directory is writable");
    let program = program.to_str().expect("the path is UTF-8");
    let mut confinement = confined(program, &[]);
    confinement.files.read.push(directory.path().to_owned());
    refused(
        launcher(&confinement),
        exit::CANNOT_EXECUTE,
        &format!("cannot execute `{program}`: Permission denied (os error 13)"),
    );
}

#[test]
fn a_missing_working_directory_is_an_error() {
    let mut confinement = confined("/bin/true", &[]);
    confinement.directory = "/nonexistent".into();
    refused(
        launcher(&confinement),
        exit::LAYER_FAILED,
        "cannot enter directory `/nonexistent`: No such file or directory (os error 2)",
    );
}

#[test]
fn an_error_is_one_line_even_if_the_path_has_a_line_break() {
    refused(
        launcher(&confined("/nonexistent\nprogram", &[])),
        exit::NOT_FOUND,
        "cannot execute `/nonexistent?program`: No such file or directory (os error 2)",
    );
}

#[test]
fn a_relative_program_path_is_bad_usage() {
    refused(launcher(&confined("true", &[])), exit::USAGE, "path `true` is not absolute");
}

#[test]
fn a_number_that_is_not_a_user_or_group_id_is_bad_usage() {
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
        let mut confinement = confined("/bin/true", &[]);
        confinement.user = Some(User { uid, gid });
        refused(
            launcher(&confinement),
            exit::USAGE,
            "`4294967295` is not a valid user or group id",
        );
    }
}

#[test]
fn a_program_has_the_groups_of_its_user_and_no_others() {
    assert!(rustix::process::geteuid().is_root(), "this test must run as root");
    for (groups, expected) in [(vec![64_011, 64_012], "64010 64011 64012\n"), (vec![], "64010\n")] {
        let mut confinement = confined("/usr/bin/id", &["-G"]);
        confinement.user = Some(User { uid: 64_010, gid: 64_010 });
        confinement.groups = groups;
        assert_eq!(stdout(launcher(&confinement)), expected);
    }
}

#[test]
fn an_unknown_option_is_bad_usage_and_named() {
    let mut command = Command::new(LAUNCHER);
    command.args(["--frobnicate", "--", "/bin/true"]);
    refused(command, exit::USAGE, "unknown option `--frobnicate`");
}

#[test]
fn the_help_names_every_option_layer_and_exit_code() {
    let mut command = Command::new(LAUNCHER);
    command.arg("--help");
    let help = stdout(command);
    let confinement = Confinement {
        home: Some("/a".into()),
        tmp: Some("/b".into()),
        environment: vec!["NAME".into()],
        files: Files { system: true, read: vec!["/a".into()], write: vec!["/b".into()] },
        tcp: vec![22],
        watch: Watch::DeniedPorts,
        landlock_abi: Some(6),
        user: Some(User { uid: 1, gid: 1 }),
        groups: vec![2],
        required: BTreeSet::from([Layer::Tcp]),
        without: BTreeSet::from([Layer::Scopes]),
        descriptors: vec![3],
        limits: Limits {
            open_files: Some(1),
            file_size: Some(1),
            cpu_seconds: Some(1),
            memory: Some(1),
            processes: Some(1),
        },
        ..confined("/bin/true", &[])
    };
    for argument in confinement.to_args() {
        let argument = argument.to_str().expect("the arguments are UTF-8");
        if argument.starts_with("--") {
            assert!(help.contains(argument), "{argument}");
        }
    }
    for layer in Layer::ALL {
        assert!(help.contains(layer.name()), "{layer}");
    }
    let codes = [exit::USAGE, exit::LAYER_FAILED, exit::CANNOT_EXECUTE, exit::NOT_FOUND];
    for code in codes {
        assert!(help.contains(&format!("{code:>5}  ")), "{code}");
    }
}

#[test]
fn the_version_is_printed() {
    let mut command = Command::new(LAUNCHER);
    command.arg("--version");
    let expected = format!("loopabull-launch {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(command), expected);
}
