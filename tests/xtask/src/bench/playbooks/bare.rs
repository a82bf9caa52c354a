//! The baseline of the comparison: five processes `ansible-playbook` at a time, without a queue.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::case::Case;
use super::setup::{Sample, Setup, WORKERS, message, playbook};
use crate::bench::workers::{SETSID, Workers};
use crate::command::command;

/// Runs the playbook for each file of variables.
pub(super) fn measure(setup: &Setup) -> Result<Sample> {
    let folder = setup.folder(Case::Bare)?;
    let cannot = || format!("cannot write `{}`", folder.display());
    let list = write_variables(&folder, setup.messages).with_context(cannot)?;
    let mut xargs = command("xargs");
    // Each playbook gets its own session, as in the other cases.
    xargs.arg(format!("-P{WORKERS}")).args(["-n1", SETSID]).arg(&setup.ansible_playbook);
    xargs.args(["-i", "localhost,"]).arg(playbook(&folder)).arg("-e");
    xargs.env("ANSIBLE_CONFIG", folder.join("ansible.cfg"));

    let mut watch = setup.watch()?;
    let mut workers = Workers::default();
    workers.start(&xargs, list.into(), folder.join("xargs.log"))?;
    let ended = workers.end(setup.limit(), &setup.interrupt)?;
    watch.is_done();
    // xargs fails if one of its children fails.
    ensure!(
        ended.iter().all(std::process::ExitStatus::success),
        "a playbook failed, see `{}`",
        folder.join("xargs.log").display()
    );
    watch.read(setup.messages)
}

/// Writes a file of variables for each message, and returns a file that lists them.
fn write_variables(folder: &Path, messages: u32) -> std::io::Result<File> {
    let variables = folder.join("variables");
    fs::create_dir(&variables)?;
    fs::write(folder.join("ansible.cfg"), "")?;
    let mut list = String::new();
    for number in 0..messages {
        let path = variables.join(format!("{number}.json"));
        // The whole message is in one variable, as in the Python loopabull.
        fs::write(&path, serde_json::json!({ "msg": message(number) }).to_string())?;
        list += &format!("@{}\n", path.display());
    }
    let path = folder.join("list");
    fs::write(&path, list)?;
    File::open(path)
}
