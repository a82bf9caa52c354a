//! kill -9 in the middle: nothing that was accepted is lost, and nothing that succeeded runs again.

use std::collections::BTreeMap;

use loopabull_testbed::Rabbit;

use crate::bed::{Bed, message, wait_for};

const GREETING: &str = r#"{"from":"x","text":"y"}"#;

/// Injects messages while the daemon works, kills it, starts another, and looks at the journal.
fn check(bed: &Bed, count: usize, flags: &[&str]) {
    bed.add_example("greet");
    let messages: Vec<String> = (0..count)
        .map(|n| message(&format!("m-{n}"), "org.example.prod.greeting.new", GREETING))
        .collect();
    let mut daemon = bed.start(flags);
    let killed_at = std::thread::scope(|scope| {
        let inject = scope.spawn(|| {
            let arguments: Vec<&str> = ["inject", "-"].iter().chain(flags).copied().collect();
            bed.run_with_input(&arguments, &messages.join("\n"))
        });
        let killed_at = wait_for("a fifth of the runs", || {
            let runs = daemon.count("runs") as usize;
            (runs >= count / 5).then_some(runs)
        });
        daemon.signal("KILL");
        assert_eq!(
            inject.join().unwrap(),
            format!("{count} messages, {count} entries queued, 0 refused\n")
        );
        killed_at
    });
    assert_eq!(daemon.wait(), None, "the signal ended it");
    assert!(killed_at < count, "it was killed in the middle, not at the end");
    daemon = bed.start(flags);
    daemon.wait_until_idle();
    daemon.stop();
    let mut successes: BTreeMap<String, usize> = BTreeMap::new();
    for run in bed.runs().iter().filter(|run| run.outcome.is_success()) {
        *successes.entry(run.message_id.to_string()).or_default() += 1;
    }
    assert_eq!(successes.len(), count, "every accepted message has a successful run");
    let twice = successes.values().filter(|&&runs| runs > 1).count();
    assert_eq!(twice, 0, "no message that had succeeded was run again");
}

#[test]
fn ten_thousand_messages_survive_a_kill_with_the_embedded_queue() {
    check(&Bed::new(), 10_000, &[]);
}

#[test]
fn messages_survive_a_kill_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    check(&Bed::new(), 1_000, &["--amqp-url", &url]);
}
