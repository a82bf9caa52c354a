//! Five `ansible-playbook` at a time and nothing else: what the others are compared with.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::bed::{Bed, Sample, WORKERS, message, playbook};
use super::case::Case;
use super::workers::{SETSID, Workers};
use crate::command::command;

/// Runs the playbook for each file of variables.
pub(super) fn measure(bed: &Bed) -> Result<Sample> {
    let folder = bed.folder(Case::Bare)?;
    let cannot = || format!("cannot write `{}`", folder.display());
    let list = write_variables(&folder, bed.messages).with_context(cannot)?;
    let mut xargs = command("xargs");
    // Each in a session of its own, as with the others.
    xargs.arg(format!("-P{WORKERS}")).args(["-n1", SETSID]).arg(&bed.ansible_playbook);
    xargs.args(["-i", "localhost,"]).arg(playbook(&folder)).arg("-e");
    xargs.env("ANSIBLE_CONFIG", folder.join("ansible.cfg"));

    let mut watch = bed.watch()?;
    let mut workers = Workers::default();
    workers.start(&xargs, list.into(), folder.join("xargs.log"))?;
    let ended = workers.end(bed.limit(), &bed.interrupt)?;
    watch.is_done();
    // xargs fails if one of its children does.
    ensure!(
        ended.iter().all(std::process::ExitStatus::success),
        "a playbook failed, see `{}`",
        folder.join("xargs.log").display()
    );
    watch.read(bed.messages)
}

/// Writes a file of variables for each message, and returns the list of them.
fn write_variables(folder: &Path, messages: u32) -> std::io::Result<File> {
    let variables = folder.join("variables");
    fs::create_dir(&variables)?;
    fs::write(folder.join("ansible.cfg"), "")?;
    let mut list = String::new();
    for number in 0..messages {
        let path = variables.join(format!("{number}.json"));
        // As the Python loopabull: the whole message in one variable.
        fs::write(&path, serde_json::json!({ "msg": message(number) }).to_string())?;
        list += &format!("@{}\n", path.display());
    }
    let path = folder.join("list");
    fs::write(&path, list)?;
    File::open(path)
}
