//! The metrics, in Prometheus' text format.
//!
//! Each value of a label is from a closed set, or is a name that the operator chose. No label
//! contains a topic, an id or other text from a message.

use std::sync::atomic::AtomicU64;

use loopabull_model::{QueueName, Run, Task};
use loopabull_queue::Depth;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::observe::activity::Link;
use crate::observe::history::Trend;
use crate::observe::log;
use crate::observe::observation::Observation;
use crate::observe::warnings::{Kind, warnings};

/// Upper bounds of the buckets for run durations, in seconds. A component takes about a
/// millisecond, and a long playbook takes up to 15 minutes.
const DURATION_BUCKETS: [f64; 9] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 900.0];

/// A gauge of whole numbers.
type Count = Gauge<u64, AtomicU64>;

/// Declares [`Metrics`]. Each line has the form `field: Type = "name" in Unit by constructor;`. The
/// unit and the constructor are optional. The name has no prefix `loopabull_` and no suffix
/// `_total`. The doc comment is the help text of the metric.
macro_rules! metrics {
    ($(
        #[doc = $help:literal]
        $visibility:vis $field:ident: $type:ty = $name:literal $(in $unit:ident)? $(by $make:expr)?;
    )*) => {
        /// All metrics of the daemon.
        pub(crate) struct Metrics {
            registry: Registry,
            $(#[doc = $help] $visibility $field: $type,)*
        }

        impl Metrics {
            /// Creates and registers all metrics.
            fn register() -> Self {
                let mut registry = Registry::with_prefix("loopabull");
                $(
                    let $field: $type = metrics!(@make $($make)?);
                    // The library appends a period to each help text, so the period of the doc
                    // comment is removed.
                    let help = $help.trim().trim_end_matches('.');
                    metrics!(@register registry, help, $field, $name $(, $unit)?);
                )*
                Self { registry, $($field),* }
            }
        }
    };
    (@make) => { Default::default() };
    (@make $make:expr) => { $make };
    (@register $registry:ident, $help:ident, $metric:ident, $name:literal) => {
        $registry.register($name, $help, $metric.clone())
    };
    (@register $registry:ident, $help:ident, $metric:ident, $name:literal, $unit:ident) => {
        $registry.register_with_unit($name, $help, Unit::$unit, $metric.clone())
    };
}

metrics! {
    /// Envelopes received from a source, before any check.
    pub envelopes: Family<BySource, Counter> = "envelopes_received";
    /// Envelopes that were rejected, by reason.
    pub rejections: Family<ByRejection, Counter> = "envelopes_rejected";
    /// Messages that passed verification.
    pub messages: Counter = "messages_accepted";
    /// Messages whose topic no task subscribes to.
    pub unrouted: Counter = "messages_unrouted";
    /// Entries stored in a work queue, directly or through the spool. A message has one entry per task.
    pub entries: Family<ByTask, Counter> = "entries_published";
    /// Entries stored in the spool because their queue was unavailable.
    pub spooled_entries: Counter = "entries_spooled";
    /// Entries stored in the quarantine because their queue rejects them permanently.
    pub quarantined: Counter = "entries_quarantined";
    /// Entries that were lost, for example because the spool was full.
    pub lost: Counter = "entries_lost";
    /// Deliveries that were not valid messages and were lost because the quarantine was full.
    pub lost_envelopes: Counter = "envelopes_lost";
    /// Entries that were not published because the task had already received the message.
    pub duplicates: Counter = "entries_deduplicated";
    /// Envelopes that were dropped because they arrived faster than they were processed.
    pub dropped: Family<ByEndpoint, Counter> = "envelopes_dropped";
    /// Whether a source is connected: 1 or 0.
    connected: Family<ByEndpoint, Count> = "source_connected";
    /// Connections to a source that were lost.
    disconnects: Family<ByEndpoint, Counter> = "source_disconnects";
    /// Connections to a source that were replaced after the idle timeout.
    pub idle_reconnects: Family<ByEndpoint, Counter> = "source_idle_reconnects";
    /// Entries that are waiting in the spool.
    spooled: Count = "spool_entries";
    /// Size of the entries in the spool.
    spooled_bytes: Count = "spool_size" in Bytes;
    /// Messages that tasks emitted.
    pub emitted: Counter = "messages_emitted";
    /// Reloads of the tasks.
    pub reloads: Counter = "reloads";
    /// Finished runs, by task and outcome.
    runs: Family<ByOutcome, Counter> = "runs";
    /// Durations of runs.
    run_seconds: Family<ByKind, Histogram> = "run_duration" in Seconds
        by Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
    /// Playbook runs without a sandbox layer that was requested, by layer.
    degraded: Family<ByLayer, Counter> = "playbook_degraded_runs";
    /// Processes that playbooks left running and that were killed.
    killed: Counter = "playbook_processes_killed";
    /// Playbook runs that were started without a warm Ansible process, by reason.
    cold: Family<ByReason, Counter> = "playbook_cold_starts";
    /// Deliveries that the queue took back before they were settled.
    pub lost_claims: Counter = "claims_lost";
    /// Arrivals that were not noted, because they came too fast or the file of notes could not be written.
    pub arrivals_not_noted: Counter = "arrivals_not_noted";
    /// Requests to the operator's port without the right token.
    pub unauthorized: Counter = "requests_unauthorized";
    /// Log lines that could not be written.
    log_lines_lost: Counter = "log_lines_lost";
    /// Current pauses, by kind of target.
    pauses: Family<ByKind, Count> = "pauses";
    /// Entries of a queue, by state.
    queue: Family<ByState, Count> = "queue_entries";
    /// Age of the oldest waiting entry of a queue; with RabbitMQ, an estimate.
    oldest_seconds: Family<ByQueue, Number> = "queue_oldest_entry_age" in Seconds;
    /// Time until nothing waits in a queue at the rate of the last minute; +Inf while the number of waiting entries grows or stays, NaN if the rate is not known.
    drain_seconds: Family<ByQueue, Number> = "queue_drain_time" in Seconds;
    /// Time since the last message of a source, or since it was started or available again.
    silent_seconds: Family<ByEndpoint, Number> = "source_silence" in Seconds;
    /// Runs of a task that failed in a row, since its last success.
    failing: Family<ByTask, Count> = "task_failures_in_a_row";
    /// Free space on the file system of the state directory; NaN if it is not known.
    free_bytes: Number = "state_free" in Bytes;
    /// Size of the journal, with its embedded queue; NaN if it is not known.
    journal_bytes: Number = "journal_size" in Bytes;
    /// Number of current problems; each makes /readyz answer 503.
    problems: Count = "problems";
    /// Number of current warnings, by kind; /warnings has their text.
    warnings: Family<ByKind, Count> = "warnings";
}

/// A gauge of numbers with a fraction.
type Number = Gauge<f64, AtomicU64>;

/// The label of a source.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct BySource {
    pub source: &'static str,
}

/// The label of a connection: the address of a fedmsg endpoint, or the name of a bus.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ByEndpoint {
    pub endpoint: String,
}

/// The label of the reason for a rejection.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ByRejection {
    pub reason: &'static str,
}

/// The label of a task.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ByTask {
    pub task: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByOutcome {
    task: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByReason {
    reason: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByLayer {
    layer: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByState {
    queue: String,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByQueue {
    queue: String,
}

impl Metrics {
    /// Creates all metrics. The counter of each known rejection reason starts at 0.
    pub(crate) fn new() -> Self {
        let metrics = Self::register();
        for reason in loopabull_fedmsg::Rejection::REASONS.into_iter().chain(["bad-encoding"]) {
            drop(metrics.rejections.get_or_create(&ByRejection { reason }));
        }
        metrics
    }

    /// Counts a run. All tasks that are not loaded share one label. Their names come from the
    /// queue, and other programs can publish entries with any name into the queue.
    pub(crate) fn count_run(&self, run: &Run, task: Option<&Task>) {
        let task = task.map_or_else(|| "(not loaded)".to_owned(), |task| task.name.to_string());
        let labels = ByOutcome { task, outcome: run.outcome.name() };
        self.runs.get_or_create(&labels).inc();
        let kind = ByKind { kind: run.kind.as_str() };
        self.run_seconds.get_or_create(&kind).observe(run.duration.as_secs_f64());
        let Some(playbook) = &run.playbook else { return };
        self.killed.inc_by(playbook.killed);
        if let Some(reason) = &playbook.cold {
            self.cold.get_or_create(&ByReason { reason: reason.clone() }).inc();
        }
        for layer in playbook.degraded() {
            self.degraded.get_or_create(&ByLayer { layer: layer.layer.clone() }).inc();
        }
    }

    /// Sets whether a source is connected. Counts a lost connection.
    pub(crate) fn count_link(&self, endpoint: &str, link: &Link) {
        let label = ByEndpoint { endpoint: endpoint.to_owned() };
        self.connected.get_or_create(&label).set(u64::from(*link == Link::Connected));
        if *link != Link::Connected {
            self.disconnects.get_or_create(&label).inc();
        }
    }

    /// Sets the number and the total size of the entries in the spool.
    pub(crate) fn set_spool(&self, (entries, bytes): (u64, u64)) {
        self.spooled.set(entries);
        self.spooled_bytes.set(bytes);
    }

    /// Returns all metrics as text, with what the daemon sees of itself now.
    pub(crate) fn encode(&self, seen: &Observation) -> String {
        // A queue that could not be read has no value.
        self.queue.clear();
        self.oldest_seconds.clear();
        self.drain_seconds.clear();
        for (name, depth) in &seen.depths {
            self.set_depth(name, depth);
            let drain = match seen.trends.get(name) {
                _ if depth.waiting == 0 => 0.0,
                Some(Trend::Drains { drained_in_seconds }) => *drained_in_seconds as f64,
                Some(Trend::Steady | Trend::Grows) => f64::INFINITY,
                None => f64::NAN,
            };
            self.drain_seconds.get_or_create(&ByQueue { queue: name.to_string() }).set(drain);
        }
        for (name, source) in seen.activity.sources.iter().filter(|(_, source)| !source.is_archive)
        {
            let silence = source.silent_since().elapsed().as_secs_f64();
            let label = ByEndpoint { endpoint: name.clone() };
            self.silent_seconds.get_or_create(&label).set(silence);
        }
        self.failing.clear();
        for (task, failing) in &seen.activity.failing {
            let task = ByTask { task: task.to_string() };
            self.failing.get_or_create(&task).set(failing.in_a_row);
        }
        let number = |value: Option<u64>| value.map_or(f64::NAN, |value| value as f64);
        self.free_bytes.set(number(seen.space.free));
        self.journal_bytes.set(number(seen.space.journal));
        self.problems.set(seen.problems.len() as u64);
        let warnings = warnings(seen);
        for kind in Kind::ALL {
            let count = warnings.iter().filter(|warning| warning.kind == kind).count() as u64;
            let gauge = self.warnings.get_or_create(&ByKind { kind: kind.as_str() });
            // A queue that cannot be read may still have its warnings. That it cannot be read is a problem of its own.
            let is_known = seen.is_complete || !kind.is_of_a_queue();
            let before = if is_known { 0 } else { gauge.get() };
            gauge.set(count.max(before));
        }
        let mut counts = [("task", 0), ("queue", 0), ("worker", 0)];
        for target in seen.pauses.keys() {
            let kind = target.kind();
            counts.iter_mut().filter(|(k, _)| *k == kind).for_each(|(_, count)| *count += 1);
        }
        for (kind, count) in counts {
            self.pauses.get_or_create(&ByKind { kind }).set(count);
        }
        self.log_lines_lost.inc_by(log::take_lost_lines());
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    fn set_depth(&self, name: &QueueName, depth: &Depth) {
        let queue = name.to_string();
        let set = |state, count| {
            self.queue.get_or_create(&ByState { queue: queue.clone(), state }).set(count);
        };
        set("waiting", depth.waiting);
        set("delayed", depth.delayed);
        set("held", depth.held_count());
        set("dead", depth.dead);
        if let Some(claimed) = depth.claimed {
            set("claimed", claimed);
        }
        let oldest = depth.oldest.map_or(0.0, |oldest| oldest.age.as_secs_f64());
        self.oldest_seconds.get_or_create(&ByQueue { queue: queue.clone() }).set(oldest);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use loopabull_model::{Outcome, TaskName};

    use super::*;
    use crate::config::Warnings;
    use crate::observe::activity::Activity;
    use crate::observe::failing::Failing;
    use crate::observe::observation::Space;

    /// Returns an observation with one queue, one source and one task that fails.
    fn seen() -> Observation {
        let activity = Activity::default();
        activity.add_source("bus");
        let mut activity = activity.snapshot();
        let mut failing = Failing::default();
        failing.add(&Outcome::NoHosts);
        activity.failing.insert(TaskName::try_from("x").unwrap(), failing);
        let depth = Depth { waiting: 5, ..Depth::default() };
        Observation {
            depths: vec![(QueueName::default(), depth)],
            trends: [(QueueName::default(), Trend::Grows)].into(),
            activity,
            pauses: Arc::default(),
            is_complete: true,
            space: Space { free: Some(7), files: None, journal: Some(8) },
            problems: vec!["a problem".to_owned()],
            limits: Warnings::default(),
        }
    }

    #[test]
    fn an_observation_is_encoded_whole() {
        let metrics = Metrics::new();
        let text = metrics.encode(&seen());
        for line in [
            "queue_entries{queue=\"workers\",state=\"waiting\"} 5",
            "queue_drain_time_seconds{queue=\"workers\"} inf",
            "source_silence_seconds{endpoint=\"bus\"} 0.",
            "task_failures_in_a_row{task=\"x\"} 1",
            "state_free_bytes 7.0",
            "journal_size_bytes 8.0",
            "problems 1",
            "warnings{kind=\"disk\"} 1",
            "warnings{kind=\"dead\"} 0",
        ] {
            assert!(text.contains(&format!("\nloopabull_{line}")), "{line} is not in:\n{text}");
        }
        let mut later = seen();
        later.activity.failing.clear();
        later.space = Space::default();
        later.trends = [(QueueName::default(), Trend::Drains { drained_in_seconds: 9 })].into();
        let text = metrics.encode(&later);
        assert!(!text.contains("task_failures_in_a_row{"), "{text}");
        assert!(text.contains("queue_drain_time_seconds{queue=\"workers\"} 9.0"), "{text}");
        assert!(text.contains("loopabull_state_free_bytes NaN"), "{text}");

        // The queue cannot be read any more. Its warnings stay, its numbers do not.
        let mut dead = seen();
        dead.depths[0].1.dead = 1;
        metrics.encode(&dead);
        let unread = Observation { depths: Vec::new(), is_complete: false, ..seen() };
        let text = metrics.encode(&unread);
        assert!(text.contains("loopabull_warnings{kind=\"dead\"} 1"), "{text}");
        assert!(!text.contains("loopabull_queue_entries{"), "{text}");
    }

    /// Returns the help lines of all metrics. Metrics with labels have a help line only after a
    /// sample was added.
    fn help() -> String {
        let metrics = Metrics::new();
        let text = || "x".to_owned();
        drop(metrics.envelopes.get_or_create(&BySource { source: "x" }));
        drop(metrics.entries.get_or_create(&ByTask { task: text() }));
        drop(metrics.dropped.get_or_create(&ByEndpoint { endpoint: text() }));
        drop(metrics.idle_reconnects.get_or_create(&ByEndpoint { endpoint: text() }));
        drop(metrics.runs.get_or_create(&ByOutcome { task: text(), outcome: "x" }));
        drop(metrics.run_seconds.get_or_create(&ByKind { kind: "x" }));
        drop(metrics.degraded.get_or_create(&ByLayer { layer: text() }));
        drop(metrics.cold.get_or_create(&ByReason { reason: text() }));
        metrics.count_link("x", &Link::Lost(text()));
        let text = metrics.encode(&seen());
        let help: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        help.join("\n")
    }

    #[test]
    fn each_metric_has_a_help_text() {
        insta::assert_snapshot!(help(), @r"
        loopabull_envelopes_received Envelopes received from a source, before any check.
        loopabull_envelopes_rejected Envelopes that were rejected, by reason.
        loopabull_messages_accepted Messages that passed verification.
        loopabull_messages_unrouted Messages whose topic no task subscribes to.
        loopabull_entries_published Entries stored in a work queue, directly or through the spool. A message has one entry per task.
        loopabull_entries_spooled Entries stored in the spool because their queue was unavailable.
        loopabull_entries_quarantined Entries stored in the quarantine because their queue rejects them permanently.
        loopabull_entries_lost Entries that were lost, for example because the spool was full.
        loopabull_envelopes_lost Deliveries that were not valid messages and were lost because the quarantine was full.
        loopabull_entries_deduplicated Entries that were not published because the task had already received the message.
        loopabull_envelopes_dropped Envelopes that were dropped because they arrived faster than they were processed.
        loopabull_source_connected Whether a source is connected: 1 or 0.
        loopabull_source_disconnects Connections to a source that were lost.
        loopabull_source_idle_reconnects Connections to a source that were replaced after the idle timeout.
        loopabull_spool_entries Entries that are waiting in the spool.
        loopabull_spool_size_bytes Size of the entries in the spool.
        loopabull_messages_emitted Messages that tasks emitted.
        loopabull_reloads Reloads of the tasks.
        loopabull_runs Finished runs, by task and outcome.
        loopabull_run_duration_seconds Durations of runs.
        loopabull_playbook_degraded_runs Playbook runs without a sandbox layer that was requested, by layer.
        loopabull_playbook_processes_killed Processes that playbooks left running and that were killed.
        loopabull_playbook_cold_starts Playbook runs that were started without a warm Ansible process, by reason.
        loopabull_claims_lost Deliveries that the queue took back before they were settled.
        loopabull_arrivals_not_noted Arrivals that were not noted, because they came too fast or the file of notes could not be written.
        loopabull_requests_unauthorized Requests to the operator's port without the right token.
        loopabull_log_lines_lost Log lines that could not be written.
        loopabull_pauses Current pauses, by kind of target.
        loopabull_queue_entries Entries of a queue, by state.
        loopabull_queue_oldest_entry_age_seconds Age of the oldest waiting entry of a queue; with RabbitMQ, an estimate.
        loopabull_queue_drain_time_seconds Time until nothing waits in a queue at the rate of the last minute; +Inf while the number of waiting entries grows or stays, NaN if the rate is not known.
        loopabull_source_silence_seconds Time since the last message of a source, or since it was started or available again.
        loopabull_task_failures_in_a_row Runs of a task that failed in a row, since its last success.
        loopabull_state_free_bytes Free space on the file system of the state directory; NaN if it is not known.
        loopabull_journal_size_bytes Size of the journal, with its embedded queue; NaN if it is not known.
        loopabull_problems Number of current problems; each makes /readyz answer 503.
        loopabull_warnings Number of current warnings, by kind; /warnings has their text.
        ");
    }
}
