//! Reads the sources of this repository for the tests in `tests/`, which check the house rules.
//!
//! Nothing here builds the product, so the tests of this package run in seconds.

mod imports;
mod module;
mod repository;
mod resolve;

pub use imports::{Import, Imports, architecture_block};
pub use repository::{crates, root, rust_files};
