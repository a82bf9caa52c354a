//! The oracle decides from the logs of a test whether messages were lost.
//!
//! The logic is that of Jepsen's checker `total-queue`. Each confirmed message must have a successful run or
//! be a dead letter. The publisher must at least have tried to publish each message that was run. The
//! publisher writes a [`Ledger`] with the lines `attempted ID` and `confirmed ID`. The task is a
//! [`Recorder`], which writes the lines `start ID ATTEMPT PID MILLIS` and `end ID ATTEMPT PID RC MILLIS`. The
//! caller lists the dead letters. Each message has one task.

mod ledger;
mod recorder;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::Path;

pub use self::ledger::Ledger;
pub use self::recorder::Recorder;
pub use self::verdict::Verdict;

/// The records about the messages of a test.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// The number of attempts to publish each message.
    pub attempted: BTreeMap<String, usize>,
    /// The ids of the confirmed messages.
    pub confirmed: BTreeSet<String>,
    /// The starts of runs, in the order of the log.
    pub starts: Vec<Start>,
    /// The ends of runs, in the order of the log.
    pub ends: Vec<End>,
    /// The ids of the dead-lettered messages.
    pub dead: BTreeSet<String>,
    /// The number of starts that a message may have in addition to its attempts, for each time that it was
    /// published. Additional starts are possible, because the attempt does not count if its run is requeued
    /// or its daemon dies.
    pub allowance: usize,
}

/// The start of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub run: RunKey,
    /// Time of the start in milliseconds since 1970.
    pub at: u64,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub run: RunKey,
    /// Exit code of the task.
    pub code: u8,
    /// Time of the end in milliseconds since 1970.
    pub at: u64,
}

/// The fields that the start and the end of a run have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunKey {
    pub id: String,
    pub attempt: u32,
    pub pid: u32,
}

impl Oracle {
    /// Reads the log of the publisher and the log of the task. A missing log counts as empty. A last line
    /// without a line feed is ignored, because its writer was killed or is still writing.
    ///
    /// # Errors
    ///
    /// If a log cannot be read, or has a line that is not a record.
    pub fn read(
        ledger: &Path,
        task_log: &Path,
        dead: impl IntoIterator<Item = String>,
    ) -> io::Result<Self> {
        let mut oracle = Self { dead: dead.into_iter().collect(), ..Self::default() };
        for path in [ledger, task_log] {
            let text = match fs::read_to_string(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text?,
            };
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            for line in whole.lines() {
                let bad = || {
                    io::Error::other(format!("`{}` has an invalid record: {line}", path.display()))
                };
                oracle.take(line).ok_or_else(bad)?;
            }
        }
        Ok(oracle)
    }

    /// Returns the verdict on the messages. Each message may have at most `max_attempts` attempts.
    pub fn check(&self, max_attempts: u32) -> Verdict {
        let mut successes: BTreeMap<&str, usize> = BTreeMap::new();
        for end in self.ends.iter().filter(|end| end.code == 0) {
            *successes.entry(&end.run.id).or_default() += 1;
        }
        let is_done = |id: &str| successes.contains_key(id);
        let seen = self.starts.iter().map(|start| &start.run.id);
        let seen = seen.chain(self.ends.iter().map(|end| &end.run.id)).chain(&self.dead);
        let is_lost = |id: &&String| !is_done(id) && !self.dead.contains(*id);
        let is_recovered = |id: &&String| !self.confirmed.contains(*id) && is_done(id);
        let duplicated = successes.iter().filter(|(_, times)| **times > 1);
        Verdict {
            attempted: self.attempted.len(),
            confirmed: self.confirmed.len(),
            done: successes.len(),
            dead: self.dead.len(),
            lost: self.confirmed.iter().filter(is_lost).cloned().collect(),
            unexpected: seen.filter(|id| !self.attempted.contains_key(*id)).cloned().collect(),
            recovered: self.attempted.keys().filter(is_recovered).cloned().collect(),
            duplicated: duplicated.map(|(id, times)| ((*id).to_owned(), *times)).collect(),
            overlapping: self.overlapping(),
            over_limit: self.over_limit(max_attempts),
        }
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split(' ').collect();
        let run = |id: &str, attempt: &str, pid: &str| {
            let (attempt, pid) = (attempt.parse().ok()?, pid.parse().ok()?);
            Some(RunKey { id: id.to_owned(), attempt, pid })
        };
        match fields[..] {
            ["attempted", id] => *self.attempted.entry(id.to_owned()).or_default() += 1,
            ["confirmed", id] => {
                self.confirmed.insert(id.to_owned());
            }
            ["start", id, attempt, pid, at] => {
                let run = run(id, attempt, pid)?;
                self.starts.push(Start { run, at: at.parse().ok()? });
            }
            ["end", id, attempt, pid, code, at] => {
                let (run, code) = (run(id, attempt, pid)?, code.parse().ok()?);
                self.ends.push(End { run, code, at: at.parse().ok()? });
            }
            _ => return None,
        }
        Some(())
    }

    /// Returns the messages that have two overlapping runs. Runs without an end are left out, because they
    /// were killed at an unknown time.
    fn overlapping(&self) -> BTreeSet<String> {
        let mut begun: HashMap<&RunKey, Vec<u64>> = HashMap::new();
        for start in self.starts.iter().rev() {
            begun.entry(&start.run).or_default().push(start.at);
        }
        let mut spans: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
        for end in &self.ends {
            // If several runs have the same key, this end belongs to the earliest start without an end.
            if let Some(start) = begun.get_mut(&end.run).and_then(Vec::pop) {
                spans.entry(&end.run.id).or_default().push((start, end.at));
            }
        }
        let overlap = |spans: &mut Vec<(u64, u64)>| {
            spans.sort_unstable();
            // The spans are sorted by start. So if two of them overlap, two neighbours overlap too.
            spans.windows(2).any(|pair| pair[1].0 < pair[0].1)
        };
        let found = spans.iter_mut().filter_map(|(id, spans)| overlap(spans).then_some(*id));
        found.map(str::to_owned).collect()
    }

    fn over_limit(&self, max_attempts: u32) -> BTreeSet<String> {
        let mut starts: BTreeMap<&String, usize> = BTreeMap::new();
        for start in &self.starts {
            *starts.entry(&start.run.id).or_default() += 1;
        }
        let publishes = |id: &str| self.attempted.get(id).copied().unwrap_or(1);
        let allowed = |id: &str| (max_attempts as usize + self.allowance) * publishes(id);
        let often = starts.iter().filter(|(id, times)| **times > allowed(id));
        let high = self.starts.iter().filter(|start| start.run.attempt > max_attempts);
        often.map(|(id, _)| (*id).clone()).chain(high.map(|start| start.run.id.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the verdict on two logs, with at most two attempts allowed.
    fn verdict(ledger: &str, task_log: &str, dead: &[&str]) -> Verdict {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("ledger"), folder.path().join("log"));
        fs::write(&one, ledger).unwrap();
        fs::write(&other, task_log).unwrap();
        Oracle::read(&one, &other, dead.iter().map(|id| (*id).to_owned())).unwrap().check(2)
    }

    /// Checks the lines after the first line of the verdict's text. They name the faulty messages.
    fn check(ledger: &str, task_log: &str, dead: &[&str], expected: &str) {
        let text = verdict(ledger, task_log, dead).to_string();
        let bad: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(bad.join("; "), expected, "{text}");
    }

    const PUBLISHED: &str = "attempted a\nconfirmed a\n";
    const RUN: &str = "start a 1 7 100\nend a 1 7 0 200\n";

    #[test]
    fn a_message_that_is_confirmed_and_done_once_is_no_fault() {
        check(PUBLISHED, RUN, &[], "");
        verdict(PUBLISHED, RUN, &[]).assert_nothing_lost();
    }

    #[test]
    fn a_confirmed_message_that_is_never_run_is_lost() {
        check(PUBLISHED, "", &[], "lost: a");
    }

    #[test]
    fn a_confirmed_message_that_never_succeeds_is_lost() {
        check(PUBLISHED, "start a 1 7 100\nend a 1 7 1 200\n", &[], "lost: a");
        check(PUBLISHED, "start a 1 7 100\n", &[], "lost: a");
    }

    #[test]
    fn a_dead_letter_is_not_lost() {
        check(PUBLISHED, "", &["a"], "");
    }

    #[test]
    fn an_unconfirmed_message_is_not_lost() {
        check("attempted a\n", "", &[], "");
    }

    #[test]
    #[should_panic(expected = "1 lost")]
    fn a_lost_message_fails_the_test() {
        verdict(PUBLISHED, "", &[]).assert_nothing_lost();
    }

    #[test]
    fn a_message_that_is_run_or_dead_and_was_never_published_is_unexpected() {
        check("", RUN, &[], "unexpected: a");
        check("", "", &["a"], "unexpected: a");
    }

    #[test]
    fn an_unconfirmed_message_that_is_done_is_recovered() {
        let verdict = verdict("attempted a\nattempted b\n", RUN, &[]);
        assert_eq!(verdict.recovered, BTreeSet::from(["a".to_owned()]));
        check("attempted a\n", RUN, &[], "");
    }

    #[test]
    fn a_message_that_is_done_twice_is_duplicated() {
        let again = format!("{RUN}start a 2 8 300\nend a 2 8 0 400\n");
        check(PUBLISHED, &again, &[], "duplicated: a (2 times)");
        let failed_first = "start a 1 7 100\nend a 1 7 1 200\nstart a 2 8 300\nend a 2 8 0 400\n";
        check(PUBLISHED, failed_first, &[], "");
    }

    #[test]
    fn runs_at_the_same_time_overlap() {
        let log = "start a 1 7 100\nstart a 2 8 199\nend a 1 7 1 200\nend a 2 8 0 300\n";
        check(PUBLISHED, log, &[], "overlapping: a");
        let one_after_the_other = log.replace("199", "200");
        check(PUBLISHED, &one_after_the_other, &[], "");
        let inside = "start a 1 7 100\nstart a 2 8 150\nend a 2 8 1 160\nend a 1 7 0 300\n";
        check(PUBLISHED, inside, &[], "overlapping: a");
    }

    #[test]
    fn a_run_without_an_end_overlaps_no_other() {
        check(PUBLISHED, "start a 1 7 100\nstart a 2 8 150\nend a 2 8 0 200\n", &[], "");
    }

    #[test]
    fn an_attempt_beyond_the_limit_is_over_the_limit() {
        check(PUBLISHED, "start a 3 7 100\nend a 3 7 0 200\n", &[], "over limit: a");
    }

    #[test]
    fn more_starts_than_attempts_are_over_the_limit() {
        let log = format!("start a 1 5 10\nstart a 1 6 20\n{RUN}");
        check(PUBLISHED, &log, &[], "over limit: a");
        // A message that is published twice may start twice as often.
        check(&format!("attempted a\n{PUBLISHED}"), &log, &[], "");
    }

    #[test]
    fn the_counts_are_in_one_line_and_ten_ids_are_named() {
        let ledger: String =
            (10..22).map(|n| format!("attempted m-{n}\nconfirmed m-{n}\n")).collect();
        let text = verdict(&ledger, "", &[]).to_string();
        assert_eq!(
            text,
            "12 attempted, 12 confirmed, 0 done, 0 dead; 12 lost, 0 unexpected, 0 recovered, \
             0 duplicated, 0 overlapping, 0 over limit\n\
             lost: m-10, m-11, m-12, m-13, m-14, m-15, m-16, m-17, m-18, m-19 and 2 more"
        );
    }

    #[test]
    fn an_unfinished_last_line_is_ignored() {
        check(&format!("{PUBLISHED}confirmed"), &format!("{RUN}start a 2"), &[], "");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        fs::write(&path, "confirmed\nattempted a\n").unwrap();
        assert!(Oracle::read(&path, &path, []).is_err(), "an unfinished earlier line is an error");
    }
}
