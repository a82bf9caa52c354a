//! `loopabull-launch`: reads its arguments, or a plan, and runs the program.
//!
//! Owns the printed texts: the help, the plan, and the one line that says why the program was not run.
//! Must not know how a layer works. Before it: the daemon, or a person who tries a confinement by hand;
//! after it: the supervisor.

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

The daemon runs each playbook through this program. It builds a root file system
that contains only what OPTIONS grant, drops all privileges, runs PROGRAM in it,
supervises it, and kills the processes that it leaves behind. If a required layer
is not available, PROGRAM is not run; any other missing layer is reported.

PROGRAM is an absolute path; PATH is not searched. It always runs with:
  - its own process group and session, umask 077, no core dumps, no blocked
    signals, and the default action of SIGPIPE
  - no open descriptors except standard input, output and error
  - no capabilities, and no way to gain privileges: sudo and su have no effect
  - no access to files that were not granted
  - no connections to TCP ports that were not granted. It cannot bind a TCP port;
    listening without binding still works, on a random port. UDP is not limited

Options:
  --directory DIR        run in the working directory DIR (required)
  --env NAME             pass on the environment variable NAME, if it is set
                         (repeatable). No other variable is passed on. A value
                         is never an argument, because all users can read those
  --home DIR             in a private root file system, set the home directory of
                         PROGRAM's user in /etc/passwd
  --tmp DIR              in a private root file system, mount DIR, writable, on
                         /tmp and /var/tmp
  --system               grant the files that programs need to run at all: /usr,
                         names of users and hosts, certificates, a few devices,
                         /dev/shm
  --read PATH            grant reading and executing a file or directory tree
                         (repeatable)
  --write PATH           grant writing too (repeatable)
  --tcp PORT             allow connections to this TCP port, at any address
                         (repeatable)
  --landlock-abi N       use no Landlock feature newer than ABI N, to see what
                         would be enforced on an older kernel
  --user UID:GID         run as this user and group; only root can do this
  --require LAYER        do not run PROGRAM without this layer (repeatable)
  --without LAYER        leave this layer out (repeatable)
  --descriptor N         pass on a descriptor from the control socket, as number N
                         (repeatable)
  --limit-open-files N   maximum number of open descriptors
  --limit-file-size N    maximum size of a file that is written, in bytes
  --limit-cpu-seconds N  processor time in seconds, then the process is killed
  --limit-memory N       maximum address space in bytes
  --limit-processes N    maximum number of processes of PROGRAM if a control group
                         counts them, otherwise of its user
  --report               as the first argument: report the state of each layer,
                         and the end of PROGRAM, on standard error
  --print-plan           as the first argument: print the plan and run nothing
  --control N            as the only argument: read the plan from the socket with
                         descriptor N, report there, and kill everything when its
                         other end is closed
  --help, --version      as the first argument: print this help, or the version

A limit applies to each process separately, and never raises an inherited limit.
Without an option, the inherited limit stays.

Layers: namespaces, cgroup, user, capabilities, new-privileges, limits, processes,
files, tcp, scopes, sockets, syscalls. Always required: new-privileges, limits, files,
syscalls.

SIGTERM, SIGINT or SIGHUP stops PROGRAM: its process group gets SIGTERM. A second
signal, half a second later or more, kills everything.

Exit codes if PROGRAM was not run:
   64  the arguments are wrong
  125  a layer could not be applied
  126  PROGRAM was found, but cannot be executed
  127  PROGRAM, or the interpreter that its first line names, was not found
Otherwise the exit code is PROGRAM's own, or 128 plus the number of the signal that
ended it. PROGRAM may use the same codes itself; only if it was not run, the line
\"loopabull-launch: cannot ...\" is printed on standard error.

Example: show what a program can see.
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
            // A name that is not UTF-8 cannot be the value of an option.
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

/// Prints the plan: a line for each argument and each layer.
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
