//! Starts `ansible-playbook` through the launcher, watches it and collects its output.
//!
//! The one place where processes are started. A playbook is opened beneath the playbooks directory
//! by the name that our own listing gave it; the message is in a file of the run's own directory,
//! and no part of it stands on the command line or in the environment. What Ansible prints is kept
//! for people and never read by us.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use loopabull_launcher::{Confinement, Limits, exit};
use loopabull_model::{Attempt, Capture, Exceeded, Message, Outcome, RunId, TaskName};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::variables::{self, RunFacts};

/// How long a playbook may go on after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long we read on after the playbook ended, if something it left behind holds its output open.
const LINGER: Duration = Duration::from_secs(1);

/// Starts playbooks.
#[derive(Debug)]
pub struct Playbooks {
    dir: Dir,
    folder: PathBuf,
    /// Where each run gets a directory of its own.
    runs: PathBuf,
    launcher: PathBuf,
    ansible: PathBuf,
}

/// One message for one playbook, with what it may use.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub task: &'a TaskName,
    pub message: &'a Message,
    pub run_id: &'a RunId,
    pub attempt: u32,
    pub timeout: Duration,
    /// Address space of each process, in bytes.
    pub memory: Option<u64>,
    /// Bytes of output that are kept.
    pub output: u64,
}

/// Why playbooks cannot be started here.
#[derive(Debug, thiserror::Error)]
pub enum PlaybookError {
    #[error("cannot open the playbooks directory `{path}`")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("cannot make the directory `{path}`")]
    Runs { path: PathBuf, source: std::io::Error },
    #[error("`ansible-playbook` is not on the PATH")]
    NoAnsible,
    #[error("cannot find the launcher `{path}`")]
    NoLauncher { path: PathBuf },
}

/// What a playbook is started with.
enum Give<'a> {
    /// The text of the variables file.
    Variables(&'a str),
    /// Nothing: it is only read.
    Check,
}

/// What a process may use while it is watched.
#[derive(Clone, Copy)]
struct Watch {
    timeout: Duration,
    memory: Option<u64>,
    output: u64,
}

/// How a process came to its end.
enum Ended {
    ByItself(ExitStatus),
    AtDeadline,
    Cancelled,
    Lost(std::io::Error),
}

impl PlaybookError {
    /// Returns what the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "make it, or name another with `--playbooks`",
            Self::Runs { .. } => "look at the owner and the free space of the state directory",
            Self::NoAnsible => {
                "install it (`apt-get install ansible-core`), or set `ansible_playbook` under \
                 `[playbook]`"
            }
            Self::NoLauncher { .. } => {
                "build it with `cargo build -p loopabull-launcher`, or set `launcher` under \
                 `[playbook]`"
            }
        }
    }
}

impl Playbooks {
    /// Finds all that is needed to start playbooks. The state directory must exist; the runs get
    /// their directories in this folder of it.
    pub fn open(config: &Config, runs: &str) -> Result<Self, PlaybookError> {
        let cannot = |source| PlaybookError::Folder { path: config.playbooks.clone(), source };
        let folder = config.playbooks.canonicalize().map_err(cannot)?;
        let dir = Dir::open_ambient_dir(&folder, ambient_authority()).map_err(cannot)?;
        let runs = config.state.join(runs);
        let cannot = |source| PlaybookError::Runs { path: runs.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&runs).map_err(cannot)?;
        let runs = runs.canonicalize().map_err(cannot)?;
        let ansible = match &config.playbook.ansible_playbook {
            Some(path) => path.clone(),
            None => on_path("ansible-playbook").ok_or(PlaybookError::NoAnsible)?,
        };
        let launcher = match &config.playbook.launcher {
            Some(path) => path.clone(),
            None => beside_ourselves("loopabull-launch"),
        };
        if !launcher.is_file() {
            return Err(PlaybookError::NoLauncher { path: launcher });
        }
        Ok(Self { dir, folder, runs, launcher, ansible })
    }

    /// Runs a playbook on one message. `cancel` ends it early.
    pub async fn run(&self, call: Call<'_>, cancel: &CancellationToken) -> Attempt {
        let facts = RunFacts { run_id: call.run_id.as_str(), attempt: call.attempt };
        let variables = match variables::write(call.message, facts) {
            Ok(variables) => variables,
            Err(error) => {
                return Attempt::without_output(Outcome::Reject {
                    reason: error.to_string().into(),
                });
            }
        };
        let folder = self.runs.join(call.run_id.as_str());
        let limits = Watch { timeout: call.timeout, memory: call.memory, output: call.output };
        let give = Give::Variables(&variables);
        let attempt = self.start_and_watch(call.task, &folder, &give, limits, cancel).await;
        attempt.unwrap_or_else(|reason| {
            Attempt::without_output(Outcome::NotStarted { reason: reason.into() })
        })
    }

    /// Lets Ansible read a playbook without running it. Returns what it complained of.
    pub async fn check(&self, task: &TaskName, timeout: Duration) -> Result<(), String> {
        let folder = self.runs.join(format!("check-{}-{task}", std::process::id()));
        let limits = Watch { timeout, memory: None, output: 16 << 10 };
        let cancel = CancellationToken::new();
        let attempt = self.start_and_watch(task, &folder, &Give::Check, limits, &cancel).await?;
        if attempt.outcome.is_success() {
            return Ok(());
        }
        Err(format!("{}\n{}", attempt.outcome, attempt.output.text))
    }

    async fn start_and_watch(
        &self,
        task: &TaskName,
        folder: &Path,
        give: &Give<'_>,
        limits: Watch,
        cancel: &CancellationToken,
    ) -> Result<Attempt, String> {
        let attempt = match self.start(task, folder, give, limits.memory) {
            Ok(child) => Ok(watch(child, limits, cancel).await),
            Err(reason) => Err(reason),
        };
        // Whatever the playbook left there is its own temporary work; the journal has the output.
        // It may be a large tree, so not on this thread.
        let gone = folder.to_owned();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(gone)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove `{}`: {error}", folder.display());
        }
        attempt
    }

    fn start(
        &self,
        task: &TaskName,
        folder: &Path,
        give: &Give<'_>,
        memory: Option<u64>,
    ) -> Result<Child, String> {
        let name = format!("{task}.yml");
        let metadata = self.dir.open(&name).and_then(|file| file.metadata());
        match metadata {
            Ok(metadata) if metadata.is_file() => (),
            Ok(_) => return Err(format!("playbook `{name}` is not a file")),
            Err(error) => return Err(format!("cannot open playbook `{name}`: {error}")),
        }
        let cannot = |error| format!("cannot write into `{}`: {error}", folder.display());
        std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(cannot)?;
        let mut arguments = vec!["--inventory".into(), self.inventory().into_os_string()];
        match give {
            Give::Check => arguments.push("--syntax-check".into()),
            Give::Variables(variables) => {
                let file = folder.join("message.yml");
                write_private(&file, variables).map_err(cannot)?;
                let mut argument = OsString::from("@");
                argument.push(file);
                arguments.extend(["--extra-vars".into(), argument]);
            }
        }
        arguments.push(self.folder.join(&name).into_os_string());
        let environment = self.environment(folder);
        let confinement = Confinement {
            directory: folder.to_owned(),
            environment: environment.iter().map(|(name, _)| (*name).to_owned()).collect(),
            limits: Limits { memory, ..Limits::default() },
            program: self.ansible.clone(),
            arguments,
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one place, and the launcher")]
        Command::new(&self.launcher)
            .args(confinement.to_args())
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start `{}`: {error}", self.launcher.display()))
    }

    /// The whole environment of a playbook. Its home is the directory of the run, so that whatever
    /// Ansible keeps under `~` goes there and away with it.
    fn environment(&self, folder: &Path) -> Vec<(&'static str, PathBuf)> {
        let mut path =
            self.ansible.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().to_owned();
        path.push(":/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
        let mut environment = vec![
            ("PATH", PathBuf::from(path)),
            ("HOME", folder.to_owned()),
            ("TMPDIR", folder.to_owned()),
            ("LANG", "C.UTF-8".into()),
            ("ANSIBLE_HOME", folder.join("ansible")),
            ("ANSIBLE_LOCAL_TEMP", folder.join("ansible/tmp")),
            ("ANSIBLE_NOCOLOR", "1".into()),
            ("ANSIBLE_RETRY_FILES_ENABLED", "0".into()),
        ];
        if self.dir.is_file("ansible.cfg") {
            environment.push(("ANSIBLE_CONFIG", self.folder.join("ansible.cfg")));
        }
        environment
    }

    /// The file or directory `inventory` beside the playbooks, else this machine alone.
    fn inventory(&self) -> PathBuf {
        if self.dir.exists("inventory") {
            self.folder.join("inventory")
        } else {
            "localhost,".into()
        }
    }
}

/// Reads the output and waits for the end, which it brings about if it does not come in time.
async fn watch(mut child: Child, limits: Watch, cancel: &CancellationToken) -> Attempt {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let capture = Mutex::new(Capture::new(limits.output));
    let streams = (child.stdout.take(), child.stderr.take());
    let read = async {
        tokio::join!(drain(streams.0, &capture), drain(streams.1, &capture));
    };
    let end = async {
        let ended = wait(&mut child, group, limits.timeout, cancel).await;
        // What is left in the group goes too; then only a process that left the group can still
        // hold the output open, and that one is not waited for.
        signal(group, Signal::KILL);
        ended
    };
    let ended = {
        tokio::pin!(read, end);
        tokio::select! {
            ended = &mut end => {
                drop(tokio::time::timeout(LINGER, read).await);
                ended
            }
            // The output may end first, and the playbook go on in silence.
            () = &mut read => end.await,
        }
    };
    let output = capture.into_inner().unwrap_or_else(PoisonError::into_inner).to_output();
    let outcome = match ended {
        Ended::ByItself(status) => outcome_of(status, &output.text),
        Ended::AtDeadline => {
            Outcome::Limit { exceeded: Exceeded::Deadline { allowed: limits.timeout } }
        }
        Ended::Cancelled => Outcome::Cancelled,
        Ended::Lost(error) => {
            Outcome::NotStarted { reason: format!("cannot wait for the playbook: {error}").into() }
        }
    };
    Attempt { output, ..Attempt::without_output(outcome) }
}

async fn wait(
    child: &mut Child,
    group: Option<Pid>,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Ended {
    let why = tokio::select! {
        status = child.wait() => return status.map_or_else(Ended::Lost, Ended::ByItself),
        () = tokio::time::sleep(timeout) => Ended::AtDeadline,
        () = cancel.cancelled() => Ended::Cancelled,
    };
    signal(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        signal(group, Signal::KILL);
        // The launcher makes the group; before that there is only itself.
        if let Err(error) = child.kill().await {
            return Ended::Lost(error);
        }
    }
    why
}

/// Signals all processes of the group. One that is already empty is no trouble.
fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(Err(error)) = group.map(|group| kill_process_group(group, signal)) {
        tracing::trace!("cannot signal the process group: {error}");
    }
}

async fn drain(stream: Option<impl AsyncRead + Unpin>, capture: &Mutex<Capture>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        capture.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
    }
}

fn outcome_of(status: ExitStatus, output: &str) -> Outcome {
    if status.success() {
        return Outcome::Success;
    }
    // The launcher's own exit codes are no playbook's, unless it is the playbook that ended so;
    // the launcher says in its only line which of the two it is.
    let own = [exit::USAGE, exit::LAYER_FAILED, exit::CANNOT_EXECUTE, exit::NOT_FOUND];
    let code = status.code();
    if own.iter().any(|&own| code == Some(i32::from(own)))
        && output.starts_with("loopabull-launch: ")
    {
        return Outcome::NotStarted { reason: output.into() };
    }
    let status = match (code, status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    };
    Outcome::Exit { status: status.into() }
}

/// Writes a file that nobody else can read.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(file)?.write_all(text.as_bytes())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Beside our own executable, or one folder up: a test's executable is in `deps`.
fn beside_ourselves(program: &str) -> PathBuf {
    let ourselves = std::env::current_exe().unwrap_or_default();
    let mut folders = ourselves.ancestors().skip(1).take(2).map(|folder| folder.join(program));
    let beside = folders.next().unwrap_or_else(|| program.into());
    if beside.is_file() { beside } else { folders.find(|path| path.is_file()).unwrap_or(beside) }
}
