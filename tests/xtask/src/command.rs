//! Child processes: each has a line that says what it does, a log and a time limit.
#![expect(clippy::disallowed_methods, reason = "a build tool starts programs; it does so here")]

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::repository;

/// How many lines of the log are shown when a command fails.
const TAIL_LINES: usize = 25;
/// How often we ask whether a child has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a child may take to end after SIGTERM.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a command that is started in the root of the repository.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository::root());
    command
}

/// Returns the cargo that started us.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Prints what we do, for the user who waits.
pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}

/// Runs a command whose output goes to a log, which is shown if the command fails.
///
/// # Errors
///
/// If it cannot be started, fails or does not end within `limit`.
pub(crate) fn run(what: &str, command: &mut Command, limit: Duration) -> Result<()> {
    say(what);
    run_to_log(what, command, limit)
}

/// Does the same as [`run`] and prints how long the command may take.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_slowly(
    what: &str,
    takes: Duration,
    command: &mut Command,
    limit: Duration,
) -> Result<()> {
    say(&format!("{what} ({})", about(takes)));
    run_to_log(what, command, limit)
}

fn run_to_log(what: &str, command: &mut Command, limit: Duration) -> Result<()> {
    let path = log_path(what);
    let cannot = || format!("cannot write `{}`", path.display());
    let log = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&path));
    let log = log.with_context(cannot)?;
    command.stdin(Stdio::null()).stderr(log.try_clone().with_context(cannot)?).stdout(log);
    let mut child = spawn(command)?;
    let status = wait(&mut child, limit)?;
    match status {
        Some(status) if status.success() => Ok(()),
        ended => {
            eprint!("{}", tail(&path));
            let how = match ended {
                Some(status) => status.to_string(),
                None => format!("not done after {} s", limit.as_secs()),
            };
            bail!("{what}: {how}, see `{}`", path.display())
        }
    }
}

/// Runs a command whose output is for the user.
///
/// # Errors
///
/// If it cannot be started or fails.
pub(crate) fn show(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let status = spawn(command)?.wait().with_context(|| format!("cannot wait for {what}"))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}

/// Runs a short command and returns its standard output without the last line end.
///
/// # Errors
///
/// If it cannot be started, fails or prints no text.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start `{name}`"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{name}`: {}: {}", output.status, stderr.trim());
    let text = String::from_utf8(output.stdout);
    Ok(text.with_context(|| format!("`{name}` does not print text"))?.trim_end().to_owned())
}

/// Starts a command.
///
/// # Errors
///
/// If it cannot be started.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().with_context(|| format!("cannot start `{}`", name(command)))
}

/// Waits for a child to end. After `limit` it is stopped, and there is no status.
///
/// # Errors
///
/// If the child cannot be waited for.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    if let Some(status) = wait_only(child, limit)? {
        return Ok(Some(status));
    }
    terminate(child)?;
    if wait_only(child, TERMINATE_TIMEOUT)?.is_none() {
        child.kill().context("cannot kill a child")?;
        child.wait().context("cannot wait for a child")?;
    }
    Ok(None)
}

/// Sends SIGTERM to a child that has not been waited for.
///
/// # Errors
///
/// If the child is not ours to stop.
pub(crate) fn terminate(child: &Child) -> Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM).context("cannot stop a child")
}

/// Returns the path of a program that is on the `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Returns the `PATH` with the folder of a program at its end.
///
/// # Errors
///
/// If the folder cannot be part of a `PATH`.
pub(crate) fn path_with(program: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    if let Some(folder) = program.parent()
        && !folders.iter().any(|known| known == folder)
    {
        folders.push(folder.to_owned());
    }
    env::join_paths(folders).with_context(|| format!("cannot use `{}`", program.display()))
}

/// Returns the last lines of a log.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("    {line}\n")).collect()
}

fn wait_only(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        let status = child.try_wait().context("cannot wait for a child")?;
        if status.is_some() || start.elapsed() >= limit {
            return Ok(status);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Returns a duration in words, as an estimate.
fn about(takes: Duration) -> String {
    match takes.as_secs() {
        0..=10 => "a few seconds".to_owned(),
        seconds @ 11..=50 => format!("about {} s", seconds.next_multiple_of(10)),
        seconds => format!("about {} min", (seconds + 30) / 60),
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn log_path(what: &str) -> PathBuf {
    let name: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    repository::target().join("xtask").join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn failure_names_what_was_done() {
        let error = run("failing for a test", command("sh").args(["-c", "exit 3"]), LONG);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("failing for a test: exit status: 3, see `"), "{error}");
    }

    #[test]
    fn limit_ends_the_command() {
        let error = run("waiting for a test", command("sleep").arg("600"), Duration::ZERO);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("waiting for a test: not done after 0 s"), "{error}");
    }

    #[test]
    fn estimates_are_rounded() {
        let about = |seconds| about(Duration::from_secs(seconds));
        assert_eq!(about(5), "a few seconds");
        assert_eq!(about(15), "about 20 s");
        assert_eq!(about(51), "about 1 min");
        assert_eq!(about(150), "about 3 min");
    }

    #[test]
    fn output_has_no_line_end() {
        assert_eq!(output(command("echo").arg("a b")).unwrap(), "a b");
        assert!(output(&mut command("false")).is_err());
    }
}
