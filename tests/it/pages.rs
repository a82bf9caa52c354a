//! The pages of the operator's port, as a program without a browser sees them. `browser` opens them in a browser.

use crate::test_host::{Daemon, TestHost, message, text, wait_for};

/// A message whose text would do harm if a page did not escape it.
const HOSTILE: &str =
    r#"{"x":"</pre><script>alert(1)</script><img src=x onerror=alert(1)>\u202e"}"#;

fn page(daemon: &Daemon, path: &str) -> String {
    let (status, body) = daemon.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    assert!(body.starts_with("<!DOCTYPE html>"), "{path}: {body}");
    body
}

/// A task that succeeds and one that traps, with a run of each.
fn host() -> TestHost {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    host.add_guest("bad", "bad", "[retry]\nmax_attempts = 1", "unreachable");
    host.inject(&[message("m-good", "good", HOSTILE), message("m-bad", "bad", "{\"build\":7}")]);
    host
}

#[test]
fn the_pages_show_what_happened_and_why() {
    let host = host();
    let daemon = host.start(&["--workers", "1"]);
    daemon.wait_until_idle();
    wait_for("two runs", || (host.runs().len() == 2).then_some(()));

    let overview = page(&daemon, "/");
    assert!(overview.contains("1 dead letter"), "{overview}");
    assert!(overview.contains("No source is configured"), "{overview}");
    let runs = page(&daemon, "/runs");
    assert!(runs.contains("m-good") && runs.contains("m-bad"), "{runs}");
    let failed = page(&daemon, "/runs?q=outcome:failure");
    assert!(!failed.contains("m-good") && failed.contains("m-bad"), "{failed}");
    let by_member = page(&daemon, "/runs?q=msg.build:7");
    assert!(!by_member.contains("m-good") && by_member.contains("m-bad"), "{by_member}");
    let (status, refused) = daemon.get("/runs?q=outcom:x");
    assert_eq!(status, 400);
    assert!(refused.contains("is no qualifier; there are task: "), "{refused}");
    assert!(refused.contains("at position 1"), "{refused}");
    let failures = page(&daemon, "/failures");
    assert!(failures.contains("unreachable"), "{failures}");
    let tasks = page(&daemon, "/tasks");
    assert!(tasks.contains(">good</a>") && tasks.contains(">bad</a>"), "{tasks}");

    for run in host.runs() {
        let one = page(&daemon, &format!("/runs/{}", run.id));
        assert!(one.contains(run.message_id.as_str()), "{one}");
        assert!(!one.contains("<script>alert") && !one.contains("<img"), "{one}");
        assert_eq!(run.task.as_str() == "good", one.contains("&lt;script&gt;alert(1)"), "{one}");
    }
    for (path, status) in [
        ("/runs/none", 404),
        ("/nothing", 404),
        ("/failures?since=x", 400),
        ("/runs?before=x", 400),
    ] {
        let (found, body) = daemon.get(path);
        assert_eq!(found, status, "{path}");
        assert!(
            body.starts_with("<!DOCTYPE html>") && body.contains("role=\"alert\""),
            "{path}: {body}"
        );
    }
    daemon.stop();
}

/// A failed run beside the last good one of its task.
#[test]
fn a_failed_run_is_compared_with_a_good_one() {
    let host = TestHost::new();
    let tasks = "    - debug: { msg: \"building {{ msg.name }}\" }\n    - fail: { msg: no space }\n      when: msg.name == 'big'\n";
    host.add_playbook("build", "[retry]\nmax_attempts = 1", tasks);
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[message("m-bad", "build", r#"{"name": "big", "same": 1}"#)]);
    wait_for("the first run", || (host.runs().len() == 1).then_some(()));
    let bad = host.runs().remove(0).id;
    let alone = host.run(&["runs", "compare", bad.as_str()]);
    assert!(text(&alone.stderr).contains("no other run of task `build` succeeded"), "{alone:?}");
    assert_eq!(daemon.get(&format!("/runs/{bad}/compare")).0, 404);

    host.inject(&[message("m-good", "build", r#"{"name": "small", "same": 1}"#)]);
    wait_for("the second run", || (host.runs().len() == 2).then_some(()));
    let shown = page(&daemon, &format!("/runs/{bad}/compare"));
    let compared = text(&host.run(&["runs", "compare", bad.as_str()]).stdout);
    for (in_page, in_text) in [
        (r#"<ins>+   &quot;name&quot;: &quot;big&quot;,"#, "+   \"name\": \"big\","),
        (r#"<del>−   &quot;name&quot;: &quot;small&quot;,"#, "-   \"name\": \"small\","),
        ("outcome ≠", "outcome  exit: "),
        ("localhost: 1 ok, 0 changed, 1 failed", "1 failed"),
    ] {
        assert!(shown.contains(in_page), "{in_page}: {shown}");
        assert!(compared.contains(in_text), "{in_text}: {compared}");
    }
    // What is the same has no mark.
    assert!(shown.contains("<span>    &quot;same&quot;: 1"), "{shown}");
    let json = host.run(&["runs", "compare", "--json", bad.as_str()]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["run"], bad.as_str());
    daemon.stop();
}

/// Nothing but the program's own files is loaded or run, whatever a page contains.
#[test]
fn every_answer_forbids_what_the_pages_do_not_need() {
    let host = host();
    let daemon = host.start(&["--workers", "1"]);
    for path in ["/", "/runs", "/style.css", "/script.js", "/icon.svg", "/livez", "/nothing"] {
        let head = daemon.head(path);
        for line in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "x-frame-options: DENY",
            "cache-control: no-",
        ] {
            assert!(head.contains(line), "{path} has no `{line}`: {head}");
        }
    }
    let pages = ["/", "/runs", "/failures", "/tasks"].map(|path| page(&daemon, path));
    for page in pages {
        let inline = [" style=", " onclick=", "<style", "javascript:", "http://", "https://"];
        for text in inline {
            assert!(!page.contains(text), "a page contains `{text}`: {page}");
        }
        assert_eq!(page.matches("<script").count(), 1, "{page}");
    }
    daemon.stop();
}

/// An address that other machines can reach needs a token, for every path.
#[test]
fn an_address_for_other_machines_needs_a_token() {
    let host = host();
    let refused = host.run(&["--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(said.contains("but no token is configured"), "{said}");
    assert!(said.contains("hint: listen on 127.0.0.1, or make a token with `(umask 077; openssl rand -hex 32 > token)`"), "{said}");

    let token = "0123456789abcdef0123456789abcdef";
    host.write("token", "short");
    host.write("loopabull.toml", "listen = '0.0.0.0:0'\ntoken_file = 'token'\n");
    let refused = host.run(&["--config", "loopabull.toml"]);
    assert!(text(&refused.stderr).contains("the token in `token` cannot be used"), "{refused:?}");

    host.write("token", format!("{token}\n"));
    let child = host.command(&["--config", "loopabull.toml", "--workers", "1"]).spawn().unwrap();
    let daemon = host.adopt(child);
    for path in ["/", "/runs", "/metrics", "/api/v1/status", "/livez", "/script.js", "/nothing"] {
        let (status, body) = daemon.get(path);
        assert!(status == 401 && body.contains("the token is missing or wrong"), "{path}: {body}");
        let (status, _) = daemon.get_as(path, "Bearer 0123456789abcdef0123456789abcdee");
        assert_eq!(status, 401, "{path}");
        let (status, _) = daemon.get_as(path, &format!("Bearer {token}"));
        assert_eq!(status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    let (_, metrics) = daemon.get_as("/metrics", &format!("Bearer {token}"));
    assert!(metrics.contains("loopabull_requests_unauthorized_total 14"), "{metrics}");
    let status = host.run(&["--config", "loopabull.toml", "status"]);
    assert!(text(&status.stdout).contains("workers"), "{status:?}");
    daemon.stop();
}
