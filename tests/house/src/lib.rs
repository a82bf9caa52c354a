//! Reads the sources of this repository for the tests in `tests/`, which check the house rules.
//!
//! This package does not depend on the other packages, so its tests build and run in seconds.

mod imports;
mod module;
mod repository;
mod resolve;

pub use imports::{Import, Imports, architecture_block};
pub use repository::{crates, root, rust_files};
