//! `loopabull-launch`: reads its arguments, applies them to itself, becomes the program.
//!
//! Owns what is printed: the help, and the one line that says why nothing was run. Must not know
//! how a layer works. Before it: the daemon, or a person who tries a confinement by hand; after
//! it: the program, or an exit code of `loopabull_launcher::exit`.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use loopabull_launcher::{Confinement, exit, launch};

const HELP: &str = "\
loopabull-launch: start one program, confined

Usage: loopabull-launch --directory DIR [OPTIONS] -- PROGRAM [ARGUMENT...]

The daemon starts each playbook through this program. It takes privileges away
from itself, one layer after the other, and then becomes PROGRAM, under the same
process id. If a layer cannot be applied, PROGRAM is not run.

PROGRAM is an absolute path; PATH is not searched. It always gets:
  - a process group of its own, and a session if the launcher leads no group yet
  - umask 077, no core dumps, no signal blocked, SIGPIPE at its default
  - no descriptor beyond standard input, output and error
  - no way to new privileges: setuid programs such as sudo and su give none

Options:
  --directory DIR        start in DIR (required)
  --env NAME             hand on the variable NAME with the value it has here, if
                         it is set; may be repeated. No other variable is handed
                         on. Values are never arguments, which all users can see
  --limit-open-files N   open descriptors at once (default 1024)
  --limit-file-size N    bytes to which a file may grow (default: as inherited)
  --limit-cpu-seconds N  seconds of processor time, then it is killed (default:
                         as inherited)
  --limit-memory N       bytes of address space (default: as inherited)
  --help, --version      print this, or the version; only as the first argument

Limits hold for each process by itself, and never raise what is inherited.

Exit codes, if PROGRAM was not run:
   64  the arguments are wrong
  125  a layer could not be applied
  126  PROGRAM was found, but cannot be executed
  127  PROGRAM, or the interpreter its first line names, was not found
Otherwise PROGRAM's own, which may be one of these by chance: the line
\"loopabull-launch: ...\" on standard error is printed only if it was not run.

Example: see what a program gets to see.
  loopabull-launch --directory /tmp --env HOME --limit-open-files 64 -- \\
      /bin/sh -c 'env; pwd; umask; ulimit -n'
";

fn main() -> ExitCode {
    match env::args_os().nth(1) {
        Some(first) if first == "--help" => print(HELP),
        Some(first) if first == "--version" => {
            print(concat!("loopabull-launch ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        _ => run(env::args_os().skip(1)),
    }
}

fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let confinement = match Confinement::from_args(args) {
        Ok(confinement) => confinement,
        Err(error) => {
            complain(&error);
            return exit::USAGE.into();
        }
    };
    let Err(error) = launch(&confinement);
    complain(&error);
    error.exit_code().into()
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints an error and what caused it, as one line.
fn complain(error: &dyn Error) {
    let mut line = format!("loopabull-launch: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    // A path may hold a line break; whoever reads our line must not take the rest for another.
    let line = line.replace(char::is_control, "?") + "\n";
    // If nobody can be told, the exit code still is right; a panic's would not be.
    io::stderr().write_all(line.as_bytes()).ok();
}
