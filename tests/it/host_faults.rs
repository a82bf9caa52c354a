//! `kill -9` of the host at random moments and at chosen points of a run. The oracle judges the result.

use std::collections::BTreeSet;
use std::time::Duration;

use loopabull_testbed::{Proxy, Rabbit, Vhost};

use crate::auditor::{Auditor, MIXED};
use crate::test_host::{TestHost, wait_for};

/// Kills and restarts the host `kills` times while it runs `messages` messages. The kills are spread evenly
/// over the runs. Each kill has a random delay of up to 20 ms, so that it can strike at any step of a run.
fn check_kills(auditor: &Auditor, kills: usize, messages: usize) {
    let host = auditor.host();
    let mut daemon = auditor.start(&host, &[]);
    let daemon = auditor.publish_during(&host, messages, MIXED, || {
        for kill in 1..=kills {
            auditor.wait_for_starts(kill * messages / (kills + 1));
            let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            std::thread::sleep(Duration::from_micros(u64::from(nanos % 20_000)));
            daemon.signal("KILL");
            assert_eq!(daemon.wait(), None);
            daemon = auditor.start(&host, &[]);
        }
        daemon
    });
    daemon.wait_until_idle_for(Duration::from_secs(600));
    let verdict = auditor.verdict(&host);
    println!("{kills} kills, {verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.confirmed >= messages, "{verdict}");
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    assert!(verdict.overlapping.is_empty() && verdict.dead == 0, "{verdict}");
    // A message runs twice only if a kill strikes between the end of its task and the record of the run. At
    // each kill, all five workers can be in this state.
    assert!(verdict.duplicated.len() <= kills * 5, "{verdict}");
    check_journal(&host, verdict.attempted);
    daemon.stop();
}

/// Fails if a message has two successful runs in the journal, because a recorded success must not run again.
fn check_journal(host: &TestHost, messages: usize) {
    let runs = host.runs();
    let successes: Vec<_> = runs.iter().filter(|run| run.outcome.is_success()).collect();
    let ids: BTreeSet<_> = successes.iter().map(|run| run.message_id.to_string()).collect();
    assert_eq!(successes.len(), ids.len(), "a recorded success was run again");
    assert!(ids.len() <= messages);
}

fn rabbit() -> (Vhost, String) {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    (vhost, url)
}

#[test]
fn nothing_is_lost_by_kills_with_the_embedded_queue() {
    check_kills(&Auditor::new(&[], 20), 8, 400);
}

#[test]
fn nothing_is_lost_by_kills_with_rabbitmq() {
    let (_vhost, url) = rabbit();
    check_kills(&Auditor::new(&["--amqp-url", &url], 20), 8, 400);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_kills_with_the_embedded_queue() {
    check_kills(&Auditor::new(&[], 20), 50, 20_000);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_kills_with_rabbitmq() {
    let (_vhost, url) = rabbit();
    check_kills(&Auditor::new(&["--amqp-url", &url], 20), 50, 20_000);
}

/// Publishes a message whose task kills the daemon at a point, restarts the daemon, and counts the
/// starts and ends of the task.
fn check_point(flags: &[&str], body: &str, expected_starts: usize, expected_ends: usize) {
    let auditor = Auditor::new(flags, 3);
    let host = auditor.host();
    let daemon = auditor.start(&host, &["--workers", "1"]);
    auditor.publish(&host, 0..1, body);
    assert_eq!(daemon.wait(), None, "the task did not kill the daemon");
    let daemon = auditor.start(&host, &["--workers", "1"]);
    daemon.wait_until_idle();
    let verdict = auditor.verdict(&host);
    verdict.assert_nothing_lost();
    assert!(verdict.over_limit.is_empty(), "{verdict}");
    let log = auditor.log();
    let count = |word: &str| log.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("start "), count("end ")), (expected_starts, expected_ends), "{log}");
    daemon.stop();
    let runs = host.runs();
    assert_eq!(runs.len(), 1, "the journal must have exactly one run");
    assert_eq!((runs[0].outcome.name(), runs[0].attempt), ("success", 1));
}

#[test]
fn a_message_is_run_again_after_a_kill_during_its_run() {
    let body = r#"{"kill":"before-end","until":1}"#;
    check_point(&[], body, 2, 1);
    let (_vhost, url) = rabbit();
    check_point(&["--amqp-url", &url], body, 2, 1);
}

/// Only a kill between the end of a task and its record makes a finished task run again.
#[test]
fn a_message_is_run_again_after_a_kill_between_the_end_of_its_run_and_the_record() {
    let body = r#"{"kill":"after-end","until":1}"#;
    check_point(&[], body, 2, 2);
    let (_vhost, url) = rabbit();
    check_point(&["--amqp-url", &url], body, 2, 2);
}

/// Uses a replacement of the launcher. When it is called for the first run, it kills the daemon instead of
/// starting the playbook.
fn check_before_start(flags: &[&str]) {
    let auditor = Auditor::new(flags, 3);
    let host = auditor.host();
    let (script, kills) = (host.path("launcher"), host.path("kills"));
    host.write(
        "launcher",
        format!(
            "#!/bin/sh\nif test -e {0}; then rm {0}; kill -9 $PPID; else exec {1} \"$@\"; fi\n",
            kills.display(),
            TestHost::launcher().display(),
        ),
    );
    std::process::Command::new("chmod").arg("+x").arg(&script).status().unwrap();
    let config = std::fs::read_to_string(host.path("loopabull.toml")).unwrap();
    host.write("loopabull.toml", format!("{config}launcher = '{}'\n", script.display()));
    let daemon = auditor.start(&host, &["--workers", "1"]);
    // The playbook was checked, with the launcher.
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    host.write("kills", "");
    auditor.publish(&host, 0..1, "{}");
    assert_eq!(daemon.wait(), None, "the launcher did not kill the daemon");
    let daemon = auditor.start(&host, &["--workers", "1"]);
    daemon.wait_until_idle();
    auditor.verdict(&host).assert_nothing_lost();
    assert_eq!(auditor.starts(), 1);
    daemon.stop();
}

#[test]
fn a_message_is_run_once_after_a_kill_before_its_run_starts() {
    check_before_start(&[]);
    let (_vhost, url) = rabbit();
    check_before_start(&["--amqp-url", &url]);
}

/// Kills the daemon after a run is recorded in the journal and before its entry is settled in the queue. The embedded
/// queue has no such moment.
#[test]
fn a_recorded_run_is_not_repeated_after_a_kill_before_settlement_with_rabbitmq() {
    let (vhost, _) = rabbit();
    let proxy = Proxy::start(Rabbit::shared().address());
    let url = vhost.url_at(proxy.address());
    let auditor = Auditor::new(&["--amqp-url", &url], 3);
    let host = auditor.host();
    let daemon = auditor.start(&host, &["--workers", "1"]);
    auditor.publish(&host, 0..1, r#"{"sleep_ms":1500}"#);
    auditor.wait_for_starts(1);
    // The proxy drops the acknowledgement.
    proxy.swallow(true);
    wait_for("the record of the run", || (host.runs().len() == 1).then_some(()));
    daemon.signal("KILL");
    assert_eq!(daemon.wait(), None);
    proxy.cut();
    proxy.swallow(false);
    let daemon = auditor.start(&host, &["--workers", "1"]);
    daemon.wait_until_idle();
    auditor.verdict(&host).assert_nothing_lost();
    assert_eq!(auditor.starts(), 1, "the message was run again");
    assert!(host.log().contains("already had a successful run"), "{}", host.log());
    daemon.stop();
}

/// Poison messages, which make their task fail or kill the daemon, are not retried for ever. Each of the
/// other messages needs only one attempt.
#[test]
fn poison_messages_do_not_affect_good_messages() {
    for flags in [vec![], vec!["--amqp-url".to_owned(), rabbit().1]] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let auditor = Auditor::new(&flags, 2);
        let host = auditor.host();
        let daemon = auditor.start(&host, &[]);
        for (first, body) in [
            (0, "{}"),
            (20, r#"{"exit":1}"#),
            (40, "{}"),
            (60, r#"{"exit":125}"#),
            (80, r#"{"kill":"before-end"}"#),
            (81, "{}"),
        ] {
            let count = if first == 80 { 1 } else { 20 };
            auditor.publish(&host, first..first + count, body);
        }
        // Message 80 kills three daemons in a row, and the fourth daemon dead-letters the message.
        assert_eq!(daemon.wait(), None);
        for _ in 0..2 {
            let next = auditor.with(&["--listen", "127.0.0.1:0"]);
            assert_eq!(host.command(&next).status().unwrap().code(), None);
        }
        let daemon = auditor.start(&host, &[]);
        // RabbitMQ may not have taken back yet what the killed daemon had received.
        auditor.wait_until_done(&host, 101);
        daemon.wait_until_idle();
        let oracle = auditor.oracle(&host);
        let verdict = oracle.check(2);
        verdict.assert_nothing_lost();
        assert!(verdict.over_limit.is_empty(), "{verdict}");
        let good = |id: &str| {
            let number: usize = id[2..].parse().unwrap();
            !(20..40).contains(&number) && !(60..=80).contains(&number)
        };
        let again = oracle.starts.iter().find(|start| good(&start.run.id) && start.run.attempt > 1);
        assert_eq!(again, None, "a good message was retried");
        let dead: Vec<_> = oracle.dead.iter().filter(|id| good(id)).collect();
        assert!(dead.is_empty(), "{dead:?}");
        assert_eq!(oracle.dead.len(), 41);
        daemon.stop();
    }
}
