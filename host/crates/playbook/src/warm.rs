//! Warm start: processes that have Ansible imported, and fork for each run.
//!
//! Importing Ansible is most of what a small playbook costs. A controller (`controller.py`) is started
//! once, in the same confinement as the runs that it forks, and has one run at a time. It is for one
//! set of grants, environment and configuration; its folder is emptied between runs, and it kills what
//! a run leaves behind. Whatever is wrong with one, it is dropped and the run is a cold one: a
//! controller makes things faster and nothing else.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use loopabull_launcher::{Confinement, Environment, Layer, Report, send};
use loopabull_model::Capture;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::folder::{Folder, HOME};
use crate::installed::Python;
use crate::process::{End, Ended, GRACE, LAST_GRACE, LINGER, Watch, drain, launch};
use crate::results::Reader;
use crate::settings::Settings;

/// How long a controller may take to import Ansible.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a controller may take to take a run.
const PROMPT: Duration = Duration::from_secs(10);
/// How many runs one controller has if nobody says, so that what a library may leak stays small.
const MOST_RUNS: u32 = 200;
/// How long a controller waits for another run before it is ended, and how long a task counts as one
/// that is run often, if nobody says.
const IDLE: Duration = Duration::from_mins(10);
/// How long no other is started after one could not be.
const REST: Duration = Duration::from_mins(1);
/// The longest line that a controller may say, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// How often single runs are remembered, for tasks that are run often.
const MOST_SEEN: usize = 1000;
/// The descriptor of a controller's commands; in a run it is that of its results.
const CONTROL: u32 = 3;

/// Why a run is not a warm one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cold {
    /// The manifest or the configuration asks for it.
    Asked,
    /// Nothing like it was run lately: a controller would not pay.
    First,
    /// No controller could be started here.
    NoController,
    /// The controller did not take it.
    Refused,
}

/// What a controller is for.
pub(crate) struct Job {
    /// What tells one set of grants and environment from another.
    pub(crate) key: String,
    pub(crate) confinement: Confinement,
    pub(crate) environment: Environment,
    /// Python, and our program for it.
    pub(crate) python: Python,
    pub(crate) program: PathBuf,
}

/// The controllers that wait for a run.
#[derive(Debug)]
pub(crate) struct Controllers {
    idle: Mutex<Vec<Controller>>,
    seen: Mutex<HashMap<String, Instant>>,
    numbers: AtomicU32,
    /// How many may wait.
    most: AtomicUsize,
    most_runs: u32,
    idle_time: Duration,
    rests_until: Mutex<Option<Instant>>,
}

/// A process that has Ansible imported.
#[derive(Debug)]
pub(crate) struct Controller {
    key: String,
    child: Child,
    /// The launcher's end of its socket: dropped, it ends everything.
    reports: BufReader<UnixStream>,
    layers: Vec<Report>,
    commands: StdStream,
    said: BufReader<UnixStream>,
    line: Vec<u8>,
    folder: Folder,
    /// What it has imported, and how that was when it did.
    watched: Vec<(PathBuf, Option<Seen>)>,
    /// What is in its room, and what that was when the room was made: another that has taken its place is
    /// not there.
    granted: Vec<(PathBuf, Option<Identity>)>,
    runs: u32,
    idle_since: Instant,
}

type Seen = (u64, u64, i64, i64);

/// The device and the number of a file.
type Identity = (u64, u64);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Ready {
        guard: String,
        watch: Vec<PathBuf>,
    },
    Ended {
        exit: Option<i32>,
        signal: Option<i32>,
        killed: usize,
        /// What it has changed that the next run would find.
        spent: String,
    },
    Taken {},
}

impl Cold {
    /// Returns the word for a label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::First => "first",
            Self::NoController => "no-controller",
            Self::Refused => "refused",
        }
    }
}

impl Controllers {
    /// Makes an empty pool.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            most_runs: settings.controller_runs.unwrap_or(MOST_RUNS),
            idle_time: settings.controller_idle.unwrap_or(IDLE),
            idle: Mutex::default(),
            seen: Mutex::default(),
            numbers: AtomicU32::new(1),
            most: AtomicUsize::new(settings.slots),
            rests_until: Mutex::default(),
        }
    }

    /// Notes that a controller could not be started.
    pub(crate) fn rest(&self) {
        *lock(&self.rests_until) = Some(Instant::now() + REST);
    }

    /// Tells whether none is to be started, for now or any more.
    pub(crate) fn rests(&self) -> bool {
        let is_closed = self.most.load(Ordering::Relaxed) == 0;
        is_closed || lock(&self.rests_until).is_some_and(|until| Instant::now() < until)
    }

    /// Ends all that wait; no other waits from now on.
    pub(crate) async fn close(&self) {
        self.most.store(0, Ordering::Relaxed);
        let all = std::mem::take(&mut *lock(&self.idle));
        for controller in all {
            controller.end().await;
        }
    }

    /// Returns a name for the folder of another controller.
    pub(crate) fn name(&self) -> String {
        format!("warm-{}", self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a controller that waits and is what `ansible-playbook` would be.
    pub(crate) async fn take(&self, key: &str) -> Option<Controller> {
        self.expire().await;
        let mut idle = lock(&self.idle);
        let place = idle.iter().rposition(|controller| controller.key == key)?;
        Some(idle.swap_remove(place))
    }

    /// Notes that something is run. Tells whether it was lately, so that a controller pays.
    pub(crate) fn is_often(&self, key: &str) -> bool {
        let mut seen = lock(&self.seen);
        if seen.len() > MOST_SEEN {
            seen.retain(|_, last| last.elapsed() < self.idle_time);
        }
        let last = seen.insert(key.to_owned(), Instant::now());
        last.is_some_and(|last| last.elapsed() < self.idle_time)
    }

    /// Lets a controller wait for another run, if it has not had all.
    pub(crate) async fn put(&self, mut controller: Controller) {
        if controller.runs >= self.most_runs {
            return controller.end().await;
        }
        controller.idle_since = Instant::now();
        let too_many = {
            let mut idle = lock(&self.idle);
            idle.push(controller);
            let oldest = idle.iter().enumerate().min_by_key(|(_, one)| one.idle_since);
            let oldest = oldest
                .map(|(place, _)| place)
                .filter(|_| idle.len() > self.most.load(Ordering::Relaxed));
            oldest.map(|place| idle.swap_remove(place))
        };
        if let Some(controller) = too_many {
            controller.end().await;
        }
    }

    /// Ends the controllers that have waited long or are of an older Ansible.
    pub(crate) async fn expire(&self) {
        let is_bad = |one: &mut Controller| {
            !matches!(one.child.try_wait(), Ok(None))
                || one.idle_since.elapsed() >= self.idle_time
                || one.watched.iter().any(|(path, state)| *state != look(path))
                || one.granted.iter().any(|(path, identity)| *identity != identify(path))
        };
        let gone: Vec<_> = lock(&self.idle).extract_if(.., is_bad).collect();
        for controller in gone {
            controller.end().await;
        }
    }
}

impl Controller {
    /// Starts a controller and waits until it is ready.
    pub(crate) async fn start(launcher: &Path, job: Job, folder: Folder) -> anyhow::Result<Self> {
        let Job { key, mut confinement, mut environment, python, program } = job;
        confinement.program = python.path;
        confinement.arguments = python.option.into_iter().map(OsString::from).collect();
        confinement.arguments.push(program.into());
        confinement.descriptors = vec![CONTROL];
        // In it the controller can tell what a run has left from all else.
        confinement.required.insert(Layer::Namespaces);
        environment.remove("LOOPABULL_RESULTS_FD");
        environment.insert("LOOPABULL_CONTROL_FD".to_owned(), CONTROL.to_string().into());
        environment.insert("LOOPABULL_PRIVATE_PIDS".to_owned(), "1".into());
        confinement.environment = environment.keys().cloned().collect();
        let granted = confinement.files.all().map(|path| (path.to_owned(), identify(path)));
        let granted = granted.collect();
        let (commands, theirs) = StdStream::pair()?;
        let (child, reports) =
            launch(launcher, &confinement, &environment, &[theirs.as_fd()], Stdio::inherit)?;
        drop(theirs);
        commands.set_nonblocking(true)?;
        let said = UnixStream::from_std(commands.try_clone()?)?;
        let mut controller = Self {
            key,
            child,
            reports: BufReader::new(reports),
            layers: Vec::new(),
            commands,
            said: BufReader::new(said),
            line: Vec::new(),
            folder,
            watched: Vec::new(),
            granted,
            runs: 0,
            idle_since: Instant::now(),
        };
        let ready = tokio::time::timeout(PATIENCE, controller.become_ready()).await;
        ready.context("it is not ready in time")??;
        Ok(controller)
    }

    async fn become_ready(&mut self) -> anyhow::Result<()> {
        let Said::Ready { guard, watch } = self.hear().await? else {
            bail!("it is not ready");
        };
        if guard != "landlock" {
            bail!("a run could end it, which needs Linux 6.12 to be ruled out");
        }
        let watched = |path: PathBuf| (path.clone(), look(&path));
        self.watched = watch.into_iter().map(watched).collect();
        self.layers = self.hear_layers().await?;
        Ok(())
    }

    /// Returns where the files of a run have to be.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Ends it, and removes its folder.
    pub(crate) async fn end(self) {
        let Self { mut child, reports, commands, folder, .. } = self;
        // The end of the control socket has the launcher kill all that there is.
        drop((reports, commands));
        if tokio::time::timeout(LAST_GRACE, child.wait()).await.is_err() {
            drop(child.kill().await);
        }
        folder.remove().await;
    }

    /// Runs Ansible with these arguments. `None` says that it cannot here, and nothing was run. Tells
    /// too whether the controller is as good as before.
    pub(crate) async fn run(
        &mut self,
        arguments: &[OsString],
        limits: Watch<'_>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<(Option<End>, bool)> {
        self.runs += 1;
        let (stdout, theirs_out) = pipe()?;
        let (stderr, theirs_err) = pipe()?;
        let (mut results, theirs_results) = pipe()?;
        let words = arguments.iter().map(|word| word.to_str());
        let words: Vec<&str> = words.collect::<Option<_>>().context("a path is not UTF-8")?;
        let directory = self.folder.path().join(HOME);
        let directory = directory.to_str().context("a path is not UTF-8")?;
        let run = serde_json::json!({
            "run": { "arguments": words, "directory": directory },
        });
        let handed = [theirs_out.as_fd(), theirs_err.as_fd(), theirs_results.as_fd()];
        if let Err(error) = send(&self.commands, format!("{run}\n").as_bytes(), &handed) {
            tracing::debug!("a warm Ansible does not take a run: {error}");
            return Ok((None, false));
        }
        drop((theirs_out, theirs_err, theirs_results));
        let taken = tokio::select! {
            taken = tokio::time::timeout(PROMPT.min(limits.timeout), self.hear()) => taken,
            () = cancel.cancelled() => return Ok((None, false)),
        };
        match taken {
            // It forks when it hears this, and not before.
            Ok(Ok(Said::Taken { .. })) => send(&self.commands, b"{\"go\": true}\n", &[])?,
            // It has gone, or hangs. Whoever has it must end it before anything else is run.
            Ok(answer) => {
                tracing::debug!("a warm Ansible does not take a run: {answer:?}");
                return Ok((None, false));
            }
            Err(_) => {
                tracing::warn!("a warm Ansible does not answer and is ended");
                return Ok((None, false));
            }
        }
        let capture = Mutex::new(Capture::new(limits.output));
        let mut reader = Reader::new(limits.mask);
        let (ended, how) = {
            let read = async {
                tokio::join!(
                    drain(Some(stdout), &capture),
                    drain(Some(stderr), &capture),
                    reader.read(Some(&mut results)),
                );
            };
            let end = self.wait(limits.timeout, cancel);
            tokio::pin!(read, end);
            let ended = tokio::select! {
                ended = &mut end => {
                    drop(tokio::time::timeout(LINGER, read).await);
                    ended
                }
                () = &mut read => end.await,
            };
            ended?
        };
        let (exit, signal, killed, spent) = match how {
            Said::Ended { exit, signal, killed, spent } => (exit, signal, killed, spent),
            Said::Ready { .. } | Said::Taken { .. } => bail!("it says the same once more"),
        };
        if !spent.is_empty() {
            tracing::debug!("a warm Ansible is ended: its run has changed {spent}");
        }
        let mut reports = self.layers.clone();
        reports.push(Report::Killed { count: killed });
        reports.extend(exit.map(|status| Report::Exited { status }));
        reports.extend(signal.map(|signal| Report::Signalled { signal }));
        let output = capture.into_inner().unwrap_or_else(PoisonError::into_inner).to_output();
        let is_good = spent.is_empty() && self.folder.empty().await;
        Ok((Some(End { ended, reports, results: reader.into_results(), output }), is_good))
    }

    /// Waits for the end of a run, which it brings about if it does not come in time.
    async fn wait(
        &mut self,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> anyhow::Result<(Ended, Said)> {
        let why = tokio::select! {
            said = self.hear() => return Ok((Ended::ByItself, said?)),
            () = tokio::time::sleep(timeout) => Ended::AtDeadline,
            () = cancel.cancelled() => Ended::Cancelled,
        };
        for (command, patience) in [("stop", GRACE), ("kill", LAST_GRACE)] {
            send(&self.commands, format!("{{\"{command}\": true}}\n").as_bytes(), &[])?;
            if let Ok(said) = tokio::time::timeout(patience, self.hear()).await {
                return Ok((why, said?));
            }
        }
        // It is wedged. With it goes all that it has started.
        drop(self.child.start_kill());
        let spent = "everything: it had to be killed".to_owned();
        let gone = Said::Ended { exit: None, signal: Some(9), killed: 0, spent };
        Ok((why, gone))
    }

    async fn hear(&mut self) -> anyhow::Result<Said> {
        // What was read of a line stays there if this is dropped.
        (&mut self.said).take(MAX_LINE).read_until(b'\n', &mut self.line).await?;
        let line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\n") {
            bail!("the warm Ansible has ended");
        }
        let text = String::from_utf8_lossy(&line);
        serde_json::from_str(&text).with_context(|| format!("it said `{}`", text.escape_debug()))
    }

    /// Reads what the launcher reported of the layers, before the controller was ready.
    async fn hear_layers(&mut self) -> anyhow::Result<Vec<Report>> {
        let mut layers = Vec::new();
        while layers.len() < Layer::ALL.len() {
            let mut line = String::new();
            (&mut self.reports).take(MAX_LINE).read_line(&mut line).await?;
            let report = line.trim_end().parse();
            layers.push(report.map_err(|()| anyhow::anyhow!("no report of its layers"))?);
        }
        Ok(layers)
    }
}

fn pipe() -> anyhow::Result<(Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Receiver::from_owned_fd(read)?, write))
}

fn look(path: &Path) -> Option<Seen> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

fn identify(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
