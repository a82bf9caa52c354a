//! `cargo xtask test`: installs the programs that the tests need, and runs all tests or one area.

mod area;
mod timing;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use loopabull_testbed::Rabbit;

use self::area::{Area, Needs};
use self::timing::Timing;
use crate::command::{cargo, path_with, say, show};
use crate::setup::Purpose;
use crate::{demo, install, nextest, repository, tasks};

/// The environment variable with the path of the script of axe-core.
const AXE: &str = "LOOPABULL_TEST_AXE";
/// The environment variable with the path of Schemathesis.
const SCHEMATHESIS: &str = "LOOPABULL_TEST_SCHEMATHESIS";
/// The environment variable from which `loopabull_testbed::python` reads the path of the interpreter.
const PYTHON: &str = "LOOPABULL_TEST_PYTHON";

/// The environment variable from which `loopabull_testbed::ansible_playbooks` reads the paths of the
/// programs.
pub(crate) const ANSIBLES: &str = "LOOPABULL_TEST_ANSIBLES";

/// The compiler that also runs the lints of clippy.
const CLIPPY: &str = "clippy-driver";

/// The environment variable from which `clippy-driver` reads its arguments, and its value `-D warnings`. The
/// separator of the arguments is that of `cargo clippy`.
const CLIPPY_ARGS: (&str, &str) = ("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");

/// The crates with documentation tests, which `cargo test` runs, because nextest cannot run them.
const WITH_DOCTESTS: &[&str] = &["loopabull-task"];

/// The command line of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only one area: a crate (`queue`), a file of tests/it (`reload`), or a part of a test's name
    ///
    /// Only the programs that the area needs are installed, and only its packages are built.
    area: Option<String>,
    /// Arguments for cargo-nextest, for example `--no-capture`
    #[arg(last = true)]
    nextest: Vec<OsString>,
}

/// The programs that tests start.
#[derive(Default)]
struct Programs {
    /// The `ansible-playbook` of each version. The first is on the `PATH` of the tests.
    ansibles: Vec<PathBuf>,
    /// A Python with fedmsg and fedora-messaging.
    python: Option<PathBuf>,
    /// The script of axe-core.
    axe: Option<PathBuf>,
    schemathesis: Option<PathBuf>,
}

/// The steps of a run: their durations, and the names of the failed steps.
#[derive(Default)]
struct Steps {
    timing: Timing,
    failed: Vec<&'static str>,
}

impl Steps {
    /// Runs a step, and records its duration and whether it failed.
    fn take<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Option<T> {
        let done = self.timing.measure(name, step);
        done.map_err(|error| {
            say(&format!("{error:#}"));
            self.failed.push(name);
        })
        .ok()
    }
}

/// Installs the programs that the tests need, and runs the tests. After a failed step the next step still
/// runs.
///
/// # Errors
///
/// If a program is missing and cannot be installed, or if a step failed. The error names the program or the
/// step.
pub(crate) fn run(options: &Options) -> Result<()> {
    match options.area.as_deref() {
        None => run_all(options),
        Some(name) => run_area(&Area::find(name)?, options),
    }
}

fn run_all(options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    steps.take("formatting", check_formatting);
    // The installation runs beside the compiler, because it mostly waits for the network.
    let installed = std::thread::scope(|scope| {
        let programs = scope.spawn(|| {
            Purpose::Test.prepare()?;
            install_programs(Needs::ALL)
        });
        steps.take("clippy", check_lints);
        steps.take("build", || build(&Area::All));
        steps.timing.measure("rest of the installation", || programs.join())
    });
    let installed = installed.map_err(|_| anyhow::anyhow!("the installation panicked"))??;
    steps.take("tasks", tasks::build);
    steps.take("tests of the tasks", test_tasks);
    steps.take("tests", || test(&Area::All, Needs::ALL, &installed, options));
    steps.take("documentation tests", test_documentation);
    let ansible = installed.ansibles.first();
    steps.take("demo", || demo::play(&demo::Options::default(), ansible.map(PathBuf::as_path)));
    steps.timing.print_slowest_tests();
    steps.timing.print();
    if !steps.failed.is_empty() {
        bail!("failed: {}", steps.failed.join(", "));
    }
    say("everything passed");
    Ok(())
}

fn run_area(area: &Area, options: &Options) -> Result<()> {
    let needs = area.needs();
    install::prepare(&needs.list())?;
    let programs = install_programs(needs)?;
    if needs.components {
        tasks::build()?;
    }
    build(area)?;
    test(area, needs, &programs, options)
}

fn install_programs(needs: Needs) -> Result<Programs> {
    let mut programs = Programs::default();
    if needs.rabbitmq {
        install::rabbitmq()?;
    }
    if needs.network {
        install::network_tools()?;
        install::ssh()?;
    }
    if needs.ansible {
        programs.ansibles = install::ansible_playbooks()?;
    }
    if needs.python {
        programs.python = Some(install::fedmsg_python()?);
    }
    if needs.browser {
        programs.axe = Some(install::axe()?);
        programs.schemathesis = Some(install::schemathesis()?);
    }
    Ok(programs)
}

/// Builds the tests. If the area is the whole workspace, this also builds the programs that tests start.
fn build(area: &Area) -> Result<()> {
    let mut tests = nextest::command()?;
    tests.args(["run", "--no-run"]).args(area.packages());
    show("building the tests", &mut tests)
}

/// Checks all packages of the workspace with clippy, benchmarks included.
///
/// `cargo clippy` is not used, because it would compile every dependency a second time in its own mode.
/// Instead `clippy-driver` replaces the compiler in a build of the tests, which shares the compiled
/// dependencies. The tests themselves run programs that rustc compiled, because `clippy-driver` omits runtime
/// checks of pointers.
fn check_lints() -> Result<()> {
    let mut clippy = cargo();
    clippy.args(["test", "--no-run", "--workspace", "--all-targets"]);
    clippy.args(["--config", &format!("build.rustc-workspace-wrapper={CLIPPY:?}")]);
    clippy.env(CLIPPY_ARGS.0, CLIPPY_ARGS.1);
    show("checking with clippy", &mut clippy)
        .context("clippy failed; if `clippy-driver` is missing, run `rustup component add clippy`")
}

fn test(area: &Area, needs: Needs, programs: &Programs, options: &Options) -> Result<()> {
    let mut test = nextest::command()?;
    test.arg("run").args(area.packages());
    test.args(area.filter()).args(&options.nextest);
    if let Some(ansible) = programs.ansibles.first() {
        let all = std::env::join_paths(&programs.ansibles)
            .context("the path of an `ansible-playbook` contains a colon")?;
        test.env("PATH", path_with(ansible)?).env(ANSIBLES, all);
    }
    if let Some(python) = &programs.python {
        test.env(PYTHON, python);
    }
    if let Some(axe) = &programs.axe {
        test.env(AXE, axe);
    }
    if let Some(schemathesis) = &programs.schemathesis {
        test.env(SCHEMATHESIS, schemathesis);
    }
    // All tests share one broker, except tests that kill or block a broker. These start their own.
    let rabbit = needs.rabbitmq.then(|| {
        say("starting RabbitMQ (about 10 s)");
        Rabbit::start()
    });
    if let Some(rabbit) = &rabbit {
        test.env(Rabbit::ENVIRONMENT, rabbit.name());
    }
    show("running the tests", &mut test)
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

fn test_documentation() -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--doc"]);
    test.args(WITH_DOCTESTS.iter().flat_map(|package| ["--package", *package]));
    show("testing the examples of the documentation", &mut test)
}

fn test_tasks() -> Result<()> {
    let folder = repository::tasks();
    let mut test = cargo();
    test.args(["test", "--no-fail-fast", "--manifest-path"]).arg(folder.join("Cargo.toml"));
    test.arg("--target-dir").arg(folder.join("target"));
    show("testing the tasks", &mut test)
}
