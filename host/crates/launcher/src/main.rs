//! `loopabull-launch`: reads its arguments or a plan, and runs the program in a sandbox.
//!
//! This file contains the help text, and prints the plan. It does not know how a layer works. The daemon
//! starts this program, or a person starts it to try a confinement. The supervisor then runs the program in
//! the sandbox.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use loopabull_launcher::{Confinement, Control, Launch, Layer, Plan, Reporter, UsageError, exit};

const HELP: &str = "\
loopabull-launch: run one program in a sandbox

Usage: loopabull-launch [--report] --directory DIR [OPTIONS] -- PROGRAM [ARGUMENT...]
       loopabull-launch --print-plan --directory DIR [OPTIONS] -- PROGRAM [ARGUMENT...]
       loopabull-launch --control N

The daemon runs each playbook through loopabull-launch. loopabull-launch builds a
root file system that contains only the granted files, drops all privileges, runs
PROGRAM, supervises PROGRAM, and kills the processes that PROGRAM leaves behind.
If a required layer is not available, PROGRAM is not run. A missing layer that is
not required is reported, and PROGRAM is run without it.

PROGRAM is an absolute path; PATH is not searched. PROGRAM always runs with:
  - its own process group and session, umask 077, no core dumps, no blocked
    signals, and the default action of SIGPIPE
  - no open file descriptors except standard input, output and error, and those
    passed on with --descriptor
  - no capabilities, and no way to gain privileges: sudo and su have no effect
  - access to granted files only
  - connections to granted TCP ports only. PROGRAM cannot bind a TCP port. It can
    still listen on a random port, without binding. UDP is not limited

Options:
  --directory DIR        run PROGRAM in the working directory DIR (required)
  --env NAME             pass on the environment variable NAME, if it is set
                         (repeatable). No other variable is passed on. The value
                         comes from the environment and is not an argument,
                         because all users can read arguments
  --home DIR             in a private root file system, set the home directory of
                         PROGRAM's user in /etc/passwd to DIR
  --tmp DIR              in a private root file system, mount DIR, writable, on
                         /tmp and /var/tmp
  --system               grant the files that most programs need: /usr, names of
                         users and hosts, certificates, a few devices, /dev/shm
  --read PATH            grant reading and executing of a file or directory tree
                         (repeatable)
  --write PATH           grant reading, executing and writing of a file or
                         directory tree (repeatable)
  --tcp PORT             allow connections to this TCP port, at any address
                         (repeatable)
  --watch WHAT           report `denied-ports`: TCP ports that the program tries and
                         --tcp does not grant; or `everything`: all ports and files
  --landlock-abi N       use only Landlock features up to ABI N, to try the
                         sandbox as on an older kernel
  --user UID:GID         run as this user and group; only root can do this
  --group GID            keep this supplementary group of the user
  --require LAYER        do not run PROGRAM without this layer (repeatable)
  --without LAYER        leave this layer out (repeatable)
  --descriptor N         pass on a file descriptor that was received on the
                         control socket, as number N (repeatable)
  --limit-open-files N   maximum number of open file descriptors
  --limit-file-size N    maximum size of a written file, in bytes
  --limit-cpu-seconds N  maximum processor time in seconds. A process that
                         exceeds this time is killed
  --limit-memory N       maximum size of the address space, in bytes
  --limit-processes N    maximum number of processes: of PROGRAM if a control
                         group counts them, otherwise of PROGRAM's user
  --report               as the first argument: write the state of each layer and
                         the end of PROGRAM to standard error
  --print-plan           as the first argument: print the plan, do not run PROGRAM
  --control N            as the only argument: read the plan from the socket with
                         file descriptor N and write the report to the socket.
                         When the other end of the socket is closed, all processes
                         of PROGRAM are killed
  --help, --version      as the first argument: print this help, or the version

The limits apply to each process separately, except --limit-processes. An option
never raises an inherited limit. Without the option, the inherited limit applies,
but the soft limit of open files is 1024 or the hard limit, whichever is lower.

Layers: namespaces, cgroup, user, capabilities, new-privileges, limits, processes,
files, tcp, scopes, sockets, syscalls. Always required: new-privileges, limits, files,
syscalls.

On SIGTERM, SIGINT or SIGHUP, loopabull-launch sends SIGTERM to the process group
of PROGRAM. On another signal, half a second later or more, it kills all processes
of PROGRAM.

Exit codes if PROGRAM was not run:
   64  the arguments are wrong
   75  the machine is short of file descriptors, memory, processes or disk space
  125  a layer could not be applied, or another step before PROGRAM failed
  126  PROGRAM was found, but cannot be executed
  127  PROGRAM, or the interpreter that its first line names, was not found
The reason is then printed on standard error, after \"loopabull-launch: \".
If PROGRAM was run, the exit code is that of PROGRAM, or 128 plus the number of the
signal that ended PROGRAM. PROGRAM itself may exit with the codes above too.

Example: show the environment and the files that a program can see.
  loopabull-launch --report --directory /usr --system --env HOME -- \\
      /bin/sh -c 'env; ls /; cat /etc/shadow'
";

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1).peekable();
    let first = args.peek().and_then(|first| first.to_str()).unwrap_or_default().to_owned();
    match first.as_str() {
        "--help" => print(HELP),
        "--version" => print(concat!("loopabull-launch ", env!("CARGO_PKG_VERSION"), "\n")),
        "--print-plan" => match Confinement::from_args(args.skip(1)) {
            Ok(confinement) => print_plan(&confinement),
            Err(error) => misused(&Reporter::None, &error),
        },
        "--report" => by_hand(args.skip(1), Reporter::Stderr),
        "--control" => by_control(args.nth(1)),
        _ => by_hand(args, Reporter::None),
    }
}

fn by_hand(args: impl Iterator<Item = OsString>, reporter: Reporter) -> ExitCode {
    match Confinement::from_args(args) {
        Ok(confinement) => {
            // `--env` takes only names in UTF-8, so variables with other names are dropped.
            let variables = env::vars_os();
            let variables = variables.filter_map(|(name, v)| Some((name.into_string().ok()?, v)));
            run(Launch {
                confinement,
                environment: variables.collect(),
                descriptors: Vec::new(),
                reporter,
            })
        }
        Err(error) => misused(&reporter, &error),
    }
}

fn by_control(number: Option<OsString>) -> ExitCode {
    let number = number.as_ref().and_then(|number| number.to_str()?.parse().ok());
    let (Some(number), None) = (number, env::args_os().nth(3)) else {
        let option = "--control";
        return misused(&Reporter::None, &UsageError::MissingValue { option });
    };
    let (control, plan) = match Control::open(number) {
        Ok(opened) => opened,
        Err(error) => {
            return Reporter::None.fail_launch(&error).into();
        }
    };
    let reporter = Reporter::Control(control);
    let Plan { arguments, environment, descriptors } = plan;
    match Confinement::from_args(arguments.into_iter()) {
        Ok(confinement) => run(Launch { confinement, environment, descriptors, reporter }),
        Err(error) => misused(&reporter, &error),
    }
}

fn run(launch: Launch) -> ExitCode {
    let (named, received) = (launch.confinement.descriptors.len(), launch.descriptors.len());
    if named != received {
        return misused(&launch.reporter, &UsageError::DescriptorCount { named, received });
    }
    launch.run().into()
}

fn misused(reporter: &Reporter, error: &UsageError) -> ExitCode {
    reporter.fail(exit::USAGE, error.to_string());
    exit::USAGE.into()
}

/// Prints the plan, with one line for each argument and each layer.
fn print_plan(confinement: &Confinement) -> ExitCode {
    let mut text = String::new();
    for argument in confinement.to_args() {
        text.push_str(&argument.display().to_string().replace(char::is_control, "?"));
        text.push('\n');
    }
    text.push('\n');
    for layer in Layer::ALL {
        let state = match layer {
            _ if confinement.without.contains(&layer) => "left out",
            _ if confinement.requires(layer) => "required",
            _ => "if available",
        };
        text.push_str(&format!("{layer:<16}{state}\n"));
    }
    print(&text)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
