//! The confined start of one program: the library half of `loopabull-launch`.
//!
//! The daemon has many threads, and between `fork` and `exec` such a process may hardly do
//! anything. So it confines nothing there: it writes a [`Confinement`] as arguments, spawns
//! `loopabull-launch` with them, and that program, small and single-threaded, puts every layer
//! on itself and becomes the program it was asked for.
//!
//! Owns what is confined, how that is written as arguments, and the order of the layers. Must
//! not know what a playbook, a task or a message is. Before it: the daemon's spawn. After it:
//! the program, which inherits the process id, so that the daemon waits for it and not for us.

mod confinement;
pub mod exit;
mod pipeline;
mod sys;
mod usage;

pub use confinement::{Confinement, Limits};
pub use pipeline::{LaunchError, Layer, launch};
