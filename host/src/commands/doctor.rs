//! The command `doctor` examines what the daemon needs on this machine, and says what to do about what is missing.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use jiff::Timestamp;
use loopabull_model::{LayerReport, LayerState, Run, TaskKind, chain};
use loopabull_playbook::Playbooks;
use loopabull_queue::{Backend, Declaration, Plan};
use rustix::process::{Resource, geteuid, getrlimit};

use crate::commands::client::{Client, Daemon, Remote};
use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::finding::{Finding, Findings, Level};
use crate::commands::journal::journal;
use crate::commands::{block_on, print, print_plain};
use crate::config::{Config, ConfigError};
use crate::daemon::state_dir::{self, DaemonFile};
use crate::journal::{Found, Journal, Search};
use crate::observe::observation::Space;
use crate::observe::status::Status;
use crate::tables;
use crate::tasks::discovery::{Discovery, Severity};
use crate::web::token;
use crate::work::pauses::Pauses;

/// The number of file descriptors below which many connections, playbooks and files cannot be open at the same time.
const DESCRIPTORS: u64 = 4096;
/// The number of files that a file system must still have room for.
const FILES: u64 = 10_000;
/// The difference between two clocks that says nothing.
const TOLERANCE: Duration = Duration::from_mins(1);

/// Examine what the daemon needs on this machine, and say what to do
///
/// Looks at the configuration, the state directory, the disk, the clock, the limit of file descriptors, the token files, the
/// tasks, Ansible and the layers that confine playbooks, the broker, and the running daemon. Changes nothing. Run it as the user
/// of the daemon. The exit status is 0 if there is no problem.
///
/// `loopabull-host check` also compiles the components and reads the playbooks with Ansible.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print a JSON object for each finding
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &DoctorArgs) -> Result<u8, Failure> {
    let mut findings = Findings::default();
    let daemon = Remote::default().find(config);
    configuration(config, &mut findings);
    state_directory(config, &mut findings);
    disk(config, &mut findings);
    descriptors(config, &mut findings);
    clock(config, daemon.as_ref().ok(), &mut findings);
    for file in [&config.token_file, &config.operate_token_file].into_iter().flatten() {
        token_file(file, &mut findings);
    }
    if let [Some(look), Some(operate)] = [&config.token_file, &config.operate_token_file]
        && let (Ok(look), Ok(operate)) = (token::read(look), token::read(operate))
        && look == operate
    {
        let error = ConfigError::SameToken;
        findings.add_with_hint(
            Level::Problem,
            "token",
            chain(&error),
            "make another one for operators",
        );
    }
    if matches!(daemon, Ok(Daemon::NotRunning)) {
        start(config, &mut findings);
    }
    let discovery = Discovery::read(config, None);
    if let Some((folder, reason)) = discovery.unknown_dir() {
        let text = format!("the daemon does not start: `{}`: {reason}", folder.display());
        let hint = "create the directory, or name another one with `--tasks` or `--playbooks`";
        findings.add_with_hint(Level::Problem, "tasks", text, hint);
    }
    tasks(&discovery, &mut findings);
    if discovery.tasks.iter().any(|task| task.kind == TaskKind::Playbook) {
        playbooks(config, &mut findings)?;
    }
    queue(config, &discovery, &mut findings)?;
    running(daemon, &mut findings);
    for Finding { level, about, text, hint } in &findings.0 {
        if args.json {
            continue;
        }
        print_plain(&format!("{:<8} {about}: {text}\n", level.as_str()))?;
        if let Some(hint) = hint {
            print_plain(&format!("         hint: {hint}\n"))?;
        }
    }
    if args.json {
        for finding in &findings.0 {
            let text = serde_json::to_string(finding).expect("a finding has only JSON types");
            print(&(text + "\n"))?;
        }
    }
    let is_well = findings.0.iter().all(|finding| finding.level != Level::Problem);
    Ok(if is_well { DONE } else { FAILED })
}

fn configuration(config: &Config, findings: &mut Findings) {
    match config.validate() {
        Ok(()) => match config.buses() {
            Ok(_) => findings.add(Level::Good, "configuration", "its values are valid"),
            Err(error) => {
                let hint = "see `fedora_messaging_config` of the configuration";
                findings.add_with_hint(Level::Problem, "configuration", chain(&error), hint);
            }
        },
        Err(error) => {
            let hint =
                ConfigError::hint(&error).unwrap_or("mend that value in the configuration file");
            findings.add_with_hint(Level::Problem, "configuration", chain(&error), hint);
        }
    }
}

fn state_directory(config: &Config, findings: &mut Findings) {
    const ABOUT: &str = "state directory";
    let state = config.state.as_path();
    let path = state.display();
    let found = match fs::metadata(state) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return findings.add(
                Level::Note,
                ABOUT,
                format!("`{path}` does not exist; the daemon creates it"),
            );
        }
        Err(error) => {
            let hint = "run this command as the user of the daemon";
            return findings.add_with_hint(
                Level::Problem,
                ABOUT,
                format!("`{path}`: {error}"),
                hint,
            );
        }
    };
    let (owner, user) = (found.uid(), geteuid());
    let mode = found.permissions().mode();
    // The user of playbooks may enter it.
    let others = if config.playbook.user.is_some() { 0o066 } else { 0o077 };
    if !found.is_dir() {
        let hint = "name a directory with `--state DIR`";
        findings.add_with_hint(Level::Problem, ABOUT, format!("`{path}` is no directory"), hint);
    } else if owner != user.as_raw() && !user.is_root() {
        let text = format!("`{path}` belongs to user {owner}, and this is user {}", user.as_raw());
        let hint = "run this command and the daemon as that user";
        findings.add_with_hint(Level::Problem, ABOUT, text, hint);
    } else if mode & 0o1000 != 0 {
        let text = format!("`{path}` has the sticky bit: it belongs to all users");
        let hint = "name a directory of the daemon's own with `--state DIR`";
        findings.add_with_hint(Level::Problem, ABOUT, text, hint);
    } else if mode & others != 0 {
        let text = format!("`{path}` is open to other users (mode {:04o})", mode & 0o7777);
        let hint = "the daemon closes it when it starts; until then, `chmod go-rwx` it";
        findings.add_with_hint(Level::Warning, ABOUT, text, hint);
    } else {
        findings.add(Level::Good, ABOUT, format!("`{path}` belongs to user {owner} alone"));
    }
}

fn disk(config: &Config, findings: &mut Findings) {
    const ABOUT: &str = "disk";
    let state = std::path::absolute(&config.state).unwrap_or_else(|_| config.state.clone());
    // The directory may not exist yet.
    let Some(existing) = state.ancestors().find(|path| path.exists()) else { return };
    let Space { free, files, .. } = Space::read(existing);
    let Some(free) = free else {
        return findings.add(Level::Warning, ABOUT, "its free space cannot be read");
    };
    let free = ByteSize(free);
    if free < config.warnings.free {
        let text = format!(
            "{free} are free, less than {} (`free` under `[warnings]`)",
            config.warnings.free
        );
        let hint = "make room: a daemon without space for its files takes no messages";
        findings.add_with_hint(Level::Problem, ABOUT, text, hint);
    } else if let Some(files) = files.filter(|files| *files < FILES) {
        let text = format!("{free} are free, but only {files} more files can be created");
        findings.add_with_hint(Level::Problem, ABOUT, text, "delete many small files");
    } else {
        findings.add(Level::Good, ABOUT, format!("{free} are free for `{}`", state.display()));
    }
}

/// Looks at the limit of the running daemon, or else at that of this command.
fn descriptors(config: &Config, findings: &mut Findings) {
    const ABOUT: &str = "file descriptors";
    let daemon = DaemonFile::read(&config.state).ok().flatten();
    let daemon = daemon.filter(|_| state_dir::is_locked(&config.state));
    let of_daemon = daemon.and_then(|daemon| limit_of(daemon.pid));
    let (whose, limit) = match of_daemon {
        Some(limit) => ("the daemon", limit),
        None => ("a daemon started from here", getrlimit(Resource::Nofile).maximum),
    };
    match limit {
        Some(limit) if limit < DESCRIPTORS => {
            let text = format!("{whose} may open {limit} files and connections at the same time");
            let hint = format!(
                "allow at least {DESCRIPTORS}: `LimitNOFILE=` in the systemd unit, or `ulimit -Hn` in a shell"
            );
            findings.add_with_hint(Level::Warning, ABOUT, text, hint);
        }
        Some(limit) => findings.add(Level::Good, ABOUT, format!("{whose} may open {limit}")),
        None => findings.add(Level::Good, ABOUT, format!("{whose} has no limit")),
    }
}

/// Returns the limit of open files of a process, which is `None` if there is none: proc_pid_limits(5).
fn limit_of(pid: u32) -> Option<Option<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(None),
        limit => limit.parse().ok().map(Some),
    }
}

/// Looks for what keeps a daemon from starting: its files, and its port.
fn start(config: &Config, findings: &mut Findings) {
    let opened = match tables::path(&config.state).exists() {
        true => Journal::open_to_read(&config.state).map(drop),
        false => Ok(()),
    };
    if let Err(error) = opened.and_then(|()| Pauses::open_to_read(&config.state).map(drop)) {
        let hint = "restore the file from a backup, or move it away: what is in it is then lost";
        findings.add_with_hint(Level::Problem, "state directory", chain(&error), hint);
    }
    // The listener is closed again at once.
    if let Err(error) = TcpListener::bind(config.listen) {
        let text = format!("no daemon can listen on `{}`: {error}", config.listen);
        let hint = "name a free address with `--listen` or in the configuration";
        findings.add_with_hint(Level::Problem, "port", text, hint);
    }
}

/// A clock that was set back is noticed by runs in its future.
fn clock(config: &Config, daemon: Option<&Daemon>, findings: &mut Findings) {
    const ABOUT: &str = "clock";
    let newest = match daemon {
        Some(Daemon::Running(daemon)) => newest_run(daemon),
        Some(Daemon::NotRunning) if tables::path(&config.state).exists() => {
            newest_run_in_files(config)
        }
        _ => None,
    };
    let now = Timestamp::now();
    let limit = now.as_millisecond().saturating_add(TOLERANCE.as_millis() as i64);
    match newest {
        Some(run) if run.started_at_ms > limit => {
            let text = format!(
                "it says {}, but run `{}` started later",
                now.strftime("%F %T UTC"),
                run.id
            );
            let hint =
                "set the clock by a time service such as chrony; retries and retention follow it";
            findings.add_with_hint(Level::Problem, ABOUT, text, hint);
        }
        _ => findings.add(Level::Good, ABOUT, format!("it says {}", now.strftime("%F %T UTC"))),
    }
}

fn newest_run(daemon: &Client) -> Option<Run> {
    let found: Found = daemon.get("runs", &[("limit", Some("1"))]).ok()?;
    found.runs.into_iter().next()
}

fn newest_run_in_files(config: &Config) -> Option<Run> {
    let search = Search::parse("", Timestamp::UNIX_EPOCH).ok()?;
    let journal = journal(&config.state).ok()?;
    let found = block_on(journal.search(search, None, 1, Duration::MAX)).ok()?.ok()?;
    found.runs.into_iter().next()
}

fn token_file(path: &Path, findings: &mut Findings) {
    const ABOUT: &str = "token";
    if let Err(error) = token::read(path) {
        let hint = error.hint().unwrap_or("run this command as the user of the daemon");
        return findings.add_with_hint(Level::Problem, ABOUT, chain(&error), hint);
    }
    let mode = fs::metadata(path).map_or(0, |found| found.permissions().mode());
    let path = path.display();
    if mode & 0o026 != 0 {
        let text = format!("other users can read or change `{path}` (mode {:04o})", mode & 0o7777);
        let hint = format!("`chmod go-w,o-r {path}`");
        return findings.add_with_hint(Level::Problem, ABOUT, text, hint);
    }
    let who = if mode & 0o040 == 0 { "only its owner" } else { "only its owner and its group" };
    findings.add(Level::Good, ABOUT, format!("{who} can read `{path}`"));
}

fn tasks(discovery: &Discovery, findings: &mut Findings) {
    const ABOUT: &str = "tasks";
    for finding in &discovery.findings {
        let level = match finding.severity {
            Severity::Note => Level::Note,
            Severity::Problem => Level::Problem,
        };
        findings.add(level, ABOUT, format!("`{}`: {}", finding.file.display(), finding.text));
    }
    for (name, reason) in &discovery.refused {
        let text = format!("`{name}` is refused: {reason}");
        let hint =
            "mend its file; meanwhile its messages wait, unless `refused_tasks` says otherwise";
        findings.add_with_hint(Level::Problem, ABOUT, text, hint);
    }
    match discovery.tasks.len() {
        0 => findings.add_with_hint(
            Level::Warning,
            ABOUT,
            "there is none, so no message does anything",
            "put `TOPIC.yml` into the directory of playbooks, or a component into that of tasks",
        ),
        1 => findings.add(Level::Good, ABOUT, "there is 1"),
        count => findings.add(Level::Good, ABOUT, format!("there are {count}")),
    }
}

/// Looks for Ansible, and tries the layers that confine playbooks.
fn playbooks(config: &Config, findings: &mut Findings) -> Result<(), Failure> {
    const ABOUT: &str = "playbooks";
    if let Some(program) = &config.playbook.ansible_playbook
        && let Err(error) = fs::metadata(program)
    {
        let text = format!("`{}`: {error}", program.display());
        let hint = "install Ansible there, or change `ansible_playbook` under `[playbook]`";
        findings.add_with_hint(Level::Problem, ABOUT, text, hint);
    }
    // The layers are tried in a directory of their own, because this command changes nothing in the state directory.
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            let text = format!("no temporary directory can be made: {error}");
            findings.add_with_hint(Level::Problem, ABOUT, text, "see `TMPDIR` of the environment");
            return Ok(());
        }
    };
    let config = Config { state: folder.path().to_owned(), ..config.clone() };
    let opened = match Playbooks::open(&config.playbook_settings("tries")) {
        Ok(opened) => opened,
        Err(error) => {
            let hint = error.hint();
            findings.add_with_hint(Level::Problem, ABOUT, chain(error), hint);
            return Ok(());
        }
    };
    let layers = match block_on(opened.try_layers())? {
        Ok(layers) => layers,
        Err(error) => {
            let hint = "`loopabull-host check` shows more";
            findings.add_with_hint(Level::Problem, ABOUT, chain(error), hint);
            return Ok(());
        }
    };
    for LayerReport { layer, state, detail } in layers {
        let text = format!("layer {layer} is {}: {}", state.as_str(), detail.as_str());
        if state == LayerState::Active {
            findings.add(Level::Good, ABOUT, text);
            continue;
        }
        let hint =
            "playbooks run without it; to forbid that, name it in `require` under `[playbook]`";
        findings.add_with_hint(Level::Warning, ABOUT, text, hint);
    }
    Ok(())
}

fn queue(config: &Config, discovery: &Discovery, findings: &mut Findings) -> Result<(), Failure> {
    const ABOUT: &str = "queue";
    let queues = config.queues(&discovery.tasks);
    let Backend::RabbitMq(settings) = &queues.backend else {
        findings.add(Level::Good, ABOUT, "it is embedded in the state directory");
        return Ok(());
    };
    let plan = match block_on(Plan::of(settings, &queues.queues))? {
        Ok(plan) => plan,
        Err(error) => {
            let hint = "see `amqp_url` of the configuration, and whether RabbitMQ is running there";
            findings.add_with_hint(Level::Problem, ABOUT, chain(&error), hint);
            return Ok(());
        }
    };
    let version = plan.version.as_deref().unwrap_or("of an unknown version");
    findings.add(Level::Good, ABOUT, format!("RabbitMQ {version} at `{}` answers", plan.broker));
    for change in &plan.changes {
        if let Declaration::Differs { reason } = &change.declaration {
            let text = format!("`{}` differs from what we need: {reason}", change.queue);
            let hint =
                "compare with `loopabull-host broker plan`, and delete the queue once it is empty";
            findings.add_with_hint(Level::Problem, ABOUT, text, hint);
        }
    }
    for warning in plan.warnings {
        findings.add(Level::Warning, ABOUT, warning);
    }
    let is_missing = |declaration: &Declaration| matches!(declaration, Declaration::Missing);
    let missing = plan.changes.iter().filter(|change| is_missing(&change.declaration)).count();
    if missing > 0 {
        findings.add_with_hint(
            Level::Note,
            ABOUT,
            format!("{missing} queues are missing on the broker; the daemon creates them when it needs them"),
            "`loopabull-host broker plan` lists them",
        );
    }
    Ok(())
}

/// Looks at the daemon that uses the state directory.
fn running(daemon: Result<Daemon, Failure>, findings: &mut Findings) {
    const ABOUT: &str = "daemon";
    let daemon = match daemon {
        Ok(Daemon::Running(daemon)) => daemon,
        Ok(Daemon::NotRunning) => return findings.add(Level::Note, ABOUT, "none is running"),
        Ok(Daemon::Silent) => {
            let hint = "look at its log; if it hangs, restart it";
            return findings.add_with_hint(Level::Problem, ABOUT, "it cannot be asked", hint);
        }
        Err(failure) => return findings.add(Level::Problem, ABOUT, failure.text().trim_end()),
    };
    let status: Status = match daemon.get("status", &[]) {
        Ok(status) => status,
        Err(error) => return findings.add(Level::Problem, ABOUT, chain(&error)),
    };
    if status.problems.is_empty() && status.warnings.is_empty() {
        findings.add(Level::Good, ABOUT, "it is ready");
    }
    for problem in status.problems {
        findings.add(Level::Problem, ABOUT, problem);
    }
    for warning in status.warnings {
        findings.add(Level::Warning, ABOUT, warning);
    }
}
