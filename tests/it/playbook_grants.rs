//! The grants of a playbook: a port that the sandbox denies is named with the line that allows it, and one run without
//! the limits names the files and ports that a playbook opens.

use std::os::unix::fs::PermissionsExt;

use crate::test_host::{TestHost, message, text};

#[test]
fn a_denied_port_is_named_with_the_line_that_allows_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            assert!(std::io::Read::read(&mut stream, &mut [0; 1024]).unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            std::io::Write::write_all(&mut stream, answer).unwrap();
        }
    });
    let host = TestHost::new();
    host.write("message.json", message("m-1", "calls", "{}"));
    let calls = format!("    - uri: {{ url: 'http://127.0.0.1:{port}/' }}\n");
    host.add_playbook("calls", "", &calls);
    let output = host.run(&["test", "calls", "message.json"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let denial = format!("TCP port {port}, which `tcp = [{port}]` under `[grants]` allows\n");
    assert!(said.contains(&format!("denied: {denial}")), "{said}");
    assert!(said.ends_with(&format!("; the sandbox denied {denial}")), "{said}");
    host.add_playbook("calls", &format!("[grants]\ntcp = [{port}]\n"), &calls);
    let output = host.run(&["test", "calls", "message.json"]);
    assert!(output.status.success(), "{}", text(&output.stdout));
}

/// A warm run must say what was denied, as a cold run does.
#[test]
fn a_warm_run_names_the_denied_port_and_file() {
    let outside = tempfile::tempdir_in("/srv").unwrap();
    let file = outside.path().join("list");
    std::fs::write(&file, "x").unwrap();
    let file = file.display();
    let host = TestHost::new();
    let manifest = "[retry]\nmax_attempts = 1\n";
    host.add_playbook(
        "calls",
        manifest,
        &format!(
            "    - wait_for: {{ port: 65001, timeout: 1 }}\n      when: msg.port\n    \
                 - copy: {{ src: {file}, dest: /tmp/x }}\n      when: not msg.port\n"
        ),
    );
    let daemon = host.start(&["--workers", "1"]);
    let port = "the sandbox denied TCP port 65001, which `tcp = [65001]` under `[grants]` allows";
    let file = format!(
        "the sandbox denied `{file}`, which `host = \"{file}\"` under `[[grants.dirs]]` grants"
    );
    // A run that is denied a port ends its process, so the next one is told too.
    let expected = [(true, false), (false, true), (true, true), (true, true)];
    for (number, (uses_port, is_warm)) in expected.into_iter().enumerate() {
        let id = format!("m-{number}");
        host.inject(&[message(&id, "calls", &format!("{{\"port\":{uses_port}}}"))]);
        daemon.wait_until_idle();
        let runs = host.runs();
        let run = runs.iter().find(|run| run.message_id.to_string() == id).unwrap();
        assert_eq!(run.playbook.as_ref().unwrap().cold.is_none(), is_warm, "{run:?}");
        let reason = run.outcome.to_string();
        assert_eq!(reason.ends_with(port), uses_port, "{reason}");
        assert_eq!(reason.ends_with(&file), !uses_port, "{reason}");
    }
    daemon.stop();
}

/// Checks that the proposed lines are what the playbook needs.
#[test]
fn the_grants_of_a_playbook_are_learned_in_one_run() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let host = TestHost::new();
    host.write("message.json", message("m-1", "needs", "{}"));
    // The user of the playbook must reach the files, and a run has a `/tmp` of its own.
    let outside = tempfile::tempdir_in("/srv").unwrap();
    let at = |name: &str| outside.path().join(name);
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    };
    open(outside.path());
    for name in ["mirror", "made"] {
        std::fs::create_dir(at(name)).unwrap();
        open(&at(name));
    }
    std::fs::write(at("mirror/list"), "x").unwrap();
    open(&host.path(""));
    host.write("loopabull.toml", "[playbook]\nuser = 'nobody'\n");
    let flags = ["--config", "loopabull.toml"];
    let run = |arguments: &[&str]| host.run(&[&flags[..], arguments].concat());
    let folder = outside.path();
    let tasks = format!(
        "    - command: cat {0}/mirror/list\n      check_mode: false\n    \
             - wait_for: {{ port: {port} }}\n      check_mode: false\n    \
             - copy: {{ content: x, dest: '{0}/made/new' }}\n      check_mode: false\n",
        folder.display()
    );
    host.write(
        "playbooks/needs.yml",
        format!("- hosts: localhost\n  gather_facts: false\n  tasks:\n{tasks}"),
    );
    let refused = host.run(&["check", "--learn", "needs", "message.json"]);
    assert!(text(&refused.stderr).contains("hint: name another user"), "{refused:?}");
    let before = run(&["test", "needs", "message.json"]);
    assert_eq!(before.status.code(), Some(1), "{}", text(&before.stdout));
    let learned = run(&["check", "--learn", "needs", "message.json"]);
    let said = text(&learned.stdout);
    assert!(learned.status.success(), "{said}{}", text(&learned.stderr));
    let (_, manifest) = said.split_once("grant what it should use:\n\n").expect(&said);
    assert!(manifest.contains(&format!("tcp = [{port}]\n")), "{manifest}");
    let granted = manifest.lines().filter(|line| line.starts_with("host = "));
    let expected =
        ["made", "mirror/list"].map(|name| format!("host = \"{}/{name}\"", folder.display()));
    assert_eq!(granted.collect::<Vec<_>>(), expected, "{said}");
    host.write("playbooks/needs.toml", manifest);
    let after = run(&["test", "needs", "message.json"]);
    assert!(after.status.success(), "{}", text(&after.stdout));
    let again = text(&run(&["check", "--learn", "needs", "message.json"]).stdout);
    assert!(again.contains("the playbook opened nothing beyond its grants"), "{again}");
}
