//! `cargo xtask setup`: installs the programs that the demo and the tests need, and shows them.

use std::path::Path;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::command::{command, output, say};
use crate::install::{self, Need};
use crate::wasm_target::WasmTarget;

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The command whose programs are to be installed
    #[arg(value_enum, default_value_t = Purpose::Test)]
    purpose: Purpose,
}

/// A command that needs programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Purpose {
    /// `cargo xtask demo`: Ansible and a compiler for components
    Demo,
    /// `cargo xtask test`: also RabbitMQ, two more versions of Ansible, ssh, Python, Node.js, Chromium and promtool
    Test,
}

impl Purpose {
    /// Installs all missing Debian packages that the command needs.
    ///
    /// # Errors
    ///
    /// If packages are missing or too old, and cannot be installed. The error names all of them.
    pub(crate) fn prepare(self) -> Result<()> {
        let mut needs = match self {
            Self::Demo => vec![Need::Ansible],
            Self::Test => vec![
                Need::Ansible,
                Need::RabbitMq,
                Need::NetworkTools,
                Need::Ssh,
                Need::FakeTime,
                Need::Strace,
                Need::Python,
                Need::Node,
                Need::Browser,
                Need::Prometheus,
            ],
        };
        needs.extend(WasmTarget::need());
        install::prepare(&needs)
    }
}

/// Installs the missing programs, and shows which programs are used.
///
/// # Errors
///
/// If a program cannot be installed. The error says what to do.
pub(crate) fn run(options: &Options) -> Result<()> {
    options.purpose.prepare()?;
    let ansibles = match options.purpose {
        Purpose::Demo => vec![install::ansible_playbook()?],
        Purpose::Test => install::ansible_playbooks()?,
    };
    if options.purpose == Purpose::Test {
        install::rabbitmq()?;
        install::network_tools()?;
        install::ssh()?;
        show(&install::fedmsg_python()?);
        show(&install::componentize_py()?);
        show(&install::componentize_qjs()?);
    }
    for ansible in &ansibles {
        show(ansible);
    }
    say(&format!("the compiler for components is {}", WasmTarget::find_or_install()?.describe()));
    say("everything is installed");
    Ok(())
}

/// Prints a program and its version.
fn show(program: &Path) {
    let version = output(command(program).arg("--version")).unwrap_or_default();
    let version = version.lines().next().unwrap_or_default();
    say(&format!("`{}`: {version}", program.display()));
}
