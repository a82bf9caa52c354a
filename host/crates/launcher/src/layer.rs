//! The layers of a confinement, and their names.
//!
//! Options use the names to require a layer or to leave it out, and reports use them to show the state of a
//! layer. This module does not know how a layer is applied.

use std::fmt;
use std::str::FromStr;

/// A layer of a confinement. A kernel may lack a layer, and a machine may forbid it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Layer {
    /// Private process ids, mounts, shared memory and message queues, and a root file system that contains
    /// only granted paths.
    Namespaces,
    /// A private control group, through which all processes are killed at once.
    Cgroup,
    /// Another user than that of the launcher. Only root can switch to another user.
    User,
    /// No capabilities, and no way to gain capabilities by executing a file.
    Capabilities,
    /// No new privileges from setuid programs.
    NewPrivileges,
    /// The kernel's limits on the resources of each process.
    Limits,
    /// A maximum number of processes.
    Processes,
    /// Access to granted files only.
    Files,
    /// Connections to granted TCP ports only, and no binding of TCP ports. A socket that listens without
    /// binding still gets a random port. UDP is not limited.
    Tcp,
    /// No signals to processes outside of the sandbox, and no connections to their abstract sockets.
    Scopes,
    /// Connections to granted sockets in the file system only.
    Sockets,
    /// No system calls that ordinary programs do not need.
    Syscalls,
}

impl Layer {
    /// All layers, in the order in which they are applied.
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

    /// The layers that are required for every program.
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
