//! The actions at the operator's port: who may act, and what is recorded.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{operations, send};
use crate::test_host::{Daemon, TestHost, message, text, wait_for};

pub(crate) const OPERATE: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const LOOK: &str = "fedcba9876543210fedcba9876543210";

fn host() -> TestHost {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    host.add_guest(
        "bad",
        "bad",
        "[retry]\nmax_attempts = 1\n[breaker]\nfailures = 0",
        "unreachable",
    );
    host.add_guest(
        "again",
        "again",
        "[retry]\nmax_attempts = 9\npauses = ['1h']\n[breaker]\nfailures = 0",
        "unreachable",
    );
    host.write("operate", OPERATE).write("look", LOOK);
    host
}

/// Sends an action with these headers. Returns the status and the answer.
pub(crate) fn post(
    daemon: &Daemon,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    send(daemon, "POST", &format!("/api/v1/{path}"), headers, body)
}

pub(crate) fn act(daemon: &Daemon, path: &str, body: &Value) -> (u16, Value) {
    let token = format!("Bearer {OPERATE}");
    post(daemon, path, &[("Authorization", &token)], &body.to_string())
}

fn check(daemon: &Daemon, path: &str, body: &Value, expected: (u16, &str)) {
    let (status, answer) = act(daemon, path, body);
    let said = answer["said"].as_str().or(answer["error"].as_str()).unwrap_or_default();
    assert!(status == expected.0 && said.contains(expected.1), "{path} {body}: {status} {answer}");
}

/// What an operator can do on the pages, by a call and by a command is the same.
#[test]
fn every_action_has_its_page_its_call_and_its_command() {
    let host = host();
    host.write("loopabull.toml", "operate_token_file = 'operate'\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    host.inject(&[
        message("m-1", "good", "{}"),
        message("b-1", "bad", "{}"),
        message("a-1", "again", "{}"),
    ]);
    wait_for("the runs", || (host.runs().len() == 3).then_some(()));
    wait_for("the retry", || (daemon.depth("delayed") == Some(1)).then_some(()));
    check(&daemon, "pause", &json!({"kind": "task", "name": "good", "reason": "x"}), (200, ""));
    let run = host.runs()[0].id.to_string();
    host.add_guest("spins", "spins", "", "(loop $l br $l) unreachable");
    wait_for("the task", || host.log().contains("spins").then_some(()));
    host.inject(&[message("s-1", "spins", "{}")]);
    wait_for("the run", || daemon.get("/").1.contains("runs/cancel").then_some(()));
    let mut pages = BTreeSet::new();
    for page in ["/", "/tasks", "/failures", &format!("/runs/{run}")] {
        let html = daemon.get(page).1;
        pages.extend(
            html.split("data-post=\"/api/v1/")
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap().to_owned()),
        );
    }
    let calls: BTreeSet<_> = operations(&daemon)
        .into_iter()
        .filter(|(method, _)| method == "POST")
        .map(|(_, path)| path.trim_start_matches("/api/v1/").to_owned())
        .collect();
    assert_eq!(pages, calls);
    let commands = [
        ("pause", "pause"),
        ("resume", "resume"),
        ("retry", "retry"),
        ("dead-letters", "dead-letters requeue"),
        ("dead-letters", "dead-letters drop"),
        ("runs/again", "runs again"),
        ("runs/cancel", "runs cancel"),
    ];
    assert_eq!(calls, commands.iter().map(|(call, _)| (*call).to_owned()).collect());
    for (_, command) in commands {
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        assert!(host.run(&words).status.success(), "{command}");
    }
    daemon.stop();
}

/// Nobody needs a token to look. A browser asks for the token of operators at one page, and returns to a page of ours.
#[test]
fn a_browser_is_asked_for_the_token_of_operators() {
    let host = host();
    host.write("loopabull.toml", "operate_token_file = 'operate'\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    assert_eq!(daemon.get("/").0, 200);
    let sign_in = |to: &str, authorization: Option<&str>| {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
        let url = format!("http://{}/sign-in{to}", daemon.address());
        let request = ureq::Agent::from(config).get(url);
        let request = match authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        };
        let answer = request.call().unwrap();
        let header =
            |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), header("location"), header("www-authenticate"))
    };
    for wrong in [None, Some("Bearer x")] {
        let (status, _, asks) = sign_in("?to=/failures", wrong);
        assert_eq!(status, 401);
        assert!(asks.unwrap().starts_with("Basic realm="));
    }
    let bearer = format!("Bearer {OPERATE}");
    for (to, expected) in [
        ("?to=/failures%3Fsince%3D2h", "/failures?since=2h"),
        ("", "/"),
        ("?to=//evil.example", "/"),
        ("?to=/%5Cevil.example", "/"),
        ("?to=https://evil.example", "/"),
    ] {
        let (status, location, _) = sign_in(to, Some(&bearer));
        assert_eq!((status, location.as_deref()), (303, Some(expected)), "{to}");
    }
    daemon.stop();
}

#[test]
fn an_action_needs_the_token_of_operators() {
    let host = host();
    let pause = r#"{"kind": "task", "name": "good", "reason": "x"}"#;
    let daemon = host.start(&["--workers", "1"]);
    // Who may only look has no way to act.
    let (status, answer) = post(&daemon, "pause", &[], pause);
    assert_eq!(status, 403, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("operate_token_file"), "{answer}");
    daemon.stop();

    host.write("loopabull.toml", "token_file = 'look'\noperate_token_file = 'operate'\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    let (bearer, look) = (format!("Bearer {OPERATE}"), format!("Bearer {LOOK}"));
    // `operator:` and the token, as a browser sends it.
    let basic = "Basic b3BlcmF0b3I6MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let cases: [(&[(&str, &str)], u16); 8] = [
        (&[], 401),
        (&[("Authorization", &look)], 401),
        (&[("Authorization", "Bearer x")], 401),
        // Another site can have a browser send the password, but not the header.
        (&[("Authorization", basic)], 403),
        (
            &[
                ("Authorization", basic),
                ("X-Loopabull-Action", "1"),
                ("Sec-Fetch-Site", "cross-site"),
            ],
            403,
        ),
        (&[("Authorization", basic), ("X-Loopabull-Action", "1"), ("Host", "evil.example")], 403),
        (
            &[
                ("Authorization", basic),
                ("X-Loopabull-Action", "1"),
                ("Sec-Fetch-Site", "same-origin"),
            ],
            200,
        ),
        // It may, and it is paused already.
        (&[("Authorization", &bearer)], 409),
    ];
    for (headers, expected) in cases {
        let (status, answer) = post(&daemon, "pause", headers, pause);
        assert_eq!(status, expected, "{headers:?}: {answer}");
    }
    // An action by GET does not exist, and the operator's token may also look.
    assert_eq!(daemon.get_as("/api/v1/pause", &bearer).0, 405);
    for token in [&bearer, &look] {
        assert_eq!(daemon.get_as("/tasks", token).0, 200);
    }
    assert!(daemon.get_as("/tasks", &bearer).1.contains(">Resume</button>"));
    daemon.stop();
    host.write("look", OPERATE);
    let same = host.run(&["--config", "loopabull.toml", "--listen", "127.0.0.1:0"]);
    assert!(text(&same.stderr).contains("are the same"), "{same:?}");
}

#[test]
fn actions_do_what_the_commands_do_and_are_recorded() {
    let host = host();
    host.write("loopabull.toml", "operate_token_file = 'operate'\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    let mut messages: Vec<_> = (0..3).map(|n| message(&format!("b-{n}"), "bad", "{}")).collect();
    messages.push(message("a-0", "again", "{}"));
    host.inject(&messages);
    wait_for("the runs", || (host.runs().len() == 4).then_some(()));
    wait_for("the dead letters", || (daemon.depth("dead") == Some(3)).then_some(()));

    let task = json!({"kind": "task", "name": "good", "reason": "<b>"});
    check(&daemon, "pause", &task, (200, "task `good` is paused"));
    let resume = json!({"kind": "task", "name": "good"});
    check(&daemon, "resume", &resume, (200, "task `good` is resumed"));
    check(&daemon, "resume", &resume, (409, "task `good` is not paused"));
    check(
        &daemon,
        "retry",
        &json!({"queue": "workers"}),
        (200, "queue `workers`: 1 delayed message is due now"),
    );
    wait_for("the second attempt", || (host.runs().len() == 5).then_some(()));
    let count = json!({"verdict": "count", "task": "bad", "reason": "unreachable"});
    check(&daemon, "dead-letters", &count, (200, "3 dead letters match"));
    let none = json!({"verdict": "drop", "task": "bad", "reason": "another reason"});
    check(&daemon, "dead-letters", &none, (200, "0 dead letters are dropped"));
    for (like, expected) in [
        ("trap: wasm trap: wasm `…` instruction executed", "3 dead letters match"),
        ("trap: wasm trap", "0 dead letters match"),
    ] {
        let like = json!({"verdict": "count", "like": like});
        check(&daemon, "dead-letters", &like, (200, expected));
    }
    let listed = host.run(&[
        "dead-letters",
        "list",
        "--json",
        "--like",
        "trap: wasm trap: wasm `…` instruction executed",
    ]);
    assert_eq!(text(&listed.stdout).lines().count(), 3, "{listed:?}");
    let requeue = json!({"verdict": "requeue", "task": "bad", "topic": "bad"});
    check(&daemon, "dead-letters", &requeue, (200, "3 dead letters are requeued"));
    wait_for("the runs", || (host.runs().len() == 8).then_some(()));
    wait_for("the dead letters", || (daemon.depth("dead") == Some(3)).then_some(()));
    let drop = json!({"verdict": "drop", "task": "bad", "queue": "workers"});
    check(&daemon, "dead-letters", &drop, (200, "3 dead letters are dropped"));
    assert_eq!(daemon.depth("dead"), Some(0));

    // What is wrong is said, and nothing is done.
    for (path, body, expected) in [
        (
            "pause",
            json!({"kind": "task", "name": "none", "reason": ""}),
            (404, "there is no task `none`"),
        ),
        (
            "pause",
            json!({"kind": "queue", "name": "none", "reason": ""}),
            (404, "there is no queue `none`"),
        ),
        (
            "pause",
            json!({"kind": "house", "name": "x", "reason": ""}),
            (422, "unknown variant `house`"),
        ),
        (
            "pause",
            json!({"kind": "worker", "name": "1", "reason": ""}),
            (422, "unknown variant `worker`, expected `task` or `queue`"),
        ),
        ("pause", json!({"kind": "task"}), (422, "missing field `name`")),
        ("retry", json!({"queue": "none"}), (404, "there is no queue `none`")),
        ("dead-letters", json!({"verdict": "drop"}), (400, "name at least one of `ids`, `queue`")),
        (
            "dead-letters",
            json!({"verdict": "drop", "task": "bad", "all": true}),
            (400, "or else `all`"),
        ),
        ("dead-letters", json!({"verdict": "eat", "task": "bad"}), (422, "unknown variant `eat`")),
        (
            "dead-letters",
            json!({"verdict": "drop", "task": "bad", "queue": "none"}),
            (404, "there is no queue"),
        ),
    ] {
        check(&daemon, path, &body, expected);
    }
    assert_eq!(
        act(&daemon, "pause", &json!({"kind": "task", "name": "x".repeat(100_000), "reason": ""}))
            .0,
        413
    );

    assert!(host.run(&["pause", "--task", "good", "--reason", "by command"]).status.success());
    let audit = text(&host.run(&["audit", "--json"]).stdout);
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> = lines
        .iter()
        .map(|line| {
            format!(
                "{} {} {}",
                line["action"].as_str().unwrap(),
                line["target"].as_str().unwrap(),
                line["count"]
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "pause task `good`: by command 1",
            "drop dead letters: queue `none`, task `bad` 0",
            "drop dead letters: queue `workers`, task `bad` 3",
            "requeue dead letters: task `bad`, topic `bad` 3",
            "drop dead letters: task `bad`, reason with `another reason` 0",
            "retry queue `workers` 1",
            "resume task `good` 1",
            "pause task `good`: <b> 1",
        ]
    );
    assert!(lines[0]["who"].as_str().unwrap().starts_with("command of user "), "{audit}");
    assert_eq!(lines[1]["who"], "operator's token from 127.0.0.1");
    let page = daemon.get("/audit").1;
    assert!(page.contains("&lt;b&gt;") && page.contains("by command"), "{page}");
    daemon.stop();
}
