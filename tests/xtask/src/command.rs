//! Child processes. A child process can have a progress line, a log and a time limit.
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

/// The number of lines of the log that are shown when a command fails.
const TAIL_LINES: usize = 25;
/// The interval between checks whether a child has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The time limit for a child to end after SIGTERM.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a command that runs in the root of the repository.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository::root());
    command
}

/// Returns a command for the cargo that started this program.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Prints a progress line.
pub(crate) fn say(what: &str) {
    eprintln!("==> {what}");
}

/// Runs a command and writes its output to a log. The end of the log is shown if the command fails.
///
/// # Errors
///
/// If the command cannot be started, fails or does not end within `limit`.
pub(crate) fn run(what: &str, command: &mut Command, limit: Duration) -> Result<()> {
    say(what);
    run_to_log(what, command, limit)
}

/// Does the same as [`run`], and also prints how long the command is expected to take.
///
/// # Errors
///
/// In the same cases as [`run`].
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
                None => format!("not finished after {} s", limit.as_secs()),
            };
            bail!("{what}: {how}, see `{}`", path.display())
        }
    }
}

/// Runs a command and shows its output to the user.
///
/// # Errors
///
/// If the command cannot be started or fails.
pub(crate) fn show(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let status = spawn(command)?.wait().with_context(|| format!("cannot wait for {what}"))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}

/// Runs a short command and returns its standard output without trailing white space.
///
/// # Errors
///
/// If the command cannot be started or fails, or its output is not text.
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
/// If the command cannot be started.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().with_context(|| format!("cannot start `{}`", name(command)))
}

/// Waits for a child to end. If the child has not ended after `limit`, it is stopped, and the result is
/// `None`.
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
        child.kill().context("cannot kill a child process")?;
        child.wait().context("cannot wait for a child process")?;
    }
    Ok(None)
}

/// Sends SIGTERM to a child that has not been waited for.
///
/// # Errors
///
/// If the child cannot be signalled.
pub(crate) fn terminate(child: &Child) -> Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM)
        .context("cannot send SIGTERM to a child process")
}

/// Returns the path of a program on the `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Returns the `PATH`, with the folder of a program added at its end if it is missing.
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
        let status = child.try_wait().context("cannot wait for a child process")?;
        if status.is_some() || start.elapsed() >= limit {
            return Ok(status);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Returns a rounded duration in words.
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
    fn the_error_of_a_failed_command_names_the_step_and_the_log() {
        let error = run("failing for a test", command("sh").args(["-c", "exit 3"]), LONG);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("failing for a test: exit status: 3, see `"), "{error}");
    }

    #[test]
    fn a_command_is_stopped_after_its_time_limit() {
        let error = run("waiting for a test", command("sleep").arg("600"), Duration::ZERO);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("waiting for a test: not finished after 0 s"), "{error}");
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
    fn the_output_is_returned_without_its_last_line_end() {
        assert_eq!(output(command("echo").arg("a b")).unwrap(), "a b");
        assert!(output(&mut command("false")).is_err());
    }
}
