//! The tasks of this host: discovers them, checks their grants and loads them.

pub(crate) mod case;
pub(crate) mod catalog;
pub mod discovery;
mod files;
mod grants;
pub(crate) mod secrets;
mod stamp;
