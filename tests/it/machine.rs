//! A machine that lacks something: file descriptors, a program, or somebody who reads the log. That is no
//! fault of a message: no attempt counts, `/readyz` tells, and the work goes on once the machine has what it
//! lacked.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use loopabull_testbed::{Rabbit, ansible_playbooks, fake_time};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::test_host::{Daemon, TestHost, message, untried, wait_at_most, wait_for};

/// Waits until a daemon has checked its playbooks, and limits it to the file descriptors that it has then.
fn leave_no_descriptors(daemon: &Daemon) {
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    limit_descriptors(daemon, descriptors(daemon));
}

/// Sets the soft and the hard limit of a daemon's file descriptors.
fn limit_descriptors(daemon: &Daemon, limit: usize) {
    let limit = format!("--nofile={limit}:1024");
    let set = Command::new("prlimit").args(["--pid", &daemon.id(), &limit]).status().unwrap();
    assert!(set.success());
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count()
}

/// Messages for a component and for a playbook.
fn messages(count: u32) -> Vec<String> {
    let one = |number| {
        let task = if number % 2 == 0 { "component" } else { "playbook" };
        message(&format!("m-{number}"), task, "{}")
    };
    (0..count).map(one).collect()
}

fn host() -> TestHost {
    let host = TestHost::new();
    let granted = host.path("shared");
    let grant = format!("host = '{}'\nguest = '/shared'\n", granted.display());
    host.add_guest(
        "component",
        "component",
        &format!("[[grants.dirs]]\n{grant}[breaker]\nfailures = 2\n"),
        "i32.const 0",
    );
    host.add_playbook("playbook", "[breaker]\nfailures = 2", "    - debug: { msg: x }\n");
    host
}

/// Checks that each message had one run, which succeeded as the first attempt.
fn check_runs(host: &TestHost, daemon: &Daemon, count: usize) {
    daemon.wait_until_idle();
    assert_eq!((daemon.depth("dead"), daemon.depth("held")), (Some(0), Some(0)), "{}", host.log());
    let runs = host.runs();
    let attempts: Vec<_> = runs.iter().filter(|run| run.outcome.is_attempt()).collect();
    assert_eq!(attempts.len(), count, "{runs:?}");
    assert!(attempts.iter().all(|run| run.outcome.is_success() && run.attempt == 1), "{runs:?}");
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
}

fn check_descriptors(flags: &[&str]) {
    let host = host();
    let daemon = host.start(&[&["--workers", "2"], flags].concat());
    let mut arguments = vec!["inject", "-"];
    arguments.extend(flags);
    leave_no_descriptors(&daemon);
    let idle: Vec<_> = (0..10).map(|_| TcpStream::connect(daemon.address()).unwrap()).collect();
    host.run_with_input(&arguments, &messages(8).join("\n"));
    // The port keeps descriptors in reserve, and closes idle connections.
    wait_for("readiness to tell", || {
        let (status, problems) = daemon.get("/readyz");
        let told = problems.contains("start of a run: ") && problems.contains("open files");
        (status == 503 && told).then_some(())
    });
    assert_eq!(daemon.get("/livez").0, 200);
    drop(idle);
    limit_descriptors(&daemon, 1024);
    check_runs(&host, &daemon, 8);
    daemon.stop();
}

#[test]
fn missing_file_descriptors_cost_no_attempt_with_the_embedded_queue() {
    check_descriptors(&[]);
}

#[test]
fn missing_file_descriptors_cost_no_attempt_with_rabbitmq() {
    check_descriptors(&["--amqp-url", &Rabbit::shared().vhost().url()]);
}

/// An upgrade removes `ansible-playbook` for a while.
#[test]
fn a_missing_ansible_costs_no_attempt() {
    let host = host();
    let (program, away) = (host.path("ansible-playbook"), host.path("away"));
    fs::copy(&ansible_playbooks()[0], &program).unwrap();
    host.write("loopabull.toml", format!("[playbook]\nansible_playbook = '{}'", program.display()));
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "2"]);
    fs::rename(&program, &away).unwrap();
    host.inject(&messages(6));
    wait_for("readiness to tell", || {
        let (status, problems) = daemon.get("/readyz");
        (status == 503 && problems.contains("task `playbook`: refused: ")).then_some(())
    });
    wait_for("the messages to wait", || (daemon.depth("held") == Some(3)).then_some(()));
    fs::rename(&away, &program).unwrap();
    wait_for("the runs", || (host.tally().get("playbook success") == Some(&3)).then_some(()));
    check_runs(&host, &daemon, 6);
    daemon.stop();
}

/// With umask 077 a user of playbooks could not read our plugin: plays ended well and did nothing. With a state
/// directory of mode 0755, other users could read the journal.
#[test]
fn files_have_their_modes_whatever_the_umask_is() {
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (umask, user, state) in [("077", "user = 'nobody'", 0o711), ("000", "", 0o700)] {
        let host = host();
        host.write("loopabull.toml", format!("[playbook]\n{user}\n"));
        fs::create_dir(host.path("state")).unwrap();
        host.write("state/dedup.json", "{}").write("state/README", "");
        for (name, mode) in [("state", 0o755), ("state/dedup.json", 0o644), ("state/README", 0o644)]
        {
            fs::set_permissions(host.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let command = host.command(&["--listen", "127.0.0.1:0", "--config", "loopabull.toml"]);
        let child = Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(host.path("."))
            .spawn()
            .unwrap();
        let daemon = host.adopt(child);
        host.inject(&messages(2));
        check_runs(&host, &daemon, 2);
        daemon.stop();
        let runs = host.runs();
        let play = runs.iter().find(|run| run.task.as_str() == "playbook").unwrap();
        let results = play.playbook.as_ref().and_then(|report| report.results.as_ref());
        assert_eq!(results.unwrap().hosts["localhost"].ok, 1, "{play:?}");
        assert_eq!(mode(host.path("state")), state);
        for entry in fs::read_dir(host.path("state")).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let expected = match name.as_str() {
                "ansible" => 0o755,
                // A file that is not the daemon's.
                "README" => 0o644,
                "runs" => state,
                _ if entry.path().is_dir() => 0o700,
                _ => 0o600,
            };
            assert_eq!(mode(entry.path()), expected, "{name}");
        }
    }
}

/// A playbook of the daemon's own user, without namespaces, opens the state directory to all, or closes it to its owner.
#[test]
fn modes_that_a_playbook_changed_are_set_again() {
    let host = host();
    host.write("loopabull.toml", "[playbook]\nwithout = ['cgroup', 'namespaces']\n");
    let state = host.path("state");
    let tasks =
        format!("    - command: chmod {{{{ msg.mode }}}} {0}/journal.db {0}\n", state.display());
    host.add_playbook("opens", "", &tasks);
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    for (id, mode) in [("m-1", "0777"), ("m-2", "0777"), ("m-3", "0000"), ("m-4", "4700")] {
        host.inject(&[message(id, "opens", &format!("{{\"mode\":\"{mode}\"}}"))]);
        daemon.wait_until_idle();
        let run = host.runs().into_iter().next().unwrap();
        assert!(run.outcome.is_success(), "{mode}: {}\n{}", run.outcome, run.output.text);
        for name in ["", "journal.db"] {
            let found = fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o7777;
            let expected = if name.is_empty() { 0o700 } else { 0o600 };
            assert_eq!(found, expected, "`{name}` after {mode}");
        }
    }
    daemon.stop();
}

/// The daemon must not take `/tmp` from the other users.
#[test]
fn a_directory_of_all_users_is_no_state_directory() {
    let host = host();
    fs::create_dir(host.path("state")).unwrap();
    fs::set_permissions(host.path("state"), fs::Permissions::from_mode(0o1777)).unwrap();
    let output = host.run(&["--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let said = crate::test_host::text(&output.stderr);
    assert!(said.contains("belongs to all users") && said.contains("--state"), "{said}");
    let mode = fs::metadata(host.path("state")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
}

/// The clock of the daemon is set back by two days while a retry waits.
#[test]
fn a_clock_that_is_set_back_delays_no_retry() {
    let host = TestHost::new();
    host.add_guest("a", "a", "[retry]\nmax_attempts = 2\npauses = ['2s']", "unreachable");
    host.write("clock", "+0");
    let child = host
        .command(&["--listen", "127.0.0.1:0", "--workers", "1"])
        .env("LD_PRELOAD", fake_time().expect("`cargo xtask test` installs libfaketime"))
        .env("FAKETIME_TIMESTAMP_FILE", host.path("clock"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .spawn()
        .unwrap();
    let daemon = host.adopt(child);
    host.inject(&[message("m-1", "a", "{}")]);
    wait_for("the first attempt", || (host.runs().len() == 1).then_some(()));
    host.write("clock", "-2d");
    wait_for("the second attempt", || (host.runs().len() == 2).then_some(()));
    let runs = host.runs();
    let started: Vec<_> = [1, 2]
        .map(|attempt| runs.iter().find(|run| run.attempt == attempt).unwrap().started_at_ms)
        .into();
    assert!(started[1] < started[0] - 24 * 3600 * 1000, "the clock was not set: {started:?}");
    daemon.stop();
}

/// A daemon that is killed while its machine lacks something was running no entry.
#[test]
fn an_entry_that_waits_for_its_machine_is_not_blamed_for_a_kill() {
    let host = host();
    host.inject(&messages(2));
    for _ in 0..4 {
        assert!(host.run(&["pause", "--queue", "workers"]).status.success());
        let daemon = host.start(&["--workers", "2"]);
        leave_no_descriptors(&daemon);
        assert!(host.run(&["resume", "--queue", "workers"]).status.success());
        wait_for("readiness to tell", || (daemon.get("/readyz").0 == 503).then_some(()));
        daemon.signal("KILL");
        assert_eq!(daemon.wait(), None);
    }
    let daemon = host.start(&["--workers", "2"]);
    check_runs(&host, &daemon, 2);
    daemon.stop();
}

/// The port has 64 connections. The oldest one ends in favour of a new one, and idle ones are closed.
#[test]
fn idle_connections_do_not_stop_runs_or_the_port() {
    let host = host();
    let daemon = host.start(&["--workers", "2"]);
    let idle: Vec<_> = (0..150).map(|_| TcpStream::connect(daemon.address()).unwrap()).collect();
    wait_for("the connections to be taken", || (descriptors(&daemon) > 64).then_some(()));
    assert_eq!(daemon.get("/livez").0, 200);
    let mut last = idle.last().unwrap();
    last.set_nonblocking(true).unwrap();
    let error = last.read(&mut [0; 1024]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "the idle connections were waited for");
    host.inject(&messages(4));
    wait_for("the runs", || (host.runs().len() == 4).then_some(()));
    assert!(descriptors(&daemon) < 130, "{}", descriptors(&daemon));
    last.set_nonblocking(false).unwrap();
    last.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(last.read(&mut [0; 1024]).unwrap(), 0, "an idle connection is closed");
    check_runs(&host, &daemon, 4);
    drop(idle);
    daemon.stop();
}

/// 5,000 clients connect and send nothing, or a head that does not end.
#[test]
fn five_thousand_connections_stop_neither_runs_nor_the_port() {
    const CLIENTS: u64 = 5000;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < CLIENTS + 1000) {
        return untried("5,000 connections: this machine allows a process fewer descriptors");
    }
    let host = host();
    let daemon = host.start(&["--workers", "2"]);
    setrlimit(Resource::Nofile, Rlimit { current: Some(CLIENTS + 1000), ..limit }).unwrap();
    let (address, runtime) = (daemon.address().to_owned(), tokio::runtime::Runtime::new().unwrap());
    for number in 0..CLIENTS {
        let address = address.clone();
        runtime.spawn(async move {
            let Ok(mut client) = tokio::net::TcpStream::connect(address).await else { return };
            if number % 2 == 0 {
                drop(client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await);
            }
            // Until the port closes the connection.
            drop(client.read(&mut [0; 100]).await);
        });
    }
    wait_for("the flood", || (descriptors(&daemon) > 64).then_some(()));
    host.inject(&messages(4));
    wait_for("the runs", || (host.runs().len() == 4).then_some(()));
    wait_at_most(Duration::from_secs(30), "an answer", || {
        (daemon.get("/livez").0 == 200).then_some(())
    });
    assert!(descriptors(&daemon) < 130, "{}", descriptors(&daemon));
    runtime.shutdown_background();
    check_runs(&host, &daemon, 4);
    daemon.stop();
}

/// A head that is too large, or has too many headers, is refused, and the next client is served.
#[test]
fn large_heads_are_refused() {
    let host = host();
    let daemon = host.start(&[]);
    let large = format!("X-Large: {}\r\n", "a".repeat(100_000));
    let many: String = (0..5000).map(|number| format!("X-{number}: a\r\n")).collect();
    for headers in [large, many] {
        let mut client = TcpStream::connect(daemon.address()).unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        // The port may answer and close before it has read all.
        drop(client.write_all(head.as_bytes()));
        let mut answer = [0; 12];
        if client.read_exact(&mut answer).is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 431");
        }
        assert_eq!(daemon.get("/livez").0, 200);
    }
    daemon.stop();
}

/// Clients that need some time for their request use up all descriptors: none of them is closed for another one.
#[test]
fn new_connections_are_not_closed_if_no_descriptor_is_left() {
    let host = host();
    let daemon = host.start(&[]);
    leave_no_descriptors(&daemon);
    for _ in 0..5 {
        let clients: Vec<_> =
            (0..14).map(|_| TcpStream::connect(daemon.address()).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(150));
        for mut client in clients {
            client.write_all(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).unwrap();
            assert!(response.starts_with("HTTP/1.0 200 OK"), "{response:?}");
        }
    }
    daemon.stop();
}

/// Clients that send requests and read no response are as idle as those that send none.
#[test]
fn clients_that_read_nothing_do_not_stop_the_port() {
    let host = host();
    let daemon = host.start(&[]);
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    let deaf: Vec<_> = (0..64)
        .map(|_| {
            let mut client = TcpStream::connect(daemon.address()).unwrap();
            client.set_nonblocking(true).unwrap();
            while client.write(request.as_bytes()).is_ok() {}
            client
        })
        .collect();
    for _ in 0..100 {
        assert_eq!(daemon.get("/livez").0, 200);
    }
    drop(deaf);
    daemon.stop();
}

/// A web page of another host name cannot read the port, even if that name leads to this machine.
#[test]
fn a_request_for_another_host_is_refused() {
    let host = host();
    host.write("loopabull.toml", "allowed_hosts = ['queue.example.org']\n");
    let daemon = host.start(&["--config", "loopabull.toml"]);
    let get = |name: &str| {
        let url = format!("http://{}/api/v1/status", daemon.address());
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let response = ureq::Agent::from(config).get(url).header("Host", name).call().unwrap();
        response.status().as_u16()
    };
    for (name, status) in [
        ("evil.example", 403),
        ("localhost:8480", 200),
        ("10.1.2.3", 200),
        ("queue.example.org:8480", 200),
    ] {
        assert_eq!(get(name), status, "{name}");
    }
    daemon.stop();
}

/// The daemon logs more than a pipe holds: into a pipe that is open and not read, and into one without a reader.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    for is_open in [true, false] {
        let host = host();
        let mut child = host
            .command(&["--listen", "127.0.0.1:0", "--workers", "2"])
            .env("RUST_LOG", "trace")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = child.stderr.take().filter(|_| is_open);
        let daemon = host.adopt(child);
        host.inject(&messages(40));
        wait_for("the runs", || (host.runs().len() == 40).then_some(()));
        let lost = || daemon.metric("loopabull_log_lines_lost_total").unwrap();
        if !is_open {
            assert!(lost() > 0.0);
        }
        check_runs(&host, &daemon, 40);
        daemon.stop();
        drop(pipe);
    }
}
