//! The exit codes of `loopabull-launch`. The codes 125 to 127 have the same meaning as those of env(1) and
//! nohup(1).
//!
//! This module contains only the numbers. The modules `error` and `main` choose one of them. The launched
//! program may end with one of these numbers for reasons of its own. If the launcher fails, it therefore also
//! reports the reason: on the control socket, or as a line on standard error.

/// The arguments are wrong. No layer was applied, and the program was not run.
pub const USAGE: u8 = 64;

/// A step of the launch failed, because the machine is short of file descriptors, memory, processes or space on
/// a disk. The program was not run. The number is that of `EX_TEMPFAIL` in sysexits.h.
pub const SHORT_OF_RESOURCES: u8 = 75;

/// A layer could not be applied, or another step of the launch failed. The program was not run.
pub const LAYER_FAILED: u8 = 125;

/// The program was found, but cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;

/// The program, or the interpreter that its first line names, was not found.
pub const NOT_FOUND: u8 = 127;
