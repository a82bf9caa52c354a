//! The host's side of one run: the host functions that a component calls.
//!
//! The functions limit what a guest can make the host store. If a guest exceeds the limits for messages or
//! state, its run ends with [`LimitExceeded`]. So a run never succeeds with only a part of its messages or
//! state changes. Notes and output beyond their limits are dropped.

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
use crate::call::{Call, ReadState};
use crate::capabilities::Capabilities;
use crate::http::EgressHooks;
use crate::limiter::Limiter;
use crate::limits::{MAX_RANDOM_BYTES, MAX_RESOURCES};
use crate::streams::Streams;

/// The maximum number of notes of a run. Further notes are dropped.
const MAX_NOTES: usize = 32;
/// The maximum length of the key and of the value of a note, in characters. Longer texts are truncated.
const MAX_NOTE_CHARS: usize = 1000;

/// The state of one run.
pub(crate) struct Host {
    pub(crate) limiter: Limiter,
    pub(crate) output: Streams,
    pub(crate) notes: Vec<(String, String)>,
    /// Delay before the next attempt, if the guest asked for one.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) emitted: Vec<Emission>,
    pub(crate) state: StateChanges,
    pub(crate) host_calls: u64,
    capabilities: Arc<Capabilities>,
    run_id: RunId,
    attempt: u32,
    deadline: Instant,
    hops: u32,
    read_state: ReadState,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: EgressHooks,
    table: ResourceTable,
}

/// Error that ends a run because the guest exceeded a limit.
#[derive(Debug, thiserror::Error)]
#[error("the run exceeded a limit")]
pub(crate) struct LimitExceeded(pub(crate) Exceeded);

/// Error that ends a run because the host failed to answer a call of the guest.
#[derive(Debug, thiserror::Error)]
#[error("the host cannot answer a call of the guest: {0}")]
pub(crate) struct HostFailed(pub(crate) String);

impl Host {
    pub(crate) fn new(
        capabilities: &Arc<Capabilities>,
        call: &Call<'_>,
        deadline: Instant,
    ) -> wasmtime::Result<Self> {
        let output = Streams::new(call.output);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(output.clone()).stderr(output.as_error()).max_random_size(MAX_RANDOM_BYTES);
        capabilities.apply(&mut wasi)?;
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
            read_state: ReadState::clone(&call.state),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            hooks: EgressHooks(capabilities.egress.as_ref().map(Egress::begin_run)),
            table,
        })
    }
}

impl Host {
    /// Closes the files and connections that the guest has left open.
    pub(crate) fn close_files(&mut self) {
        self.table = ResourceTable::new();
    }

    /// Returns the HTTP exchanges of the run so far, one line each.
    pub(crate) fn requests(&self) -> Vec<String> {
        let EgressHooks(Some(egress)) = &self.hooks else { return Vec::new() };
        let mut lines: Vec<_> = egress.exchanges().iter().map(ToString::to_string).collect();
        let over_limit = egress.requests_over_limit();
        if over_limit > 0 {
            lines.push(format!("{over_limit} requests beyond the limit were denied"));
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
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
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
            // Secrets are masked first. After newlines are removed and the text is truncated, a secret might
            // no longer be found.
            let masked = |text: &str| printable(&self.capabilities.mask.text(text));
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

/// Returns a text without harmful characters, truncated to the maximum length of a note.
fn printable(text: &str) -> String {
    text.chars().filter(|&c| !is_harmful(c)).take(MAX_NOTE_CHARS).collect()
}
