//! Fresh calls of a component, one after the other, without a queue and a journal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use loopabull_egress::{EgressLimits, TlsRoots};
use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Manifest, RunId};
use loopabull_wasm::{Call, ComponentRunner, EgressSetup, Setup};

use crate::body::body;

/// Calls `greet` and returns the seconds.
pub(crate) fn call(tasks: &Path, messages: u32) -> Result<f64> {
    let egress = EgressSetup { limits: EgressLimits::default(), tls_roots: TlsRoots::load(None)? };
    let cache = tempfile::tempdir()?;
    let setup = Setup { instances: 1, cache: cache.path().to_owned(), egress };
    let runner = ComponentRunner::new(&setup)?;
    let read = |name: &str| {
        let path = tasks.join(name);
        std::fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let manifest = Manifest::parse(&String::from_utf8(read("greet.toml")?)?)?;
    let component = runner.load(&read("greet.wasm")?, &manifest, BTreeMap::new());
    let component = component.map_err(|error| anyhow!("{error}"))?;
    let envelope = format!(r#"{{"msg_id":"2026-1","msg":{}}}"#, body());
    let topic = b"org.example.prod.greeting.new";
    let envelope = Envelope::parse(&[topic, envelope.as_bytes()], 2)?;
    let message = Verifier::Off.verify(envelope, 0)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..messages {
            let call = Call {
                message: &message,
                run_id: RunId::new("run"),
                attempt: 1,
                timeout: Duration::from_secs(30),
                memory: 64 << 20,
                output: 1 << 20,
                state: Arc::new(|_| Box::pin(async { Ok(None) })),
            };
            let attempt = runner.run(&component, call).await;
            ensure!(attempt.outcome.is_success(), "the task ended with {}", attempt.outcome);
        }
        Ok(start.elapsed().as_secs_f64())
    })
}
