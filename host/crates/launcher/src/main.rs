//! `loopabull-launch`: reads its arguments, or a plan, and runs the program.
//!
//! Owns what is printed: the help, the plan, and the one line that says why nothing was run. Must not
//! know how a layer works. Before it: the daemon, or a person who tries a confinement by hand; after
//! it: the supervisor.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use loopabull_launcher::{Confinement, Control, Launch, Layer, Plan, Reports, UsageError, exit};

const HELP: &str = "\
loopabull-launch: start one program, confined

Usage: loopabull-launch [--report] --directory DIR [OPTIONS] -- PROGRAM [ARGUMENT...]
       loopabull-launch --print-plan --directory DIR [OPTIONS] -- PROGRAM [ARGUMENT...]
       loopabull-launch --control N

The daemon starts each playbook through this program. It makes a room for PROGRAM
in which nothing is but what OPTIONS grant, takes every privilege away from it,
watches over it, and kills what it leaves behind. A layer that is required and
cannot be had keeps PROGRAM from being run; any other is reported.

PROGRAM is an absolute path; PATH is not searched. It always gets:
  - a process group and a session of its own, umask 077, no core dumps, no signal
    blocked, SIGPIPE at its default
  - no descriptor beyond standard input, output and error
  - no capability, and no way to new privileges: sudo and su give none
  - no file that was not granted
  - no connection to a TCP port that was not granted, and none of its choice to
    listen on; listening without, it gets one by chance. UDP is not limited

Options:
  --directory DIR        start in DIR (required)
  --env NAME             hand on the variable NAME with the value it has here, if
                         it is set; may be repeated. No other variable is handed
                         on. Values are never arguments, which all users can see
  --home DIR             in a room, the home of PROGRAM's user in the list of users
  --tmp DIR              in a room, what /tmp and /var/tmp are; it may be written
  --system               grant what programs need to run at all: /usr, the names of
                         users and hosts, certificates, a few devices, /dev/shm
  --read PATH            grant a file or tree for reading and executing
  --write PATH           grant a file or tree for writing too
  --tcp PORT             allow connections to this TCP port, at whatever address
  --landlock-abi N       use nothing of Landlock that is newer: see what would hold
                         on an older kernel
  --user UID:GID         become this user; only root can
  --require LAYER        do not run PROGRAM without this layer
  --without LAYER        leave this layer out
  --descriptor N         hand a descriptor of the control socket on, as N
  --limit-open-files N   open descriptors at once
  --limit-file-size N    bytes to which a file may grow
  --limit-cpu-seconds N  seconds of processor time, then it is killed
  --limit-memory N       bytes of address space
  --limit-processes N    processes of PROGRAM where a control group counts them,
                         elsewhere of its user
  --report               as the first argument: say on standard error what became
                         of each layer, and of the program
  --print-plan           as the first argument: print the plan and run nothing
  --control N            the only argument: read the plan from the socket that is
                         descriptor N, report there, and end if its end is closed
  --help, --version      print this, or the version; only as the first argument

Limits hold for each process by itself, and never raise what is inherited; without
one, what is inherited stays.

Layers: namespaces, cgroup, user, capabilities, new-privileges, limits, processes,
files, tcp, scopes, sockets, syscalls. Always required: new-privileges, limits, files,
syscalls.

SIGTERM, SIGINT or SIGHUP stops PROGRAM: its process group gets SIGTERM. A second
one, half a second later or more, kills everything.

Exit codes, if PROGRAM was not run:
   64  the arguments are wrong
  125  a layer could not be had
  126  PROGRAM was found, but cannot be executed
  127  PROGRAM, or the interpreter its first line names, was not found
Otherwise PROGRAM's own, or 128 and the signal that ended it; it may be one of
these by chance: the line \"loopabull-launch: cannot ...\" on standard error is
printed only if it was not run.

Example: see what a program gets to see.
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
            Err(error) => misused(&Reports::None, &error),
        },
        "--report" => by_hand(args.skip(1), Reports::Stderr),
        "--control" => by_control(args.nth(1)),
        _ => by_hand(args, Reports::None),
    }
}

fn by_hand(args: impl Iterator<Item = OsString>, reports: Reports) -> ExitCode {
    match Confinement::from_args(args) {
        Ok(confinement) => {
            // What is not UTF-8 has no name that an option could have.
            let variables = env::vars_os();
            let variables = variables.filter_map(|(name, v)| Some((name.into_string().ok()?, v)));
            run(Launch {
                confinement,
                environment: variables.collect(),
                descriptors: Vec::new(),
                reports,
            })
        }
        Err(error) => misused(&reports, &error),
    }
}

fn by_control(number: Option<OsString>) -> ExitCode {
    let number = number.as_ref().and_then(|number| number.to_str()?.parse().ok());
    let (Some(number), None) = (number, env::args_os().nth(3)) else {
        let option = "--control";
        return misused(&Reports::None, &UsageError::MissingValue { option });
    };
    let (control, plan) = match Control::open(number) {
        Ok(opened) => opened,
        Err(error) => {
            Reports::None.fail(exit::LAYER_FAILED, format!("{error}: {}", error.source));
            return exit::LAYER_FAILED.into();
        }
    };
    let reports = Reports::Control(control);
    let Plan { arguments, environment, descriptors } = plan;
    match Confinement::from_args(arguments.into_iter()) {
        Ok(confinement) => run(Launch { confinement, environment, descriptors, reports }),
        Err(error) => misused(&reports, &error),
    }
}

fn run(launch: Launch) -> ExitCode {
    let (named, handed) = (launch.confinement.descriptors.len(), launch.descriptors.len());
    if named != handed {
        return misused(&launch.reports, &UsageError::Descriptors { named, handed });
    }
    launch.run().into()
}

fn misused(reports: &Reports, error: &UsageError) -> ExitCode {
    reports.fail(exit::USAGE, error.to_string());
    exit::USAGE.into()
}

/// Prints what would be done, a line for each argument and each layer.
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
            _ => "if it can be had",
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
