//! The confined start of one program: the library half of `loopabull-launch`.
//!
//! The daemon has many threads, and between `fork` and `exec` such a process may hardly call anything.
//! So it confines nothing there. It sends a [`Confinement`] to `loopabull-launch`, and that program,
//! small and single-threaded, builds a root file system for the program, applies every layer, and
//! supervises the program until none of its processes is left.
//!
//! Owns the description of a confinement, its form as arguments, and the order of the layers. Must not
//! know what a playbook, a task or a message is. Before it: the daemon's spawn. After it: the program.
//!
//! Modules import only from later ones in this order: `supervisor` → `pipeline` → `landlock` →
//! `rootfs` → {`cgroup`, `namespaces`, `reporter`, `syscalls`} → `control` → `confinement` → {`error`,
//! `limits`, `privileges`, `processes`, `report`, `system`, `usage`} → {`exit`, `layer`, `sys`}.

mod cgroup;
mod confinement;
mod control;
mod error;
pub mod exit;
mod landlock;
mod layer;
mod limits;
mod namespaces;
mod pipeline;
mod privileges;
mod processes;
mod report;
mod reporter;
mod rootfs;
mod supervisor;
mod sys;
mod syscalls;
mod system;
mod usage;

pub use confinement::{Confinement, Files};
pub use control::{Control, Environment, Plan, send, send_plan};
pub use error::{LaunchError, Step};
pub use layer::Layer;
pub use limits::Limits;
pub use privileges::User;
pub use report::{LayerState, Report};
pub use reporter::Reporter;
pub use supervisor::Launch;
pub use usage::UsageError;
