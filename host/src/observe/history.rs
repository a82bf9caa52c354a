//! The recent past: the depths of the queues and the number of runs at regular times, for the charts of the last hour and
//! the last day.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use loopabull_model::QueueName;
use loopabull_queue::Depth;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::observe::activity::Counts;

/// The interval between two samples.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// The number of samples of the last hour.
const FINE: usize = 360;
/// One of this number of samples is kept for a day: one in five minutes.
const COARSENESS: usize = 30;
/// The number of samples of the last day.
const COARSE: usize = 288;
/// The time over which the change of a depth is measured. It is short, so that a burst that is worked off is not said to grow.
const TREND: Duration = Duration::from_mins(1);

/// The samples of the last hour and of the last day.
#[derive(Default)]
pub(crate) struct History(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    /// Oldest first.
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
    count: usize,
}

/// The state at one moment.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    counts: Counts,
    waiting: BTreeMap<QueueName, u64>,
}

/// How the number of waiting messages changes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(tag = "trend", rename_all = "kebab-case")]
pub(crate) enum Trend {
    /// It has been the same, or nearly so.
    Steady,
    Grows,
    /// At the same rate, nothing waits after this time.
    Drains {
        drained_in_seconds: u64,
    },
}

/// The series for a chart, oldest first. A value is absent if the daemon could not read it, or did not run yet.
pub(crate) type Series = Vec<Option<f64>>;

/// The span of a chart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Span {
    Hour,
    Day,
}

impl History {
    /// Adds a sample. `depths` are those that could be read.
    pub(crate) fn add(&self, at: Instant, counts: Counts, depths: &[(QueueName, Depth)]) {
        let waiting = depths.iter().map(|(name, depth)| (name.clone(), depth.waiting)).collect();
        let sample = Sample { at, counts, waiting };
        let mut samples = self.0.lock();
        if samples.count.is_multiple_of(COARSENESS) {
            push(&mut samples.coarse, sample.clone(), COARSE);
        }
        push(&mut samples.fine, sample, FINE);
        samples.count += 1;
    }

    /// Returns the number of waiting messages of a queue over a span.
    pub(crate) fn waiting(&self, queue: &QueueName, span: Span) -> Series {
        let samples = self.0.lock();
        let (samples, length) = samples.of(span);
        let values = samples.iter().map(|sample| sample.waiting.get(queue).map(|&n| n as f64));
        padded(values.collect(), length)
    }

    /// Returns the number of runs per minute over a span, and that of failed runs.
    pub(crate) fn runs(&self, span: Span) -> [Series; 2] {
        let samples = self.0.lock();
        let (samples, length) = samples.of(span);
        let failed = |counts: Counts| counts.runs - counts.succeeded;
        let count: [fn(Counts) -> u64; 2] = [|counts| counts.runs, failed];
        count.map(|count| {
            let pairs = samples.iter().zip(samples.iter().skip(1));
            let rates = pairs.map(|(before, after)| {
                let minutes = (after.at - before.at).as_secs_f64() / 60.0;
                let runs = count(after.counts) - count(before.counts);
                (minutes > 0.0).then(|| runs as f64 / minutes)
            });
            padded(rates.collect(), length)
        })
    }

    /// Returns how the number of waiting messages of a queue changes, or `None` if it is not known yet.
    pub(crate) fn trend(&self, queue: &QueueName) -> Option<Trend> {
        let samples = self.0.lock();
        let last = samples.fine.back()?;
        let first = samples.fine.iter().find(|sample| last.at - sample.at <= TREND)?;
        let (before, now) = (*first.waiting.get(queue)?, *last.waiting.get(queue)?);
        let time = last.at - first.at;
        if time < INTERVAL {
            return None;
        }
        // One message more or less is no trend.
        Some(match now as i128 - before as i128 {
            change if change.abs() <= 1 => Trend::Steady,
            change if change > 0 => Trend::Grows,
            change => {
                let seconds = now as f64 * time.as_secs_f64() / change.unsigned_abs() as f64;
                // The conversion saturates.
                Trend::Drains { drained_in_seconds: seconds as u64 }
            }
        })
    }
}

impl Samples {
    fn of(&self, span: Span) -> (&VecDeque<Sample>, usize) {
        match span {
            Span::Hour => (&self.fine, FINE),
            Span::Day => (&self.coarse, COARSE),
        }
    }
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample, limit: usize) {
    if samples.len() == limit {
        samples.pop_front();
    }
    samples.push_back(sample);
}

/// Puts absent values before a series that is shorter.
fn padded(values: Series, length: usize) -> Series {
    let missing = length.saturating_sub(values.len());
    std::iter::repeat_n(None, missing).chain(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(waiting: u64) -> Depth {
        Depth { waiting, ..Depth::default() }
    }

    /// Adds a sample each ten seconds.
    fn history(waiting: &[u64]) -> (History, QueueName) {
        let (history, queue) = (History::default(), QueueName::default());
        let mut at = Instant::now();
        for (number, waiting) in waiting.iter().enumerate() {
            let runs = 10 * number as u64;
            let counts = Counts { runs, succeeded: runs / 2, ..Counts::default() };
            history.add(at, counts, &[(queue.clone(), depth(*waiting))]);
            at += INTERVAL;
        }
        (history, queue)
    }

    #[test]
    fn the_trend_tells_when_nothing_waits_any_more() {
        let trend = |waiting: &[u64]| {
            let (history, queue) = history(waiting);
            history.trend(&queue)
        };
        assert_eq!(trend(&[]), None);
        assert_eq!(trend(&[5]), None);
        assert_eq!(trend(&[5, 5]), Some(Trend::Steady));
        assert_eq!(trend(&[5, 9]), Some(Trend::Grows));
        assert_eq!(trend(&[0, 0]), Some(Trend::Steady));
        // 10 fewer in 20 seconds; 20 are left.
        assert_eq!(trend(&[30, 25, 20]), Some(Trend::Drains { drained_in_seconds: 40 }));
        // A change more than a minute ago does not count.
        let mut long = vec![900; 60];
        long.extend([100; 7]);
        assert_eq!(trend(&long), Some(Trend::Steady));
        // It grew before, and is worked off now.
        assert_eq!(
            trend(&[0, 100, 200, 190, 180, 170, 160, 150, 140]),
            Some(Trend::Drains { drained_in_seconds: 140 })
        );
    }

    #[test]
    fn series_have_a_value_for_each_moment_of_their_span() {
        let (history, queue) = history(&[1, 2, 3]);
        let waiting = history.waiting(&queue, Span::Hour);
        assert_eq!(waiting.len(), FINE);
        assert_eq!(waiting[FINE - 4..], [None, Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(history.waiting(&queue, Span::Day)[COARSE - 1], Some(1.0));
        let [runs, failed] = history.runs(Span::Hour);
        assert_eq!(runs[FINE - 3..], [None, Some(60.0), Some(60.0)]);
        assert_eq!(failed[FINE - 1], Some(30.0));
        let unknown = QueueName::try_from("other".to_owned()).unwrap();
        assert_eq!(history.waiting(&unknown, Span::Hour), vec![None; FINE]);
    }

    #[test]
    fn old_samples_are_forgotten() {
        let waiting: Vec<u64> = (0..400).collect();
        let (history, queue) = history(&waiting);
        let hour = history.waiting(&queue, Span::Hour);
        assert_eq!((hour.len(), hour[0]), (FINE, Some(40.0)));
        let day = history.waiting(&queue, Span::Day);
        assert_eq!(day[COARSE - 1], Some(390.0));
    }
}
