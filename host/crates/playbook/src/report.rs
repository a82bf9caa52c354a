//! The record of a run.
//!
//! This module turns the end of a process into an [`Attempt`], with an outcome, the masked output and a
//! [`PlaybookReport`]. The journal stores the attempt.

use std::time::Duration;

use loopabull_launcher::{self as launcher, Report, exit};
use loopabull_model::{
    Attempt, Exceeded, LayerReport, LayerState, Outcome, Output, PlaybookReport, Reason, Results,
    chain,
};

use crate::secrets::Secrets;
use crate::watch::{Cause, End};

/// The exit status of Ansible 2.14 to 2.21 for a playbook that it cannot parse. Unreachable hosts cause the
/// same status, but then the callback plugin has reported results.
const UNREADABLE: i32 = 4;

/// The reason why a run did not use a controller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ColdReason {
    /// The manifest or the configuration asks for cold starts.
    Asked,
    /// No run with the same key was started recently, so starting a controller is not worth its cost.
    First,
    /// No controller could be started.
    NoController,
    /// The run could not be handed over to the controller.
    Refused,
}

impl ColdReason {
    /// Returns the name of the reason in records and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::First => "first",
            Self::NoController => "no-controller",
            Self::Refused => "refused",
        }
    }
}

/// Makes the record of a run that has ended. `timeout` is the timeout that the run had.
pub(crate) fn record(end: End, timeout: Duration, secrets: &Secrets) -> Attempt {
    let mut playbook = PlaybookReport::default();
    let mut failed = None;
    let mut exited = None;
    for report in end.reports {
        match report {
            Report::Layer { layer, state, detail } => playbook.layers.push(LayerReport {
                layer: layer.to_string(),
                state: layer_state(&state),
                detail: detail.into(),
            }),
            Report::Failed { code, reason } => failed = Some((code, reason)),
            Report::Denied { port } => playbook.denied_ports.push(port),
            // Only the command `check --learn` asks for files, and says what it does not know.
            Report::Used { .. } | Report::Unwatched { .. } => (),
            Report::Killed { count } => playbook.killed = count as u64,
            ended @ (Report::Exited { .. } | Report::Signalled { .. }) => exited = Some(ended),
        }
    }
    let outcome = match (end.cause, failed) {
        (_, Some((exit::USAGE, reason))) => {
            not_started(format!("the launcher rejected its plan: {reason}"))
        }
        (_, Some((exit::SHORT_OF_RESOURCES, reason))) => {
            Outcome::Shortage { reason: reason.into() }
        }
        (_, Some((_, reason))) => Outcome::Unavailable { reason: reason.into() },
        (Ok(Cause::Deadline), _) => {
            Outcome::Limit { exceeded: Exceeded::Deadline { allowed: timeout } }
        }
        (Ok(Cause::Cancelled), _) => Outcome::Cancelled,
        // The program was started and may have done all its work, so the outcome is not `NotStarted`.
        (Err(error), _) => Outcome::Exit { status: chain(&error).into() },
        (Ok(Cause::ByItself), _) => match exited {
            Some(Report::Exited { status: 0 }) => Outcome::Success,
            Some(Report::Exited { status }) => of_status(status, end.results.as_ref()),
            Some(Report::Signalled { signal }) => {
                Outcome::Exit { status: format!("ended by signal {signal}").into() }
            }
            // The launcher was killed. Its program may have caused that, so this counts as an attempt.
            _ => Outcome::Exit { status: "the launcher ended without a report".into() },
        },
    };
    playbook.denied_ports.sort_unstable();
    // On an older kernel nothing was denied.
    let is_tcp = |layer: &LayerReport| layer.layer == launcher::Layer::Tcp.name();
    if !playbook.layers.iter().any(|layer| is_tcp(layer) && layer.state == LayerState::Active) {
        playbook.denied_ports.clear();
    }
    playbook.results = end.results;
    let text = match end.output.dropped {
        0 => secrets.mask().text(&end.output.text),
        _ => secrets.mask().cut_text(&end.output.text),
    };
    let output = Output { text, dropped: end.output.dropped };
    Attempt { output, playbook: Some(playbook), ..Attempt::without_output(outcome) }
}

/// Adds to a failure what the sandbox denied, with the grants that allow it.
pub(crate) fn explain(outcome: Outcome, report: &PlaybookReport) -> Outcome {
    // A long reason is cut, but its explanation is not. It takes at most half of the text.
    let mut explanation = String::new();
    for denial in report.denials() {
        let more = if explanation.is_empty() { "; the sandbox denied " } else { ", and " };
        if (explanation.len() + more.len() + denial.len()) * 2 <= Reason::MAX_CHARS {
            explanation += more;
            explanation += &denial;
        }
    }
    if explanation.is_empty() {
        return outcome;
    }
    let room = Reason::MAX_CHARS.saturating_sub(explanation.chars().count());
    let explained = |reason: Reason| -> Reason {
        let reason: String = reason.as_str().chars().take(room).collect();
        (reason + &explanation).into()
    };
    match outcome {
        Outcome::Exit { status } => Outcome::Exit { status: explained(status) },
        Outcome::Retry { reason, after } => Outcome::Retry { reason: explained(reason), after },
        Outcome::Unreadable { reason } => Outcome::Unreadable { reason: explained(reason) },
        outcome => outcome,
    }
}

/// Returns the outcome for an exit status of `ansible-playbook` other than 0.
fn of_status(status: i32, results: Option<&Results>) -> Outcome {
    let failure = results.and_then(Results::last_failure);
    match results {
        Some(results) if results.is_complete && results.is_only_unreachable() => {
            let reason = failure.unwrap_or_default();
            Outcome::Retry { reason: format!("unreachable: {reason}").into(), after: None }
        }
        None if status == UNREADABLE => Outcome::Unreadable {
            reason: format!("exit status {status}, the output says why").into(),
        },
        _ => {
            let reason = failure.map(|failure| format!(": {failure}"));
            let reason = reason.unwrap_or_else(|| ", the output says why".to_owned());
            Outcome::Exit { status: format!("exit status {status}{reason}").into() }
        }
    }
}

/// Returns the outcome of a run that was not started.
pub(crate) fn not_started(reason: impl Into<Reason>) -> Outcome {
    Outcome::NotStarted { reason: reason.into() }
}

fn layer_state(state: &launcher::LayerState) -> LayerState {
    match state {
        launcher::LayerState::Active => LayerState::Active,
        launcher::LayerState::Degraded => LayerState::Degraded,
        launcher::LayerState::Off => LayerState::Off,
    }
}

#[cfg(test)]
mod tests {
    use loopabull_model::{Access, DeniedFile};

    use super::*;

    fn outcome(cause: Cause, reports: Vec<Report>) -> String {
        let end = End { cause: Ok(cause), reports, results: None, output: Output::default() };
        record(end, Duration::from_secs(2), &Secrets::default()).outcome.to_string()
    }

    #[test]
    fn an_end_becomes_an_outcome() {
        let exited = |status| vec![Report::Exited { status }];
        assert_eq!(outcome(Cause::ByItself, exited(0)), "success");
        assert_eq!(outcome(Cause::ByItself, exited(2)), "exit: exit status 2, the output says why");
        assert_eq!(
            outcome(Cause::ByItself, exited(4)),
            "unreadable: exit status 4, the output says why"
        );
        assert_eq!(
            outcome(Cause::ByItself, vec![Report::Signalled { signal: 9 }]),
            "exit: ended by signal 9"
        );
        assert_eq!(
            outcome(Cause::ByItself, Vec::new()),
            "exit: the launcher ended without a report"
        );
        assert_eq!(outcome(Cause::Deadline, exited(0)), "deadline: still running after 2s");
        assert_eq!(outcome(Cause::Cancelled, exited(0)), "cancelled");
    }

    #[test]
    fn denied_ports_are_known_only_with_their_layer() {
        for (state, expected) in
            [(launcher::LayerState::Active, &[443][..]), (launcher::LayerState::Degraded, &[])]
        {
            let layer = Report::Layer { layer: launcher::Layer::Tcp, state, detail: String::new() };
            let reports = vec![layer, Report::Denied { port: 443 }, Report::Exited { status: 2 }];
            let (cause, output) = (Ok(Cause::ByItself), Output::default());
            let end = End { cause, reports, results: None, output };
            let attempt = record(end, Duration::from_secs(2), &Secrets::default());
            assert_eq!(attempt.playbook.unwrap().denied_ports, expected);
        }
    }

    #[test]
    fn a_failure_says_what_was_denied_however_long_its_reason_is() {
        let file = DeniedFile { path: "/srv/a \"b\"".to_owned(), access: Access::ReadOnly };
        let report = PlaybookReport {
            denied_ports: vec![80],
            denied_files: vec![file],
            ..PlaybookReport::default()
        };
        let status = "x".repeat(Reason::MAX_CHARS).into();
        let explained = explain(Outcome::Exit { status }, &report).to_string();
        let expected = "xx; the sandbox denied TCP port 80, which `tcp = [80]` under `[grants]` allows, and \
                        `/srv/a \\\"b\\\"`, which `host = \"/srv/a \\\"b\\\"\"` under `[[grants.dirs]]` grants";
        assert!(explained.ends_with(expected), "{explained}");
        let long = DeniedFile { path: "/x".repeat(300), access: Access::ReadOnly };
        let all = PlaybookReport {
            denied_ports: (60_000..60_020).collect(),
            denied_files: vec![long],
            ..PlaybookReport::default()
        };
        let explained = explain(Outcome::Exit { status: "y".repeat(900).into() }, &all).to_string();
        assert!(explained.contains("yyyy; the sandbox denied TCP port 60000, 60001, "));
        assert!(explained.ends_with(" 60019]` under `[grants]` allows"), "{explained}");
        assert_eq!(explain(Outcome::Success, &report), Outcome::Success);
        let other = Outcome::Exit { status: "y".into() };
        assert_eq!(explain(other.clone(), &PlaybookReport::default()), other);
    }

    #[test]
    fn a_program_that_the_launcher_could_not_run_was_not_started() {
        let end = |code| {
            let failed = Report::Failed { code, reason: "a reason".to_owned() };
            outcome(Cause::Deadline, vec![failed])
        };
        for code in [exit::LAYER_FAILED, exit::CANNOT_EXECUTE, exit::NOT_FOUND] {
            assert_eq!(end(code), "unavailable: a reason");
        }
        assert_eq!(end(exit::SHORT_OF_RESOURCES), "shortage: a reason");
        assert!(end(exit::USAGE).starts_with("not-started: "));
    }
}
