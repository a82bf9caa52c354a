//! `kill -9` during runs: no accepted message is lost, and no message that succeeded runs again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loopabull_testbed::Rabbit;

use crate::test_host::{Publisher, TestHost, message, processes_with, wait_at_most, wait_for};

const GREETING: &str = r#"{"from":"x","text":"y"}"#;

/// Publishes messages, kills three daemons while they run them, and checks the journal.
fn check(host: &TestHost, count: usize, flags: &[&str]) {
    host.add_example("greet");
    let messages: Vec<String> = (0..count)
        .map(|n| message(&format!("m-{n}"), "org.example.prod.greeting.new", GREETING))
        .collect();
    let mut daemon = host.start(flags);
    let killed_at = std::thread::scope(|scope| {
        let inject = scope.spawn(|| {
            let arguments: Vec<&str> = ["inject", "-"].iter().chain(flags).copied().collect();
            host.run_with_input(&arguments, &messages.join("\n"))
        });
        let killed_at = wait_for("a fifth of the runs", || {
            let runs = daemon.count("runs") as usize;
            (runs >= count / 5).then_some(runs)
        });
        daemon.signal("KILL");
        assert_eq!(
            inject.join().unwrap(),
            format!("{count} messages, {count} entries queued, 0 rejected\n")
        );
        killed_at
    });
    assert_eq!(daemon.wait(), None, "the signal must end the daemon");
    assert!(killed_at < count, "the kill must strike before the last run");
    for _ in 0..2 {
        daemon = host.start(flags);
        // The earlier daemons may have left nothing to do.
        for _ in 0..20 {
            if daemon.count("runs") > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon.signal("KILL");
        assert_eq!(daemon.wait(), None, "the signal must end the daemon");
    }
    daemon = host.start(flags);
    // Thousands of runs take long on a machine that runs other tests at the same time. A queue that is empty for a moment
    // does not tell that all is done: a broker may not have taken back yet what a killed daemon had received.
    let succeeded = "SELECT DISTINCT entry FROM runs WHERE outcome_name = 'success'";
    wait_at_most(Duration::from_mins(5), "a successful run of each message", || {
        (entries(host, "state/journal.db", succeeded).len() >= count).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();
    let mut successes: BTreeMap<String, usize> = BTreeMap::new();
    for run in host.runs().iter().filter(|run| run.outcome.is_success()) {
        *successes.entry(run.message_id.to_string()).or_default() += 1;
    }
    assert_eq!(successes.len(), count, "each accepted message must have a successful run");
    let twice = successes.values().filter(|&&runs| runs > 1).count();
    assert_eq!(twice, 0, "a message that had succeeded was run again");
    let blamed = entries(host, "state/journal.db", "SELECT entry FROM crashed_entries");
    assert!(blamed.is_empty(), "entries that succeeded still count as crashed: {blamed:?}");
}

/// Returns the ids of entries that an SQL query finds in a database of the daemon.
fn entries(host: &TestHost, file: &str, sql: &str) -> Vec<String> {
    let connection = rusqlite::Connection::open(host.path(file)).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// A daemon that receives messages from a fedmsg socket is killed. Each message that it has accepted is in
/// its queue or its journal. After the next daemon has emptied the queue, each of them has exactly one
/// successful run.
#[test]
fn what_a_killed_daemon_had_accepted_from_its_socket_is_worked() {
    const COUNT: usize = 2_000;
    let host = TestHost::new();
    host.add_example("greet");
    let publisher = Publisher::start();
    let daemon = host.start(&["--unsigned", "--fedmsg", &publisher.endpoint]);
    publisher.wait_for_subscriber();
    let topic = "org.example.prod.greeting.new";
    for number in 0..COUNT {
        let body = message(&format!("m-{number}"), topic, GREETING);
        publisher.send(&[topic.as_bytes(), body.as_bytes()]);
    }
    wait_for("a tenth of the runs", || (daemon.count("runs") as usize >= COUNT / 10).then_some(()));
    daemon.signal("KILL");
    assert_eq!(daemon.wait(), None, "the signal must end the daemon");
    drop(publisher);
    let mut accepted: BTreeSet<String> =
        entries(&host, "state/journal.db", "SELECT entry FROM entries").into_iter().collect();
    accepted.extend(entries(&host, "state/journal.db", "SELECT entry FROM runs"));
    assert!(accepted.len() >= COUNT / 10, "only {} messages were accepted", accepted.len());

    let daemon = host.start(&[]);
    daemon.wait_until_idle();
    daemon.stop();
    let sql = "SELECT entry FROM runs WHERE outcome_name = 'success'";
    let successful = entries(&host, "state/journal.db", sql);
    assert_eq!(
        successful.len(),
        accepted.len(),
        "the number of successful runs is not the number of accepted messages"
    );
    assert_eq!(
        successful.into_iter().collect::<BTreeSet<_>>(),
        accepted,
        "the accepted and the successful entries differ"
    );
}

/// A playbook ends with its daemon, even if the daemon was killed. Otherwise the next daemon would run the
/// message while the first playbook still runs.
#[test]
fn a_playbook_does_not_outlive_its_daemon() {
    // If the playbook has its own namespaces, the kernel kills all its processes when the namespaces end.
    // Without namespaces, the launcher has to find and kill the remaining processes.
    for without in ["", "'cgroup', 'namespaces'"] {
        let host = TestHost::new();
        host.write("loopabull.toml", format!("[playbook]\nwithout = [{without}]\n"));
        let (starts, go) = (host.shared("starts"), host.shared("go"));
        let tasks = format!(
            "    - shell: (setsid sleep 60018 &); echo >> {}; while ! test -e {}; do sleep 0.1; done\n",
            starts.display(),
            go.display()
        );
        host.add_playbook("waits", "", &tasks);
        let flags = ["--config", "loopabull.toml"];
        let daemon = host.start(&flags);
        host.inject(&[message("m-1", "waits", "{}")]);
        let started = |count: usize| {
            let starts = std::fs::read_to_string(&starts).unwrap_or_default();
            (starts.lines().count() == count).then_some(())
        };
        wait_for("the playbook to run", || started(1));
        daemon.signal("KILL");
        assert_eq!(daemon.wait(), None);
        let go_text = go.to_str().unwrap();
        wait_for("the processes of the playbook to end", || {
            (processes_with(go_text) == 0 && processes_with("60018") == 0).then_some(())
        });
        let daemon = host.start(&flags);
        wait_for("the playbook to run again", || started(2));
        std::fs::write(&go, "").unwrap();
        daemon.wait_until_idle();
        daemon.stop();
        let runs = host.runs();
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].outcome.name(), runs[0].attempt), ("success", 1));
    }
}

/// If the daemon dies during three runs of an entry, the entry is dead-lettered.
#[test]
fn a_message_that_kills_its_daemon_is_set_aside() {
    let host = TestHost::new();
    let running = host.shared("running");
    let tasks = format!("    - shell: touch {}; sleep 600\n", running.display());
    host.add_playbook("kills", "[retry]\nmax_attempts = 2\npauses = ['100ms']", &tasks);
    host.inject(&[message("m-1", "kills", "{}")]);
    for _ in 0..3 {
        let daemon = host.start(&[]);
        wait_for("the playbook to run", || running.exists().then_some(()));
        daemon.signal("KILL");
        assert_eq!(daemon.wait(), None);
        std::fs::remove_file(&running).unwrap();
    }
    let daemon = host.start(&[]);
    wait_for("the dead letter", || (daemon.depth("dead") == Some(1)).then_some(()));
    assert!(!running.exists());
    daemon.stop();
    let outcome = host.runs()[0].outcome.to_string();
    assert_eq!(outcome, "refused: the daemon died 3 times during a run of this entry");
}

#[test]
fn messages_survive_a_kill_with_the_embedded_queue() {
    check(&TestHost::new(), 2_000, &[]);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_ten_thousand_messages_survive_a_kill() {
    check(&TestHost::new(), 10_000, &[]);
}

#[test]
fn messages_survive_a_kill_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    check(&TestHost::new(), 1_000, &["--amqp-url", &url]);
}
