//! The exit codes of `loopabull-launch`, as env(1) and nohup(1) have them.
//!
//! Owns the numbers. Must not know what leads to them. Before it: `main`, which ends with one;
//! after it: the daemon, which maps them to an outcome. The program may end with the same
//! numbers for reasons of its own: only our line on standard error tells the two apart.

/// The arguments are wrong; nothing was applied and nothing was run.
pub const USAGE: u8 = 64;

/// A layer could not be applied, so the program was not run: it never runs half confined.
pub const LAYER_FAILED: u8 = 125;

/// The program was found, but cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;

/// The program, or the interpreter that its first line names, was not found.
pub const NOT_FOUND: u8 = 127;
