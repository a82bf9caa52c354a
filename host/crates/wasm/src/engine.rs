//! The engine: wasmtime with the settings of the module `profile`. The engine compiles components, or loads
//! them from the cache, and links them to the host's functions. It runs no component; the module `run` does.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::error::Context;
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
use wasmtime_wasi::random::WasiRandom;

use crate::bindings::loopabull::task::types::{Failure, Message};
use crate::bindings::{Granted, GrantedPre};
use crate::cache::{self, Cache};
use crate::clock::Clock;
use crate::host::Host;
use crate::inspect::LoadError;
use crate::{native, profile};

/// The maximum time for compiling one component. The largest real components, which contain an interpreter
/// with its library, take a tenth of this time on a small idle machine. They take longer on a busy machine.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);

/// The interface whose function `handle` is called for each message.
const HANDLER: &str = "loopabull:task/handler@0.1.0";

/// The stack size of the compiling thread, in bytes. This size is enough for the deepest types that `inspect`
/// accepts.
const COMPILE_STACK: usize = 16 << 20;

/// The origin of a component's machine code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    Compiled,
    Cache,
}

/// The reason why the engine cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the WebAssembly engine: {reason}")]
pub struct EngineError {
    reason: String,
}

/// wasmtime with the settings for tasks, the clock, the linker and the cache.
pub(crate) struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) clock: Clock,
    linker: Linker<Host>,
    cache: Option<Cache>,
}

impl Engine {
    pub(crate) fn start(instances: u32, cache: &Path) -> Result<Self, EngineError> {
        let error = |error: wasmtime::Error| EngineError { reason: format!("{error:#}") };
        // The daemon works without a cache, but starts more slowly.
        let cache = match Cache::open(cache) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let error = wasmtime::Error::new(error);
                tracing::warn!("{error:#}; compiling all components at each start");
                None
            }
        };
        let engine = wasmtime::Engine::new(&profile::config(instances)).map_err(error)?;
        let linker = linker(&engine).map_err(error)?;
        let clock = Clock::start(&engine)
            .map_err(|source| EngineError { reason: format!("cannot start a thread: {source}") })?;
        Ok(Self { wasmtime: engine, clock, linker, cache })
    }

    /// Loads a component from the cache, or compiles it. `bytes` must have passed `inspect::check`.
    pub(crate) fn load(&self, bytes: &[u8]) -> Result<(GrantedPre<Host>, Source), LoadError> {
        let name = cache::name(bytes, &self.wasmtime);
        let (component, source) = match self.find(&name) {
            Some(component) => (component, Source::Cache),
            None => (self.compile(bytes, &name)?, Source::Compiled),
        };
        let pre = self
            .linker
            .instantiate_pre(&component)
            .and_then(|pre| check_handle(&pre).and_then(|()| GrantedPre::new(pre)))
            .map_err(|error| LoadError::World { reason: format!("{error:#}").into() })?;
        Ok((pre, source))
    }

    fn find(&self, name: &str) -> Option<Component> {
        let code = match self.cache.as_ref()?.find(name) {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!("{error}; ignoring the cached compiled component and recompiling");
                return None;
            }
        };
        native::load(&self.wasmtime, &code)
            .inspect_err(|error| {
                tracing::warn!(
                    "cannot load the cached compiled component `{name}`: {error:#}; recompiling"
                );
            })
            .ok()
    }

    fn compile(&self, bytes: &[u8], name: &str) -> Result<Component, LoadError> {
        let (sender, receiver) = mpsc::channel();
        let (engine, owned) = (self.wasmtime.clone(), bytes.to_vec());
        // A compilation cannot be cancelled. After a timeout the thread continues, and its result is dropped.
        std::thread::Builder::new()
            .name("compile".to_owned())
            .stack_size(COMPILE_STACK)
            .spawn(move || drop(sender.send(Component::from_binary(&engine, &owned))))
            .map_err(|error| LoadError::NotCompiled {
                reason: format!("cannot start a thread: {error}").into(),
            })?;
        let component = receiver
            .recv_timeout(COMPILE_TIMEOUT)
            .map_err(|_| LoadError::TooSlow { seconds: COMPILE_TIMEOUT.as_secs() })?
            .map_err(|error| LoadError::NotCompiled { reason: format!("{error:#}").into() })?;
        if let Some(cache) = &self.cache {
            let stored = component.serialize().map_err(|error| format!("{error:#}"));
            let stored =
                stored.and_then(|code| cache.store(name, &code).map_err(|e| e.to_string()));
            if let Err(error) = stored {
                tracing::warn!("cannot cache the compiled component: {error}");
            }
        }
        Ok(component)
    }
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    Granted::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)?;
    // This call links clocks, random numbers, standard streams, and their stream types.
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(&mut linker)?;
    // The standard library of a guest imports these interfaces when it starts. Without a grant they provide
    // no variables, no arguments, no terminals and no directories. `wasi:sockets` is never linked.
    let linked = &mut linker;
    cli::environment::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linked, Host::cli)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linked, Host::filesystem)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linked, Host::filesystem)?;
    random::insecure::add_to_linker::<_, WasiRandom>(linked, |host| host.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linked, |host| host.ctx().ctx.random())?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linked)?;
    Ok(linker)
}

/// Checks the type of the exported function when the component is loaded. The generated bindings would check
/// the type only when an instance is created, at the first message.
fn check_handle(pre: &InstancePre<Host>) -> wasmtime::Result<()> {
    let component = pre.component();
    let found = component
        .get_export_index(None, HANDLER)
        .and_then(|handler| component.get_export(Some(&handler), "handle"));
    match found {
        Some((ComponentItem::ComponentFunc(handle), _)) => handle
            .typecheck::<(&Message,), (Result<(), Failure>,)>(&pre.instance_type())
            .context("`handle` has the wrong type"),
        // If the export is missing, the bindings return an error.
        _ => Ok(()),
    }
}
