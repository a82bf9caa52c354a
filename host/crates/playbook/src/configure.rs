//! Asks Ansible for the settings of a playbook's configuration.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Outcome, Task};

use crate::ansible_settings::AnsibleSettings;
use crate::error::CheckError;
use crate::folder::Folder;
use crate::host::Host;
use crate::play::Play;
use crate::playbook_dir::PlaybookDir;
use crate::secrets::Secrets;
use crate::trial::{CHECK_OUTPUT, folder_name, output, trial};
use crate::watch::Limits;

/// The timeout for reading Ansible's settings.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a playbook with the settings of its configuration. Asks Ansible unless they are known.
pub(crate) async fn configure<'a>(
    host: &Host,
    task: &'a Task,
    dir: &'a PlaybookDir,
) -> Result<Play<'a>, CheckError> {
    let play = |settings| Play { task, dir, settings };
    let key = host.planner.configuration(task, dir)?;
    let unknown =
        |key| AnsibleSettings::unknown(key).map_err(|source| CheckError::Config { source });
    if !host.planner.has_python() {
        return Ok(play(Arc::new(unknown(&key)?)));
    }
    if let Some(settings) = host.settings.get(&key) {
        return Ok(play(settings));
    }
    let _asking = host.settings.asking.lock().await;
    let key = host.planner.configuration(task, dir)?;
    if let Some(settings) = host.settings.get(&key) {
        return Ok(play(settings));
    }
    let settings = match ask(host, task, dir).await? {
        Some(settings) => Arc::new(settings),
        None => Arc::new(unknown(&key)?),
    };
    // A file that has changed meanwhile has another key, so it is read again next time.
    host.settings.insert(key, Arc::clone(&settings));
    Ok(play(settings))
}

/// Asks Ansible. Returns `None` if the Python of `ansible-playbook` has no Ansible.
async fn ask(
    host: &Host,
    task: &Task,
    dir: &PlaybookDir,
) -> Result<Option<AnsibleSettings>, CheckError> {
    let secrets = Secrets::default();
    let limits = Limits { timeout: SETTINGS_TIMEOUT, output: CHECK_OUTPUT, mask: secrets.mask() };
    let plan = |folder: &Folder| host.planner.settings_query(task, dir, folder.path());
    let attempt = trial(host, &folder_name(task), plan, limits, &secrets).await?;
    if matches!(attempt.outcome, Outcome::Limit { .. }) {
        return Err(CheckError::SlowSettings { timeout: SETTINGS_TIMEOUT });
    }
    let text = output(attempt)?;
    let settings = AnsibleSettings::parse(&text);
    let settings = settings.ok_or_else(|| CheckError::NoSettings { output: text.clone() })?;
    let settings = settings.transpose().map_err(|source| CheckError::Settings { source })?;
    match settings.as_ref().and_then(|settings| settings.unreadable_vault.as_deref()) {
        Some(path) => Err(host.planner.unreadable_vault(path)),
        None => Ok(settings),
    }
}
