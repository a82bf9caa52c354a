//! Tasks whose last runs failed.

use std::fmt;
use std::time::Instant;

use loopabull_model::{Outcome, normalised_reason};

/// The number of different reasons that are remembered.
const MAX_REASONS: usize = 5;
/// The maximum length of a reason, in characters.
const MAX_REASON: usize = 200;

/// A task whose last runs failed, without a success between them.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    /// Number of the runs.
    pub in_a_row: u64,
    /// Time at which the last of them was counted.
    pub last: Instant,
    /// How many runs failed for which reason, each reason with `…` in place of numbers, names and paths. Runs with further
    /// reasons are only in `in_a_row`.
    reasons: Vec<(String, u64)>,
}

impl Failing {
    /// Adds a failed run.
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.in_a_row += 1;
        self.last = Instant::now();
        let text: String = outcome.to_string().chars().take(MAX_REASON).collect();
        let reason = normalised_reason(&text);
        if let Some((_, count)) = self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            *count += 1;
        } else if self.reasons.len() < MAX_REASONS {
            self.reasons.push((reason, 1));
        }
    }
}

impl Default for Failing {
    fn default() -> Self {
        Self { in_a_row: 0, last: Instant::now(), reasons: Vec::new() }
    }
}

impl fmt::Display for Failing {
    /// Writes the number of runs and their reasons, the most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reasons = self.reasons.clone();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let all: u64 = reasons.iter().map(|(_, count)| count).sum();
        write!(f, "the last {} runs failed: ", self.in_a_row)?;
        if let ([(reason, _)], true) = (&reasons[..], all == self.in_a_row) {
            return f.write_str(reason);
        }
        let parts: Vec<_> =
            reasons.iter().map(|(reason, count)| format!("{count} × {reason}")).collect();
        f.write_str(&parts.join("; "))?;
        match self.in_a_row - all {
            0 => Ok(()),
            others => write!(f, "; {others} × other reasons"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(reasons: impl IntoIterator<Item = String>) -> Failing {
        let mut failing = Failing::default();
        for reason in reasons {
            failing.add(&Outcome::Reject { reason: reason.into() });
        }
        failing
    }

    #[test]
    fn reasons_are_counted_by_what_they_have_in_common() {
        let same = failing((1000..1003).map(|n| format!("build {n} is missing")));
        assert_eq!(same.to_string(), "the last 3 runs failed: reject: build … is missing");
        let two = failing(["a", "b", "b"].map(str::to_owned));
        assert_eq!(two.to_string(), "the last 3 runs failed: 2 × reject: b; 1 × reject: a");
    }

    #[test]
    fn further_reasons_are_only_counted() {
        let many = failing((b'a'..=b'z').map(|letter| char::from(letter).to_string()));
        assert_eq!(many.reasons.len(), MAX_REASONS);
        assert!(many.to_string().ends_with("; 1 × reject: e; 21 × other reasons"), "{many}");
    }
}
