//! `check --learn`: runs a playbook once without the limits on files and ports, and prints the grants that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use loopabull_model::{Outcome, RunId};
use loopabull_playbook::{Call, Learned, Playbooks};
use loopabull_wasm::ComponentRunner;
use tokio_util::sync::CancellationToken;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::recordings::{self, read};
use crate::commands::{block_on, print, print_plain};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::modes;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::Discovery;

/// The number of read files in a directory from which the directory is proposed instead of the files.
const MANY: usize = 5;

pub(crate) fn run(config: &Config, name: &str, file: &Path) -> Result<u8, Failure> {
    state_dir::make(&config.state)?;
    state_dir::restrict(config)?;
    let components = ComponentRunner::new(&config.components(1)?)?;
    let catalog = Catalog::load(config, &Discovery::read(config, None), &components, None);
    let found = catalog.playbooks().find(|(task, _)| task.name.as_str() == name);
    let Some((task, playbook)) = found else {
        let error = anyhow!("there is no playbook `{name}`");
        return Err(Failure::with_hint(error, "list the tasks with `loopabull-host tasks`"));
    };
    if let Some(reason) = catalog.refused(&task.name) {
        return Err(anyhow!("playbook `{name}` is refused: {reason}").into());
    }
    if rustix::process::geteuid().is_root() && config.playbook.user.is_none() {
        let error = anyhow!("an unconfined run as root could change everything on this machine");
        return Err(Failure::with_hint(
            error,
            "name another user with `user` under `[playbook]`, or run the command as one",
        ));
    }
    print(
        "running the playbook without confinement: tasks with `check_mode: false`, lookups and plugins act for real, \
         with the secrets of the task and on every file and host that its user may reach\n",
    )?;
    let text = read(file)?;
    let message = recordings::messages(&text).next().context("the file contains no message")?;
    let message = message
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("cannot use `{}`", file.display()))?;
    let playbooks = Playbooks::open(&config.playbook_settings("tries"))
        .map_err(|error| Failure::with_hint(anyhow!("{error}"), error.hint()))?;
    let mut task = task.clone();
    task.manifest.ansible.check_mode = true;
    let run_id = RunId::new(format!("learn-{}", uuid::Uuid::new_v4().simple()));
    let call = Call {
        task: &task,
        dir: &playbook.dir,
        secrets: playbook.secrets.clone(),
        message: &message,
        run_id: &run_id,
        attempt: 1,
        timeout: task.timeout(),
    };
    let learned = block_on(playbooks.learn(call, &CancellationToken::new()));
    // The playbook could change the modes of the state directory.
    let restricted = modes::restrict(&config.state, config.playbook.user.is_some());
    let learned = learned??;
    print_plain(&learned.attempt.output.text)?;
    print(&format!("outcome: {}\n\n", learned.attempt.outcome))?;
    print(&proposal(&learned))?;
    if let Err((path, error)) = restricted {
        let error = anyhow!("cannot set the mode of `{}` again: {error}", path.display());
        return Err(error.into());
    }
    let is_success = learned.attempt.outcome.is_success();
    Ok(if is_success { DONE } else { FAILED })
}

/// Returns the grants that a playbook needs, as lines of a manifest.
fn proposal(learned: &Learned) -> String {
    let dirs = dirs(learned);
    let more =
        learned.unwatched.as_ref().map(|reason| format!("# more may have been used: {reason}\n"));
    let more = more.unwrap_or_default();
    if learned.ports.is_empty() && dirs.is_empty() {
        return match &learned.attempt.outcome {
            Outcome::Shortage { .. } | Outcome::Unavailable { .. } | Outcome::NotStarted { .. } => {
                "the playbook did not run, so its grants are unknown\n".to_owned()
            }
            _ if learned.unwatched.is_some() => more,
            _ => "the playbook opened nothing beyond its grants\n".to_owned(),
        };
    }
    let mut text =
        "the playbook used more than its manifest grants; grant what it should use:\n\n[grants]\n"
            .to_owned();
    if !learned.ports.is_empty() {
        let ports: Vec<_> = learned.ports.iter().map(u16::to_string).collect();
        text.push_str(&format!("tcp = [{}]\n", ports.join(", ")));
    }
    for (path, is_written) in dirs {
        let access = if is_written { "read-write" } else { "read-only" };
        let path = toml::Value::String(path.display().to_string());
        text.push_str(&format!("[[grants.dirs]]\nhost = {path}\naccess = \"{access}\"\n"));
    }
    text + &more
}

/// Returns the paths to grant, each with whether it is written. A path beneath another one is left out.
fn dirs(learned: &Learned) -> BTreeMap<PathBuf, bool> {
    let parent = |path: &PathBuf| match path.is_dir() {
        true => path.clone(),
        false => path.parent().unwrap_or(path).to_owned(),
    };
    // A file is created in its directory, so the directory must be writable.
    let created = learned.created.iter().map(|path| path.parent().unwrap_or(path).to_owned());
    let written: BTreeSet<PathBuf> = created.chain(learned.written.iter().cloned()).collect();
    let mut by_dir = BTreeMap::<PathBuf, Vec<&PathBuf>>::new();
    for path in &learned.read {
        by_dir.entry(parent(path)).or_default().push(path);
    }
    let mut all: BTreeMap<PathBuf, bool> = written.into_iter().map(|path| (path, true)).collect();
    for (dir, files) in by_dir {
        if files.len() >= MANY || files.contains(&&dir) {
            all.entry(dir).or_insert(false);
        } else {
            for file in files {
                all.entry(file.clone()).or_insert(false);
            }
        }
    }
    let is_beneath = |path: &Path, is_written: bool| {
        let above = |(other, other_written): (&PathBuf, &bool)| {
            other != path && path.starts_with(other) && (*other_written || !is_written)
        };
        all.iter().any(above)
    };
    let top = all.iter().filter(|(path, is_written)| !is_beneath(path, **is_written));
    top.map(|(path, is_written)| (path.clone(), *is_written)).collect()
}

#[cfg(test)]
mod tests {
    use loopabull_model::Attempt;

    use super::*;

    #[test]
    fn files_and_ports_become_lines_of_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("many/deep")).unwrap();
        std::fs::create_dir(at("out")).unwrap();
        let many = (0..MANY).map(|number| at("many").join(number.to_string()));
        let learned = Learned {
            attempt: Attempt::without_output(Outcome::Success),
            ports: vec![80, 443],
            read: many.chain([at("many/deep/x"), at("one"), at("out/new")]).collect(),
            written: vec![at("changed")],
            created: vec![at("out/new")],
            unwatched: Some("of a reason".to_owned()),
        };
        let found: Vec<_> = dirs(&learned).into_iter().collect();
        assert_eq!(
            found,
            [(at("changed"), true), (at("many"), false), (at("one"), false), (at("out"), true)]
        );
        let text = proposal(&learned);
        assert!(text.contains("\ntcp = [80, 443]\n[[grants.dirs]]\nhost = "), "{text}");
        assert!(text.ends_with("\n# more may have been used: of a reason\n"), "{text}");
        loopabull_model::Manifest::parse(text.split_once("\n\n").unwrap().1).unwrap();
        let nothing = |outcome, unwatched: Option<&str>| {
            proposal(&Learned {
                attempt: Attempt::without_output(outcome),
                ports: Vec::new(),
                read: Vec::new(),
                written: Vec::new(),
                created: Vec::new(),
                unwatched: unwatched.map(str::to_owned),
            })
        };
        let not_run = Outcome::Unavailable { reason: "x".into() };
        assert!(nothing(not_run, None).contains("did not run"));
        assert!(nothing(Outcome::Success, None).contains("opened nothing"));
        assert!(!nothing(Outcome::Success, Some("x")).contains("opened nothing"));
    }
}
