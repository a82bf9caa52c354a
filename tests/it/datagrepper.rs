//! Catching up: what was sent while nobody listened is asked of an archive, once and in its order.

use loopabull_testbed::FedmsgPublisher;
use serde_json::json;

use crate::archive::{Archive, Fault, now};
use crate::bed::{Bed, Daemon, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

/// A bed whose last daemon listened an hour ago, and its source.
fn bed(archive: &Archive, more: &str) -> (Bed, FedmsgPublisher) {
    let bed = Bed::new();
    bed.add_guest("hello", TOPIC, "", "i32.const 0");
    let publisher = FedmsgPublisher::start();
    let source = format!(
        "endpoints = [{{ address = '{}', heartbeat = '1s' }}]\nverify = 'off'",
        publisher.endpoint()
    );
    let settings = archive.settings();
    bed.write("loopabull.toml", format!("[fedmsg]\n{source}\n{settings}{more}\n"));
    std::fs::create_dir(bed.path("state")).unwrap();
    let progress = json!({"complete_until": now() - 3600});
    bed.write("state/datagrepper.json", progress.to_string());
    (bed, publisher)
}

fn start(bed: &Bed) -> Daemon {
    bed.start(&["--config", "loopabull.toml"])
}

fn wait_for_runs(daemon: &Daemon, count: u64) {
    wait_for("the runs", || (daemon.count("runs") >= count).then_some(()));
    daemon.wait_until_idle();
}

#[test]
fn what_was_missed_is_asked_for_once_over_errors_and_inserts() {
    let archive = Archive::start();
    let (bed, _publisher) = bed(&archive, "");
    let begin = now() - 3600;
    for number in 0..250 {
        archive.add(begin + number, &format!("m-{number:03}"), TOPIC);
        archive.add(begin + number, &format!("other-{number:03}"), "org.example.prod.nobody.wants");
    }
    // Long ago, and known.
    archive.add(begin - 3600, "old", TOPIC);
    archive.faults(&[Fault::Unavailable, Fault::Garbage, Fault::Truncated, Fault::Inserts]);
    let daemon = start(&bed);
    // The insert moves thirty of the first page to the second, where they are known already, and what
    // was inserted before the first page's end was not seen: it is of a time that was already asked for.
    wait_for_runs(&daemon, 250);
    daemon.stop();
    let runs = bed.runs();
    let ids: Vec<String> = runs.iter().map(|run| run.message_id.to_string()).collect();
    for number in 0..250 {
        let id = format!("m-{number:03}");
        assert_eq!(ids.iter().filter(|other| **other == id).count(), 1, "{id}");
    }
    assert!(!ids.contains(&"old".to_owned()));
    let queries = archive.queries();
    // The end stays while pages are read, so that they do not move, and the server looks for the topics.
    let first = &queries[0];
    let third = queries.iter().find(|query| query["page"] == ["3"]).unwrap();
    assert_eq!(first["end"], third["end"]);
    assert_eq!(first["topic"], [TOPIC]);
    assert!(queries.iter().all(|query| query["rows_per_page"] == ["100"]));
    let overlap = begin - first["start"][0].parse::<i64>().unwrap();
    assert!((119..=121).contains(&overlap), "{overlap}");
}

#[test]
fn one_message_that_cannot_be_read_holds_up_no_others() {
    let archive = Archive::start();
    let (bed, _publisher) = bed(&archive, "");
    let begin = now() - 3600;
    for number in 0..250 {
        archive.add(begin + number, &format!("m-{number:03}"), TOPIC);
    }
    archive.make_unreadable("m-163");
    let daemon = start(&bed);
    wait_for_runs(&daemon, 249);
    assert!(daemon.count("rejected") >= 1);
    daemon.stop();
    let mut ids: Vec<String> = bed.runs().iter().map(|run| run.message_id.to_string()).collect();
    ids.sort();
    let expected = (0..250).filter(|number| *number != 163).map(|number| format!("m-{number:03}"));
    assert_eq!(ids, expected.collect::<Vec<_>>());
}

/// What stands before it answers anything with a page of its own, and everything is still there after.
#[test]
fn an_archive_that_cannot_be_read_at_all_is_waited_for() {
    let archive = Archive::start();
    let (bed, _publisher) = bed(&archive, "");
    for number in 0..150 {
        archive.add(now() - 3600 + number, &format!("m-{number:03}"), TOPIC);
    }
    archive.faults(&[Fault::Garbage; 8]);
    let daemon = start(&bed);
    wait_for_runs(&daemon, 150);
    assert_eq!(daemon.count("rejected"), 0);
    daemon.stop();
    let queries = archive.queries();
    assert!(queries.iter().all(|query| query["rows_per_page"] == ["100"]), "{queries:?}");
}

#[test]
fn after_a_reconnect_the_gap_is_asked_for() {
    let archive = Archive::start();
    let (bed, mut publisher) = bed(&archive, "");
    let daemon = start(&bed);
    wait_for("the first page", || (!archive.queries().is_empty()).then_some(()));
    wait_for("a message", || {
        publisher.publish("demo", "hello", "{}", 1);
        (daemon.count("accepted") > 0).then_some(())
    });
    freeze(&publisher, "STOP");
    let name = format!("loopabull_source_connected{{endpoint=\"{}\"}}", publisher.endpoint());
    wait_for("the loss", || (daemon.metric(&name) == Some(0.0)).then_some(()));
    archive.add(now(), "missed", TOPIC);
    freeze(&publisher, "CONT");
    wait_for("what was missed", || {
        let runs = bed.runs();
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
fn a_daemon_that_dies_while_it_catches_up_goes_on_where_it_was() {
    let archive = Archive::start();
    let (bed, _publisher) = bed(&archive, "pages = 1");
    let begin = now() - 3600;
    for number in 0..150 {
        archive.add(begin + number, &format!("m-{number:03}"), TOPIC);
    }
    let daemon = start(&bed);
    // After one page it rests for a minute.
    wait_for_runs(&daemon, 100);
    daemon.signal("KILL");
    daemon.wait();
    let daemon = start(&bed);
    wait_for("the rest", || (bed.runs().len() == 150).then_some(()));
    daemon.stop();
    let pages: Vec<_> = archive.queries().iter().map(|query| query["page"][0].clone()).collect();
    assert_eq!(pages[..2], ["1", "2"], "{pages:?}");
    assert!(pages[2..].iter().all(|page| page == "1"), "what was asked for is here: {pages:?}");
}

#[test]
fn a_first_start_has_missed_nothing() {
    let archive = Archive::start();
    let (bed, mut publisher) = bed(&archive, "");
    std::fs::remove_file(bed.path("state/datagrepper.json")).unwrap();
    archive.add(now() - 10, "before", TOPIC);
    let begun = now();
    let daemon = start(&bed);
    wait_for("a message", || {
        publisher.publish("demo", "hello", "{}", 1);
        (daemon.count("accepted") > 0).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();
    let ids: Vec<_> = bed.runs().iter().map(|run| run.message_id.to_string()).collect();
    assert!(!ids.contains(&"before".to_owned()));
    let starts =
        archive.queries().into_iter().map(|query| query["start"][0].parse::<i64>().unwrap());
    assert!(starts.min().is_none_or(|start| start >= begun), "{:?}", archive.queries());
}

/// An archive cannot tell who has signed: what a policy gives to certain signers is not taken from it.
#[test]
fn an_archive_is_no_way_round_a_policy() {
    let archive = Archive::start();
    let (bed, _publisher) = bed(&archive, "");
    let pki = loopabull_testbed::Pki::new();
    let settings = std::fs::read_to_string(bed.path("loopabull.toml")).unwrap();
    let checked = format!("ca = '{}'", pki.file("ca.crt").display());
    let policy = format!("[fedmsg.policy]\n'{TOPIC}' = ['somebody']\n[datagrepper]");
    let settings = settings.replace("verify = 'off'", &checked).replace("[datagrepper]", &policy);
    bed.write("loopabull.toml", settings);
    bed.add_guest("free", "org.example.prod.free", "", "i32.const 0");
    archive.add(now() - 1800, "given", TOPIC);
    archive.add(now() - 1800, "free", "org.example.prod.free");
    let daemon = start(&bed);
    wait_for_runs(&daemon, 1);
    assert!(daemon.count("rejected") >= 1);
    daemon.stop();
    assert_eq!(bed.tally(), [("free success".to_owned(), 1)].into());
}
