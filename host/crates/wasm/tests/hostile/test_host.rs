//! The fixture for hostile guests: a runner with one slot, guests that are built from a template, and a
//! comparison of the process's memory and file descriptors before and after the runs.
//!
//! Memory and file descriptors belong to the whole process, so only one [`TestHost`] can exist at a time.
//! Other tests wait until the [`TestHost`] is dropped. The tests check how a guest ended, never how long it
//! ran.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Attempt, Counted, Exceeded, Manifest, Message, Outcome, RunId};
use loopabull_wasm::{Call, Component, ComponentRunner, LoadError, ReadState};
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Runtime;

use crate::test_runner;

static PROCESS_LOCK: Mutex<()> = Mutex::new(());

/// Number of runs before the first measurement. These runs fill the caches of the allocator and the pool.
const WARM_UP: u32 = 5;
/// Number of bytes by which the process may grow over all rounds. The allocator keeps a varying amount of
/// memory, but it varies by less than this. Fifty rounds that leak one WebAssembly page each would leak more
/// than this.
const TOLERANCE: u64 = 3 << 20;

/// The limits of a guest's runs, and the number of runs.
#[derive(Clone, Copy)]
pub(crate) struct Trial {
    /// Number of hostile messages. Each one is followed by a harmless message.
    pub(crate) rounds: u32,
    pub(crate) timeout: Duration,
    pub(crate) memory: u64,
    pub(crate) output: u64,
}

impl Default for Trial {
    /// Returns limits for a guest that ends long before its deadline.
    fn default() -> Self {
        Self { rounds: 50, timeout: Duration::from_secs(60), memory: 1 << 20, output: 1000 }
    }
}

impl Trial {
    /// Returns limits for a guest that runs until its deadline.
    pub(crate) fn short_deadline() -> Self {
        Self { timeout: Duration::from_millis(10), ..Self::default() }
    }

    /// Returns limits for a guest that is slow, mostly because the host is a debug build.
    pub(crate) fn few(rounds: u32) -> Self {
        Self { rounds, ..Self::default() }
    }

    pub(crate) fn memory(self, memory: u64) -> Self {
        Self { memory, ..self }
    }
}

/// A guest that is hostile in its first attempt. The fields replace the placeholders in `guests/hostile.wat`.
#[derive(Clone, Copy)]
pub(crate) struct Guest<'a> {
    pub(crate) pages: &'a str,
    pub(crate) stores: &'a [Store],
    pub(crate) fields: &'a str,
    pub(crate) start: &'a str,
    pub(crate) realloc: &'a str,
    pub(crate) body: &'a str,
    pub(crate) post: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        let (start, realloc, body, post) = ("", "", "(return (i32.const 0))", "");
        Self { pages: "1", stores: &[], fields: "", start, realloc, body, post }
    }
}

impl<'a> Guest<'a> {
    pub(crate) fn of(body: &'a str) -> Self {
        Self { body, ..Self::default() }
    }

    pub(crate) fn storing(self, stores: &'a [Store]) -> Self {
        Self { stores, ..self }
    }

    pub(crate) fn with(self, fields: &'a str) -> Self {
        Self { fields, ..self }
    }

    pub(crate) fn to_wat(self) -> String {
        let each = |make: fn(&Store) -> String| self.stores.iter().map(make).collect::<String>();
        include_str!("../guests/hostile.wat")
            .replace("(then START)", &format!("(then {})", self.start))
            .replace("(then REALLOC)", &format!("(then {})", self.realloc))
            .replace("(then BODY)", &format!("(then {})", self.body))
            .replace("(then POST)", &format!("(then {})", self.post))
            .replace("(export \"memory\") PAGES", &format!("(export \"memory\") {}", self.pages))
            .replace("    FIELDS", &(each(Store::import) + self.fields))
            .replace("  STORES", &each(Store::module))
            .replace("$task WITH", &format!("$task {}", each(Store::with)))
    }
}

/// A memory or a table in addition to the guest's first memory. The engine allows one memory and one table
/// per module, so each additional memory or table is in a separate module.
pub(crate) struct Store {
    name: String,
    /// Limits, as in `(memory NAME limits)`.
    limits: String,
    kind: &'static str,
    /// Initial content of a memory.
    content: &'static str,
}

impl Store {
    pub(crate) fn memory(name: &str, limits: &str, content: &'static str) -> Self {
        Self { name: name.to_owned(), limits: limits.to_owned(), kind: "memory", content }
    }

    pub(crate) fn table(name: &str, limits: &str) -> Self {
        let limits = format!("{limits} funcref");
        Self { name: name.to_owned(), limits, kind: "table", content: "" }
    }

    fn module(&self) -> String {
        let Self { name, limits, kind, content } = self;
        let content = match content {
            &"" => String::new(),
            content => format!("(data (i32.const 0) \"{content}\")"),
        };
        format!(
            "(core module $module-{name} ({kind} (export \"it\") {limits}) {content})
             (core instance $store-{name} (instantiate $module-{name}))\n"
        )
    }

    fn with(&self) -> String {
        format!("(with \"{0}\" (instance $store-{0}))\n", self.name)
    }

    fn import(&self) -> String {
        let Self { name, limits, kind, .. } = self;
        format!("(import \"{name}\" \"it\" ({kind} ${name} {limits}))\n")
    }
}

/// A runner with one slot, and the exclusive use of the process.
pub(crate) struct TestHost {
    runner: ComponentRunner,
    message: Message,
    tokio: Runtime,
    state: ReadState,
    // The fields are dropped in order, and this one last. So the runner is gone before the next test begins.
    _lock: MutexGuard<'static, ()>,
}

impl TestHost {
    pub(crate) fn new() -> Self {
        Self::with_cache(None)
    }

    pub(crate) fn with_cache(cache: Option<&Path>) -> Self {
        let lock = PROCESS_LOCK.lock();
        let body = br#"{"msg_id":"m-1","msg":{"n":1}}"#;
        let envelope = Envelope::parse(&[b"a.b", body], 2).unwrap();
        let message = Verifier::Off.verify(envelope, 0).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let state: ReadState = Arc::new(|_| Box::pin(async { Ok(None) }));
        Self { runner: test_runner::runner(1, cache), message, tokio, state, _lock: lock }
    }

    pub(crate) fn try_load(&self, wat: &str) -> Result<Component, LoadError> {
        let manifest = "
            [grants]
            emit = ['a.#']
            state = '1MiB'
            [grants.secrets]
            token = { file = '/run/token' }";
        let secrets = [("token", "hunter22"), ("key", "-----BEGIN\nMIIEpAIBAAKCAQEA7\n--END")];
        let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let bytes = wat::parse_str(wat).unwrap();
        self.runner.load(&bytes, &Manifest::parse(manifest).unwrap(), BTreeMap::from(secrets))
    }

    pub(crate) fn load(&self, guest: Guest<'_>) -> Component {
        self.try_load(&guest.to_wat()).map_err(|error| error.to_string()).unwrap()
    }

    pub(crate) fn run(&self, component: &Component, trial: Trial, attempt: u32) -> Attempt {
        let Trial { timeout, memory, output, rounds: _ } = trial;
        let (message, run_id) = (&self.message, RunId::new("r-1"));
        let state = Arc::clone(&self.state);
        let call = Call { message, run_id, attempt, timeout, memory, output, state };
        self.tokio.block_on(self.runner.run(component, call))
    }

    /// Runs a hostile guest repeatedly and returns its last hostile attempt.
    ///
    /// Checks that every hostile run ends as expected, that the next message is handled each time, and that
    /// the process does not use more memory or file descriptors afterwards.
    pub(crate) fn check(&self, guest: Guest<'_>, trial: Trial, expected: &Outcome) -> Attempt {
        let component = self.load(guest);
        for _ in 0..WARM_UP.min(trial.rounds) {
            self.check_once(&component, trial, expected);
        }
        let before = Usage::now();
        let mut last = None;
        for _ in 0..trial.rounds {
            last = Some(self.check_once(&component, trial, expected));
        }
        let after = Usage::now();
        assert_eq!(before.descriptors, after.descriptors, "the runs left file descriptors open");
        let growth = after.memory.saturating_sub(before.memory);
        assert!(growth <= TOLERANCE, "{} rounds leaked {growth} bytes", trial.rounds);
        last.unwrap()
    }

    fn check_once(&self, component: &Component, trial: Trial, expected: &Outcome) -> Attempt {
        let hostile = self.run(component, trial, 1);
        assert_eq!(&hostile.outcome, expected);
        if expected != &Outcome::Success {
            assert!(hostile.effects.is_empty(), "{:?}", hostile.effects);
        }
        let long = Trial { timeout: Duration::from_secs(60), ..trial };
        let good = self.run(component, long, 2);
        assert_eq!(good.outcome, Outcome::Reject { reason: "m-1".into() });
        assert_eq!(good.output.text, "", "the run has output of another run");
        hostile
    }
}

/// The memory and the file descriptors that the process uses.
struct Usage {
    /// Resident memory, in bytes.
    memory: u64,
    descriptors: usize,
}

impl Usage {
    fn now() -> Self {
        // `/proc/self/status` has the memory in kilobytes. `/proc/self/statm` has only a number of pages,
        // without the size of a page.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
        Self { memory: kib << 10, descriptors }
    }
}

pub(crate) fn trap(reason: &str) -> Outcome {
    Outcome::Trap { reason: reason.into() }
}

pub(crate) fn deadline(trial: Trial) -> Outcome {
    Outcome::Limit { exceeded: Exceeded::Deadline { allowed: trial.timeout } }
}

pub(crate) fn memory(allowed: u64, wanted: u64) -> Outcome {
    Outcome::Limit { exceeded: Exceeded::Memory { allowed, wanted } }
}

pub(crate) fn count(what: Counted, allowed: u64, wanted: u64) -> Outcome {
    Outcome::Limit { exceeded: Exceeded::Count { what, allowed, wanted } }
}
