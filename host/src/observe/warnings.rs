//! Warnings: what an operator should look at although the daemon is ready.
//!
//! The daemon does its work, but some messages do not go on by themselves: dead letters, held messages, pauses, tasks that
//! fail, and messages that have waited for a long time. A source is silent, or the disk is nearly full. `/warnings`,
//! `/readyz` and `status` show them.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use loopabull_queue::Bound;

use crate::observe::activity::{Link, Losses, SourceActivity};
use crate::observe::failing::Failing;
use crate::observe::observation::{Observation, Space};

/// The time for which a loss of messages is a warning.
const LOSS_SHOWN: Duration = Duration::from_hours(24);

/// The number of files that can still be created, below which there is a warning.
const FEW_FILES: u64 = 1000;

/// The subject of a warning. The metric `loopabull_warnings` has it as its label, and each kind has an alert rule.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    /// Messages were lost.
    Lost,
    /// The disk is nearly full.
    Disk,
    /// A source is silent.
    Silence,
    /// A task, a queue or a worker is paused.
    Pause,
    /// The last runs of a task failed.
    Failing,
    /// Messages of a task are held.
    Held,
    /// A queue has dead letters.
    Dead,
    /// A message has waited for a long time.
    Wait,
}

/// Something that an operator should look at.
#[derive(Clone, Debug)]
pub(crate) struct Warning {
    pub kind: Kind,
    /// One line.
    pub text: String,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Lost,
        Self::Disk,
        Self::Silence,
        Self::Pause,
        Self::Failing,
        Self::Held,
        Self::Dead,
        Self::Wait,
    ];

    /// Returns whether warnings of this kind come from the depths of the queues.
    pub(crate) fn is_of_a_queue(self) -> bool {
        matches!(self, Self::Held | Self::Dead | Self::Wait)
    }

    /// Returns the name in the metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Disk => "disk",
            Self::Silence => "silence",
            Self::Pause => "pause",
            Self::Failing => "failing",
            Self::Held => "held",
            Self::Dead => "dead",
            Self::Wait => "wait",
        }
    }
}

/// Returns what an operator should look at, in the order of the kinds. Those of a queue come together.
pub(crate) fn warnings(seen: &Observation) -> Vec<Warning> {
    let Observation { activity, limits, .. } = seen;
    let mut warnings = Vec::new();
    let mut warn = |kind, text| warnings.push(Warning { kind, text });
    if let Some(losses) = activity.losses.filter(|losses| losses.last.elapsed() < LOSS_SHOWN) {
        warn(Kind::Lost, lost(losses));
    }
    if let Some(text) = little_space(seen.space, limits.free) {
        warn(Kind::Disk, text);
    }
    let silence = limits.silence.unwrap_or(Duration::MAX);
    for (name, source) in &activity.sources {
        if let Some(text) = silent(name, source, silence) {
            warn(Kind::Silence, text);
        }
    }
    for (target, pause) in &*seen.pauses {
        let by = pause.by.as_str();
        warn(Kind::Pause, format!("{target} is paused by the {by}: {}", pause.reason));
    }
    let has_failed = |failing: &Failing| limits.failures > 0 && failing.in_a_row >= limits.failures;
    for (task, failing) in activity.failing.iter().filter(|(_, failing)| has_failed(failing)) {
        warn(Kind::Failing, format!("task `{task}`: {failing}"));
    }
    for (name, depth) in &seen.depths {
        for (task, held) in &depth.held {
            let are = if held.count == 1 { "message is" } else { "messages are" };
            let text = format!("queue `{name}`: {} {are} held for task `{task}`", held.count);
            warn(Kind::Held, text);
        }
        if depth.dead > 0 {
            let letters = if depth.dead == 1 { "dead letter" } else { "dead letters" };
            warn(Kind::Dead, format!("queue `{name}`: {} {letters}", depth.dead));
        }
        let wait = limits.wait.unwrap_or(Duration::MAX);
        if let Some(oldest) = depth.oldest.filter(|oldest| oldest.age >= wait) {
            let (time, waiting) = (whole_seconds(oldest.age), depth.waiting);
            let what = match waiting {
                1 => "a message".to_owned(),
                waiting => format!("the oldest of {waiting} waiting messages"),
            };
            let text = match oldest.bound {
                Bound::Exact => format!("{what} has waited for {time}"),
                Bound::AtMost => format!("{what} may have waited for up to {time}"),
                Bound::AtLeast => format!("{what} has waited for at least {time}"),
            };
            warn(Kind::Wait, format!("queue `{name}`: {text}"));
        }
    }
    warnings
}

/// Returns one line for each warning.
pub(crate) fn lines(seen: &Observation) -> Vec<String> {
    warnings(seen).into_iter().map(|warning| warning.text).collect()
}

fn lost(losses: Losses) -> String {
    let messages = if losses.count == 1 { "message" } else { "messages" };
    let (count, ago) = (losses.count, time_since(losses.last));
    format!(
        "{count} {messages} lost since the start of the daemon, the last one {ago} ago; the log has the reason"
    )
}

/// Returns a line if less space is free than the limit, if only few files can be created, or if the disk cannot be asked.
fn little_space(space: Space, limit: ByteSize) -> Option<String> {
    if limit.as_u64() == 0 {
        return None;
    }
    let Space { free: Some(free), files, .. } = space else {
        return Some("state directory: cannot read how much space is free".to_owned());
    };
    let left = match files.filter(|files| *files < FEW_FILES) {
        Some(1) => "1 file".to_owned(),
        Some(files) => format!("{files} files"),
        None if free < limit.as_u64() => ByteSize::b(free).display().iec().to_string(),
        None => return None,
    };
    Some(format!(
        "state directory: its file system has room for only {left}; nothing runs once it is full"
    ))
}

/// Returns a line if a source is connected, and silent for longer than the limit. A source that is not connected is a problem,
/// and an archive may have nothing to send.
fn silent(name: &str, source: &SourceActivity, limit: Duration) -> Option<String> {
    let since = source.silent_since();
    let is_connected = source.link == Some(Link::Connected) && !source.is_archive;
    (is_connected && since.elapsed() >= limit).then(|| {
        let time = time_since(since);
        match source.last {
            Some(_) => format!("source {name}: connected, but no message for {time}"),
            None => format!("source {name}: connected, but no message yet for {time}"),
        }
    })
}

fn time_since(instant: Instant) -> humantime::FormattedDuration {
    whole_seconds(instant.elapsed())
}

fn whole_seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use loopabull_model::{Outcome, Pause, PausedBy, QueueName, Target, TaskName};
    use loopabull_queue::{Depth, Held, Oldest};

    use super::*;
    use crate::config::Warnings;
    use crate::observe::activity::Snapshot;

    fn seen(depth: Depth, activity: Snapshot) -> Observation {
        Observation {
            depths: vec![(QueueName::default(), depth)],
            trends: BTreeMap::new(),
            activity,
            pauses: Default::default(),
            is_complete: true,
            space: Space { free: Some(5 << 30), files: Some(1_000_000), journal: None },
            problems: Vec::new(),
            limits: Warnings::default(),
        }
    }

    #[test]
    fn what_does_not_go_on_by_itself_is_a_warning() {
        let nothing = || seen(Depth::default(), Snapshot::default());
        assert!(warnings(&nothing()).is_empty());
        let task = TaskName::try_from("x").unwrap();
        let depth = Depth {
            dead: 2,
            held: [(task.clone(), Held { count: 1, oldest: None })].into(),
            oldest: Some(Oldest { age: Duration::from_millis(7_200_500), bound: Bound::Exact }),
            waiting: 3,
            ..Depth::default()
        };
        let last = Instant::now() - Duration::from_secs(90);
        let losses = Some(Losses { count: 3, last });
        let pause = Pause { reason: "5 runs failed".into(), since_ms: 0, by: PausedBy::Breaker };
        let mut failing = Failing::default();
        (0..3).for_each(|_| failing.add(&Outcome::NoHosts));
        let failing = [(task.clone(), failing)].into();
        let mut all = seen(depth, Snapshot { losses, failing, ..Snapshot::default() });
        all.pauses = std::sync::Arc::new([(Target::Task(task), pause)].into());
        all.space.free = Some(100 << 20);
        let expected = [
            "3 messages lost since the start of the daemon, the last one 1m 30s ago; the log has the reason",
            "state directory: its file system has room for only 100.0 MiB; nothing runs once it is full",
            "task `x` is paused by the breaker: 5 runs failed",
            "task `x`: the last 3 runs failed: no-hosts: no play matched a host, so nothing was done",
            "queue `workers`: 1 message is held for task `x`",
            "queue `workers`: 2 dead letters",
            "queue `workers`: the oldest of 3 waiting messages has waited for 2h",
        ];
        assert_eq!(lines(&all), expected);
        let kinds = warnings(&all).iter().map(|warning| warning.kind).collect::<Vec<_>>();
        let all_but_silence: Vec<_> =
            Kind::ALL.into_iter().filter(|kind| *kind != Kind::Silence).collect();
        assert_eq!(kinds, all_but_silence);
        for failures in [0, 4] {
            all.limits.failures = failures;
            assert!(!lines(&all).iter().any(|line| line.contains("runs failed:")));
        }
        let age = Duration::from_secs(7200);
        all.depths[0].1.oldest = Some(Oldest { age, bound: Bound::AtMost });
        assert!(lines(&all).last().unwrap().ends_with(" messages may have waited for up to 2h"));
        all.limits.wait = None;
        assert!(!lines(&all).iter().any(|line| line.contains("waited")));
        let mut old = nothing();
        old.activity.losses = Some(Losses { count: 3, last: last - LOSS_SHOWN });
        assert!(warnings(&old).is_empty());
    }

    #[test]
    fn a_connected_source_that_is_silent_is_a_warning() {
        let long_ago = Instant::now() - Duration::from_secs(2 * 3600);
        let source = |last, link| SourceActivity {
            received: 1,
            since: long_ago,
            is_archive: false,
            back_since: None,
            last,
            link,
            unconnected_since: None,
        };
        let warn = |source, silence| {
            let sources = [("bus".to_owned(), source)].into();
            let mut seen = seen(Depth::default(), Snapshot { sources, ..Snapshot::default() });
            seen.limits.silence = silence;
            lines(&seen)
        };
        let hour = Some(Duration::from_hours(1));
        let connected = || Some(Link::Connected);
        assert_eq!(
            warn(source(Some(long_ago), connected()), hour),
            ["source bus: connected, but no message for 2h"]
        );
        assert_eq!(
            warn(source(None, connected()), hour),
            ["source bus: connected, but no message yet for 2h"]
        );
        assert!(warn(source(Some(Instant::now()), connected()), hour).is_empty());
        assert!(warn(source(None, connected()), None).is_empty());
        assert!(warn(source(None, Some(Link::Lost("gone".to_owned()))), hour).is_empty());
        assert!(warn(source(None, None), hour).is_empty());
        // An archive that has fetched all, and a source that was away, and is back for a moment.
        let archive = SourceActivity { is_archive: true, ..source(None, connected()) };
        assert!(warn(archive, hour).is_empty());
        let back_since = Some(Instant::now());
        let back = SourceActivity { back_since, ..source(Some(long_ago), connected()) };
        assert!(warn(back, hour).is_empty());
    }

    #[test]
    fn a_disk_without_room_for_files_or_without_an_answer_is_a_warning() {
        let said =
            |free, files| little_space(Space { free, files, journal: None }, ByteSize::gib(1));
        assert_eq!(said(Some(2 << 30), None), None);
        assert_eq!(said(Some(2 << 30), Some(1000)), None);
        assert!(said(Some(2 << 30), Some(1)).unwrap().contains("room for only 1 file;"));
        assert!(said(None, None).unwrap().contains("cannot read"));
        let never = Space::default();
        assert_eq!(little_space(never, ByteSize::b(0)), None);
    }
}
