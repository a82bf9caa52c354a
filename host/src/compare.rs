//! Compares a run with another one: what is the same, and what differs.

use std::fmt::Write as _;
use std::time::Duration;

use loopabull_model::{Body, Message, Run, RunId, is_harmful};
use loopabull_store::StoreError;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};
use utoipa::ToSchema;

use crate::journal::{Journal, Search, term};

/// The time limit for the comparison of two texts. After it, the comparison is coarser.
const DIFF_LIMIT: Duration = Duration::from_millis(200);
/// The number of unchanged lines that are shown around a change.
const CONTEXT: usize = 3;
/// How many times longer a body may become by its line breaks and its indentation.
const MAX_GROWTH: usize = 4;

/// A run beside another one.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Comparison {
    pub run: RunId,
    pub other: RunId,
    pub facts: Vec<Fact>,
    /// `None` if the message of a run is not stored.
    pub message: Option<Vec<Line>>,
    pub output: Vec<Line>,
}

/// Reads a fact about a run.
type OfRun = fn(&Run) -> String;

/// A fact about both runs.
#[derive(Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Fact {
    pub name: String,
    pub run: String,
    pub other: String,
}

/// A line of two texts.
#[derive(Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Line {
    pub side: Side,
    pub text: String,
}

/// The text that has a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    Both,
    /// Only the run that is compared.
    Run,
    /// Only the other one.
    Other,
    /// Lines that both have are left out here.
    Gap,
}

impl Fact {
    pub(crate) fn differs(&self) -> bool {
        self.run != self.other
    }
}

/// Returns the last successful run of the task before a run, or else the newest one after it. Looks for each for about
/// `time`.
pub(crate) async fn good_run(
    journal: &Journal,
    run: &Run,
    time: Duration,
) -> Result<Option<Run>, StoreError> {
    let task = term("task", run.task.as_str());
    let found = async |when: &str| {
        let text = format!("{task} outcome:success {when}");
        let search = Search::parse(&text, jiff::Timestamp::UNIX_EPOCH);
        let search = search.expect("the terms are valid");
        let runs = journal.search(search, None, 2, time).await?.runs;
        Ok(runs.into_iter().find(|other| other.id != run.id))
    };
    let started = jiff::Timestamp::from_millisecond(run.started_at_ms).unwrap_or_default();
    match found(&format!("before:{started}")).await? {
        Some(run) => Ok(Some(run)),
        None => found(&format!("after:{started}")).await,
    }
}

/// Compares two runs with their messages, if these are stored.
pub(crate) fn compare(
    (run, message): (&Run, Option<&Message>),
    (other, other_message): (&Run, Option<&Message>),
) -> Comparison {
    let facts: [(&str, OfRun); 13] = [
        ("outcome", |run| run.outcome.to_string()),
        ("started", |run| time(run.started_at_ms)),
        ("took", |run| humantime::format_duration(run.duration).to_string()),
        ("attempt", |run| run.attempt.to_string()),
        ("worker", |run| run.worker.to_string()),
        ("topic", |run| run.topic.to_string()),
        ("message", |run| run.message_id.to_string()),
        ("notes", |run| joined(run.notes.iter().map(|(key, value)| format!("{key} = {value}")))),
        ("grants", |run| joined(run.grants.iter().cloned())),
        ("requested", |run| joined(run.usage.requests.iter().cloned())),
        ("sent", |run| joined(run.emitted.iter().map(|emitted| emitted.topic.to_string()))),
        ("hosts", hosts),
        ("sandbox", layers),
    ];
    let facts =
        facts.map(|(name, of)| Fact { name: name.to_owned(), run: of(run), other: of(other) });
    Comparison {
        run: run.id.clone(),
        other: other.id.clone(),
        facts: facts
            .into_iter()
            .filter(|fact| !fact.run.is_empty() || !fact.other.is_empty())
            .collect(),
        message: message.zip(other_message).map(|(one, two)| lines(&text(one), &text(two))),
        output: lines(&run.output.text, &other.output.text),
    }
}

fn time(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join("\n")
}

/// Returns the results of a playbook, one line for each host.
fn hosts(run: &Run) -> String {
    let results = run.playbook.as_ref().and_then(|playbook| playbook.results.as_ref());
    let hosts = results.into_iter().flat_map(|results| &results.hosts);
    joined(hosts.map(|(host, counts)| {
        format!(
            "{host}: {} ok, {} changed, {} failed, {} unreachable",
            counts.ok, counts.changed, counts.failed, counts.unreachable
        )
    }))
}

fn layers(run: &Run) -> String {
    let layers = run.playbook.iter().flat_map(|playbook| &playbook.layers);
    joined(layers.map(|layer| format!("{} {}", layer.layer, layer.state.as_str())))
}

/// Returns a message as lines: its headers, its signer, and its body with line breaks.
fn text(message: &Message) -> String {
    let mut text = String::new();
    if let Some(signer) = &message.signer {
        writeln!(text, "signer: {signer}").expect("a string takes all text");
    }
    for (name, value) in &message.headers {
        writeln!(text, "{name}: {value}").expect("a string takes all text");
    }
    text + &pretty(&message.body)
}

/// Returns a body with line breaks, unless its indentation would make it several times longer, as that of a deeply nested
/// body. Numbers keep their digits.
pub(crate) fn pretty(body: &Body) -> String {
    let plain = body.as_str();
    match serde_json::to_string_pretty(&body.to_value()) {
        Ok(pretty) if pretty.len() <= MAX_GROWTH * plain.len() + 1000 => pretty,
        _ => plain.to_owned(),
    }
}

/// Returns a JSON text that means the same, without characters that a terminal or a person could take for something else.
/// They stand in strings only, so they are written as `\u` with four digits.
pub(crate) fn escape_in_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && is_harmful(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Compares two texts line by line. Leaves out what is the same, except for some lines around each change.
fn lines(run: &str, other: &str) -> Vec<Line> {
    let diff = TextDiff::configure().timeout(DIFF_LIMIT).diff_lines(other, run);
    let mut lines = Vec::new();
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            lines.push(Line { side: Side::Gap, text: String::new() });
        }
        for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
            let side = match change.tag() {
                ChangeTag::Equal => Side::Both,
                ChangeTag::Delete => Side::Other,
                ChangeTag::Insert => Side::Run,
            };
            let text = change.value().trim_end_matches(['\n', '\r']).to_owned();
            lines.push(Line { side, text });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_json_means_the_same() {
        let body = "{\n \"a\": \"\u{200f}x\u{202e}\u{7f}ä\u{1f600}\"\n}";
        let escaped = escape_in_json(body);
        assert_eq!(escaped, "{\n \"a\": \"\\u200fx\\u202e\\u007fä\u{1f600}\"\n}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&escaped), value(body));
    }

    fn marks(run: &str, other: &str) -> String {
        let mark = |line: &Line| match line.side {
            Side::Both => format!(" {}", line.text),
            Side::Run => format!("+{}", line.text),
            Side::Other => format!("-{}", line.text),
            Side::Gap => "…".to_owned(),
        };
        lines(run, other).iter().map(mark).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn only_what_differs_and_its_surroundings_are_shown() {
        assert_eq!(marks("a\nb\n", "a\nb\n"), "");
        assert_eq!(marks("a\nx\nc", "a\nb\nc"), " a|-b|+x| c");
        assert_eq!(marks("new\r\n", ""), "+new");
        let numbered = |first: &str, last: &str| {
            let middle: String = (0..20).map(|n| format!("{n}\n")).collect();
            format!("{first}\n{middle}{last}")
        };
        assert_eq!(
            marks(&numbered("a", "b"), &numbered("c", "d")),
            "-c|+a| 0| 1| 2|…| 17| 18| 19|-d|+b"
        );
    }
}
