//! The findings of the command `doctor`.

use serde::Serialize;

/// A finding about one thing that the daemon needs.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// The thing, for example `disk`.
    pub(super) about: &'static str,
    pub(super) text: String,
    /// The advice to the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    Good,
    /// Worth knowing.
    Note,
    /// It may become a problem.
    Warning,
    /// The daemon does not start, or does not do its work.
    Problem,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The findings, in the order in which things were examined.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, level: Level, about: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level, about, text: text.into(), hint: None });
    }

    pub(super) fn add_with_hint(
        &mut self,
        level: Level,
        about: &'static str,
        text: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Finding { level, about, text: text.into(), hint: Some(hint.into()) });
    }
}
