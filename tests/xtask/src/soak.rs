//! `cargo xtask soak`: the faults of the tests for as long as they deserve.

use anyhow::Result;
use clap::Args;

use crate::command::{cargo, path_with, show};
use crate::install::{self, Need};
use crate::tasks;
use crate::wasm_target::WasmTarget;

/// What the command line says.
#[derive(Args)]
pub(crate) struct Options {
    /// A part of the names of the soaks to run: `soak_kills` (50 kills over 20,000 messages, on both
    /// queues), `soak_leader` (a cluster, 3 minutes), `soak_ack` (an acknowledgement
    /// timeout of a minute and a task of three), `soak_of` (all faults at random, 20 minutes),
    /// `soak_playbooks` (2,000 playbooks), `soak_a_cable` (dead for 5 minutes), `soak_a_broker` (away for a
    /// minute under 200 messages a second)
    #[arg(default_value = "soak_")]
    names: Vec<String>,
}

/// Runs the soaks one after the other, and shows what they count.
///
/// # Errors
///
/// If a tool is missing or a soak failed; the text names it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut needs = vec![Need::RabbitMq, Need::NetworkTools, Need::Ansible];
    needs.extend(WasmTarget::need());
    install::prepare(&needs)?;
    let path = path_with(&install::ansible_playbook()?)?;
    tasks::build_rust()?;
    show("building the workspace", cargo().args(["build", "--workspace"]))?;
    let mut soak = cargo();
    soak.args(["test", "--package", "loopabull-host", "--test", "it", "--", "--ignored"]);
    soak.args(["--nocapture", "--test-threads", "1"]).args(&options.names).env("PATH", path);
    show("soaking", &mut soak)
}
