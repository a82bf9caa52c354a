//! The messages of the demo. They are invented and have the form of fedmsg messages.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uuid::Uuid;

use super::daemon::Run;

const GREETING: &str = "org.example.demo.greeting.new";
const PUSH: &str = "org.fedoraproject.prod.git.receive";
const HELLO: &str = "org.example.demo.hello";
/// Topics without a task.
const UNROUTED: [&str; 2] = ["org.example.demo.weather.report", "org.example.demo.lost.umbrella"];

/// The senders and texts of the greetings.
const GREETINGS: [(&str, &str); 14] = [
    ("barn", "the hay is in"),
    ("dairy", "twelve cans are ready at the gate"),
    ("orchard", "the early pears are ripe"),
    ("mill", "the wheel turns again"),
    ("forge", "two horseshoes are done"),
    ("bakery", "rye today, oats tomorrow"),
    ("meadow", "the fence at the brook is mended"),
    ("well", "clear water down to the stones"),
    ("stable", "the brown mare has a foal"),
    ("kitchen", "there is soup"),
    ("garden", "too many beans, please come"),
    ("cellar", "the cider has settled"),
    ("workshop", "the cart has four wheels now"),
    ("tower", "nothing to be seen but cows"),
];

/// The packages that are pushed to, and the summaries of their commits. No package is retired,
/// because that would start a playbook.
const PUSHES: [(&str, &str); 10] = [
    ("haywain", "Update to 1.4.0"),
    ("haywain", "Build the wheels first"),
    ("cowbell", "Update to 0.9.2"),
    ("cowbell", "Disable a test that needs a cow"),
    ("milkmaid", "Update to 3.1"),
    ("milkmaid", "Drop the patch for 3.0"),
    ("pasture", "Update to 2.0.7"),
    ("pasture-docs", "Update to 2.0.7"),
    ("oldgate", "Rebuild with the new hinges"),
    ("lasso", "Add a loop"),
];

/// The senders and texts of the messages for a playbook.
const HELLOS: [(&str, &str); 9] = [
    ("heron", "hello from the pond"),
    ("owl", "hello from the beam"),
    ("swallow", "hello from the eaves"),
    ("fox", "hello from the hedge"),
    ("hare", "hello from the field"),
    ("mole", "hello from below"),
    ("stork", "hello from the chimney"),
    ("toad", "hello from the wall"),
    ("wren", "hello from the woodpile"),
];

/// The messages that the demo plays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Play {
    /// Messages for components and messages for playbooks.
    All,
    /// Only messages for components.
    Components,
}

/// The messages of the demo, and their expected results.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// The frames of each message.
    pub(crate) messages: Vec<Vec<Vec<u8>>>,
    /// The expected runs: one for each message that has a task.
    pub(crate) expected: Vec<Expected>,
    /// The number of messages without a task.
    pub(crate) unrouted: u64,
    /// The number of invalid messages.
    pub(crate) rejected: u64,
}

/// A run that must succeed exactly once.
#[derive(Debug)]
pub(crate) struct Expected {
    message_id: String,
    task: &'static str,
    kind: &'static str,
}

impl Expected {
    /// Returns whether a run in the journal is the expected run.
    pub(crate) fn is(&self, run: &Run) -> bool {
        run.message_id == self.message_id && run.task == self.task && run.kind == self.kind
    }

    /// Returns the expected run as the journal records it.
    #[cfg(test)]
    pub(crate) fn succeed(&self) -> Run {
        Run {
            message_id: self.message_id.clone(),
            task: self.task.to_owned(),
            kind: self.kind.to_owned(),
            succeeded: true,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` for message {}", self.kind, self.task, self.message_id)
    }
}

/// Returns the messages, each with a new id.
pub(crate) fn script(play: Play) -> Script {
    let mut script = Script::default();
    let mut hellos = HELLOS.iter();
    let mut pushes = PUSHES.iter();
    // The topics alternate as on a bus, so that both kinds of tasks run at the same time.
    for (from, text) in GREETINGS {
        script.expect("component", "greet", GREETING, &json!({"from": from, "text": text}));
        if let Some((package, summary)) = pushes.next() {
            script.expect("component", "block-retired", PUSH, &push(package, summary));
        }
        if play == Play::All
            && let Some((from, text)) = hellos.next()
        {
            script.expect("playbook", HELLO, HELLO, &json!({"from": from, "text": text}));
        }
    }
    for topic in UNROUTED {
        script.add(topic, &json!({"seen": "by nobody"}));
        script.unrouted += 1;
    }
    // A message of fedmsg has two frames, so three frames are invalid.
    script.messages.push(vec![GREETING.into(), b"{}".to_vec(), b"one too many".to_vec()]);
    script.rejected += 1;
    script
}

impl Script {
    fn expect(&mut self, kind: &'static str, task: &'static str, topic: &str, msg: &Value) {
        let message_id = self.add(topic, msg);
        self.expected.push(Expected { message_id, task, kind });
    }

    /// Adds a message and returns its id.
    fn add(&mut self, topic: &str, msg: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let id = format!("{}-{}", year(now), Uuid::new_v4());
        let body = json!({
            "topic": topic,
            "msg": msg,
            "msg_id": id,
            "timestamp": now,
            "i": self.messages.len() + 1,
            "username": "demo",
        });
        self.messages.push(vec![topic.into(), body.to_string().into_bytes()]);
        id
    }
}

/// Returns a message of dist-git about a pushed commit.
fn push(package: &str, summary: &str) -> Value {
    // The commit hash is 40 hexadecimal digits, made of the package name. No such commit exists.
    let digits: String = package.bytes().map(|byte| format!("{byte:02x}")).collect();
    let lines = json!({"additions": 2, "deletions": 1, "lines": 3});
    json!({
        "commit": {
            "agent": "demo",
            "branch": "rawhide",
            "namespace": "rpms",
            "repo": package,
            "rev": format!("{digits:0<40}"),
            "stats": {"files": {(format!("{package}.spec")): lines}},
            "summary": summary,
        },
    })
}

/// Returns the year of a time in seconds since 1970. The result may be wrong within some hours of New Year.
fn year(seconds: u64) -> u64 {
    const SECONDS_PER_YEAR: u64 = 31_556_952;
    1970 + seconds / SECONDS_PER_YEAR
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_message_has_a_unique_id() {
        let script = script(Play::All);
        let ids: HashSet<_> = script.expected.iter().map(|run| &run.message_id).collect();
        assert_eq!(ids.len(), GREETINGS.len() + PUSHES.len() + HELLOS.len());
        assert_eq!(script.messages.len(), ids.len() + UNROUTED.len() + 1);
    }

    #[test]
    fn both_frames_have_the_topic() {
        for frames in script(Play::All).messages.iter().filter(|frames| frames.len() == 2) {
            let body: Value = serde_json::from_slice(&frames[1]).unwrap();
            assert_eq!(body["topic"].as_str().unwrap().as_bytes(), frames[0]);
        }
    }

    #[test]
    fn messages_for_playbooks_can_be_left_out() {
        let script = script(Play::Components);
        assert!(script.expected.iter().all(|run| run.kind == "component"));
        assert_eq!(script.expected.len(), GREETINGS.len() + PUSHES.len());
    }

    #[test]
    fn the_year_is_computed_from_seconds() {
        assert_eq!(year(1_700_000_000), 2023);
        assert_eq!(year(1_800_000_000), 2027);
    }
}
