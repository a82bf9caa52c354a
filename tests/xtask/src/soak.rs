//! `cargo xtask soak`: the long tests, which `cargo xtask test` does not run.

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{cargo, path_with, show};
use crate::install::{self, Need};
use crate::tasks;
use crate::wasm_target::WasmTarget;

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// A part of the names of the soaks to run: `soak_kills` (50 kills over 20,000 messages, on
    /// both queues), `soak_leader` (a cluster, 3 minutes), `soak_ack` (an acknowledgement timeout
    /// of one minute and a task of three minutes), `soak_of` (random faults, 20 minutes),
    /// `soak_playbooks` (2,000 playbooks), `soak_a_cable` (a cable that is cut for 5 minutes),
    /// `soak_a_broker` (a broker that is stopped for a minute, at 200 messages a second), `soak_ten`
    /// (10,000 messages and a kill), `soak_two` (200 reloads under load), `soak_shortages` (a machine that
    /// lacks something), `soak_no` (100,000 texts with secrets), `soak_each` (each hostile
    /// body in a message of its own, by three versions of Ansible)
    #[arg(default_value = "soak_")]
    names: Vec<String>,
}

/// Runs the soaks one after the other, and shows their output.
///
/// # Errors
///
/// If a tool is missing or a soak fails. The error names it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut needs = vec![Need::RabbitMq, Need::NetworkTools, Need::Ansible, Need::Strace];
    needs.extend(WasmTarget::need());
    install::prepare(&needs)?;
    let ansibles = install::ansible_playbooks()?;
    let path = path_with(&ansibles[0])?;
    let all = std::env::join_paths(&ansibles)
        .context("the path of an `ansible-playbook` contains a colon")?;
    tasks::build_rust()?;
    show("building the workspace", cargo().args(["build", "--workspace"]))?;
    let mut soak = cargo();
    soak.args(["test", "--package", "loopabull-host", "--test", "it", "--", "--ignored"]);
    soak.args(["--nocapture", "--test-threads", "1"]).args(&options.names);
    soak.env("PATH", path).env(crate::test::ANSIBLES, all);
    show("running the soaks", &mut soak)
}
