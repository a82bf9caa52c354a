//! The layers of a confinement.
//!
//! Owns their names. Must not know how a layer is applied. Before it: the options that require a layer
//! or leave it out; after it: the modules that apply one, and the report.

use std::fmt;
use std::str::FromStr;

/// A part of a confinement that a kernel may lack or a machine may forbid.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Layer {
    /// Private processes, mounts, shared memory and message queues, and a root file system that
    /// contains only what was granted.
    Namespaces,
    /// A private control group, whose processes are all killed together.
    Cgroup,
    /// Another user. Only root can switch to one.
    User,
    /// No capability, and no way to gain one by executing a file.
    Capabilities,
    /// No new privileges from setuid programs.
    NewPrivileges,
    /// The kernel's limits on the resources of each process.
    Limits,
    /// A maximum number of processes.
    Processes,
    /// No access to files that were not granted.
    Files,
    /// No connection to TCP ports that were not granted, and no binding of a TCP port. A socket that
    /// listens without binding still gets a random port. UDP is not limited.
    Tcp,
    /// No signals to processes outside, and no connections to their abstract sockets.
    Scopes,
    /// No connection to sockets in the file system that were not granted.
    Sockets,
    /// No system call that a well-meaning program does not need.
    Syscalls,
}

impl Layer {
    /// Every layer, in the order in which they come into force.
    pub const ALL: [Self; 12] = [
        Self::Namespaces,
        Self::Cgroup,
        Self::User,
        Self::Capabilities,
        Self::NewPrivileges,
        Self::Limits,
        Self::Processes,
        Self::Files,
        Self::Tcp,
        Self::Scopes,
        Self::Sockets,
        Self::Syscalls,
    ];

    /// The layers that every program gets.
    pub const ALWAYS: [Self; 4] = [Self::NewPrivileges, Self::Limits, Self::Files, Self::Syscalls];

    /// Returns the name that options and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Capabilities => "capabilities",
            Self::NewPrivileges => "new-privileges",
            Self::Limits => "limits",
            Self::Processes => "processes",
            Self::Files => "files",
            Self::Tcp => "tcp",
            Self::Scopes => "scopes",
            Self::Sockets => "sockets",
            Self::Syscalls => "syscalls",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Layer {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|layer| layer.name() == name).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_is_found_by_its_name() {
        for layer in Layer::ALL {
            assert_eq!(layer.name().parse(), Ok(layer));
        }
    }
}
