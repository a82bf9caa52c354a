//! The metrics, in Prometheus' text format.
//!
//! Labels are closed sets or names that an operator gave: never a topic, an id or a word that a
//! message contains.

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
use loopabull_model::Target;

/// The upper bounds of the buckets of run durations, in seconds: from a millisecond, which a
/// component takes, to a quarter of an hour, which a long playbook takes.
const DURATION_BUCKETS: [f64; 9] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 900.0];

/// A gauge of whole numbers.
type Count = Gauge<u64, AtomicU64>;

/// Declares [`Metrics`]. Each metric has a field, its type, its name without the prefix `loopabull_`
/// and the suffix `_total`, perhaps a unit, and how it is made if not by default. Its doc comment is
/// the help text.
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
            /// Makes and registers all metrics.
            fn register() -> Self {
                let mut registry = Registry::with_prefix("loopabull");
                $(
                    let $field: $type = metrics!(@make $($make)?);
                    // The library ends each help text with a period.
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
    pub rejections: Family<ByReason, Counter> = "envelopes_rejected";
    /// Messages that passed verification.
    pub messages: Counter = "messages_accepted";
    /// Messages whose topic no task wants.
    pub unrouted: Counter = "messages_unrouted";
    /// Entries stored in a work queue, directly or from the spool, one for each message and task.
    pub entries: Family<ByTask, Counter> = "entries_published";
    /// Entries stored in the spool because their queue accepted nothing.
    pub spooled_entries: Counter = "entries_spooled";
    /// Entries stored in the quarantine because their queue refuses them for good.
    pub quarantined: Counter = "entries_quarantined";
    /// Entries that were lost because there was no room for them.
    pub lost: Counter = "entries_lost";
    /// Deliveries that are not messages and were lost because the quarantine is full.
    pub lost_envelopes: Counter = "envelopes_lost";
    /// Entries that were not published because the task was given the same message before.
    pub duplicates: Counter = "entries_deduplicated";
    /// Envelopes that were dropped because they arrived faster than they were processed.
    pub dropped: Family<ByEndpoint, Counter> = "envelopes_dropped";
    /// Whether a source is connected: 1 or 0.
    connected: Family<ByEndpoint, Count> = "source_connected";
    /// Connections to a source that were lost.
    disconnects: Family<ByEndpoint, Counter> = "source_disconnects";
    /// Connections to a source that were replaced because nothing was received for too long.
    pub renewed: Family<ByEndpoint, Counter> = "source_idle_reconnects";
    /// Entries in the spool, which wait until their queue accepts them.
    spooled: Count = "spool_entries";
    /// Size of the entries in the spool.
    spooled_bytes: Count = "spool_size" in Bytes;
    /// Messages that tasks sent.
    pub emitted: Counter = "messages_emitted";
    /// Reloads of the tasks.
    pub reloads: Counter = "reloads";
    /// Runs that ended, by task and outcome.
    runs: Family<ByOutcome, Counter> = "runs";
    /// Durations of runs.
    run_seconds: Family<ByKind, Histogram> = "run_duration" in Seconds
        by Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
    /// Runs of playbooks without a layer of the confinement, by layer.
    degraded: Family<ByLayer, Counter> = "playbook_degraded_runs";
    /// Processes that playbooks left behind and that were killed.
    killed: Counter = "playbook_processes_killed";
    /// Runs of playbooks that no warm Ansible process took, by reason.
    cold: Family<ByReason, Counter> = "playbook_cold_starts";
    /// Deliveries that the broker took back before they were settled.
    pub lost_claims: Counter = "claims_lost";
    /// Pauses in force, by kind of their target.
    pauses: Family<ByKind, Count> = "pauses";
    /// Entries of a queue, by state.
    queue: Family<ByState, Count> = "queue_entries";
    /// Age of the oldest waiting entry of a queue.
    oldest_seconds: Family<ByQueue, Gauge<f64, AtomicU64>> = "queue_oldest_entry_age" in Seconds;
}

/// The label of a source.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct BySource {
    pub source: &'static str,
}

/// The label of an endpoint, as it is in the configuration.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ByEndpoint {
    pub endpoint: String,
}

/// The label of the reason for a rejection.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ByReason {
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
    /// Makes all metrics. Rejections are zero for each known reason from the start.
    pub(crate) fn new() -> Self {
        let metrics = Self::register();
        for reason in loopabull_fedmsg::Rejection::REASONS.into_iter().chain(["bad-encoding"]) {
            drop(metrics.rejections.get_or_create(&ByReason { reason }));
        }
        metrics
    }

    /// Counts a run of a task. A task that is not loaded has no label of its own: its name came from
    /// the queue, into which others can publish any name.
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

    /// Sets whether a source is connected, and counts a connection that was lost.
    pub(crate) fn count_link(&self, endpoint: &str, link: &Link) {
        let label = ByEndpoint { endpoint: endpoint.to_owned() };
        self.connected.get_or_create(&label).set(u64::from(*link == Link::Connected));
        if *link != Link::Connected {
            self.disconnects.get_or_create(&label).inc();
        }
    }

    /// Sets how many entries and bytes are in the spool.
    pub(crate) fn set_spool(&self, (entries, bytes): (u64, u64)) {
        self.spooled.set(entries);
        self.spooled_bytes.set(bytes);
    }

    /// Returns all metrics as text, with the current queues and pauses.
    pub(crate) fn encode<'a>(
        &self,
        depths: &[(QueueName, Depth)],
        pauses: impl Iterator<Item = &'a Target>,
    ) -> String {
        for (name, depth) in depths {
            self.set_depth(name, depth);
        }
        let mut counts = [("task", 0), ("queue", 0), ("worker", 0)];
        for target in pauses {
            let kind = target.kind();
            counts.iter_mut().filter(|(k, _)| *k == kind).for_each(|(_, count)| *count += 1);
        }
        for (kind, count) in counts {
            self.pauses.get_or_create(&ByKind { kind }).set(count);
        }
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
        set("held", depth.held);
        set("dead", depth.dead);
        if let Some(claimed) = depth.claimed {
            set("claimed", claimed);
        }
        let oldest = depth.oldest.unwrap_or_default().as_secs_f64();
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
    use super::*;

    /// Returns the help lines, with a sample of each family.
    fn help() -> String {
        let metrics = Metrics::new();
        let text = || "x".to_owned();
        drop(metrics.envelopes.get_or_create(&BySource { source: "x" }));
        drop(metrics.entries.get_or_create(&ByTask { task: text() }));
        drop(metrics.dropped.get_or_create(&ByEndpoint { endpoint: text() }));
        drop(metrics.renewed.get_or_create(&ByEndpoint { endpoint: text() }));
        drop(metrics.runs.get_or_create(&ByOutcome { task: text(), outcome: "x" }));
        drop(metrics.run_seconds.get_or_create(&ByKind { kind: "x" }));
        drop(metrics.degraded.get_or_create(&ByLayer { layer: text() }));
        drop(metrics.cold.get_or_create(&ByReason { reason: text() }));
        metrics.count_link("x", &Link::Lost(text()));
        let text = metrics.encode(&[(QueueName::default(), Depth::default())], [].iter());
        let help: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        help.join("\n")
    }

    #[test]
    fn each_metric_has_a_help_text() {
        insta::assert_snapshot!(help(), @r"
        loopabull_envelopes_received Envelopes received from a source, before any check.
        loopabull_envelopes_rejected Envelopes that were rejected, by reason.
        loopabull_messages_accepted Messages that passed verification.
        loopabull_messages_unrouted Messages whose topic no task wants.
        loopabull_entries_published Entries stored in a work queue, directly or from the spool, one for each message and task.
        loopabull_entries_spooled Entries stored in the spool because their queue accepted nothing.
        loopabull_entries_quarantined Entries stored in the quarantine because their queue refuses them for good.
        loopabull_entries_lost Entries that were lost because there was no room for them.
        loopabull_envelopes_lost Deliveries that are not messages and were lost because the quarantine is full.
        loopabull_entries_deduplicated Entries that were not published because the task was given the same message before.
        loopabull_envelopes_dropped Envelopes that were dropped because they arrived faster than they were processed.
        loopabull_source_connected Whether a source is connected: 1 or 0.
        loopabull_source_disconnects Connections to a source that were lost.
        loopabull_source_idle_reconnects Connections to a source that were replaced because nothing was received for too long.
        loopabull_spool_entries Entries in the spool, which wait until their queue accepts them.
        loopabull_spool_size_bytes Size of the entries in the spool.
        loopabull_messages_emitted Messages that tasks sent.
        loopabull_reloads Reloads of the tasks.
        loopabull_runs Runs that ended, by task and outcome.
        loopabull_run_duration_seconds Durations of runs.
        loopabull_playbook_degraded_runs Runs of playbooks without a layer of the confinement, by layer.
        loopabull_playbook_processes_killed Processes that playbooks left behind and that were killed.
        loopabull_playbook_cold_starts Runs of playbooks that no warm Ansible process took, by reason.
        loopabull_claims_lost Deliveries that the broker took back before they were settled.
        loopabull_pauses Pauses in force, by kind of their target.
        loopabull_queue_entries Entries of a queue, by state.
        loopabull_queue_oldest_entry_age_seconds Age of the oldest waiting entry of a queue.
        ");
    }
}
