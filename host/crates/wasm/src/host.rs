//! The host's side of one run: what the imports of a task answer.
//!
//! Every number that a guest can choose is capped where it comes in. What goes beyond what the guest
//! may have ends the run by a [`LimitReached`], so that no run succeeds with half of what it wanted.

mod emit;
mod state;

use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_egress::Egress;
use loopabull_model::{Emission, Exceeded, RunId, StateChanges, is_harmful};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings::loopabull::task::{config, context, log, secrets, types};
use crate::capabilities::Capabilities;
use crate::http::Gate;
use crate::limiter::Limiter;
use crate::streams::Streams;
use crate::{Call, ReadState};

/// How many notes are kept with a run.
const MAX_NOTES: usize = 32;
/// The longest key or value of a note, in characters.
const MAX_NOTE_CHARS: usize = 1000;
/// How many WASI resources a guest may hold at once.
pub(crate) const MAX_RESOURCES: usize = 1000;
/// How many random bytes a guest may ask for at once.
pub(crate) const MAX_RANDOM: u64 = 64 << 10;

/// The state of one run.
pub(crate) struct Host {
    pub(crate) limiter: Limiter,
    pub(crate) output: Streams,
    pub(crate) notes: Vec<(String, String)>,
    /// The pause that the guest asked for.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) emitted: Vec<Emission>,
    pub(crate) state: StateChanges,
    pub(crate) host_calls: u64,
    capabilities: Arc<Capabilities>,
    run_id: RunId,
    attempt: u32,
    deadline: Instant,
    hops: u32,
    read_state: Option<ReadState>,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    gate: Gate,
    table: ResourceTable,
}

/// Ends a run that went beyond what it may have.
#[derive(Debug, thiserror::Error)]
#[error("the run went beyond what it may have")]
pub(crate) struct LimitReached(pub(crate) Exceeded);

/// Ends a run that asked for what the host could not do.
#[derive(Debug, thiserror::Error)]
#[error("the host could not do what the run asked for: {0}")]
pub(crate) struct HostFailed(pub(crate) String);

impl Host {
    pub(crate) fn new(
        capabilities: &Arc<Capabilities>,
        call: &Call<'_>,
        deadline: Instant,
    ) -> wasmtime::Result<Self> {
        let output = Streams::new(call.output);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(output.clone()).stderr(output.as_error()).max_random_size(MAX_RANDOM);
        capabilities.furnish(&mut wasi)?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Ok(Self {
            limiter: Limiter::new(call.memory),
            output,
            notes: Vec::new(),
            retry_after: None,
            emitted: Vec::new(),
            state: StateChanges { allowed: capabilities.state, ..StateChanges::default() },
            host_calls: 0,
            capabilities: Arc::clone(capabilities),
            run_id: call.run_id.clone(),
            attempt: call.attempt,
            deadline,
            hops: Emission::hops(call.message),
            read_state: call.state.clone(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            gate: Gate(capabilities.egress.as_ref().map(Egress::begin_run)),
            table,
        })
    }
}

impl Host {
    /// Returns the HTTP exchanges so far, a line each.
    pub(crate) fn requests(&self) -> Vec<String> {
        let Gate(Some(egress)) = &self.gate else { return Vec::new() };
        let mut lines: Vec<_> = egress.exchanges().iter().map(ToString::to_string).collect();
        let beyond = egress.requests_beyond_limit();
        if beyond > 0 {
            lines.push(format!("{beyond} more were not sent"));
        }
        lines
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.gate, table: &mut self.table, ctx: &mut self.http }
    }
}

impl types::Host for Host {}

impl context::Host for Host {
    fn run_id(&mut self) -> String {
        self.run_id.to_string()
    }

    fn attempt(&mut self) -> u32 {
        self.attempt
    }

    fn deadline_ms(&mut self) -> u64 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    fn retry_after_ms(&mut self, ms: u64) {
        self.retry_after = Some(Duration::from_millis(ms));
    }

    fn note(&mut self, key: String, value: String) {
        if self.notes.len() < MAX_NOTES {
            // Before it is cut and loses its newlines: a secret is found only whole.
            let masked = |text: &str| plain(&self.capabilities.mask.text(text));
            self.notes.push((masked(&key), masked(&value)));
        }
    }
}

impl log::Host for Host {
    fn write(&mut self, level: log::Level, text: String, fields: Vec<(String, String)>) {
        let level = match level {
            log::Level::Trace => "trace",
            log::Level::Debug => "debug",
            log::Level::Info => "info",
            log::Level::Warn => "warn",
            log::Level::Error => "error",
        };
        self.output.push(format!("{level}: {text}").as_bytes());
        for (key, value) in fields {
            self.output.push(format!(" {key}={value}").as_bytes());
        }
        self.output.push(b"\n");
    }
}

impl config::Host for Host {
    fn get(&mut self, key: String) -> Option<String> {
        self.capabilities.config.get(&key).cloned()
    }
}

impl secrets::Host for Host {
    fn get(&mut self, name: String) -> Option<String> {
        self.capabilities.secrets.get(&name).cloned()
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|&c| !is_harmful(c)).take(MAX_NOTE_CHARS).collect()
}
