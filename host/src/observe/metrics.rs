//! The metrics: one struct of all of them, in the Prometheus text form.
//!
//! Labels are closed sets or names that an operator gave: never a topic, an id or a word that a
//! message contains.

use std::sync::atomic::AtomicU64;

use loopabull_model::{QueueName, Run};
use loopabull_queue::Depth;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::observe::status::Link;
use crate::work::pauses::Target;

/// All metrics of the daemon.
pub(crate) struct Metrics {
    registry: Registry,
    /// What came from a source, before anything was looked at.
    pub envelopes: Family<Source, Counter>,
    /// What was not taken, by reason.
    pub rejections: Family<Rejected, Counter>,
    /// Messages that passed verification.
    pub messages: Counter,
    /// Messages that no task wanted.
    pub unrouted: Counter,
    /// Entries stored in a work queue, directly or from the spool.
    pub entries: Family<ByTask, Counter>,
    /// Entries stored in the spool because their queue accepted nothing.
    pub spooled_entries: Counter,
    /// Entries stored in the quarantine because their queue refuses them for good.
    pub quarantined: Counter,
    /// Entries that were lost because there was no room for them.
    pub lost: Counter,
    /// Deliveries that are not messages and were lost because the quarantine is full.
    pub lost_envelopes: Counter,
    /// Messages that a task was given before.
    pub duplicates: Counter,
    /// Messages that came faster than they could be taken.
    pub dropped: Family<OfEndpoint, Counter>,
    /// Connections that were made anew because nothing came.
    pub renewed: Family<OfEndpoint, Counter>,
    connected: Family<OfEndpoint, Gauge<u64, AtomicU64>>,
    disconnects: Family<OfEndpoint, Counter>,
    spooled: Gauge<u64, AtomicU64>,
    spooled_bytes: Gauge<u64, AtomicU64>,
    /// Messages that tasks sent.
    pub emitted: Counter,
    /// How often the tasks were loaded anew.
    pub reloads: Counter,
    runs: Family<Ran, Counter>,
    run_seconds: Family<ByKind, Histogram>,
    /// Runs of playbooks that lacked a layer of the confinement.
    degraded: Family<OfLayer, Counter>,
    /// Processes that playbooks left behind, which were killed.
    killed: Counter,
    /// Runs of playbooks that no warm Ansible had, by the reason.
    cold: Family<Why, Counter>,
    queue: Family<State, Gauge<u64, AtomicU64>>,
    oldest_seconds: Family<OfQueue, Gauge<f64, AtomicU64>>,
    /// Deliveries that a broker had given to somebody else before they were settled.
    pub lost_claims: Counter,
    paused: Family<OfKind, Gauge<u64, AtomicU64>>,
}

/// Label: which source.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct Source {
    pub source: &'static str,
}

/// Label: where a message came from, as the configuration has it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct OfEndpoint {
    pub endpoint: String,
}

/// Label: why an envelope was rejected.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct Rejected {
    pub reason: &'static str,
}

/// Label: which task.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct ByTask {
    pub task: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Ran {
    task: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Why {
    reason: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfLayer {
    layer: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct State {
    queue: String,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfQueue {
    queue: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfKind {
    kind: &'static str,
}

impl Metrics {
    /// Makes all metrics; those with a closed set of labels stand at zero from the start.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("loopabull");
        let metrics = Self {
            envelopes: Family::default(),
            rejections: Family::default(),
            messages: Counter::default(),
            unrouted: Counter::default(),
            entries: Family::default(),
            spooled_entries: Counter::default(),
            quarantined: Counter::default(),
            lost: Counter::default(),
            lost_envelopes: Counter::default(),
            duplicates: Counter::default(),
            dropped: Family::default(),
            renewed: Family::default(),
            connected: Family::default(),
            disconnects: Family::default(),
            spooled: Gauge::default(),
            spooled_bytes: Gauge::default(),
            emitted: Counter::default(),
            reloads: Counter::default(),
            runs: Family::default(),
            // From a millisecond, a component, to a quarter of an hour, a long playbook.
            run_seconds: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 900.0])
            }),
            degraded: Family::default(),
            killed: Counter::default(),
            cold: Family::default(),
            queue: Family::default(),
            oldest_seconds: Family::default(),
            lost_claims: Counter::default(),
            paused: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "envelopes_received",
            "What came from a source",
            metrics.envelopes.clone(),
        );
        registry.register("envelopes_rejected", "What was not taken", metrics.rejections.clone());
        registry.register(
            "messages_accepted",
            "Messages that passed verification",
            metrics.messages.clone(),
        );
        registry.register(
            "messages_unrouted",
            "Messages that no task wanted",
            metrics.unrouted.clone(),
        );
        registry.register(
            "entries_published",
            "Entries stored in a work queue, directly or from the spool",
            metrics.entries.clone(),
        );
        let help = "Entries stored in the spool because their queue accepted nothing";
        registry.register("entries_spooled", help, metrics.spooled_entries.clone());
        let help = "Entries stored in the quarantine because their queue refuses them for good";
        registry.register("entries_quarantined", help, metrics.quarantined.clone());
        let help = "Entries that were lost because there was no room for them";
        registry.register("entries_lost", help, metrics.lost.clone());
        let help = "Deliveries that are not messages and were lost because the quarantine is full";
        registry.register("envelopes_lost", help, metrics.lost_envelopes.clone());
        let help = "Messages that a task was given before";
        registry.register("entries_duplicate", help, metrics.duplicates.clone());
        let help = "Messages that came faster than they could be taken";
        registry.register("envelopes_dropped", help, metrics.dropped.clone());
        let help = "Whether the connection to a source stands";
        registry.register("source_connected", help, metrics.connected.clone());
        let help = "Connections to a source that were lost";
        registry.register("source_disconnects", help, metrics.disconnects.clone());
        let help = "Connections that were made anew because nothing came";
        registry.register("source_renewals", help, metrics.renewed.clone());
        let help = "Entries that wait until the queue takes them";
        registry.register("spool_entries", help, metrics.spooled.clone());
        registry.register_with_unit("spool_size", help, Unit::Bytes, metrics.spooled_bytes.clone());
        registry.register("messages_emitted", "Messages that tasks sent", metrics.emitted.clone());
        registry.register("reloads", "Tasks loaded anew", metrics.reloads.clone());
        registry.register("runs", "Attempts that ended", metrics.runs.clone());
        registry.register_with_unit(
            "run_duration",
            "How long attempts took",
            Unit::Seconds,
            metrics.run_seconds.clone(),
        );
        let help = "Runs of playbooks that lacked a layer of the confinement";
        registry.register("playbook_degraded_runs", help, metrics.degraded.clone());
        let help = "Processes that playbooks left behind, which were killed";
        registry.register("playbook_killed_processes", help, metrics.killed.clone());
        let help = "Runs of playbooks that no warm Ansible had";
        registry.register("playbook_cold_starts", help, metrics.cold.clone());
        let help = "Deliveries that a broker gave to somebody else before they were settled";
        registry.register("claims_lost", help, metrics.lost_claims.clone());
        registry.register("paused", "What rests, by hand or by itself", metrics.paused.clone());
        registry.register("queue_entries", "Entries in the queue", metrics.queue.clone());
        registry.register_with_unit(
            "queue_oldest",
            "Age of the oldest waiting entry",
            Unit::Seconds,
            metrics.oldest_seconds.clone(),
        );
        for reason in loopabull_fedmsg::Rejection::REASONS.into_iter().chain(["bad-encoding"]) {
            drop(metrics.rejections.get_or_create(&Rejected { reason }));
        }
        Self { registry, ..metrics }
    }

    /// Counts a run. A task that is not loaded has no label of its own: its name came from the
    /// queue, where others can put what they like.
    pub(crate) fn count_run(&self, run: &Run, is_loaded: bool) {
        let task = if is_loaded { run.task.to_string() } else { "(not loaded)".to_owned() };
        let labels = Ran { task, outcome: run.outcome.name() };
        self.runs.get_or_create(&labels).inc();
        let kind = ByKind { kind: run.kind.as_str() };
        self.run_seconds.get_or_create(&kind).observe(run.duration.as_secs_f64());
        let Some(playbook) = &run.playbook else { return };
        self.killed.inc_by(playbook.killed);
        if let Some(reason) = &playbook.cold {
            self.cold.get_or_create(&Why { reason: reason.clone() }).inc();
        }
        for layer in playbook.degraded() {
            self.degraded.get_or_create(&OfLayer { layer: layer.layer.clone() }).inc();
        }
    }

    /// Notes what became of the connection to a source.
    pub(crate) fn count_link(&self, endpoint: &str, link: &Link) {
        let label = OfEndpoint { endpoint: endpoint.to_owned() };
        self.connected.get_or_create(&label).set(u64::from(*link == Link::Connected));
        if *link != Link::Connected {
            self.disconnects.get_or_create(&label).inc();
        }
    }

    /// Notes how many entries and bytes the spool has.
    pub(crate) fn set_spool(&self, (entries, bytes): (u64, u64)) {
        self.spooled.set(entries);
        self.spooled_bytes.set(bytes);
    }

    /// Returns all metrics as text, with the queues and pauses as they are now.
    pub(crate) fn encode<'a>(
        &self,
        depths: &[(QueueName, Depth)],
        pauses: impl Iterator<Item = &'a Target>,
    ) -> String {
        for (name, depth) in depths {
            let queue = name.to_string();
            let set = |state, count| {
                self.queue.get_or_create(&State { queue: queue.clone(), state }).set(count)
            };
            set("waiting", depth.waiting);
            set("later", depth.later);
            set("held", depth.held);
            set("dead", depth.dead);
            if let Some(claimed) = depth.claimed {
                set("claimed", claimed);
            }
            let oldest = depth.oldest.unwrap_or_default().as_secs_f64();
            self.oldest_seconds.get_or_create(&OfQueue { queue: queue.clone() }).set(oldest);
        }
        let mut counts = [("task", 0), ("queue", 0), ("worker", 0)];
        for target in pauses {
            let kind = target.kind();
            counts.iter_mut().filter(|(k, _)| *k == kind).for_each(|(_, count)| *count += 1);
        }
        for (kind, count) in counts {
            self.paused.get_or_create(&OfKind { kind }).set(count);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
