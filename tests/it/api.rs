//! The API at `/api/v1`: it does what its description says, and nothing without the right token.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::actions::{LOOK, OPERATE};
use crate::test_host::{Daemon, TestHost, message, repository, text, wait_for};

/// What Schemathesis checks. Not `positive_data_acceptance`: a search, a span and the name of a task have a language of their own,
/// which a schema of JSON does not describe.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      negative_data_rejection,unsupported_method,ignored_auth";

/// Starts a daemon with both tokens, which has runs of each kind, dead letters and a pause.
fn start(host: &TestHost) -> Daemon {
    host.add_guest("good", "good", "", "i32.const 0");
    host.add_guest(
        "bad",
        "bad",
        "[retry]\nmax_attempts = 1\n[breaker]\nfailures = 0",
        "unreachable",
    );
    host.add_playbook("play", "", "    - command: 'true'\n");
    host.write("operate", OPERATE).write("look", LOOK);
    host.write("loopabull.toml", "token_file = 'look'\noperate_token_file = 'operate'\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    host.inject(&[
        message("m-1", "good", "{}"),
        message("m-2", "bad", r#"{"n": 1e400}"#),
        message("m-3", "play", "{}"),
        message("m-4", "bad", "{}"),
    ]);
    wait_for("the runs", || (host.runs().len() == 4).then_some(()));
    let output = host.run(&["pause", "--task", "play", "--reason", "a test"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    daemon
}

/// Sends a request with these headers. Returns the status and the answer.
pub(crate) fn send(
    daemon: &Daemon,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    let url = format!("http://{}{path}", daemon.address());
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    request = request.header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build();
    let mut answer = ureq::Agent::from(config).run(request.body(body.to_owned()).unwrap()).unwrap();
    let said = answer.body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&said).unwrap_or(Value::String(said)))
}

/// Sends a request with this token, if there is one.
fn send_as(
    daemon: &Daemon,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> (u16, Value) {
    let value = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = value.iter().map(|value| ("Authorization", value.as_str())).collect();
    send(daemon, method, path, &headers, body)
}

/// Returns the method and the path of each operation.
pub(crate) fn operations(daemon: &Daemon) -> Vec<(String, String)> {
    let (status, document) = send_as(daemon, "GET", "/api/v1/openapi.json", Some(OPERATE), "");
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap().clone();
    let of = |(path, operations): (String, Value)| {
        let methods = operations.as_object().unwrap().clone();
        methods.into_iter().map(move |(method, _)| (method.to_uppercase(), path.clone()))
    };
    paths.into_iter().flat_map(of).collect()
}

/// Without a token nothing is told, and without the operator's token nothing is done.
#[test]
fn nothing_is_told_or_done_without_the_right_token() {
    let host = TestHost::new();
    let daemon = start(&host);
    let operations = operations(&daemon);
    assert!(operations.len() >= 15, "{operations:?}");
    let before = host.run(&["audit"]).stdout;
    for (method, path) in &operations {
        let path = path.replace("{id}", "x");
        for token in [None, Some("wrong"), Some(&OPERATE[1..])] {
            let (status, answer) = send_as(&daemon, method, &path, token, "{}");
            assert_eq!(status, 401, "{method} {path}");
            let names: Vec<_> = answer.as_object().unwrap().keys().collect();
            assert_eq!(names, ["error"], "{method} {path}: {answer}");
        }
        let (status, _) = send_as(&daemon, method, &path, Some(LOOK), "{}");
        let is_refused = matches!(status, 401 | 403);
        assert_eq!(is_refused, method == "POST", "{method} {path}: {status}");
        let (status, _) = send_as(&daemon, method, &path, Some(OPERATE), "{}");
        assert!(!matches!(status, 401 | 403 | 500..), "{method} {path}: {status}");
    }
    let list = |parameters: &str| {
        let path = format!("/api/v1/dead-letters?limit=1&{parameters}");
        send_as(&daemon, "GET", &path, Some(LOOK), "").1
    };
    let (first, second) = (list(""), list("skip=1"));
    assert_eq!([&first["matching"], &first["next"]], [2, 1], "{first}");
    assert!(second["next"].is_null() && list("skip=2")["dead_letters"] == serde_json::json!([]));
    assert_ne!(first["dead_letters"][0]["id"], second["dead_letters"][0]["id"]);
    for path in ["/api/v1", "/api/v1/openapi.json", "/api/v1/", "/api/v1/nothing"] {
        assert_eq!(send_as(&daemon, "GET", path, None, "").0, 401, "{path}");
    }
    assert_eq!(send_as(&daemon, "GET", "/api/v1/nothing", Some(LOOK), "").0, 404);
    assert_eq!(send_as(&daemon, "DELETE", "/api/v1/runs", Some(OPERATE), "").0, 405);
    assert_eq!(text(&host.run(&["audit"]).stdout), text(&before));
    daemon.stop();
}

/// Schemathesis sends requests that it derives from the description, right and wrong ones. Every answer has a status and a
/// form that the description names.
#[test]
fn every_answer_is_as_described() {
    let host = TestHost::new();
    let daemon = start(&host);
    let program = std::env::var_os("LOOPABULL_TEST_SCHEMATHESIS").map_or_else(
        || repository().join("target/schemathesis-venv/bin/schemathesis"),
        PathBuf::from,
    );
    // An address of more than 16 KiB is refused before anybody looks at what is wrong with it.
    host.write(
        "st.toml",
        "[checks]\nnegative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 431]\n",
    );
    let run = |token: &str, checks: &str| {
        let mut command = Command::new(&program);
        command.current_dir(host.path("")).args(["--no-color", "--config-file", "st.toml", "run"]);
        command.arg(format!("http://{}/api/v1/openapi.json", daemon.address()));
        command.args(["--checks", checks, "--max-examples", "30", "--seed", "1", "--no-shrink"]);
        command.args(["--phases", "examples,coverage,fuzzing", "--warnings", "off"]);
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
        let output = command.output().unwrap_or_else(|error| {
            panic!("`{}` cannot start: {error}; run `cargo xtask test api`", program.display())
        });
        let said: String = (text(&output.stdout) + &text(&output.stderr))
            .lines()
            .map(|line| line.chars().take(200).collect::<String>() + "\n")
            .collect();
        assert!(output.status.success(), "{said}");
    };
    let before = text(&host.run(&["audit"]).stdout);
    run(LOOK, "not_a_server_error,status_code_conformance,content_type_conformance");
    assert_eq!(text(&host.run(&["audit"]).stdout), before);
    run(OPERATE, CHECKS);
    let (code, said) = daemon.get_as("/api/v1/status", &format!("Bearer {OPERATE}"));
    assert_eq!(code, 200, "{said}");
    daemon.stop();
}

/// Commands ask a running daemon. They open none of its files: the daemon may just be upgrading them, or belong to another user.
#[test]
fn no_command_opens_the_files_of_a_running_daemon() {
    let host = TestHost::new();
    let daemon = start(&host);
    let run = host.runs()[0].id.to_string();
    let commands: [&[&str]; 17] = [
        &["status"],
        &["runs"],
        &["runs", "list", "task:good"],
        &["runs", "show", &run],
        &["runs", "compare", &run],
        &["runs", "again", &run, "--print"],
        &["runs", "again", &run],
        &["failures"],
        &["messages"],
        &["explain", "m-1"],
        &["dead-letters"],
        &["dead-letters", "requeue", "--task", "bad"],
        &["dead-letters", "drop", "--task", "bad"],
        &["pause", "--task", "good"],
        &["resume", "--all"],
        &["retry"],
        &["audit"],
    ];
    for arguments in commands {
        let trace = host.path("trace");
        let program = host.command(&[]);
        let mut strace = Command::new("strace");
        strace.current_dir(host.path("")).args(["-f", "-qq", "-e", "trace=open,openat,openat2"]);
        let output =
            strace.arg("-o").arg(&trace).arg(program.get_program()).args(arguments).output();
        let output = output.expect("`cargo xtask test` installs strace");
        let said = text(&output.stdout) + &text(&output.stderr);
        // A run whose task has no other run has nothing to be compared with.
        let is_fine = output.status.success() || said.contains("no other run of task");
        assert!(is_fine, "{arguments:?}: {said}");
        let opened = fs::read_to_string(&trace).unwrap();
        assert!(opened.contains("daemon.json"), "{arguments:?}: {opened}");
        let files: Vec<_> = opened.lines().filter(|line| line.contains(".db")).collect();
        assert_eq!(files, [""; 0], "{arguments:?}");
    }
    daemon.stop();
}

/// Sends a request to the socket of a daemon. Returns the status.
fn ask_socket(host: &TestHost, path: &str, key: &str) -> String {
    let mut stream = UnixStream::connect(host.path("state/daemon.sock")).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Root and the daemon's user may act by commands. A process that can connect, but cannot read the state directory, may not:
/// a playbook on a machine without namespaces is one.
#[test]
fn the_socket_is_for_the_user_of_the_daemon_and_for_root() {
    const USER: u32 = 4711;
    const OTHER: u32 = 4712;
    let host = TestHost::of_user(USER);
    host.add_guest("good", "good", "", "i32.const 0");
    let daemon = host.start(&["--workers", "1"]);
    let key: Value =
        serde_json::from_str(&fs::read_to_string(host.path("state/daemon.json")).unwrap()).unwrap();
    let key = key["key"].as_str().unwrap();
    assert!(key.len() >= 32);
    assert_eq!(ask_socket(&host, "/api/v1/status", key), "200");
    for wrong in ["", "x", &key[1..], OPERATE] {
        for path in ["/api/v1/status", "/livez", "/"] {
            assert_eq!(ask_socket(&host, path, wrong), "401", "{path} {wrong}");
        }
    }
    let as_user = |user: u32, arguments: &[&str]| {
        let program = host.command(&[]).get_program().to_owned();
        let mut command = Command::new(program);
        std::os::unix::process::CommandExt::uid(&mut command, user);
        let output = command.current_dir(host.path("")).args(arguments).output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let (is_done, said) = as_user(OTHER, &["pause", "--task", "good"]);
    assert!(!is_done && said.contains("as root or as the user of the daemon"), "{said}");
    for user in [USER, 0] {
        let (is_done, said) = as_user(user, &["pause", "--task", "good"]);
        assert!(is_done && said.contains("task `good` is paused"), "{said}");
        let (_, audit) = as_user(user, &["audit", "--limit", "1"]);
        assert!(audit.contains(&format!("command of user {user} ")), "{audit}");
        assert!(as_user(user, &["resume", "--task", "good"]).0);
    }
    for file in fs::read_dir(host.path("state")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().uid(), USER, "{:?}", file.path());
    }
    daemon.stop();
    assert!(!host.path("state/daemon.sock").exists());
}

/// `--url` asks a daemon of another machine, with a token.
#[test]
fn a_command_asks_the_daemon_at_an_address() {
    let host = TestHost::new();
    let daemon = start(&host);
    let url = format!("http://{}", daemon.address());
    let elsewhere = TestHost::new();
    elsewhere.write("operate", OPERATE).write("look", LOOK);
    let run = |token: &str, arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--url", &url]);
        if !token.is_empty() {
            all.extend(["--token-file", token]);
        }
        let output = elsewhere.run(&all);
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = run("", &["runs"]);
    assert_eq!(code, 1);
    assert!(said.contains("the token is missing") && said.contains("--token-file"), "{said}");
    let (code, said) = run("look", &["runs", "list", "task:play"]);
    assert!(code == 0 && said.contains("m-3") && !said.contains("m-1"), "{said}");
    assert!(run("look", &["status"]).1.contains("paused   task `play`"));
    assert!(run("look", &["explain", "m-3"]).1.contains("Task `play` ran it"));
    let (code, said) = run("look", &["resume", "--task", "play"]);
    assert!(code == 1 && said.contains("an action needs the operator's token"), "{said}");
    let (code, said) = run("operate", &["resume", "--task", "play"]);
    assert!(code == 0 && said == "task `play` is resumed\n", "{said}");
    let (code, said) = run("operate", &["resume", "--task", "play"]);
    assert!(code == 1 && said.contains("task `play` is not paused"), "{said}");
    assert!(run("look", &["audit"]).1.contains("operator's token from 127.0.0.1"));
    daemon.stop();
    let (code, said) = run("look", &["runs"]);
    assert!(code == 1 && said.contains("does not answer") && said.contains("refused"), "{said}");
    assert!(!elsewhere.path("state").exists());
}

/// After a daemon was killed, its socket is still there. The commands read the files, and say so.
#[test]
fn without_a_daemon_the_files_are_read() {
    let host = TestHost::new();
    let daemon = start(&host);
    let with = host.run(&["runs"]);
    assert_eq!(text(&with.stderr), "");
    // With SIGKILL.
    drop(daemon);
    for (arguments, expected) in
        [(["runs"], "m-1"), (["audit"], "pause"), (["dead-letters"], "m-2"), (["failures"], "bad")]
    {
        let output = host.run(&arguments);
        assert!(output.status.success() && text(&output.stdout).contains(expected), "{output:?}");
        assert_eq!(text(&output.stderr), "note: no daemon is running; this comes from its files\n");
    }
    assert_eq!(text(&host.run(&["runs"]).stdout), text(&with.stdout));
    let output = host.run(&["pause", "--queue", "nothing"]);
    assert!(text(&output.stderr).contains("there is no queue `nothing`"), "{output:?}");
    let output = host.run(&["pause", "--task", "good"]);
    assert_eq!(
        text(&output.stdout),
        "task `good` is paused for the next daemon: none is running\n"
    );
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    assert!(text(&host.run(&["status"]).stdout).contains("paused   task `good`"));
    daemon.stop();
}

/// A daemon that hangs keeps its files to itself.
#[test]
fn a_daemon_that_hangs_is_not_bypassed() {
    let host = TestHost::new();
    let daemon = start(&host);
    daemon.signal("STOP");
    let output = host.run(&["runs"]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("the daemon does not answer"), "{said}");
    daemon.signal("CONT");
    daemon.stop();
}

/// Two operators pause the same: one of them did it, and the other learns why it is paused.
#[test]
fn who_comes_second_is_told_so() {
    let host = TestHost::new();
    let daemon = start(&host);
    let pause = |reason: &str| host.run(&["pause", "--task", "good", "--reason", reason]);
    let outputs = std::thread::scope(|scope| {
        let both = ["first", "second"].map(|reason| scope.spawn(move || pause(reason)));
        both.map(|one| one.join().unwrap())
    });
    let done = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(done, 1, "{outputs:?}");
    let refused = outputs.iter().find(|output| !output.status.success()).unwrap();
    let said = text(&refused.stderr);
    assert!(said.contains("task `good` is already paused"), "{said}");
    let again = text(&pause("third").stderr);
    assert!(
        again.contains("is already paused: first") || again.contains("is already paused: second")
    );
    daemon.stop();
}

/// An action is in the audit log from its beginning. If the daemon dies during it, nobody knows how much it changed.
#[test]
fn an_action_that_is_cut_off_is_recorded() {
    let host = TestHost::new();
    host.write("operate", OPERATE).write("look", LOOK);
    host.write("loopabull.toml", "token_file = 'look'\noperate_token_file = 'operate'\n");
    let policy = "[retry]\nmax_attempts = 1\n[breaker]\nfailures = 0";
    host.add_guest("bad", "bad", policy, "unreachable");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    let count = 3000;
    let messages: Vec<_> = (0..count).map(|n| message(&format!("m-{n}"), "bad", "{}")).collect();
    host.inject(&messages);
    let dead = || {
        let (_, status) = daemon.get_as("/api/v1/status", &format!("Bearer {LOOK}"));
        let status: Value = serde_json::from_str(&status).unwrap();
        status["queues"][0]["dead"].as_u64()
    };
    wait_for("the dead letters", || (dead() == Some(count)).then_some(()));
    let mut command = host.command(&["dead-letters", "drop", "--all"]).spawn().unwrap();
    wait_for("the line", || text(&host.run(&["audit"]).stdout).contains("  drop  ").then_some(()));
    // With SIGKILL.
    drop(daemon);
    assert!(!command.wait().unwrap().success());
    let audit = text(&host.run(&["audit"]).stdout);
    assert!(audit.contains("  drop    all dead letters  not known"), "{audit}");
}
