//! Queues that a manifest names: each has its own workers, depth, retries and dead letters.

use loopabull_testbed::Rabbit;

use crate::test_host::{TestHost, message, wait_for};

fn check(flags: &[&str]) {
    let host = TestHost::new();
    let (log, go) = (host.shared("log"), host.shared("go"));
    // The task logs its start and its end. The queue `slow` has one worker, so its runs must not overlap.
    let tasks = format!(
        "    - shell: echo start >> {0}; while ! test -e {1}; do sleep 0.05; done; echo end >> {0}\n",
        log.display(),
        go.display()
    );
    host.add_playbook("slow", "topics = ['s']\nqueue = 'slow'", &tasks);
    host.add_guest("fails", "f", "queue = 'slow'", "i32.const 96");
    host.add_guest("good", "x", "", "i32.const 0");
    let daemon = host.start(&[&["--workers", "2", "--queue", "slow=1"], flags].concat());
    let messages = ["s", "s", "s", "f", "x", "x"];
    let messages: Vec<String> = messages
        .iter()
        .enumerate()
        .map(|(n, topic)| message(&format!("m-{n}"), topic, "{}"))
        .collect();
    host.run_with_input(&[&["inject", "-"], flags].concat(), &messages.join("\n"));
    // The slow task delays only the messages of its own queue, so the messages of `good` run.
    wait_for("the other runs", || (host.tally().get("good success") == Some(&2)).then_some(()));
    let queues = daemon.status()["queues"].clone();
    assert_eq!(
        (queues[0]["name"].as_str(), queues[1]["name"].as_str()),
        (Some("workers"), Some("slow"))
    );
    assert_eq!(queues[1]["waiting"].as_u64(), Some(3), "{queues}");
    assert_eq!(daemon.status()["workers"].as_array().unwrap().len(), 3);
    std::fs::write(go, "").unwrap();
    daemon.wait_until_idle();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "start\nend\n".repeat(3), "runs overlapped");
    let queues = daemon.status()["queues"].clone();
    assert_eq!((queues[0]["dead"].as_u64(), queues[1]["dead"].as_u64()), (Some(0), Some(1)));
    daemon.stop();
}

#[test]
fn named_queues_are_independent_of_each_other_with_the_embedded_queue() {
    check(&[]);
}

#[test]
fn named_queues_are_independent_of_each_other_with_rabbitmq() {
    let url = Rabbit::shared().vhost().url();
    check(&["--amqp-url", &url]);
}

/// A worker of playbooks takes its next message only after the run of the one before, so another worker can have it. A worker of
/// components has many messages in flight; in the embedded queue it gives back what it has claimed while a run takes long.
fn check_side_by_side(flags: &[&str], component_waiting: u64) {
    let host = TestHost::new();
    let go = host.shared("go");
    let tasks = format!("    - shell: while ! test -e {}; do sleep 0.05; done\n", go.display());
    host.add_playbook("plays", "topics = ['p']\nqueue = 'plays'", &tasks);
    host.add_guest("spins", "c", "[limits]\ntimeout = '1m'", "(loop $again br $again) unreachable");
    let flags = [&["--workers", "1", "--queue", "plays=2"], flags].concat();
    let messages: Vec<String> =
        (0..43).map(|n| message(&format!("m-{n}"), if n < 3 { "p" } else { "c" }, "{}")).collect();
    host.run_with_input(&[&["inject", "-"], &flags[4..]].concat(), &messages.join("\n"));
    let daemon = host.start(&flags);
    let busy = || {
        let workers = daemon.status()["workers"].as_array().unwrap().clone();
        workers.iter().all(|worker| !worker["work"].is_null()).then_some(())
    };
    wait_for("all workers to run", busy);
    let waiting = |name: &str| {
        let queues = daemon.status()["queues"].as_array().unwrap().clone();
        queues.iter().find(|queue| queue["name"] == name).unwrap()["waiting"].as_u64()
    };
    wait_for("the window to be full", || {
        (waiting("workers") == Some(component_waiting)).then_some(())
    });
    for _ in 0..10 {
        assert_eq!((waiting("plays"), waiting("workers")), (Some(1), Some(component_waiting)));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    std::fs::write(go, "").unwrap();
    wait_for("the playbooks", || (host.tally().get("plays success") == Some(&3)).then_some(()));
    daemon.signal("KILL");
    assert_eq!(daemon.wait(), None);
}

#[test]
fn playbooks_get_one_message_at_a_time_beside_components_with_the_embedded_queue() {
    check_side_by_side(&[], 39);
}

#[test]
fn playbooks_get_one_message_at_a_time_beside_components_with_rabbitmq() {
    let url = Rabbit::shared().vhost().url();
    check_side_by_side(&["--amqp-url", &url], 40 - 10);
}
