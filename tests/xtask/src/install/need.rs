//! The programs that commands need, and their installation. All missing packages are installed in one call of
//! apt. A user without root gets one line that names all of them.

use anyhow::{Result, bail, ensure};

use crate::command::{on_path, say};
use crate::install::apt;
use crate::install::requirement::{self, Requirement, Unmet};

/// A program that a command needs and that Debian packages provide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Need {
    /// `ansible-playbook`, from Debian or from PyPI
    Ansible,
    /// Chromium and chromedriver
    Browser,
    /// Debian's compiler for components, if rustup provides none
    DebianCompiler,
    /// A library that sets the clock of one process
    FakeTime,
    Java,
    /// `ip`
    NetworkTools,
    /// `npm` with `node`
    Node,
    /// `promtool`
    Prometheus,
    /// `python3` with `venv`
    Python,
    RabbitMq,
    /// The server and the client of ssh
    Ssh,
    /// A program that makes system calls fail
    Strace,
}

impl Need {
    fn requirements(self) -> Vec<&'static Requirement> {
        use requirement as r;
        match self {
            Self::Ansible => vec![&r::ANSIBLE],
            Self::Browser => vec![&r::BROWSER],
            Self::DebianCompiler => {
                vec![&r::RUSTC, &r::CARGO, &r::RUST_SOURCES, &r::LINKER, &r::WASI_LIBC]
            }
            Self::FakeTime => vec![&r::FAKE_TIME],
            Self::Java => vec![&r::JAVA],
            Self::NetworkTools => vec![&r::NETWORK_TOOLS],
            Self::Node => vec![&r::NODE],
            Self::Prometheus => vec![&r::PROMETHEUS],
            Self::Python => vec![&r::PYTHON],
            Self::RabbitMq => vec![&r::RABBITMQ],
            Self::Ssh => vec![&r::SSH],
            Self::Strace => vec![&r::STRACE],
        }
    }

    /// Returns whether only apt can install the program. Ansible can also be installed from PyPI.
    fn is_required(self) -> bool {
        self != Self::Ansible
    }
}

/// Installs everything that a command needs and that is missing.
///
/// This succeeds even if Ansible is still missing, because `install::ansible_playbook` can install Ansible
/// from PyPI.
///
/// # Errors
///
/// If a program is missing or too old, and cannot be installed. The error names all such programs and says
/// what to do.
pub(crate) fn prepare(needs: &[Need]) -> Result<()> {
    let (required, optional): (Vec<Need>, Vec<Need>) =
        needs.iter().partition(|need| need.is_required());
    let (required, optional) = (unmet(&required), unmet(&optional));
    let all: Vec<Unmet> = required.iter().chain(&optional).cloned().collect();
    if all.is_empty() || required.is_empty() && !apt::may_install() {
        return Ok(());
    }
    if !apt::may_install() {
        bail!("{}", by_hand(&all, apt::is_there(), on_path("rustup").is_some()));
    }
    match install(&all) {
        Err(error) if optional.is_empty() => return Err(error),
        // The distribution may lack the optional package, so the required packages are installed without it.
        Err(error) => {
            say(&format!("{error:#}"));
            if !required.is_empty() {
                install(&required)?;
            }
        }
        Ok(()) => {}
    }
    let left: Vec<&Requirement> = required.iter().map(|unmet| unmet.requirement).collect();
    let left = requirement::unmet(&left);
    ensure!(left.is_empty(), "{}", still(&left));
    Ok(())
}

/// Returns the instructions for a user who cannot install the missing packages of `needs`.
pub(super) fn missing(needs: &[Need]) -> String {
    let unmet = requirement::unmet(&requirements(needs));
    by_hand(&unmet, apt::is_there(), on_path("rustup").is_some())
}

/// Returns the requirements of all needs without duplicates.
fn requirements(needs: &[Need]) -> Vec<&'static Requirement> {
    let mut requirements: Vec<&'static Requirement> = Vec::new();
    for requirement in needs.iter().flat_map(|need| need.requirements()) {
        if !requirements.iter().any(|&known| std::ptr::eq(known, requirement)) {
            requirements.push(requirement);
        }
    }
    requirements
}

/// Returns the requirements that apt has to install for these needs.
fn unmet(needs: &[Need]) -> Vec<Unmet> {
    let from_pypi = !apt::may_install() && requirement::PYTHON.is_met();
    let needs: Vec<Need> =
        needs.iter().copied().filter(|&need| need != Need::Ansible || !from_pypi).collect();
    requirement::unmet(&requirements(&needs))
}

fn install(unmet: &[Unmet]) -> Result<()> {
    let takes = unmet.iter().map(|unmet| unmet.requirement.takes).sum();
    apt::install(&requirement::packages(unmet), takes)
}

/// Returns the missing packages and the command that root has to run.
fn by_hand(unmet: &[Unmet], has_apt: bool, has_rustup: bool) -> String {
    let (what, packages) = (requirement::describe(unmet), requirement::packages(unmet).join(" "));
    let mut text = if has_apt {
        format!("{what}; run as root: apt-get update && apt-get install {packages}")
    } else {
        format!(
            "{what}; these are Debian packages, install the corresponding packages of this distribution"
        )
    };
    let needs_rustc = packages.contains(requirement::RUSTC.packages[0]);
    if has_rustup && needs_rustc {
        text += " (in place of rustc-web and its companions: rustup target add wasm32-wasip2)";
    }
    text
}

/// Returns the error for packages that are missing or too old although apt has installed them.
fn still(unmet: &[Unmet]) -> String {
    format!(
        "after the installation still {}; `apt-cache policy {}` shows the versions that the \
         package sources of this machine offer: add a source that has a newer one (for Debian, its \
         security archive)",
        requirement::describe(unmet),
        requirement::packages(unmet).join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::requirement::State;
    use crate::install::version::Version;

    fn missing(requirement: &'static Requirement) -> Unmet {
        Unmet { requirement, state: State::Missing }
    }

    fn too_old(requirement: &'static Requirement, found: &str, needed: &'static str) -> Unmet {
        let found = Version::find(found).unwrap();
        Unmet { requirement, state: State::TooOld { found, needed } }
    }

    #[test]
    fn a_user_without_root_gets_one_line() {
        let unmet = [missing(&requirement::SSH), too_old(&requirement::RABBITMQ, "3.8.9", "3.10")];
        assert_eq!(
            by_hand(&unmet, true, true),
            "missing: openssh-server, openssh-client; \
             too old: rabbitmq-server 3.8.9 (needed: 3.10 or newer); run as root: \
             apt-get update && apt-get install openssh-server openssh-client rabbitmq-server"
        );
        assert!(
            by_hand(&unmet, false, true)
                .ends_with("install the corresponding packages of this distribution")
        );
    }

    #[test]
    fn rustup_is_named_where_it_could_help() {
        let compiler = [missing(&requirement::RUSTC)];
        assert!(by_hand(&compiler, true, true).ends_with("rustup target add wasm32-wasip2)"));
        assert!(by_hand(&compiler, true, false).ends_with("apt-get install rustc-web"));
    }

    #[test]
    fn a_package_that_stays_too_old_is_named_with_both_versions() {
        let text = still(&[too_old(&requirement::RUSTC, "1.85.0", "1.95")]);
        let start = "after the installation still too old: rustc-web 1.85.0 \
                     (needed: 1.95 or newer); `apt-cache policy rustc-web` shows";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn only_ansible_is_optional() {
        assert!(!Need::Ansible.is_required());
        assert!(Need::DebianCompiler.is_required());
    }
}
