//! The catch-up with missed messages. When the daemon starts, it fetches from an archive the messages that
//! were published while no daemon was listening. It fetches them in order and runs each once.

use loopabull_testbed::FedmsgPublisher;
use serde_json::json;

use crate::archive::{Archive, Fault, now};
use crate::test_host::{Daemon, TestHost, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

/// Returns a test host whose previous daemon stopped listening an hour ago, and the publisher of its source.
fn host(archive: &Archive, more: &str) -> (TestHost, FedmsgPublisher) {
    let host = TestHost::new();
    host.add_guest("hello", TOPIC, "", "i32.const 0");
    let publisher = FedmsgPublisher::start();
    let source = format!(
        "endpoints = [{{ address = '{}', heartbeat = '1s' }}]\nverify = 'off'",
        publisher.endpoint()
    );
    let settings = archive.settings();
    host.write("loopabull.toml", format!("[fedmsg]\n{source}\n{settings}{more}\n"));
    std::fs::create_dir(host.path("state")).unwrap();
    let progress = json!({"complete_until": now() - 3600});
    host.write("state/datagrepper.json", progress.to_string());
    (host, publisher)
}

fn start(host: &TestHost) -> Daemon {
    host.start(&["--config", "loopabull.toml"])
}

fn wait_for_runs(daemon: &Daemon, count: u64) {
    wait_for("the runs to be counted", || (daemon.count("runs") >= count).then_some(()));
    daemon.wait_until_idle();
}

#[test]
fn missed_messages_are_fetched_once_despite_errors_and_inserts() {
    let archive = Archive::start();
    let (host, _publisher) = host(&archive, "");
    let begin = now() - 3600;
    for number in 0..250 {
        archive.add(begin + number, &format!("m-{number:03}"), TOPIC);
        archive.add(begin + number, &format!("other-{number:03}"), "org.example.prod.nobody.wants");
    }
    // This message is older than the time in which no daemon was listening, so the daemon must not fetch it.
    archive.add(begin - 3600, "old", TOPIC);
    archive.faults(&[Fault::Unavailable, Fault::Garbage, Fault::Truncated, Fault::Inserts]);
    let daemon = start(&host);
    // `Fault::Inserts` moves 30 messages from the first page to the second. The daemon fetches these 30 twice
    // and deduplicates them. The added messages are on the first page, which the daemon has already fetched.
    wait_for_runs(&daemon, 250);
    daemon.stop();
    let runs = host.runs();
    let ids: Vec<String> = runs.iter().map(|run| run.message_id.to_string()).collect();
    for number in 0..250 {
        let id = format!("m-{number:03}");
        assert_eq!(ids.iter().filter(|other| **other == id).count(), 1, "{id}");
    }
    assert!(!ids.contains(&"old".to_owned()));
    let queries = archive.queries();
    // All requests have the same end time, so that new messages do not shift the pages. They also name the
    // topic, by which the archive filters.
    let first = &queries[0];
    let third = queries.iter().find(|query| query["page"] == ["3"]).unwrap();
    assert_eq!(first["end"], third["end"]);
    assert_eq!(first["topic"], [TOPIC]);
    assert!(queries.iter().all(|query| query["rows_per_page"] == ["100"]));
    let overlap = begin - first["start"][0].parse::<i64>().unwrap();
    assert!((119..=121).contains(&overlap), "{overlap}");
}

#[test]
fn an_unreadable_message_does_not_block_the_others() {
    let archive = Archive::start();
    let (host, _publisher) = host(&archive, "");
    let begin = now() - 3600;
    for number in 0..250 {
        archive.add(begin + number, &format!("m-{number:03}"), TOPIC);
    }
    archive.make_unreadable("m-163");
    let daemon = start(&host);
    wait_for_runs(&daemon, 249);
    assert!(daemon.count("rejected") >= 1);
    daemon.stop();
    let mut ids: Vec<String> = host.runs().iter().map(|run| run.message_id.to_string()).collect();
    ids.sort();
    let expected = (0..250).filter(|number| *number != 163).map(|number| format!("m-{number:03}"));
    assert_eq!(ids, expected.collect::<Vec<_>>());
}

/// A proxy may answer every request with an error page. The messages are still in the archive afterwards, so
/// the daemon must not skip any.
#[test]
fn an_unreadable_archive_is_retried_until_it_answers() {
    let archive = Archive::start();
    let (host, _publisher) = host(&archive, "");
    for number in 0..150 {
        archive.add(now() - 3600 + number, &format!("m-{number:03}"), TOPIC);
    }
    archive.faults(&[Fault::Garbage; 8]);
    let daemon = start(&host);
    wait_for_runs(&daemon, 150);
    assert_eq!(daemon.count("rejected"), 0);
    daemon.stop();
    let queries = archive.queries();
    assert!(queries.iter().all(|query| query["rows_per_page"] == ["100"]), "{queries:?}");
}

#[test]
fn the_gap_is_fetched_after_a_reconnect() {
    let archive = Archive::start();
    let (host, mut publisher) = host(&archive, "");
    let daemon = start(&host);
    wait_for("the first request to the archive", || (!archive.queries().is_empty()).then_some(()));
    wait_for("a message to be accepted", || {
        publisher.publish("demo", "hello", "{}", 1);
        (daemon.count("accepted") > 0).then_some(())
    });
    freeze(&publisher, "STOP");
    let name = format!("loopabull_source_connected{{endpoint=\"{}\"}}", publisher.endpoint());
    wait_for("the loss to be noticed", || (daemon.metric(&name) == Some(0.0)).then_some(()));
    archive.add(now(), "missed", TOPIC);
    freeze(&publisher, "CONT");
    wait_for("the missed message to run", || {
        let runs = host.runs();
        runs.iter().any(|run| run.message_id.to_string() == "missed").then_some(())
    });
    daemon.stop();
}

fn freeze(publisher: &FedmsgPublisher, signal: &str) {
    let pid = publisher.id().to_string();
    let kill = std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
    assert!(kill.success());
}

#[test]
fn a_daemon_that_is_killed_while_catching_up_continues_where_it_was() {
    let archive = Archive::start();
    let (host, _publisher) = host(&archive, "pages = 1");
    let begin = now() - 3600;
    for number in 0..150 {
        archive.add(begin + number, &format!("m-{number:03}"), TOPIC);
    }
    let daemon = start(&host);
    // With `pages = 1` the daemon pauses for a minute after each page of 100 messages.
    wait_for_runs(&daemon, 100);
    daemon.signal("KILL");
    daemon.wait();
    let daemon = start(&host);
    wait_for("the remaining runs", || (host.runs().len() == 150).then_some(()));
    daemon.stop();
    let pages: Vec<_> = archive.queries().iter().map(|query| query["page"][0].clone()).collect();
    assert_eq!(pages[..2], ["1", "2"], "{pages:?}");
    assert!(pages[2..].iter().all(|page| page == "1"), "a page was fetched again: {pages:?}");
}

#[test]
fn a_first_start_fetches_no_earlier_messages() {
    let archive = Archive::start();
    let (host, mut publisher) = host(&archive, "");
    std::fs::remove_file(host.path("state/datagrepper.json")).unwrap();
    archive.add(now() - 10, "before", TOPIC);
    let begun = now();
    let daemon = start(&host);
    wait_for("a message to be accepted", || {
        publisher.publish("demo", "hello", "{}", 1);
        (daemon.count("accepted") > 0).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();
    let ids: Vec<_> = host.runs().iter().map(|run| run.message_id.to_string()).collect();
    assert!(!ids.contains(&"before".to_owned()));
    let starts =
        archive.queries().into_iter().map(|query| query["start"][0].parse::<i64>().unwrap());
    assert!(starts.min().is_none_or(|start| start >= begun), "{:?}", archive.queries());
}

/// Messages from an archive have no signer. So if a policy allows only certain signers for a topic, the
/// daemon rejects archived messages of that topic.
#[test]
fn messages_from_an_archive_do_not_bypass_a_policy() {
    let archive = Archive::start();
    let (host, _publisher) = host(&archive, "");
    let pki = loopabull_testbed::Pki::new();
    let settings = std::fs::read_to_string(host.path("loopabull.toml")).unwrap();
    let checked = format!("ca = '{}'", pki.file("ca.crt").display());
    let policy = format!("[fedmsg.policy]\n'{TOPIC}' = ['somebody']\n[datagrepper]");
    let settings = settings.replace("verify = 'off'", &checked).replace("[datagrepper]", &policy);
    host.write("loopabull.toml", settings);
    host.add_guest("free", "org.example.prod.free", "", "i32.const 0");
    archive.add(now() - 1800, "given", TOPIC);
    archive.add(now() - 1800, "free", "org.example.prod.free");
    let daemon = start(&host);
    wait_for_runs(&daemon, 1);
    assert!(daemon.count("rejected") >= 1);
    daemon.stop();
    assert_eq!(host.tally(), [("free success".to_owned(), 1)].into());
}
