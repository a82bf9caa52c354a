//! The tasks of this host: discovery, checks of their grants, and loading.

pub(crate) mod case;
pub(crate) mod catalog;
pub mod discovery;
mod files;
mod grants;
pub(crate) mod secrets;
mod stamp;
