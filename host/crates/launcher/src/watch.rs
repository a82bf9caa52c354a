//! The choice of the system calls that are watched.

/// The choice of system calls that the launcher watches and reports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Watch {
    #[default]
    Nothing,
    /// The TCP ports that are not granted.
    DeniedPorts,
    /// All TCP ports, and all files that are opened, executed, created or removed.
    Everything,
}

impl Watch {
    const ALL: [Self; 3] = [Self::Nothing, Self::DeniedPorts, Self::Everything];

    /// Returns the name that the option has.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::DeniedPorts => "denied-ports",
            Self::Everything => "everything",
        }
    }

    /// Returns the choice with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|watch| watch.name() == name)
    }
}
