//! The exit codes of `loopabull-launch`, with the same meaning as those of env(1) and nohup(1).
//!
//! Owns the numbers. Must not know how they arise. Before it: `main`, which ends with one; after it:
//! the daemon, which maps them to an outcome. The program may end with the same numbers for reasons of
//! its own; only the launcher's line on standard error distinguishes the two.

/// The arguments are wrong; no layer was applied and the program was not run.
pub const USAGE: u8 = 64;

/// A layer could not be applied, so the program was not run: it never runs partly confined.
pub const LAYER_FAILED: u8 = 125;

/// The program was found, but cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;

/// The program, or the interpreter that its first line names, was not found.
pub const NOT_FOUND: u8 = 127;
