//! Finds the files of this host's tasks, checks their grants, and loads the tasks. `work` runs
//! them.

pub(crate) mod case;
pub(crate) mod catalog;
pub mod discovery;
mod files;
mod grants;
pub(crate) mod list;
pub(crate) mod playbook;
pub(crate) mod secrets;
mod stamp;
