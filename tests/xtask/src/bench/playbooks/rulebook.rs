//! The measurement of ansible-rulebook with its action `run_playbook`, five at a time, and messages
//! from a file.
//!
//! ansible-rulebook has no queue. Nevertheless all messages exist before it is started, as in the other
//! cases. It does not end by itself after the last playbook, so this module stops it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::case::Case;
use super::setup::{Sample, Setup, TOPIC, WORKERS, message, playbook};
use crate::bench::workers::Workers;
use crate::command::{command, path_with};

/// The source of the messages. The built-in source for files parses YAML, which takes 4 ms for each
/// message.
const SOURCE: &str = include_str!("source.py");
/// A module of ansible-rulebook that logs an error at each start. It searches a collection for filters that
/// is optional and not installed. This error is ignored.
const COLLECTIONS: &str = "ansible_rulebook.collection";

/// Runs the playbook for each message.
pub(super) fn measure(setup: &Setup) -> Result<Sample> {
    let peer =
        setup.rulebook.as_ref().expect("ansible-rulebook is installed before it is measured");
    let folder = setup.folder(Case::Rulebook)?;
    write_files(&folder, setup.messages)
        .with_context(|| format!("cannot write `{}`", folder.display()))?;
    let mut rulebook = worker(&folder, &peer.python);
    rulebook.env("JAVA_HOME", &peer.java.home).env("PATH", path_with(&setup.ansible_playbook)?);
    let log = folder.join("rulebook.log");

    let mut watch = setup.watch()?;
    let (start, mut began) = (Instant::now(), None);
    let mut workers = Workers::default();
    workers.start(&rulebook, Stdio::null(), log.clone())?;
    workers.work_until(setup.limit(), &setup.interrupt, |_| {
        let count = succeeded(&read(&log)?, &log)?;
        // Each run has a folder in the temporary folder from its start until it has ended completely.
        let is_running = !is_empty(&temporary(&folder))?;
        if is_running {
            began.get_or_insert_with(|| start.elapsed());
        }
        Ok(count >= setup.messages && !is_running)
    })?;
    watch.is_done();
    workers.stop()?;
    let count = succeeded(&read(&log)?, &log)?;
    ensure!(
        count == setup.messages,
        "{} messages, but {count} successful playbooks",
        setup.messages
    );
    let sample = watch.read(setup.messages)?;
    let began = began.unwrap_or_default().as_secs_f64();
    let note = format!("Java {}, {began:.1} s to the first playbook", peer.java.version);
    Ok(Sample { note: Some(note), ..sample })
}

/// Writes the rulebook, its source, the messages and the inventory.
fn write_files(folder: &Path, messages: u32) -> io::Result<()> {
    let sources = folder.join("sources");
    fs::create_dir(&sources)?;
    fs::write(sources.join("messages.py"), SOURCE)?;
    fs::create_dir(temporary(folder))?;
    fs::write(folder.join("ansible.cfg"), "")?;
    fs::write(folder.join("inventory"), "localhost ansible_connection=local\n")?;
    let lines: String = (0..messages).map(|number| format!("{}\n", message(number))).collect();
    fs::write(folder.join("messages.json"), lines)?;
    fs::write(folder.join("rulebook.yml"), rulebook(folder))
}

fn rulebook(folder: &Path) -> String {
    let (messages, playbook) = (folder.join("messages.json"), playbook(folder));
    // The whole message is in one variable, as in the Python loopabull.
    format!(
        "- name: bench\n\
         \x20 hosts: localhost\n\
         \x20 sources:\n\
         \x20   - messages: {{file: {messages:?}}}\n\
         \x20 rules:\n\
         \x20   - name: run\n\
         \x20     condition: event.topic == \"{TOPIC}\"\n\
         \x20     action:\n\
         \x20       run_playbook:\n\
         \x20         name: {playbook:?}\n\
         \x20         extra_vars: {{msg: \"{{{{ event }}}}\"}}\n"
    )
}

fn worker(folder: &Path, python: &Path) -> Command {
    let mut worker = command(python);
    // The output is unbuffered, so that the last line of a playbook is in the log as soon as the playbook
    // ends.
    worker.args(["-u", "-W", "ignore"]).arg(python.with_file_name("ansible-rulebook"));
    worker.arg("--rulebook").arg(folder.join("rulebook.yml"));
    worker.arg("--inventory").arg(folder.join("inventory"));
    worker.arg("--source-dir").arg(folder.join("sources"));
    worker.args(["--execution-strategy", "parallel", "-m", &WORKERS.to_string()]);
    worker.env("ANSIBLE_CONFIG", folder.join("ansible.cfg"));
    // ansible-rulebook gives its playbooks a terminal, on which Ansible would use colours. The other cases
    // have no colours.
    worker.env("ANSIBLE_NOCOLOR", "1");
    worker.env("TMPDIR", temporary(folder));
    worker
}

fn temporary(folder: &Path) -> PathBuf {
    folder.join("tmp")
}

fn read(log: &Path) -> Result<String> {
    let text = fs::read(log).with_context(|| format!("cannot read `{}`", log.display()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn is_empty(folder: &Path) -> Result<bool> {
    let mut entries =
        fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    Ok(entries.next().is_none())
}

/// Counts the successful playbooks. Returns an error if a playbook failed or an error was logged.
/// ansible-rulebook itself continues in both cases.
fn succeeded(text: &str, log: &Path) -> Result<u32> {
    let ends = Ends::read(text);
    if let Some(error) = error_in(text) {
        bail!("module `{error}` logged an error, see `{}`", log.display());
    }
    ensure!(ends.failed == 0, "{} playbooks failed, see `{}`", ends.failed, log.display());
    Ok(ends.succeeded)
}

/// The numbers of playbooks that have ended, read from Ansible's recap lines.
#[derive(Debug, Default, Eq, PartialEq)]
struct Ends {
    succeeded: u32,
    failed: u32,
}

impl Ends {
    /// Reads a log into which five threads write. A thread writes a recap line and its line feed separately,
    /// so one line of the log may contain two recap lines.
    fn read(log: &str) -> Self {
        let mut ends = Self::default();
        for end in log.split(" : ok=").skip(1) {
            // The last line may be incomplete.
            let Some((counts, _)) = end.split_once(" ignored=") else { continue };
            let is_success = counts.starts_with("1 ")
                && [" unreachable=0 ", " failed=0 "].iter().all(|part| counts.contains(part));
            *(if is_success { &mut ends.succeeded } else { &mut ends.failed }) += 1;
        }
        ends
    }
}

/// Returns the first module that logged an error, except [`COLLECTIONS`].
fn error_in(log: &str) -> Option<&str> {
    let errors = log.match_indices(" - ERROR - ");
    let mut modules = errors.filter_map(|(at, _)| log[..at].rsplit(" - ").next());
    modules.find(|module| *module != COLLECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = "localhost                  : ok=1    changed=0    unreachable=0    failed=0    \
                       skipped=0    rescued=0    ignored=0   ";

    #[test]
    fn successful_and_failed_playbooks_are_counted() {
        let failed = END.replace("failed=0", "failed=1");
        let nothing = END.replace("ok=1", "ok=0");
        let log = format!("PLAY RECAP ***\r\n{END}\n{failed}\n{nothing}\n{END}\n");
        assert_eq!(Ends::read(&log), Ends { succeeded: 2, failed: 2 });
    }

    #[test]
    fn two_results_in_one_line_are_both_counted() {
        let log = format!("{END}\r\nPLAY RECAP ***\r\n{END}PLAY RECAP ***\r\n{END}\n\n");
        assert_eq!(Ends::read(&log), Ends { succeeded: 3, failed: 0 });
    }

    #[test]
    fn an_incomplete_line_is_not_counted() {
        assert_eq!(Ends::read(&END[..50]), Ends::default());
    }

    #[test]
    fn a_logged_error_is_reported_with_its_module() {
        let collection_error =
            "2026-01-02 03:04:05,678 - ansible_rulebook.collection - ERROR - not there\n";
        assert_eq!(error_in(collection_error), None);
        let failed = "2026-01-02 03:04:05,678 - ansible_rulebook.action.run_playbook - ERROR - x\n";
        let error =
            succeeded(&format!("{collection_error}{END}{failed}"), Path::new("a.log")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "module `ansible_rulebook.action.run_playbook` logged an error, see `a.log`"
        );
    }

    #[test]
    fn the_whole_message_is_in_one_variable() {
        let rulebook = rulebook(Path::new("/a b"));
        assert!(rulebook.contains("- messages: {file: \"/a b/messages.json\"}\n"));
        assert!(rulebook.ends_with("extra_vars: {msg: \"{{ event }}\"}\n"), "{rulebook}");
    }
}
