//! The example tasks in the daemon, with a simulated Pagure and together with one another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::site::{Asked, Site, answer};
use crate::test_host::{TestHost, message, repository, text, wait_for};

/// The token that `TestHost::add_example` writes to the token file.
const TOKEN: &str = "the-token-of-a-test";
const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
const BUILD: &str = "org.fedoraproject.prod.buildsys.build.state.change";
const CI: &str = "org.centos.prod.ci.dist-git-pr.test.complete";

/// The flags that the simulated Pagure keeps: the fields of each flag, by its path and `uid`. A new flag with
/// the same path and `uid` replaces the old one.
type Flags = Arc<Mutex<BTreeMap<(String, String), BTreeMap<String, String>>>>;

/// Stores the flag of a request, and answers as Pagure's API for flags does.
fn flag(asked: &Asked, flags: &Flags) -> String {
    let path = asked.head.split(' ').nth(1).unwrap().to_owned();
    if !asked.head.starts_with("POST /api/0/rpms/") || !path.ends_with("/flag") {
        return answer("404 Not Found", r#"{"error":"Project not found"}"#);
    }
    let [token] = asked.header("authorization")[..] else {
        return answer("401 Unauthorized", r#"{"error_code":"EINVALIDTOK"}"#);
    };
    if token != format!("token {TOKEN}") {
        // Repeats the token in the answer, as a careless site could.
        return answer("401 Unauthorized", &json!({"error": token}).to_string());
    }
    let form: BTreeMap<_, _> = asked
        .body
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), decoded(value)))
        .collect();
    let is_form = asked.header("content-type") == ["application/x-www-form-urlencoded"];
    let is_whole =
        ["username", "comment", "url", "status", "uid"].iter().all(|key| form.contains_key(*key));
    if !is_form || !is_whole {
        return answer("400 Bad Request", r#"{"error_code":"EINVALIDREQ"}"#);
    }
    let uid = form["uid"].clone();
    flags.lock().unwrap().insert((path, uid.clone()), form);
    answer("200 OK", &json!({"message": "Flag added", "uid": uid}).to_string())
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn pagure() -> (Site, Flags) {
    let flags = Flags::default();
    let kept = Arc::clone(&flags);
    (Site::start(move |asked| flag(asked, &kept)), flags)
}

/// Returns a host with an example task. The task uses this site as dist-git, and is retried after 100 ms.
fn host(task: &str, site: &str) -> TestHost {
    let host = TestHost::new();
    host.add_example(task);
    rewrite(&host, task, |manifest| {
        let manifest = manifest.replace("https://src.fedoraproject.org", site);
        manifest.replace("max_attempts = 3", "max_attempts = 3\npauses = ['100ms']")
    });
    host
}

fn rewrite(host: &TestHost, task: &str, change: impl FnOnce(String) -> String) {
    let file = format!("tasks/{task}.toml");
    let manifest = fs::read_to_string(host.path(&file)).unwrap();
    let changed = change(manifest.clone());
    assert_ne!(manifest, changed, "the text to replace is not in the manifest of `{task}`");
    host.write(&file, changed);
}

/// Returns a message about a successful build of a commit in the dist-git at this site.
fn build(id: &str, site: &str) -> String {
    let msg = json!({
        "instance": "primary", "build_id": 7, "name": "bash", "version": "5.3", "release": "1.fc44",
        "epoch": null, "old": 0, "new": 1, "owner": "ada", "task_id": 11,
        "request": [format!("git+{site}/rpms/bash.git#{COMMIT}"), "rawhide", {}],
    });
    message(id, BUILD, &msg.to_string())
}

/// Returns the attempt and the outcome of each run in the journal, oldest first.
fn outcomes(host: &TestHost) -> Vec<String> {
    host.runs().iter().rev().map(|run| format!("{}: {}", run.attempt, run.outcome)).collect()
}

fn files(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.extend(fs::read(path));
        }
    }
}

/// Fails if the token is in the state or the log of the daemon, or in the output of `runs` or `dead-letters`.
fn assert_token_is_nowhere(host: &TestHost) {
    let mut kept = Vec::new();
    files(&host.path("state"), &mut kept);
    assert!(kept.len() >= 2, "the journal or the queue is missing");
    kept.push(host.log().into_bytes());
    for run in host.runs() {
        let show = ["runs", "show", run.id.as_str()];
        for shown in [&show[..], &[&show[..], &["--json"]].concat()] {
            let output = host.run(shown);
            assert!(output.status.success(), "{shown:?}");
            kept.push(output.stdout);
        }
    }
    kept.push(host.run(&["dead-letters", "list", "--json"]).stdout);
    let has_token = |bytes: &Vec<u8>| bytes.windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes());
    assert!(!kept.iter().any(has_token), "the token was stored or shown");
}

#[test]
fn a_commit_gets_one_flag_and_the_token_is_stored_nowhere() {
    let (site, flags) = pagure();
    let host = host("flag-commit-build", &site.url());
    let daemon = host.start(&[]);
    host.inject(&[build("m-1", &site.url())]);
    daemon.wait_until_idle();
    let url = format!("{}/api/0/rpms/bash/c/{COMMIT}/flag", site.url());
    {
        let flags = flags.lock().unwrap();
        let ((path, uid), form) = flags.first_key_value().unwrap();
        assert_eq!(flags.len(), 1);
        assert!(url.ends_with(path.as_str()), "{path}");
        assert_eq!(uid, "koji-build-7");
        assert_eq!(form["status"], "success");
        assert_eq!(form["percent"], "100");
        assert_eq!(form["comment"], "Build bash-5.3-1.fc44 completed");
        assert_eq!(form["url"], "https://koji.fedoraproject.org/koji/taskinfo?taskID=11");
    }
    assert_eq!(site.asked().len(), 1);
    // The message is published again. The task sends the flag again, which replaces the first flag.
    host.inject(&[build("m-1", &site.url())]);
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!((site.asked().len(), flags.lock().unwrap().len()), (2, 1));
    assert_eq!(outcomes(&host), ["1: success", "1: success"]);
    let run = &host.runs()[0];
    assert_eq!(run.notes, [("flag".to_owned(), format!("bash@{COMMIT} success"))]);
    assert_eq!(run.usage.requests.len(), 1);
    assert!(run.usage.requests[0].starts_with(&format!("POST {url}: 200, ")), "{run:?}");
    assert_token_is_nowhere(&host);
}

#[test]
fn a_pull_request_gets_one_flag_and_the_token_is_stored_nowhere() {
    let (site, flags) = pagure();
    let host = host("flag-ci-pr", &site.url());
    let msg = json!({
        "artifact": {"type": "dist-git-pr", "id": 12, "repository": format!("{}/rpms/bash", site.url()),
            "commit_hash": COMMIT},
        "test": {"namespace": "fedora-ci", "type": "dist-git", "category": "functional",
            "result": "failed"},
        "run": {"url": "https://ci.example/1"},
    });
    let daemon = host.start(&[]);
    host.inject(&[message("m-1", CI, &msg.to_string())]);
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(outcomes(&host), ["1: success"]);
    let flags = flags.lock().unwrap();
    let ((path, _), form) = flags.first_key_value().unwrap();
    assert_eq!((flags.len(), site.asked().len()), (1, 1));
    assert_eq!(path, "/api/0/rpms/bash/pull-request/12/flag");
    assert_eq!(form["status"], "failure");
    assert_eq!(form["comment"], "fedora-ci.dist-git.functional: failed");
    assert_eq!(form["username"], "Fedora CI");
    assert_token_is_nowhere(&host);
}

#[test]
fn a_site_with_faults_gets_the_flag_after_it_recovers() {
    let flags = Flags::default();
    let (kept, count) = (Arc::clone(&flags), AtomicUsize::new(0));
    let site = Site::start(move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("500 Internal Server Error", "<html>"),
        1 => String::new(),
        _ => flag(asked, &kept),
    });
    let host = host("flag-commit-build", &site.url());
    let daemon = host.start(&[]);
    host.inject(&[build("m-1", &site.url())]);
    wait_for("three runs", || (host.runs().len() == 3).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(daemon.depth("dead"), Some(0));
    daemon.stop();
    let asked = format!("POST {}/api/0/rpms/bash/c/{COMMIT}/flag", site.url());
    assert_eq!(
        outcomes(&host),
        [
            format!("1: retry: {asked} answered 500"),
            format!("2: retry: {asked} failed: the connection was closed early"),
            "3: success".to_owned(),
        ]
    );
    assert_eq!(flags.lock().unwrap().len(), 1);
    assert_token_is_nowhere(&host);
}

#[test]
fn an_unreachable_site_gets_the_flag_after_it_is_back() {
    // The address of the site. No process listens on it until the site is started below.
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{away}");
    let host = host("flag-commit-build", &url);
    rewrite(&host, "flag-commit-build", |m| m.replace("max_attempts = 3", "max_attempts = 50"));
    let daemon = host.start(&[]);
    host.inject(&[build("m-1", &url)]);
    wait_for("a run", || (!host.runs().is_empty()).then_some(()));
    let flags = Flags::default();
    let kept = Arc::clone(&flags);
    let site = Site::start_at(away, None, move |asked| flag(asked, &kept));
    wait_for("the flag to be set", || (!flags.lock().unwrap().is_empty()).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(site.asked().len(), 1);
    let outcomes = outcomes(&host);
    let (last, before) = outcomes.split_last().unwrap();
    assert!(last.ends_with(": success"), "{last}");
    let asked = format!("POST {url}/api/0/rpms/bash/c/{COMMIT}/flag");
    assert!(
        before.iter().all(|o| o.ends_with(&format!("{asked} failed: the connection was refused")))
    );
    assert!(!before.is_empty());
    assert_token_is_nowhere(&host);
}

#[test]
fn a_refused_token_dead_letters_the_message_with_the_reason() {
    let (site, flags) = pagure();
    let host = host("flag-commit-build", &site.url());
    host.write("pagure.token", "a-token-of-yesterday\n");
    let daemon = host.start(&[]);
    host.inject(&[build("m-1", &site.url())]);
    wait_for("the dead letter", || (daemon.depth("dead") == Some(1)).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    let reason =
        format!("reject: POST {}/api/0/rpms/bash/c/{COMMIT}/flag answered 401", site.url());
    assert_eq!(outcomes(&host), [format!("1: {reason}")]);
    let letters = text(&host.run(&["dead-letters", "list", "--json"]).stdout);
    assert!(letters.contains(&reason), "{letters}");
    assert!(!letters.contains("yesterday") && !host.log().contains("yesterday"));
    assert!(flags.lock().unwrap().is_empty());
}

/// Returns the message about a build result for `digest`.
fn result(id: usize, state: u8) -> String {
    let msg = json!({"name": "bash", "version": "5.3", "release": id.to_string(), "new": state});
    message(&format!("m-{id}"), BUILD, &msg.to_string())
}

/// Returns the bodies of the dead letters of a task.
fn dead_bodies(host: &TestHost, task: &str) -> Vec<Value> {
    let letters = text(&host.run(&["dead-letters", "list", "--json", "--task", task]).stdout);
    let ids =
        letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone());
    ids.map(|id| {
        let shown = text(&host.run(&["dead-letters", "show", id.as_str().unwrap()]).stdout);
        serde_json::from_str(shown.trim_end().lines().last().unwrap()).unwrap()
    })
    .collect()
}

#[test]
fn digests_of_many_workers_have_each_result_once() {
    const RESULTS: usize = 60;
    let host = TestHost::new();
    host.add_example("digest");
    rewrite(&host, "digest", |manifest| {
        // The task uses the default queue, which has several workers, so that its runs overlap.
        let manifest = manifest.replace("queue = \"digest\"", "");
        manifest.replace("builds = \"25\"", "builds = \"10\"")
    });
    // The task `reads` rejects each digest, which keeps the digest as a dead letter.
    host.add_guest("reads", "org.example.digest", "", "i32.const 96");
    let daemon = host.start(&["--workers", "5"]);
    let messages: Vec<_> =
        (0..RESULTS).map(|id| result(id, if id % 3 == 0 { 3 } else { 1 })).collect();
    host.inject(&messages);
    // Half of the results are published again.
    host.inject(&messages[..RESULTS / 2]);
    // This build is neither a success nor a failure.
    host.inject(&[result(RESULTS, 0)]);
    wait_for("the digests", || (daemon.depth("dead") == Some(6)).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(
        daemon.metric("loopabull_messages_emitted_total"),
        Some(6.0),
        "each digest must have ten results"
    );
    let digests = dead_bodies(&host, "reads");
    daemon.stop();
    let mut counted = BTreeSet::new();
    let mut failed = 0;
    for digest in &digests {
        let builds = digest["builds"].as_array().unwrap();
        assert_eq!(builds.len(), 10);
        let [good, bad] = ["succeeded", "failed"].map(|key| digest[key].as_u64().unwrap());
        assert_eq!(good + bad, 10);
        failed += bad;
        for build in builds {
            assert!(counted.insert(build["nvr"].as_str().unwrap().to_owned()), "{build} twice");
        }
    }
    assert_eq!((counted.len(), failed), (RESULTS, 20));
    // A result that was published twice ran twice. The task recognized its id and did not count it again.
    assert_eq!(host.tally()["digest success"], RESULTS + RESULTS / 2 + 1);
    let skipped = ("skipped".to_owned(), "the message was counted before".to_owned());
    let runs = host.runs();
    assert_eq!(runs.iter().filter(|run| run.notes.contains(&skipped)).count(), RESULTS / 2);
}

#[test]
fn a_retired_package_runs_the_playbook_and_a_plain_push_does_not() {
    let host = TestHost::new();
    host.add_example("block-retired");
    for file in ["retire-package.yml", "retire-package.toml"] {
        let bytes = fs::read(repository().join("playbooks").join(file)).unwrap();
        host.write(&format!("playbooks/{file}"), bytes);
    }
    let push = |id: &str, file: &str| {
        let msg = json!({"commit": {"namespace": "rpms", "repo": "fish", "branch": "rawhide",
            "summary": "{{ 1 + 1 }} no longer needed", "stats": {"files": {file: {"additions": 1}}}}});
        message(id, "org.fedoraproject.stg.git.receive", &msg.to_string())
    };
    let daemon = host.start(&[]);
    host.inject(&[push("m-1", "fish.spec"), push("m-2", "dead.package"), push("m-3", "sources")]);
    wait_for("all runs", || (host.runs().len() == 4).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    let expected = BTreeMap::from([("block-retired success", 3), ("retire-package success", 1)]);
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    assert_eq!(host.tally(), expected);
    let runs = host.runs();
    let playbook = runs.iter().find(|run| run.task.as_str() == "retire-package").unwrap();
    assert_eq!(playbook.topic.as_str(), "org.fedoraproject.stg.block.retired");
    let said = &playbook.output.text;
    assert!(said.contains("koji block-pkg rawhide fish ({{ 1 + 1 }} no longer needed)"), "{said}");
    let sent = runs.iter().find(|run| !run.emitted.is_empty()).unwrap();
    assert_eq!((sent.message_id.as_str(), sent.emitted.len()), ("m-2", 1));
    assert_eq!(sent.emitted[0].id, playbook.message_id);
}
