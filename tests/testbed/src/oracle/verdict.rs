//! The verdict of the oracle, and the text of the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The maximum number of ids that the text names for each kind of fault.
const NAMED: usize = 10;

/// The outcome of the messages of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Number of messages that the publisher tried to publish.
    pub attempted: usize,
    /// Number of messages that were confirmed to the publisher.
    pub confirmed: usize,
    /// Number of messages with a successful run.
    pub done: usize,
    /// Number of dead-lettered messages.
    pub dead: usize,
    /// Messages that were confirmed, but are neither done nor dead-lettered.
    pub lost: BTreeSet<String>,
    /// Messages that were run or dead-lettered although the publisher never tried to publish them.
    pub unexpected: BTreeSet<String>,
    /// Messages that are done although they were never confirmed. This is not a fault, because a confirmation
    /// can get lost.
    pub recovered: BTreeSet<String>,
    /// Messages that were done more than once, with the number of times.
    pub duplicated: BTreeMap<String, usize>,
    /// Messages with two overlapping runs.
    pub overlapping: BTreeSet<String>,
    /// Messages with too many starts, or with a run whose attempt is above the limit.
    pub over_limit: BTreeSet<String>,
}

impl Verdict {
    /// Fails the test if a message was lost. The panic message contains the whole verdict.
    ///
    /// # Panics
    ///
    /// If a message was lost.
    pub fn assert_nothing_lost(&self) {
        assert!(self.lost.is_empty(), "messages were lost\n{self}");
    }
}

/// Writes the counts in one line, then a line for each non-empty set of faulty messages.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempted, confirmed, done, dead, .. } = self;
        write!(
            f,
            "{attempted} attempted, {confirmed} confirmed, {done} done, {dead} dead; {} lost, \
             {} unexpected, {} recovered, {} duplicated, {} overlapping, {} over limit",
            self.lost.len(),
            self.unexpected.len(),
            self.recovered.len(),
            self.duplicated.len(),
            self.overlapping.len(),
            self.over_limit.len(),
        )?;
        name(f, "lost", self.lost.iter().cloned())?;
        name(f, "unexpected", self.unexpected.iter().cloned())?;
        let times = |(id, times): (&String, &usize)| format!("{id} ({times} times)");
        name(f, "duplicated", self.duplicated.iter().map(times))?;
        name(f, "overlapping", self.overlapping.iter().cloned())?;
        name(f, "over limit", self.over_limit.iter().cloned())
    }
}

fn name(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    mut ids: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    if ids.len() == 0 {
        return Ok(());
    }
    let named: Vec<String> = ids.by_ref().take(NAMED).collect();
    write!(f, "\n{what}: {}", named.join(", "))?;
    match ids.len() {
        0 => Ok(()),
        rest => write!(f, " and {rest} more"),
    }
}
