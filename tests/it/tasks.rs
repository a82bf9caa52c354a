//! The example tasks at their work: in the daemon, against a site that behaves as Pagure does, and
//! with one another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::bed::{Bed, message, repository, text, wait_for};
use crate::site::{Asked, Site, answer};

/// The token that `Bed::add_example` puts into the file.
const TOKEN: &str = "the-token-of-a-test";
const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";
const BUILD: &str = "org.fedoraproject.prod.buildsys.build.state.change";
const CI: &str = "org.centos.prod.ci.dist-git-pr.test.complete";

/// What Pagure keeps: the fields of each flag, by its path and `uid`. A flag that is sent again
/// replaces the one before.
type Flags = Arc<Mutex<BTreeMap<(String, String), BTreeMap<String, String>>>>;

/// Answers as Pagure's API for flags does.
fn flag(asked: &Asked, flags: &Flags) -> String {
    let path = asked.head.split(' ').nth(1).unwrap().to_owned();
    if !asked.head.starts_with("POST /api/0/rpms/") || !path.ends_with("/flag") {
        return answer("404 Not Found", r#"{"error":"Project not found"}"#);
    }
    let [token] = asked.header("authorization")[..] else {
        return answer("401 Unauthorized", r#"{"error_code":"EINVALIDTOK"}"#);
    };
    if token != format!("token {TOKEN}") {
        // As unwise as a site may be.
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

/// A bed with an example whose dist-git is this site, and which does not wait long to try again.
fn bed(task: &str, site: &str) -> Bed {
    let bed = Bed::new();
    bed.add_example(task);
    rewrite(&bed, task, |manifest| {
        let manifest = manifest.replace("https://src.fedoraproject.org", site);
        manifest.replace("max_attempts = 3", "max_attempts = 3\npauses = ['100ms']")
    });
    bed
}

fn rewrite(bed: &Bed, task: &str, change: impl FnOnce(String) -> String) {
    let file = format!("tasks/{task}.toml");
    let manifest = fs::read_to_string(bed.path(&file)).unwrap();
    let changed = change(manifest.clone());
    assert_ne!(manifest, changed, "the manifest of `{task}` has other words now");
    bed.write(&file, changed);
}

/// A build that succeeded, of a commit in this dist-git.
fn build(id: &str, site: &str) -> String {
    let msg = json!({
        "instance": "primary", "build_id": 7, "name": "bash", "version": "5.3", "release": "1.fc44",
        "epoch": null, "old": 0, "new": 1, "owner": "ada", "task_id": 11,
        "request": [format!("git+{site}/rpms/bash.git#{COMMIT}"), "rawhide", {}],
    });
    message(id, BUILD, &msg.to_string())
}

/// What the journal says of each run, the oldest first.
fn outcomes(bed: &Bed) -> Vec<String> {
    bed.runs().iter().rev().map(|run| format!("{}: {}", run.attempt, run.outcome)).collect()
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

/// Looks for the token in all that is kept or shown of what ran.
fn assert_token_is_nowhere(bed: &Bed) {
    let mut kept = Vec::new();
    files(&bed.path("state"), &mut kept);
    assert!(kept.len() >= 2, "the journal and the queue are there");
    kept.push(bed.log().into_bytes());
    for run in bed.runs() {
        let show = ["runs", "show", run.id.as_str()];
        for shown in [&show[..], &[&show[..], &["--json"]].concat()] {
            let output = bed.run(shown);
            assert!(output.status.success(), "{shown:?}");
            kept.push(output.stdout);
        }
    }
    kept.push(bed.run(&["dead-letters", "list", "--json"]).stdout);
    let has_token = |bytes: &Vec<u8>| bytes.windows(TOKEN.len()).any(|w| w == TOKEN.as_bytes());
    assert!(!kept.iter().any(has_token), "the token is kept");
}

#[test]
fn flag_of_a_commit_is_one_flag_and_its_token_is_kept_nowhere() {
    let (site, flags) = pagure();
    let bed = bed("flag-commit-build", &site.url());
    let daemon = bed.start(&[]);
    bed.inject(&[build("m-1", &site.url())]);
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
    // Published once more it is sent once more, and is still the one flag.
    bed.inject(&[build("m-1", &site.url())]);
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!((site.asked().len(), flags.lock().unwrap().len()), (2, 1));
    assert_eq!(outcomes(&bed), ["1: success", "1: success"]);
    let run = &bed.runs()[0];
    assert_eq!(run.notes, [("flag".to_owned(), format!("bash@{COMMIT} success"))]);
    assert_eq!(run.usage.requests.len(), 1);
    assert!(run.usage.requests[0].starts_with(&format!("POST {url}: 200, ")), "{run:?}");
    assert_token_is_nowhere(&bed);
}

#[test]
fn flag_of_a_pull_request_is_one_flag_and_its_token_is_kept_nowhere() {
    let (site, flags) = pagure();
    let bed = bed("flag-ci-pr", &site.url());
    let msg = json!({
        "artifact": {"type": "dist-git-pr", "id": 12, "repository": format!("{}/rpms/bash", site.url()),
            "commit_hash": COMMIT},
        "test": {"namespace": "fedora-ci", "type": "dist-git", "category": "functional",
            "result": "failed"},
        "run": {"url": "https://ci.example/1"},
    });
    let daemon = bed.start(&[]);
    bed.inject(&[message("m-1", CI, &msg.to_string())]);
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(outcomes(&bed), ["1: success"]);
    let flags = flags.lock().unwrap();
    let ((path, _), form) = flags.first_key_value().unwrap();
    assert_eq!((flags.len(), site.asked().len()), (1, 1));
    assert_eq!(path, "/api/0/rpms/bash/pull-request/12/flag");
    assert_eq!(form["status"], "failure");
    assert_eq!(form["comment"], "fedora-ci.dist-git.functional: failed");
    assert_eq!(form["username"], "Fedora CI");
    assert_token_is_nowhere(&bed);
}

#[test]
fn site_in_trouble_gets_the_flag_when_it_is_well_again() {
    let flags = Flags::default();
    let (kept, count) = (Arc::clone(&flags), AtomicUsize::new(0));
    let site = Site::start(move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("500 Internal Server Error", "<html>"),
        1 => String::new(),
        _ => flag(asked, &kept),
    });
    let bed = bed("flag-commit-build", &site.url());
    let daemon = bed.start(&[]);
    bed.inject(&[build("m-1", &site.url())]);
    wait_for("three runs", || (bed.runs().len() == 3).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(daemon.depth("dead"), Some(0));
    daemon.stop();
    let asked = format!("POST {}/api/0/rpms/bash/c/{COMMIT}/flag", site.url());
    assert_eq!(
        outcomes(&bed),
        [
            format!("1: retry: {asked} answered 500"),
            format!("2: retry: {asked} failed: the connection was closed early"),
            "3: success".to_owned(),
        ]
    );
    assert_eq!(flags.lock().unwrap().len(), 1);
    assert_token_is_nowhere(&bed);
}

#[test]
fn site_that_is_away_gets_the_flag_when_it_is_back() {
    // A port that nobody listens on, until its site is back.
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{away}");
    let bed = bed("flag-commit-build", &url);
    rewrite(&bed, "flag-commit-build", |m| m.replace("max_attempts = 3", "max_attempts = 50"));
    let daemon = bed.start(&[]);
    bed.inject(&[build("m-1", &url)]);
    wait_for("a run", || (!bed.runs().is_empty()).then_some(()));
    let flags = Flags::default();
    let kept = Arc::clone(&flags);
    let site = Site::start_at(away, None, move |asked| flag(asked, &kept));
    wait_for("the flag", || (!flags.lock().unwrap().is_empty()).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(site.asked().len(), 1);
    let outcomes = outcomes(&bed);
    let (last, before) = outcomes.split_last().unwrap();
    assert!(last.ends_with(": success"), "{last}");
    let asked = format!("POST {url}/api/0/rpms/bash/c/{COMMIT}/flag");
    assert!(
        before.iter().all(|o| o.ends_with(&format!("{asked} failed: the connection was refused")))
    );
    assert!(!before.is_empty());
    assert_token_is_nowhere(&bed);
}

#[test]
fn token_that_is_not_taken_is_a_dead_letter_that_says_so() {
    let (site, flags) = pagure();
    let bed = bed("flag-commit-build", &site.url());
    bed.write("pagure.token", "a-token-of-yesterday\n");
    let daemon = bed.start(&[]);
    bed.inject(&[build("m-1", &site.url())]);
    wait_for("the dead letter", || (daemon.depth("dead") == Some(1)).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    let reason =
        format!("reject: POST {}/api/0/rpms/bash/c/{COMMIT}/flag answered 401", site.url());
    assert_eq!(outcomes(&bed), [format!("1: {reason}")]);
    let letters = text(&bed.run(&["dead-letters", "list", "--json"]).stdout);
    assert!(letters.contains(&reason), "{letters}");
    assert!(!letters.contains("yesterday") && !bed.log().contains("yesterday"));
    assert!(flags.lock().unwrap().is_empty());
}

/// A result for `digest`.
fn result(id: usize, state: u8) -> String {
    let msg = json!({"name": "bash", "version": "5.3", "release": id.to_string(), "new": state});
    message(&format!("m-{id}"), BUILD, &msg.to_string())
}

/// Returns the bodies of the dead letters of a task.
fn dead_bodies(bed: &Bed, task: &str) -> Vec<Value> {
    let letters = text(&bed.run(&["dead-letters", "list", "--json", "--task", task]).stdout);
    let ids =
        letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone());
    ids.map(|id| {
        let shown = text(&bed.run(&["dead-letters", "show", id.as_str().unwrap()]).stdout);
        serde_json::from_str(shown.trim_end().lines().last().unwrap()).unwrap()
    })
    .collect()
}

#[test]
fn digest_of_many_workers_has_each_result_once() {
    const RESULTS: usize = 60;
    let bed = Bed::new();
    bed.add_example("digest");
    rewrite(&bed, "digest", |manifest| {
        // Into the queue that has many workers, so that runs overtake one another.
        let manifest = manifest.replace("queue = \"digest\"", "");
        manifest.replace("builds = \"25\"", "builds = \"10\"")
    });
    // What it sends is kept as a dead letter.
    bed.add_guest("reads", "org.example.digest", "", "i32.const 96");
    let daemon = bed.start(&["--workers", "5"]);
    let messages: Vec<_> =
        (0..RESULTS).map(|id| result(id, if id % 3 == 0 { 3 } else { 1 })).collect();
    bed.inject(&messages);
    // Half of them come again.
    bed.inject(&messages[..RESULTS / 2]);
    // Neither a success nor a failure.
    bed.inject(&[result(RESULTS, 0)]);
    wait_for("the digests", || (daemon.depth("dead") == Some(6)).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(daemon.metric("loopabull_messages_emitted_total"), Some(6.0), "one for ten");
    let digests = dead_bodies(&bed, "reads");
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
    // What came again was run again, and was known by its id.
    assert_eq!(bed.tally()["digest success"], RESULTS + RESULTS / 2 + 1);
    let skipped = ("skipped".to_owned(), "the message was counted before".to_owned());
    let runs = bed.runs();
    assert_eq!(runs.iter().filter(|run| run.notes.contains(&skipped)).count(), RESULTS / 2);
}

#[test]
fn retired_package_runs_the_playbook_and_a_plain_push_does_not() {
    let bed = Bed::new();
    bed.add_example("block-retired");
    for file in ["retire-package.yml", "retire-package.toml"] {
        let bytes = fs::read(repository().join("playbooks").join(file)).unwrap();
        bed.write(&format!("playbooks/{file}"), bytes);
    }
    let push = |id: &str, file: &str| {
        let msg = json!({"commit": {"namespace": "rpms", "repo": "fish", "branch": "rawhide",
            "summary": "{{ 1 + 1 }} no longer needed", "stats": {"files": {file: {"additions": 1}}}}});
        message(id, "org.fedoraproject.stg.git.receive", &msg.to_string())
    };
    let daemon = bed.start(&[]);
    bed.inject(&[push("m-1", "fish.spec"), push("m-2", "dead.package"), push("m-3", "sources")]);
    wait_for("all runs", || (bed.runs().len() == 4).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    let expected = BTreeMap::from([("block-retired success", 3), ("retire-package success", 1)]);
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    assert_eq!(bed.tally(), expected);
    let runs = bed.runs();
    let playbook = runs.iter().find(|run| run.task.as_str() == "retire-package").unwrap();
    assert_eq!(playbook.topic.as_str(), "org.fedoraproject.stg.block.retired");
    let said = &playbook.output.text;
    assert!(said.contains("koji block-pkg rawhide fish ({{ 1 + 1 }} no longer needed)"), "{said}");
    let sent = runs.iter().find(|run| !run.emitted.is_empty()).unwrap();
    assert_eq!((sent.message_id.as_str(), sent.emitted.len()), ("m-2", 1));
    assert_eq!(sent.emitted[0].id, playbook.message_id);
}
