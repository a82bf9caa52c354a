//! Starts one program in a sandbox: the library part of the program `loopabull-launch`.
//!
//! The daemon has many threads. A process with several threads may call almost no functions between `fork`
//! and `exec`, so the daemon cannot set up a sandbox there. Instead the daemon starts `loopabull-launch`,
//! which is small and single-threaded, and sends a [`Confinement`] to the launcher. The launcher builds a
//! root file system for the program, applies each layer, and supervises the program until all of its
//! processes have ended.
//!
//! This crate does not know playbooks, tasks or messages. The crate `loopabull-playbook` writes the
//! confinement of each playbook.
//!
//! A module imports only modules further right in this list: `supervisor` → `pipeline` → `landlock` →
//! `rootfs` → {`call_watch`, `cgroup`, `namespaces`, `reporter`, `syscalls`} → `control` → `confinement` →
//! {`error`, `limits`, `privileges`, `processes`, `report`, `system`, `usage`, `watch`} → {`exit`, `layer`, `sys`}.

mod call_watch;
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
mod watch;

pub use confinement::{Confinement, Files};
pub use control::{Control, Environment, Plan, send, send_plan};
pub use error::{LaunchError, Step, is_shortage};
pub use layer::Layer;
pub use limits::Limits;
pub use privileges::User;
pub use report::{FileAccess, LayerState, Report};
pub use reporter::Reporter;
pub use supervisor::Launch;
pub use usage::UsageError;
pub use watch::Watch;
