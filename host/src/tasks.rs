//! The tasks of this host: finding them, checking their grants, and loading them.

pub(crate) mod case;
pub(crate) mod catalog;
pub mod discovery;
mod grants;
pub(crate) mod limits;
pub(crate) mod secrets;
