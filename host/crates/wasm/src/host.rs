//! The host's side of one run: what the imports of a task answer.
//!
//! Every number that a guest can choose is capped where it comes in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_model::{RunId, is_harmful};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::Call;
use crate::bindings::loopabull::task::{config, context, log, types};
use crate::limiter::Limiter;
use crate::streams::Streams;

/// How many notes are kept with a run.
const MAX_NOTES: usize = 32;
/// The longest key or value of a note, in characters.
const MAX_NOTE_CHARS: usize = 1000;
/// How many WASI resources a guest may hold at once.
const MAX_RESOURCES: usize = 1000;
/// How many random bytes a guest may ask for at once.
const MAX_RANDOM: u64 = 64 << 10;

/// The state of one run.
pub(crate) struct Host {
    pub(crate) limiter: Limiter,
    pub(crate) output: Streams,
    pub(crate) notes: Vec<(String, String)>,
    /// The pause that the guest asked for.
    pub(crate) retry_after: Option<Duration>,
    run_id: RunId,
    attempt: u32,
    deadline: Instant,
    config: Arc<BTreeMap<String, String>>,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Host {
    pub(crate) fn new(call: &Call<'_>, deadline: Instant) -> Self {
        let output = Streams::new(call.output);
        let mut wasi = WasiCtx::builder();
        wasi.stdout(output.clone()).stderr(output.clone()).max_random_size(MAX_RANDOM);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            limiter: Limiter::new(call.memory),
            output,
            notes: Vec::new(),
            retry_after: None,
            run_id: call.run_id.clone(),
            attempt: call.attempt,
            deadline,
            config: Arc::clone(&call.config),
            wasi: wasi.build(),
            table,
        }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
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
            self.notes.push((plain(&key), plain(&value)));
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
        self.config.get(&key).cloned()
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|&c| !is_harmful(c)).take(MAX_NOTE_CHARS).collect()
}
