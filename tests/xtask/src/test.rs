//! `cargo xtask test`: installs what the tests need, and runs all of them.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use clap::Args;
use loopabull_testbed::Rabbit;

use crate::command::{cargo, path_with, say, show};
use crate::setup::Purpose;
use crate::{demo, install, repository, tasks};

/// The name under which `loopabull_testbed::python` looks for the interpreter.
const PYTHON: &str = "LOOPABULL_TEST_PYTHON";

/// The name under which `loopabull_testbed::ansible_playbooks` looks for the programs.
const ANSIBLES: &str = "LOOPABULL_TEST_ANSIBLES";

/// What the command line says.
#[derive(Args)]
pub(crate) struct Options {
    /// Arguments for `cargo test`, for example a part of the names of the tests to run
    #[arg(last = true)]
    cargo_test: Vec<OsString>,
}

/// The steps that failed so far.
#[derive(Default)]
struct Failed(Vec<&'static str>);

impl Failed {
    fn note(&mut self, step: &'static str, done: Result<()>) {
        if let Err(error) = done {
            say(&format!("{error:#}"));
            self.0.push(step);
        }
    }
}

/// Installs what the tests need and runs everything, to the end also if something fails.
///
/// # Errors
///
/// If a tool is missing or anything failed; the text names it.
pub(crate) fn run(options: &Options) -> Result<()> {
    Purpose::Test.prepare()?;
    install::rabbitmq()?;
    install::network_tools()?;
    install::ssh()?;
    let ansibles = install::ansible_playbooks()?;
    let path = path_with(&ansibles[0])?;
    let ansibles = std::env::join_paths(ansibles).context("a path with a colon")?;
    let python = install::fedmsg_python()?;

    let mut failed = Failed::default();
    failed.note("formatting", check_formatting());
    failed.note("clippy", check_lints());
    failed.note("tasks", tasks::build());
    // Tests start binaries of other packages, which `cargo test` alone does not build.
    failed.note("build", show("building the workspace", cargo().args(["build", "--workspace"])));

    say("starting RabbitMQ");
    let rabbit = Rabbit::start();
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]).args(&options.cargo_test);
    test.env(Rabbit::ENVIRONMENT, rabbit.name()).env(PYTHON, python).env("PATH", path);
    test.env(ANSIBLES, ansibles);
    failed.note("tests", show("testing the workspace", &mut test));
    failed.note("tests of the tasks", test_tasks(options));
    failed.note("demo", demo::run(&demo::Options::default()));

    if !failed.0.is_empty() {
        bail!("failed: {}", failed.0.join(", "));
    }
    say("everything passed");
    Ok(())
}

fn check_formatting() -> Result<()> {
    show("checking the formatting", cargo().args(["fmt", "--all", "--check"]))?;
    for guests in [repository::tasks(), repository::fixtures().join("probe")] {
        let mut format = cargo();
        format.args(["fmt", "--all", "--check", "--manifest-path"]);
        format.arg(guests.join("Cargo.toml"));
        show(&format!("checking the formatting of `{}`", guests.display()), &mut format)?;
    }
    Ok(())
}

fn check_lints() -> Result<()> {
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    show("checking with clippy", &mut clippy)
}

fn test_tasks(options: &Options) -> Result<()> {
    let folder = repository::tasks();
    let mut test = cargo();
    test.args(["test", "--no-fail-fast", "--manifest-path"]).arg(folder.join("Cargo.toml"));
    test.arg("--target-dir").arg(folder.join("target")).args(&options.cargo_test);
    show("testing the tasks", &mut test)
}
