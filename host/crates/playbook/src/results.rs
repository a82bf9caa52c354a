//! Reads the results that the callback plugin sends, as one JSON object on each line.
//!
//! This module also limits how many results are kept. The callback plugin runs in the same process as the
//! playbook's own plugins, so its lines are untrusted input. A line that does not parse is counted and
//! skipped.

use std::collections::BTreeMap;

use loopabull_model::{HostResults, Mask, Reason, Results, TaskFailure};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The maximum length of a line of the callback plugin, in bytes.
const MAX_LINE: usize = 1 << 20;
/// The character with which the callback plugin ends a text that it has truncated.
const CUT: &str = "…";
/// The maximum length of the name of a host, in characters.
const MAX_HOST: usize = 300;

/// A line of the callback plugin.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line {
    Result {
        host: String,
        #[serde(default)]
        task: String,
        #[serde(default)]
        action: String,
        status: Status,
        #[serde(default)]
        changed: bool,
        #[serde(default)]
        ignored: bool,
        #[serde(default)]
        message: String,
    },
    Warning {
        text: String,
    },
    Recap {
        hosts: BTreeMap<String, HostResults>,
        #[serde(default)]
        results_dropped: u64,
    },
    /// A play found none of its hosts in the inventory. Ansible does not treat this as a failure.
    NoHosts,
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Ok,
    Failed,
    Unreachable,
    Skipped,
}

/// The reader of the callback plugin's lines.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    mask: &'a Mask,
    results: Option<Results>,
    line: Vec<u8>,
    /// Whether the current line is too long. The rest of a line that is too long is skipped.
    is_too_long: bool,
}

impl<'a> Reader<'a> {
    /// Creates a reader that masks secrets in the results.
    pub(crate) fn new(mask: &'a Mask) -> Self {
        Self { mask, results: None, line: Vec::new(), is_too_long: false }
    }

    /// Reads lines from a stream until the stream ends.
    pub(crate) async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            self.push(&buffer[..count]);
        }
    }

    /// Returns the results. `None` if no line had a result.
    pub(crate) fn into_results(self) -> Option<Results> {
        self.results
    }

    fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.line.len() + part.len() > MAX_LINE {
                self.is_too_long = true;
                self.line.clear();
            }
            if !self.is_too_long {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                match serde_json::from_slice(&line) {
                    Ok(line) if !self.is_too_long => self.add(line),
                    _ => self.results.get_or_insert_default().dropped += 1,
                }
                self.is_too_long = false;
            }
        }
    }

    fn add(&mut self, line: Line) {
        // Lines of other kinds, for example about the start of Ansible, are not results.
        if matches!(line, Line::Other) {
            return;
        }
        let mask = self.mask;
        let results = self.results.get_or_insert_default();
        match line {
            Line::Result { host, task, action, status, changed, ignored, message } => {
                count(results, name(mask, &host), status, changed, ignored);
                let is_unreachable = matches!(status, Status::Unreachable);
                if ignored || !(is_unreachable || matches!(status, Status::Failed)) {
                    return;
                }
                if results.failures.len() == Results::MAX_FAILURES {
                    results.dropped += 1;
                    return;
                }
                results.failures.push(TaskFailure {
                    host: masked(mask, &host),
                    task: masked(mask, &task),
                    action: masked(mask, &action),
                    message: masked(mask, &message),
                    is_unreachable,
                });
            }
            Line::Warning { text } => warn(results, masked(mask, &text)),
            Line::NoHosts => {
                results.has_empty_play = true;
                warn(results, "a play matched no host".into());
            }
            Line::Recap { hosts, results_dropped } => {
                let known = hosts.len().min(Results::MAX_HOSTS);
                results.dropped += results_dropped + (hosts.len() - known) as u64;
                let hosts = hosts.into_iter().take(known);
                results.hosts = hosts.map(|(host, counts)| (name(mask, &host), counts)).collect();
                results.is_complete = true;
            }
            Line::Other => (),
        }
    }
}

/// Keeps a warning. A repeated warning is kept once.
fn warn(results: &mut Results, text: Reason) {
    if results.warnings.contains(&text) {
        return;
    }
    if results.warnings.len() == Results::MAX_WARNINGS {
        results.dropped += 1;
        return;
    }
    results.warnings.push(text);
}

/// Counts a result by the rules of Ansible's recap. The counts are used if the run ends without a recap.
fn count(results: &mut Results, host: String, status: Status, changed: bool, ignored: bool) {
    if !results.hosts.contains_key(&host) && results.hosts.len() == Results::MAX_HOSTS {
        results.dropped += 1;
        return;
    }
    let counts = results.hosts.entry(host).or_default();
    match status {
        Status::Ok => counts.ok += 1,
        Status::Failed if ignored => {
            counts.ok += 1;
            counts.ignored += 1;
        }
        Status::Failed => counts.failed += 1,
        Status::Unreachable => counts.unreachable += 1,
        Status::Skipped => counts.skipped += 1,
    }
    counts.changed += u64::from(changed);
}

/// Returns the masked and shortened name of a host, with control characters escaped.
fn name(mask: &Mask, host: &str) -> String {
    let host: String = mask.text(host).chars().take(MAX_HOST).collect();
    Reason::from(host).as_str().to_owned()
}

/// Masks the secrets in a text, and then limits its length. If the callback plugin has truncated the text, a
/// secret at its end may be incomplete and is masked too.
fn masked(mask: &Mask, text: &str) -> Reason {
    match text.strip_suffix(CUT) {
        Some(text) => (mask.cut_text(text) + CUT).into(),
        None => mask.text(text).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Results> {
        let mask = Mask::new(&[("s".to_owned(), "hunter2-hunter2".to_owned())].into());
        let mut reader = Reader::new(&mask);
        // The text arrives in pieces, as from a pipe.
        for piece in text.as_bytes().chunks(7) {
            reader.push(piece);
        }
        reader.into_results()
    }

    #[test]
    fn the_start_line_is_not_a_result() {
        assert_eq!(read("{\"event\":\"start\",\"format\":1}\n"), None);
    }

    #[test]
    fn results_are_counted_without_a_recap() {
        let results = read(concat!(
            r#"{"event":"result","host":"a","status":"ok","changed":true}"#,
            "\n",
            r#"{"event":"result","host":"a","task":"T","action":"m","status":"failed","message":"no"}"#,
            "\n",
            r#"{"event":"result","host":"b","status":"failed","ignored":true}"#,
            "\n",
        ))
        .unwrap();
        assert_eq!((results.hosts["a"].ok, results.hosts["a"].failed), (1, 1));
        assert_eq!((results.hosts["b"].ok, results.hosts["b"].ignored), (1, 1));
        assert_eq!(results.last_failure().unwrap(), "task `T` on a: no");
        assert!(!results.is_complete);
    }

    #[test]
    fn a_recap_replaces_the_counts() {
        let results = read(concat!(
            r#"{"event":"result","host":"a","status":"failed"}"#,
            "\n",
            r#"{"event":"recap","hosts":{"a":{"ok":2,"rescued":1}},"results_dropped":3}"#,
            "\n",
        ))
        .unwrap();
        assert_eq!(results.hosts["a"], HostResults { ok: 2, rescued: 1, ..Default::default() });
        assert_eq!(results.dropped, 3);
        assert!(results.is_complete);
    }

    #[test]
    fn invalid_and_long_lines_are_counted() {
        let long = "x".repeat(MAX_LINE + 10);
        let text = format!("garbage\n{long}\n{{\"event\":\"warning\",\"text\":\"w\"}}\n");
        let results = read(&text).unwrap();
        assert_eq!(results.dropped, 2);
        assert_eq!(results.warnings, ["w".into()]);
    }

    #[test]
    fn secrets_are_masked_even_where_a_text_was_cut() {
        let long = "x".repeat(990);
        let text = format!(
            "{{\"event\":\"result\",\"host\":\"hunter2-hunter2\",\"status\":\"failed\",\
             \"task\":\"say hunter2…\",\"message\":\"{long}hunter2-hunter2 it is\"}}\n"
        );
        let results = read(&text).unwrap();
        let said = serde_json::to_string(&results).unwrap();
        assert!(!said.contains("hunter"), "{said}");
        assert_eq!(results.failures[0].task.as_str(), "say [secret]…");
    }

    #[test]
    fn names_and_messages_have_no_control_characters() {
        let line = r#"{"event":"result","host":"a\u001b[2J","task":"x\nPLAY RECAP","status":"failed","message":"\u202eevil"}"#;
        let results = read(&format!("{line}\n")).unwrap();
        let failure = &results.failures[0];
        for text in [&failure.host, &failure.task, &failure.message] {
            assert!(!text.as_str().contains(loopabull_model::is_harmful), "{text}");
        }
        assert_eq!(results.hosts.keys().collect::<Vec<_>>(), ["a\\u{1b}[2J"]);
    }
}
