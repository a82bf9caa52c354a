//! The search for runs: a line of qualifiers, as people write it on the page and on the command line.
//!
//! ```text
//! task:build outcome:failure topic:org.fedoraproject.*.buildsys.# after:2h took:>5s msg.package:bash "no space left"
//! ```
//!
//! All terms must hold. A minus before a term negates it. `task:` and `outcome:` take several values, with commas. A word without
//! a qualifier is looked for as `text:` does.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use loopabull_model::{Outcome, Run, TaskKind, TopicPattern};
use serde_json::Value;

/// The qualifiers with an example of each, as the page and the help list them.
pub const QUALIFIERS: [(&str, &str); 13] = [
    ("task:", "task:build,deploy — runs of these tasks"),
    (
        "outcome:",
        "outcome:failure — runs that did not succeed and are not repeated anyway (all but success, cancelled, aborted and conflict); or names: outcome:exit,deadline",
    ),
    ("topic:", "topic:org.fedoraproject.*.buildsys.# — a topic, with AMQP's wildcards"),
    (
        "after:",
        "after:2h, after:2026-11-28, after:2026-11-28T10:00 — started at this time or later; times are UTC",
    ),
    ("before:", "before:1d — started more than a day ago"),
    ("took:", "took:>5s, took:<=1min — longer than this, or not longer"),
    ("attempt:", "attempt:>1 — the number of the attempt"),
    ("worker:", "worker:3 — the number of the worker"),
    ("kind:", "kind:playbook or kind:component"),
    ("message:", "message:ID — the whole id of the message"),
    ("run:", "run:ID — the whole id of the run"),
    ("msg.", "msg.build.name:bash — exactly this value in the message's body"),
    (
        "text:",
        "text:\"no space left\" — in the output, in the reason of the outcome, or in the message's body; upper and lower case are the same",
    ),
];
/// The name of all outcomes of runs that did not succeed and are not repeated anyway.
const FAILURE: &str = "failure";
/// The maximum length of a search, in bytes.
const MAX_BYTES: usize = 2000;
/// The maximum number of alternatives in a term. Each is looked up in an index.
const MAX_ALTERNATIVES: usize = 20;

/// A search for runs. An empty one finds all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Search {
    pub(super) terms: Vec<Term>,
}

/// A condition, and whether it must not hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub(super) is_negated: bool,
    pub(super) condition: Condition,
}

/// A condition on a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Task(Vec<String>),
    Outcome(Vec<&'static str>),
    Topic(TopicPattern),
    /// Started at this time or later, in milliseconds since 1970.
    After(i64),
    Before(i64),
    /// In microseconds.
    Took(Comparison),
    Attempt(Comparison),
    Worker(Comparison),
    Kind(TaskKind),
    Message(String),
    Run(String),
    /// The path and the value of a member of the body.
    Member(Vec<String>, String),
    /// In lower case.
    Text(String),
}

/// A comparison with a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Comparison {
    pub(super) operator: &'static str,
    pub(super) number: u64,
}

/// The reason why a text is not a search.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{problem}, at position {}", position + 1)]
pub struct SearchError {
    /// The position of the term in the text, in characters from 0.
    pub position: usize,
    pub problem: String,
}

impl Search {
    /// Parses a search. Times that are durations, such as `after:2h`, are before `now`.
    ///
    /// # Errors
    ///
    /// If a term cannot be read. The error names its position, and what could stand there.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, SearchError> {
        if text.len() > MAX_BYTES {
            let problem = format!("a search has at most {MAX_BYTES} bytes");
            return Err(SearchError { position: 0, problem });
        }
        let mut terms = Vec::new();
        for word in words(text)? {
            let term = parse_term(&word, now);
            let position = word.position;
            terms.push(term.map_err(|problem| SearchError { position, problem })?);
        }
        Ok(Self { terms })
    }

    /// Returns the search for the runs of a message.
    pub fn of_message(id: &str) -> Self {
        let condition = Condition::Message(id.to_owned());
        Self { terms: vec![Term { is_negated: false, condition }] }
    }

    /// Returns whether the body of the message or the text of the output must be read to decide.
    pub(super) fn reads_message(&self) -> bool {
        let reads =
            |term: &Term| matches!(term.condition, Condition::Member(..) | Condition::Text(_));
        self.terms.iter().any(reads)
    }

    /// Decides the conditions for which SQL has no operator. `body` is the body of the message, if it is stored.
    pub(super) fn matches(&self, run: &Run, body: Option<&str>) -> bool {
        self.terms.iter().all(|term| match term.condition.holds(run, body) {
            Some(holds) => holds != term.is_negated,
            None => true,
        })
    }
}

impl Condition {
    /// Returns whether the condition holds, or `None` if SQL decides it.
    fn holds(&self, run: &Run, body: Option<&str>) -> Option<bool> {
        match self {
            Self::Topic(pattern) => Some(pattern.matches(&run.topic)),
            Self::Member(path, value) => Some(body.is_some_and(|body| has(body, path, value))),
            Self::Text(text) => {
                let contains = |other: &str| other.to_lowercase().contains(text);
                let reason = || contains(&run.outcome.to_string());
                Some(contains(&run.output.text) || reason() || body.is_some_and(contains))
            }
            _ => None,
        }
    }
}

/// Returns whether a JSON text has this value at the path: a string, or the JSON text of another value.
fn has(body: &str, path: &[String], value: &str) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(body) else { return false };
    let member = path.iter().try_fold(&body, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => value.get(name),
    });
    member.is_some_and(|member| match member {
        Value::String(text) => text == value,
        other => serde_json::to_string(other).is_ok_and(|text| text == value),
    })
}

/// Returns a term for exactly this value, in quotation marks if it needs them.
pub fn term(name: &str, value: &str) -> String {
    if !value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\')) {
        return format!("{name}:{value}");
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{name}:\"{escaped}\"")
}

/// A word of a search, without its quotation marks.
struct Word {
    /// In characters.
    position: usize,
    text: String,
    /// Whether it begins with a quotation mark, after a minus at most. Then it is a text that is looked for.
    is_quoted: bool,
}

/// Splits a search at its spaces, except in quotation marks.
fn words(text: &str) -> Result<Vec<Word>, SearchError> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Word>, None);
    let new = |position| Word { position, text: String::new(), is_quoted: false };
    let mut characters = text.chars().enumerate();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => {
                let word = word.get_or_insert_with(|| new(position));
                word.is_quoted |= matches!(word.text.as_str(), "" | "-");
                quote = if quote.is_some() { None } else { Some(position) };
            }
            '\\' if quote.is_some() => {
                let escaped = characters.next().map(|(_, character)| character);
                word.get_or_insert_with(|| new(position)).text.extend(escaped);
            }
            space if space.is_whitespace() && quote.is_none() => words.extend(word.take()),
            other => word.get_or_insert_with(|| new(position)).text.push(other),
        }
    }
    if let Some(position) = quote {
        let problem = "the quotation mark is not closed".to_owned();
        return Err(SearchError { position, problem });
    }
    words.extend(word);
    Ok(words)
}

fn parse_term(word: &Word, now: Timestamp) -> Result<Term, String> {
    let (is_negated, text) = match word.text.strip_prefix('-') {
        Some(rest) if !rest.is_empty() => (true, rest),
        _ => (false, word.text.as_str()),
    };
    let condition = match text.split_once(':') {
        Some((name, value)) if is_name(name) && !word.is_quoted => qualified(name, value, now)?,
        _ => Condition::Text(text.to_lowercase()),
    };
    Ok(Term { is_negated, condition })
}

/// Returns whether a text could be meant as the name of a qualifier. Otherwise its colon is a part of the text that is
/// looked for, as in `http://example.org`.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !text.is_empty() && !matches!(text, "http" | "https") && text.chars().all(is_plain)
}

fn qualified(name: &str, value: &str, now: Timestamp) -> Result<Condition, String> {
    if value.is_empty() {
        return Err(format!("`{name}:` needs a value"));
    }
    Ok(match name {
        "task" => Condition::Task(list(value)?.into_iter().map(str::to_owned).collect()),
        "outcome" => Condition::Outcome(outcomes(&list(value)?)?),
        "topic" => {
            let pattern = TopicPattern::try_from(value.to_owned());
            Condition::Topic(pattern.map_err(|error| error.to_string())?)
        }
        "after" => Condition::After(time(value, now)?),
        "before" => Condition::Before(time(value, now)?),
        "took" => Condition::Took(
            comparison(value, |text| {
                let duration = humantime::parse_duration(text).ok()?;
                u64::try_from(duration.as_micros()).ok()
            })
            .ok_or_else(|| format!("`{value}` is no duration, such as `>5s`"))?,
        ),
        "attempt" | "worker" => {
            let number = comparison(value, |text| text.parse().ok())
                .ok_or_else(|| format!("`{value}` is no number, such as `>1`"))?;
            if name == "attempt" { Condition::Attempt(number) } else { Condition::Worker(number) }
        }
        "kind" => Condition::Kind(match value {
            "component" => TaskKind::Component,
            "playbook" => TaskKind::Playbook,
            _ => return Err(format!("`{value}` is no kind: there are component and playbook")),
        }),
        "message" => Condition::Message(value.to_owned()),
        "run" => Condition::Run(value.to_owned()),
        "text" => Condition::Text(value.to_lowercase()),
        _ => match name.strip_prefix("msg.") {
            Some(path) if !path.is_empty() => {
                Condition::Member(path.split('.').map(str::to_owned).collect(), value.to_owned())
            }
            _ => {
                let names: Vec<_> = QUALIFIERS.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "`{name}:` is no qualifier; there are {}. A text with a colon is put in quotation marks: text:\"{name}:…\"",
                    names.join(" ")
                ));
            }
        },
    })
}

/// Returns the names of the outcomes of runs that did not succeed and are not repeated anyway.
pub(super) fn failed_outcomes() -> impl Iterator<Item = &'static str> {
    let is_failed =
        |name: &&str| !matches!(*name, "success" | "cancelled" | "aborted" | "conflict");
    Outcome::NAMES.into_iter().filter(is_failed)
}

/// Splits a value at its commas.
fn list(value: &str) -> Result<Vec<&str>, String> {
    let mut parts: Vec<_> = value.split(',').filter(|part| !part.is_empty()).collect();
    parts.sort_unstable();
    parts.dedup();
    match parts.len() {
        0 => Err("the value has only commas".to_owned()),
        1..=MAX_ALTERNATIVES => Ok(parts),
        count => Err(format!("{count} alternatives are too many: at most {MAX_ALTERNATIVES}")),
    }
}

fn outcomes(names: &[&str]) -> Result<Vec<&'static str>, String> {
    let mut outcomes = Vec::new();
    for &name in names {
        if name == FAILURE {
            outcomes.extend(failed_outcomes());
            continue;
        }
        let known = Outcome::NAMES.into_iter().find(|known| *known == name);
        outcomes.push(known.ok_or_else(|| {
            format!("`{name}` is no outcome; there are {FAILURE}, {}", Outcome::NAMES.join(", "))
        })?);
    }
    outcomes.sort_unstable();
    outcomes.dedup();
    Ok(outcomes)
}

/// Parses a number after an operator. Without an operator, the number must be equal.
fn comparison(text: &str, number: impl Fn(&str) -> Option<u64>) -> Option<Comparison> {
    let (operator, rest) = [">=", "<=", ">", "<", "="]
        .into_iter()
        .find_map(|operator| Some((operator, text.strip_prefix(operator)?)))
        .unwrap_or(("=", text));
    Some(Comparison { operator, number: number(rest)? })
}

/// Parses a time in UTC, or a duration before `now`. Returns milliseconds since 1970.
fn time(text: &str, now: Timestamp) -> Result<i64, String> {
    if let Ok(duration) = humantime::parse_duration(text) {
        let before = duration.min(Duration::from_hours(24 * 365 * 50));
        let before = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
        return Ok(now.as_millisecond().saturating_sub(before));
    }
    let midnight = now.to_zoned(TimeZone::UTC).date();
    let date = match text {
        "today" => Some(midnight),
        "yesterday" => midnight.checked_sub(1.day()).ok(),
        _ => text.parse::<Date>().ok().filter(|_| text.len() == 10),
    };
    let civil = match date {
        Some(date) => Some(date.to_datetime(jiff::civil::Time::midnight())),
        None => text.trim_end_matches('Z').parse::<DateTime>().ok(),
    };
    let zoned = civil.and_then(|civil| civil.to_zoned(TimeZone::UTC).ok());
    let time = text.parse::<Timestamp>().ok().or(zoned.map(|zoned| zoned.timestamp()));
    time.map(Timestamp::as_millisecond).ok_or_else(|| {
        format!("`{text}` is no time, such as `2h`, `today`, `2026-11-28` or `2026-11-28T10:00`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    fn conditions(text: &str) -> Vec<Condition> {
        let search = Search::parse(text, now()).unwrap();
        search.terms.into_iter().map(|term| term.condition).collect()
    }

    fn error(text: &str) -> String {
        Search::parse(text, now()).unwrap_err().to_string()
    }

    #[test]
    fn each_qualifier_is_read() {
        let noon = now().as_millisecond();
        let compare = |operator, number| Comparison { operator, number };
        let expected = [
            ("task:a,b", Condition::Task(vec!["a".into(), "b".into()])),
            ("outcome:exit,trap", Condition::Outcome(vec!["exit", "trap"])),
            ("topic:a.*.#", Condition::Topic("a.*.#".to_owned().try_into().unwrap())),
            ("after:2h", Condition::After(noon - 7_200_000)),
            ("after:2026-11-30", Condition::After(noon - 43_200_000)),
            ("after:today", Condition::After(noon - 43_200_000)),
            ("before:yesterday", Condition::Before(noon - 43_200_000 - 86_400_000)),
            ("before:2026-11-30T11:59", Condition::Before(noon - 60_000)),
            ("before:2026-11-30T13:00:00+02:00", Condition::Before(noon - 3_600_000)),
            ("took:>5s", Condition::Took(compare(">", 5_000_000))),
            ("attempt:>=2", Condition::Attempt(compare(">=", 2))),
            ("worker:3", Condition::Worker(compare("=", 3))),
            ("kind:playbook", Condition::Kind(TaskKind::Playbook)),
            ("message:2026-1", Condition::Message("2026-1".into())),
            ("run:0189", Condition::Run("0189".into())),
            (
                "msg.build.name:x",
                Condition::Member(vec!["build".into(), "name".into()], "x".into()),
            ),
            ("text:\"No  space\"", Condition::Text("no  space".into())),
            ("\"fatal: [host]\"", Condition::Text("fatal: [host]".into())),
            ("\"task:a\"", Condition::Text("task:a".into())),
            ("Word", Condition::Text("word".into())),
        ];
        for (text, condition) in &expected {
            assert_eq!(conditions(text), std::slice::from_ref(condition), "{text}");
        }
        let text = expected.map(|(text, _)| text).join("  ");
        assert_eq!(conditions(&text).len(), 20);
        for (name, _) in QUALIFIERS {
            assert!(text.contains(name), "no example of `{name}` is tested");
        }
        assert_eq!(conditions("  "), []);
    }

    #[test]
    fn a_minus_negates_a_term() {
        let search = Search::parse("-task:a -word -", now()).unwrap();
        let negated: Vec<_> = search.terms.iter().map(|term| term.is_negated).collect();
        assert_eq!(negated, [true, true, false]);
    }

    #[test]
    fn a_term_for_a_value_finds_that_value() {
        for value in ["a", "a b", r#"a"b\c"#, r"a\b", "\"\""] {
            assert_eq!(conditions(&term("message", value)), [Condition::Message(value.into())]);
        }
    }

    #[test]
    fn failure_is_what_did_not_succeed_by_itself_and_is_not_repeated() {
        let [Condition::Outcome(names)] = &conditions("outcome:failure")[..] else { panic!() };
        assert_eq!(names.len(), Outcome::NAMES.len() - 4);
        let others = ["success", "cancelled", "aborted", "conflict"];
        assert!(!others.iter().any(|name| names.contains(name)));
    }

    #[test]
    fn errors_name_the_position_and_what_could_stand_there() {
        let said = error("task:a outcom:exit");
        assert!(said.starts_with("`outcom:` is no qualifier; there are task: outcome: "), "{said}");
        assert!(said.ends_with(", at position 8"), "{said}");
        assert_eq!(error("äö \"x"), "the quotation mark is not closed, at position 4");
        assert_eq!(error("task:"), "`task:` needs a value, at position 1");
        assert_eq!(error("task:,"), "the value has only commas, at position 1");
        let many: Vec<_> = (0..21).map(|number| number.to_string()).collect();
        assert!(error(&format!("task:{}", many.join(","))).contains("at most 20"));
        assert_eq!(error("took:long"), "`long` is no duration, such as `>5s`, at position 1");
        assert!(error("outcome:bad").contains("is no outcome; there are failure, success, "));
        assert!(error("after:soon").contains("`soon` is no time"));
        assert!(error("topic:a..b").contains("empty word"));
        assert!(error(&"x".repeat(2001)).contains("at most 2000 bytes"));
    }

    #[test]
    fn a_member_of_the_body_is_compared() {
        let body = r#"{"a":{"b":["x",{"c":5}]},"t":true}"#;
        let path = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert!(has(body, &path("a.b.0"), "x"));
        assert!(has(body, &path("a.b.1.c"), "5"));
        assert!(has(body, &path("t"), "true"));
        assert!(!has(body, &path("a.b.2"), "x"));
        assert!(!has(body, &path("a"), "x"));
        assert!(!has("no JSON", &path("a"), "x"));
    }
}
