//! The table of requirements: Debian packages, and checks whether a machine already has their programs.
//!
//! A check looks for the program and not for its package, so a program that was installed in another way is
//! used too. The package names are the same in Debian 12 and 13.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{command, on_path, output};
use crate::install::debian_compiler;
use crate::install::version::Version;
use crate::java::Java;

/// A program or library that commands need and that Debian packages provide.
pub(super) struct Requirement {
    /// The packages that provide it. An error about an old version names the first package.
    pub(super) packages: &'static [&'static str],
    pub(super) check: Check,
    /// The estimated duration of the installation, measured on two busy cores with a fast network.
    pub(super) takes: Duration,
}

/// The check whether a requirement is met.
pub(super) enum Check {
    /// The requirement is met if this function returns true.
    Present(fn() -> bool),
    /// The requirement is met if the function returns this version or a newer one.
    AtLeast(&'static str, fn() -> Option<Version>),
}

/// The result of a check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    Met,
    Missing,
    TooOld { found: Version, needed: &'static str },
}

/// A requirement that is not met.
#[derive(Clone)]
pub(super) struct Unmet {
    pub(super) requirement: &'static Requirement,
    pub(super) state: State,
}

const RABBITMQ_PLUGINS: &str = "/usr/lib/rabbitmq/lib";
const RABBITMQ_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const DEBIAN_ANSIBLE: &str = "/usr/bin/ansible-playbook";

/// The oldest version of Ansible with which the host was tested.
const ANSIBLE_MINIMUM: &str = "2.14";
/// The `rust-version` of the root `Cargo.toml`, which all guests share.
const RUST_MINIMUM: &str = env!("CARGO_PKG_RUST_VERSION");
/// The oldest version of Java that ansible-rulebook supports.
pub(super) const JAVA_MINIMUM: u32 = 17;

pub(super) static ANSIBLE: Requirement = Requirement {
    packages: &["ansible-core"],
    check: Check::AtLeast(ANSIBLE_MINIMUM, || newest(ansible_playbooks())),
    takes: Duration::from_secs(60),
};

pub(super) static RABBITMQ: Requirement = Requirement {
    packages: &["rabbitmq-server"],
    check: Check::AtLeast("3.10", rabbitmq_version),
    takes: Duration::from_secs(90),
};

/// The first `python3` on the `PATH`, with its module `venv`. ansible-core 2.16 needs Python 3.10.
pub(super) static PYTHON: Requirement = Requirement {
    packages: &["python3-venv"],
    check: Check::AtLeast("3.10", || {
        let script = "import ensurepip, venv, platform; print(platform.python_version())";
        Version::find(&output(command("python3").args(["-c", script])).ok()?)
    }),
    takes: Duration::from_secs(30),
};

/// `ip`, for tests that cut a node off from its network.
pub(super) static NETWORK_TOOLS: Requirement = Requirement {
    packages: &["iproute2"],
    check: Check::Present(|| {
        ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].iter().any(|path| Path::new(path).exists())
    }),
    takes: Duration::from_secs(5),
};

/// A library that sets the clock of one process, for tests of clocks that jump.
pub(super) static FAKE_TIME: Requirement = Requirement {
    packages: &["libfaketime"],
    check: Check::Present(|| loopabull_testbed::fake_time().is_some()),
    takes: Duration::from_secs(5),
};

/// `strace`, for tests of a machine that has no memory for another process.
pub(super) static STRACE: Requirement = Requirement {
    packages: &["strace"],
    check: Check::Present(|| on_path("strace").is_some()),
    takes: Duration::from_secs(5),
};

/// A browser, the program that drives it, and a font, for tests of the pages.
pub(super) static BROWSER: Requirement = Requirement {
    packages: &["chromium", "chromium-driver", "fonts-dejavu-core"],
    check: Check::Present(|| on_path("chromium").is_some() && on_path("chromedriver").is_some()),
    takes: Duration::from_secs(40),
};

/// The program that tests alert rules. The server is not started.
pub(super) static PROMETHEUS: Requirement = Requirement {
    packages: &["prometheus"],
    check: Check::Present(|| on_path("promtool").is_some()),
    takes: Duration::from_secs(25),
};

/// The server and the client of ssh. The server is not started.
pub(super) static SSH: Requirement = Requirement {
    packages: &["openssh-server", "openssh-client"],
    check: Check::Present(|| Path::new("/usr/sbin/sshd").exists() && on_path("ssh").is_some()),
    takes: Duration::from_secs(15),
};

/// `npm` and `node`, for componentize-qjs, whose package requires this version of Node.js.
pub(super) static NODE: Requirement = Requirement {
    packages: &["npm"],
    check: Check::AtLeast("18", || {
        on_path("npm")?;
        let text = output(command("node").arg("--version")).ok()?;
        Version::find(text.trim_start_matches('v'))
    }),
    takes: Duration::from_secs(90),
};

pub(super) static JAVA: Requirement = Requirement {
    packages: &["default-jre-headless"],
    check: Check::Present(|| Java::find(JAVA_MINIMUM).is_some()),
    takes: Duration::from_secs(60),
};

pub(super) static RUSTC: Requirement = Requirement {
    packages: &["rustc-web"],
    check: Check::AtLeast(RUST_MINIMUM, || version_of(debian_compiler::RUSTC)),
    takes: Duration::from_secs(90),
};

pub(super) static CARGO: Requirement = Requirement {
    packages: &["cargo-web"],
    check: Check::AtLeast(RUST_MINIMUM, || version_of(debian_compiler::CARGO)),
    takes: Duration::from_secs(10),
};

/// The sources of Rust's standard library, which Debian's compiler compiles for components.
pub(super) static RUST_SOURCES: Requirement = Requirement {
    packages: &["rust-web-src"],
    check: Check::AtLeast(RUST_MINIMUM, debian_compiler::sources_version),
    takes: Duration::from_secs(40),
};

/// The linker for WebAssembly. Version 19 is the oldest that was tested.
pub(super) static LINKER: Requirement = Requirement {
    packages: &["lld-19"],
    check: Check::AtLeast("19", || version_of(debian_compiler::wasm_linker()?)),
    takes: Duration::from_secs(30),
};

/// The C library of WASI. The version of Debian 12 is the oldest that was tested.
pub(super) static WASI_LIBC: Requirement = Requirement {
    packages: &["wasi-libc"],
    check: Check::AtLeast("0.0~git20220510", debian_compiler::libc_version),
    takes: Duration::from_secs(5),
};

impl Requirement {
    /// Checks whether the requirement is met now.
    pub(super) fn state(&self) -> State {
        match &self.check {
            Check::Present(is_there) => decide(None, is_there().then_some(None)),
            Check::AtLeast(minimum, version) => decide(Some(minimum), version().map(Some)),
        }
    }

    pub(super) fn is_met(&self) -> bool {
        self.state() == State::Met
    }
}

/// Returns the requirements that are not met.
pub(super) fn unmet(requirements: &[&'static Requirement]) -> Vec<Unmet> {
    let states = requirements.iter().map(|&requirement| (requirement, requirement.state()));
    let unmet = states.filter(|(_, state)| *state != State::Met);
    unmet.map(|(requirement, state)| Unmet { requirement, state }).collect()
}

/// Returns a text that names all unmet requirements: `missing: a, b; too old: c 1.0 (needed: 2.0 or newer)`.
pub(super) fn describe(unmet: &[Unmet]) -> String {
    let missing = unmet.iter().filter(|unmet| unmet.state == State::Missing);
    let missing: Vec<&str> =
        missing.flat_map(|unmet| unmet.requirement.packages).copied().collect();
    let too_old: Vec<String> = unmet
        .iter()
        .filter_map(|unmet| match &unmet.state {
            State::TooOld { found, needed } => {
                let name = unmet.requirement.packages[0];
                Some(format!("{name} {found} (needed: {needed} or newer)"))
            }
            State::Met | State::Missing => None,
        })
        .collect();
    let parts = [("missing", missing.join(", ")), ("too old", too_old.join(", "))];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    parts.map(|(what, names)| format!("{what}: {names}")).collect::<Vec<_>>().join("; ")
}

/// Returns the packages of all unmet requirements.
pub(super) fn packages(unmet: &[Unmet]) -> Vec<&'static str> {
    unmet.iter().flat_map(|unmet| unmet.requirement.packages).copied().collect()
}

/// Returns the `ansible-playbook` to use: the first on the `PATH`, or Debian's if the first is not new
/// enough.
pub(super) fn ansible_playbook() -> Option<PathBuf> {
    let minimum = Version::find(ANSIBLE_MINIMUM)?;
    let version = |program: &PathBuf| version_of(program);
    ansible_playbooks().find(|program| version(program).is_some_and(|found| found >= minimum))
}

fn ansible_playbooks() -> impl Iterator<Item = PathBuf> {
    let debian = PathBuf::from(DEBIAN_ANSIBLE);
    on_path("ansible-playbook").into_iter().chain(debian.is_file().then_some(debian))
}

fn newest(programs: impl Iterator<Item = PathBuf>) -> Option<Version> {
    programs.filter_map(version_of).max()
}

/// Reads the version of RabbitMQ from the name of a directory, because the server takes seconds to answer.
fn rabbitmq_version() -> Option<Version> {
    if !Path::new(RABBITMQ_SERVER).exists() {
        return None;
    }
    let names = fs::read_dir(RABBITMQ_PLUGINS).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| Version::find(name.strip_prefix("rabbitmq_server-")?)).max()
}

/// Returns the version that a program prints.
fn version_of(program: impl AsRef<Path>) -> Option<Version> {
    Version::find(&output(command(program.as_ref()).arg("--version")).ok()?)
}

/// Returns the state of a requirement. `found` is `None` if the program is missing, and `Some(None)` if it
/// exists and has no known version.
fn decide(minimum: Option<&'static str>, found: Option<Option<Version>>) -> State {
    match (found, minimum) {
        (None, _) => State::Missing,
        (Some(Some(found)), Some(needed)) if Version::find(needed).is_some_and(|n| found < n) => {
            State::TooOld { found, needed }
        }
        (Some(_), _) => State::Met,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(packages: &'static [&'static str]) -> &'static Requirement {
        let check = Check::Present(|| false);
        Box::leak(Box::new(Requirement { packages, check, takes: Duration::ZERO }))
    }

    fn too_old(found: &str, needed: &'static str) -> State {
        State::TooOld { found: Version::find(found).unwrap(), needed }
    }

    #[test]
    fn a_version_below_the_minimum_is_too_old() {
        let decide = |found: &str| decide(Some("1.95"), Some(Version::find(found)));
        assert_eq!(decide("1.85.0+dfsg3-1~deb12u3"), too_old("1.85.0", "1.95"));
        assert_eq!(decide("1.95.0"), State::Met);
        assert_eq!(decide("1.96.0+dfsg1-1~deb12u2"), State::Met);
    }

    #[test]
    fn a_program_without_a_minimum_only_has_to_be_there() {
        assert_eq!(decide(None, Some(None)), State::Met);
        assert_eq!(decide(None, None), State::Missing);
        assert_eq!(decide(Some("3.10"), None), State::Missing);
    }

    #[test]
    fn all_that_is_unmet_is_named_at_once() {
        let unmet = [
            (requirement(&["lld-19"]), State::Missing),
            (requirement(&["rustc-web"]), too_old("1.85.0", "1.95")),
            (requirement(&["openssh-server", "openssh-client"]), State::Missing),
        ];
        let unmet = unmet.map(|(requirement, state)| Unmet { requirement, state });
        assert_eq!(
            describe(&unmet),
            "missing: lld-19, openssh-server, openssh-client; \
             too old: rustc-web 1.85.0 (needed: 1.95 or newer)"
        );
        assert_eq!(packages(&unmet), ["lld-19", "rustc-web", "openssh-server", "openssh-client"]);
        assert_eq!(describe(&unmet[1..2]), "too old: rustc-web 1.85.0 (needed: 1.95 or newer)");
    }

    #[test]
    fn the_minimum_of_the_compiler_is_that_of_the_workspace() {
        let manifest = fs::read_to_string(crate::repository::root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("\nrust-version = \"{RUST_MINIMUM}\"\n")));
    }
}
