//! A part of the tests: the tests of one crate, or some tests of whole daemons.

use std::ffi::OsString;

use anyhow::{Result, ensure};

use crate::install::Need;
use crate::repository;
use crate::wasm_target::WasmTarget;

/// The package with the tests of whole daemons.
const HOST: &str = "loopabull-host";
/// The package of this program.
const XTASK: &str = "xtask";

/// A selection of tests.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Area {
    All,
    /// The tests of one package.
    Package(String),
    /// The tests of whole daemons whose name contains this text.
    Daemon(String),
}

/// The programs and components that the tests of an area need.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Needs {
    pub(super) rabbitmq: bool,
    pub(super) ansible: bool,
    /// A Python with fedmsg and fedora-messaging.
    pub(super) python: bool,
    /// Chromium, axe-core, promtool and Schemathesis.
    pub(super) browser: bool,
    /// `ip`, and a server and a client of ssh.
    pub(super) network: bool,
    /// The components of `tasks/` and `tests/fixtures/`.
    pub(super) components: bool,
}

impl Needs {
    const NOTHING: Self = Self {
        rabbitmq: false,
        ansible: false,
        python: false,
        browser: false,
        network: false,
        components: false,
    };
    pub(super) const ALL: Self = Self {
        rabbitmq: true,
        ansible: true,
        python: true,
        browser: true,
        network: true,
        components: true,
    };

    /// Returns the needed programs that Debian packages provide.
    pub(super) fn list(self) -> Vec<Need> {
        let mut list = Vec::new();
        list.extend(self.rabbitmq.then_some(Need::RabbitMq));
        list.extend(self.ansible.then_some(Need::Ansible));
        list.extend((self.python || self.ansible).then_some(Need::Python));
        if self.browser {
            list.extend([Need::Browser, Need::Node, Need::Prometheus]);
        }
        if self.network {
            list.extend([Need::NetworkTools, Need::Ssh, Need::FakeTime, Need::Strace]);
        }
        if self.components {
            list.push(Need::Node);
            list.extend(WasmTarget::need());
        }
        list
    }
}

impl Area {
    /// Returns the area with this name. The name of a package, without `loopabull-`, selects the tests of
    /// that package. Another name selects the tests of whole daemons whose name contains it.
    ///
    /// # Errors
    ///
    /// If the name is empty.
    pub(super) fn find(name: &str) -> Result<Self> {
        ensure!(
            !name.is_empty(),
            "the name of the area is empty; use for example `queue` or `reload`"
        );
        let package = match name {
            "host" | "it" => return Ok(Self::Daemon(String::new())),
            "sdk" | "guest-sdk" | "task" => Some("loopabull-task"),
            "bench" | "house" | "testbed" | XTASK => Some(name),
            _ => None,
        };
        if let Some(package) = package {
            let own = if package == XTASK || package.starts_with("loopabull-") {
                package.to_owned()
            } else {
                format!("loopabull-{package}")
            };
            return Ok(Self::Package(own));
        }
        let folder = repository::root().join("host/crates").join(name);
        if folder.join("Cargo.toml").is_file() {
            return Ok(Self::Package(format!("loopabull-{name}")));
        }
        Ok(Self::Daemon(name.to_owned()))
    }

    /// Returns the programs and components that the tests of the area need.
    pub(super) fn needs(&self) -> Needs {
        let Self::Package(package) = self else { return Needs::ALL };
        match package.as_str() {
            "loopabull-queue" | "loopabull-amqp" => Needs { rabbitmq: true, ..Needs::NOTHING },
            "loopabull-fedora-messaging" => {
                Needs { rabbitmq: true, python: true, ..Needs::NOTHING }
            }
            "loopabull-fedmsg" => Needs { python: true, ..Needs::NOTHING },
            "loopabull-playbook" => Needs { ansible: true, ..Needs::NOTHING },
            "loopabull-wasm" | "loopabull-bench" => Needs { components: true, ..Needs::NOTHING },
            XTASK => Needs { rabbitmq: true, python: true, components: true, ..Needs::NOTHING },
            "loopabull-testbed" => Needs { components: false, browser: false, ..Needs::ALL },
            _ => Needs::NOTHING,
        }
    }

    /// Returns the arguments of cargo that select the packages.
    pub(super) fn packages(&self) -> Vec<OsString> {
        match self {
            // The whole workspace is built, as in a full run. A build of fewer packages could need the
            // dependencies with other features and compile them again.
            Self::All | Self::Daemon(_) => vec!["--workspace".into()],
            // Its tests start programs of other packages.
            Self::Package(package) if package == XTASK => vec!["--workspace".into()],
            Self::Package(package) => vec!["--package".into(), package.into()],
        }
    }

    /// Returns the arguments of nextest that select the tests.
    pub(super) fn filter(&self) -> Vec<OsString> {
        match self {
            Self::Daemon(name) if name.is_empty() => vec![format!("-Epackage({HOST})").into()],
            Self::Daemon(name) => vec![format!("-Epackage({HOST}) and test({name})").into()],
            Self::Package(package) if package == XTASK => {
                vec![format!("-Epackage({XTASK})").into()]
            }
            Self::All | Self::Package(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: &Area) {
        assert_eq!(Area::find(name).unwrap(), *expected, "{name}");
    }

    #[test]
    fn a_crate_is_an_area_and_so_is_a_file_of_the_daemons_tests() {
        check("queue", &Area::Package("loopabull-queue".to_owned()));
        check("xtask", &Area::Package("xtask".to_owned()));
        check("bench", &Area::Package("loopabull-bench".to_owned()));
        check("sdk", &Area::Package("loopabull-task".to_owned()));
        check("reload", &Area::Daemon("reload".to_owned()));
        assert!(Area::find("").is_err());
    }

    #[test]
    fn a_crate_without_servers_needs_none() {
        for name in ["model", "store", "egress", "launcher"] {
            assert_eq!(Area::find(name).unwrap().needs(), Needs::NOTHING, "{name}");
        }
        assert!(Area::find("reload").unwrap().needs().rabbitmq);
    }
}
