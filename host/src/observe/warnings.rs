//! Warnings: what an operator should look at although the daemon is ready.
//!
//! The daemon does its work, but some messages do not go on by themselves: dead letters, held messages, pauses,
//! and messages that have waited for a long time. `/warnings` and `/status` show them.

use std::collections::BTreeMap;
use std::time::Duration;

use loopabull_model::{Pause, QueueName, Target};
use loopabull_queue::Depth;

use crate::observe::activity::Losses;

/// The time after which a waiting message is a warning.
const LONG_WAIT: Duration = Duration::from_hours(1);
/// The time for which a loss of messages is a warning.
const LOSS_SHOWN: Duration = Duration::from_hours(24);

/// Returns one line for each warning.
pub(crate) fn warnings(
    depths: &[(QueueName, Depth)],
    pauses: &BTreeMap<Target, Pause>,
    losses: Option<Losses>,
) -> Vec<String> {
    let losses = losses.filter(|losses| losses.last.elapsed() < LOSS_SHOWN).map(|losses| {
        let ago = Duration::from_secs(losses.last.elapsed().as_secs());
        let messages = if losses.count == 1 { "message" } else { "messages" };
        let (count, ago) = (losses.count, humantime::format_duration(ago));
        format!("{count} {messages} lost since the start of the daemon, the last one {ago} ago; the log has the reason")
    });
    let paused = pauses.iter().map(|(target, pause)| {
        format!("{target} is paused by the {}: {}", pause.by.as_str(), pause.reason)
    });
    let are_held = |count| match count {
        1 => "1 message is held".to_owned(),
        count => format!("{count} messages are held"),
    };
    let queues = depths.iter().flat_map(|(name, depth)| {
        let held = depth.held.iter().map(move |(task, held)| {
            format!("queue `{name}`: {} for task `{task}`", are_held(held.count))
        });
        let dead = (depth.dead > 0).then(|| {
            let letters = if depth.dead == 1 { "dead letter" } else { "dead letters" };
            format!("queue `{name}`: {} {letters}", depth.dead)
        });
        let late = depth.oldest.filter(|oldest| *oldest >= LONG_WAIT).map(|oldest| {
            let hours = Duration::from_secs(oldest.as_secs());
            format!(
                "queue `{name}`: a message has waited for {}",
                humantime::format_duration(hours)
            )
        });
        held.chain(dead).chain(late)
    });
    losses.into_iter().chain(paused).chain(queues).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use loopabull_model::{PausedBy, TaskName};
    use loopabull_queue::Held;

    use super::*;

    #[test]
    fn what_does_not_go_on_by_itself_is_a_warning() {
        let nothing = [(QueueName::default(), Depth::default())];
        assert!(warnings(&nothing, &BTreeMap::new(), None).is_empty());
        let task = TaskName::try_from("x").unwrap();
        let depth = Depth {
            dead: 2,
            held: [(task.clone(), Held { count: 1, oldest: None })].into(),
            oldest: Some(Duration::from_millis(7_200_500)),
            waiting: 3,
            ..Depth::default()
        };
        let pause = Pause { reason: "5 runs failed".into(), since_ms: 0, by: PausedBy::Breaker };
        let last = Instant::now() - Duration::from_secs(90);
        let losses = Some(Losses { count: 3, last });
        let pauses = [(Target::Task(task), pause)].into();
        let found = warnings(&[(QueueName::default(), depth)], &pauses, losses);
        let old = Losses { count: 3, last: last - LOSS_SHOWN };
        assert!(warnings(&nothing, &BTreeMap::new(), Some(old)).is_empty());
        let expected = [
            "3 messages lost since the start of the daemon, the last one 1m 30s ago; the log has the reason",
            "task `x` is paused by the breaker: 5 runs failed",
            "queue `workers`: 1 message is held for task `x`",
            "queue `workers`: 2 dead letters",
            "queue `workers`: a message has waited for 2h",
        ];
        assert_eq!(found, expected);
    }
}
