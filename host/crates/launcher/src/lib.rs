//! The confined start of one program: the library half of `loopabull-launch`.
//!
//! The daemon has many threads, and between `fork` and `exec` such a process may hardly do
//! anything. So it confines nothing there: it hands a [`Confinement`] to `loopabull-launch`, and that
//! program, small and single-threaded, makes a room for the program, puts every layer on it, and
//! watches over it until nothing of it is left.
//!
//! Owns what is confined, how that is written as arguments, and the order of the layers. Must
//! not know what a playbook, a task or a message is. Before it: the daemon's spawn. After it:
//! the program.

mod cgroup;
mod confinement;
mod control;
mod error;
pub mod exit;
mod landlock;
mod layer;
mod limits;
mod pipeline;
mod privileges;
mod processes;
mod room;
mod supervisor;
mod sys;
mod syscalls;
mod system;
mod usage;

pub use confinement::{Confinement, Files};
pub use control::{Control, Environment, Plan, send, send_plan};
pub use error::{LaunchError, Step};
pub use layer::{Held, Layer, Report};
pub use limits::Limits;
pub use privileges::User;
pub use supervisor::{Launch, Reports};
pub use usage::UsageError;
