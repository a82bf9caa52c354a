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
