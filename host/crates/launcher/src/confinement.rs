//! What is confined, and how it is written as arguments.
//!
//! Owns the options of `loopabull-launch`: [`Confinement::to_args`] writes them and
//! [`Confinement::from_args`] reads them, so that both ends agree by one file. Must not know how
//! a layer is applied, nor the values of environment variables: arguments are readable by every
//! user of the machine in /proc, so only names are ever written. Before it: the daemon, which
//! fills in a `Confinement`; after it: the pipeline.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::usage::UsageError;

const DIRECTORY: &str = "--directory";
const ENV: &str = "--env";
const OPEN_FILES: &str = "--limit-open-files";
const FILE_SIZE: &str = "--limit-file-size";
const CPU_SECONDS: &str = "--limit-cpu-seconds";
const MEMORY: &str = "--limit-memory";

/// Says which program is run, and what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The directory in which the program starts.
    pub directory: PathBuf,
    /// The names of the environment variables that the program gets, with the values they have
    /// in the launcher's own environment. A name that is not set there is left out.
    pub environment: Vec<String>,
    /// What the program may use.
    pub limits: Limits,
    /// The absolute path of the program. Nothing searches `PATH`.
    pub program: PathBuf,
    /// The program's arguments, without its own name.
    pub arguments: Vec<OsString>,
}

/// Says how much the program may use.
///
/// They are resource limits of the kernel, see getrlimit(2): each holds for one process, not for
/// the program and its children together, and none ever raises what the launcher was itself
/// given. Core dumps are always off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many descriptors may be open at once.
    pub open_files: u64,
    /// The size in bytes to which a file may grow.
    pub file_size: Option<u64>,
    /// The processor time in seconds after which the process is killed.
    pub cpu_seconds: Option<u64>,
    /// The address space in bytes.
    pub memory: Option<u64>,
}

impl Limits {
    /// Enough for a playbook on many hosts, and still the soft limit that programs that use
    /// `select` rely on.
    pub const DEFAULT_OPEN_FILES: u64 = 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open_files: Self::DEFAULT_OPEN_FILES,
            file_size: None,
            cpu_seconds: None,
            memory: None,
        }
    }
}

impl Confinement {
    /// Returns the arguments that make `loopabull-launch` do this, without its own name.
    ///
    /// [`Confinement::from_args`] returns the same confinement, unless it is one that it refuses.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![DIRECTORY.into(), self.directory.clone().into_os_string()];
        for name in &self.environment {
            args.extend([ENV.into(), name.into()]);
        }
        let limits = [
            (OPEN_FILES, Some(self.limits.open_files)),
            (FILE_SIZE, self.limits.file_size),
            (CPU_SECONDS, self.limits.cpu_seconds),
            (MEMORY, self.limits.memory),
        ];
        for (option, limit) in limits {
            if let Some(limit) = limit {
                args.extend([option.into(), limit.to_string().into()]);
            }
        }
        args.extend(["--".into(), self.program.clone().into_os_string()]);
        args.extend(self.arguments.iter().cloned());
        args
    }

    /// Reads the launcher's arguments, without its own name.
    ///
    /// # Errors
    ///
    /// Refuses everything that [`Confinement::to_args`] would not have written, a program that
    /// is not an absolute path among it.
    pub fn from_args(mut args: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut directory = None;
        let mut environment = Vec::new();
        let mut open_files = None;
        let mut file_size = None;
        let mut cpu_seconds = None;
        let mut memory = None;
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--") => break,
                Some(DIRECTORY) => {
                    let path = PathBuf::from(value(&mut args, DIRECTORY)?);
                    set(&mut directory, path, DIRECTORY)?;
                }
                Some(ENV) => environment.push(name(value(&mut args, ENV)?)?),
                Some(OPEN_FILES) => {
                    set(&mut open_files, number(&mut args, OPEN_FILES)?, OPEN_FILES)?;
                }
                Some(FILE_SIZE) => set(&mut file_size, number(&mut args, FILE_SIZE)?, FILE_SIZE)?,
                Some(CPU_SECONDS) => {
                    set(&mut cpu_seconds, number(&mut args, CPU_SECONDS)?, CPU_SECONDS)?;
                }
                Some(MEMORY) => set(&mut memory, number(&mut args, MEMORY)?, MEMORY)?,
                _ if arg.as_bytes().starts_with(b"-") => {
                    return Err(UsageError::UnknownOption { option: arg });
                }
                _ => return Err(UsageError::UnexpectedArgument { argument: arg }),
            }
        }
        let program = PathBuf::from(args.next().ok_or(UsageError::NoProgram)?);
        if !program.is_absolute() {
            return Err(UsageError::RelativeProgram { program });
        }
        Ok(Self {
            directory: directory.ok_or(UsageError::NoDirectory)?,
            environment,
            limits: Limits {
                open_files: open_files.unwrap_or(Limits::DEFAULT_OPEN_FILES),
                file_size,
                cpu_seconds,
                memory,
            },
            program,
            arguments: args.collect(),
        })
    }
}

fn value(
    args: &mut impl Iterator<Item = OsString>,
    option: &'static str,
) -> Result<OsString, UsageError> {
    args.next().ok_or(UsageError::MissingValue { option })
}

fn number(
    args: &mut impl Iterator<Item = OsString>,
    option: &'static str,
) -> Result<u64, UsageError> {
    let value = value(args, option)?;
    match value.to_str().map(str::parse) {
        Some(Ok(number)) => Ok(number),
        _ => Err(UsageError::InvalidNumber { option, value }),
    }
}

fn name(value: OsString) -> Result<String, UsageError> {
    let name = value.into_string().map_err(|name| UsageError::InvalidName { name })?;
    match name.split_once('=') {
        Some((name, _)) => Err(UsageError::ValueForName { name: name.into() }),
        None if name.is_empty() => Err(UsageError::InvalidName { name: name.into() }),
        None => Ok(name),
    }
}

fn set<T>(slot: &mut Option<T>, value: T, option: &'static str) -> Result<(), UsageError> {
    match slot.replace(value) {
        Some(_) => Err(UsageError::RepeatedOption { option }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// Any bytes at all, and what looks like ours.
    fn text() -> impl Strategy<Value = OsString> {
        prop_oneof![
            vec(any::<u8>(), 0..12).prop_map(OsString::from_vec),
            "-{0,2}[a-z=-]{0,8}".prop_map(OsString::from),
            Just(OsString::from("--")),
            Just(OsString::from(ENV)),
            Just(OsString::from(DIRECTORY)),
            Just(OsString::from(MEMORY)),
            Just(OsString::from("--help")),
        ]
    }

    fn absolute() -> impl Strategy<Value = PathBuf> {
        text().prop_map(|rest| {
            let mut path = OsString::from("/");
            path.push(rest);
            PathBuf::from(path)
        })
    }

    fn limits() -> impl Strategy<Value = Limits> {
        let limit = || option::of(any::<u64>());
        (any::<u64>(), limit(), limit(), limit()).prop_map(
            |(open_files, file_size, cpu_seconds, memory)| Limits {
                open_files,
                file_size,
                cpu_seconds,
                memory,
            },
        )
    }

    fn confinement() -> impl Strategy<Value = Confinement> {
        let names = vec("[^=\0]{1,8}", 0..4);
        let directory = text().prop_map(PathBuf::from);
        (directory, names, limits(), absolute(), vec(text(), 0..5)).prop_map(
            |(directory, environment, limits, program, arguments)| Confinement {
                directory,
                environment,
                limits,
                program,
                arguments,
            },
        )
    }

    proptest! {
        #[test]
        fn confinement_survives_to_args_and_from_args(confinement in confinement()) {
            let read = Confinement::from_args(confinement.to_args().into_iter());
            prop_assert_eq!(read, Ok(confinement));
        }

        #[test]
        fn any_arguments_are_read_or_refused_without_a_panic(args in vec(text(), 0..8)) {
            if let Ok(read) = Confinement::from_args(args.into_iter()) {
                prop_assert!(read.program.is_absolute());
            }
        }
    }

    fn parse(args: &[&str]) -> Result<Confinement, UsageError> {
        Confinement::from_args(args.iter().map(OsString::from))
    }

    fn refused(args: &[&str], message: &str) {
        let error = parse(args).expect_err("refused");
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn limits_have_their_defaults() {
        let read = parse(&["--directory", "/", "--", "/bin/true"]).expect("complete");
        assert_eq!(read.limits, Limits::default());
        assert_eq!(read.limits.open_files, 1024);
    }

    #[test]
    fn options_behind_the_program_are_its_own() {
        let read = parse(&["--directory", "/", "--", "/bin/a", "--", "--env"]).expect("complete");
        assert_eq!(read.arguments, ["--", "--env"]);
        assert_eq!(read.environment, Vec::<String>::new());
    }

    #[test]
    fn unknown_option_is_named() {
        refused(&["--frob", "--", "/bin/a"], "unknown option `--frob`");
    }

    #[test]
    fn program_without_dashes_is_refused() {
        refused(&["/bin/a"], "unexpected argument `/bin/a` before `--`");
    }

    #[test]
    fn option_without_value_is_refused() {
        refused(&["--env"], "missing value of option `--env`");
    }

    #[test]
    fn second_limit_does_not_loosen_the_first() {
        refused(
            &["--limit-memory", "1", "--limit-memory", "2"],
            "repeated option `--limit-memory`",
        );
    }

    #[test]
    fn limit_with_a_unit_is_refused() {
        refused(
            &["--limit-memory", "1G"],
            "option `--limit-memory` needs a whole number, not `1G`",
        );
    }

    #[test]
    fn limit_beyond_64_bits_is_refused() {
        refused(
            &["--limit-file-size", "18446744073709551616"],
            "option `--limit-file-size` needs a whole number, not `18446744073709551616`",
        );
    }

    #[test]
    fn value_of_a_variable_is_refused_and_not_repeated() {
        refused(&["--env", "TOKEN=secret"], "option `--env` takes only the name of `TOKEN`");
    }

    #[test]
    fn empty_name_is_refused() {
        refused(&["--env", ""], "invalid name `` of option `--env`");
    }

    #[test]
    fn directory_is_required() {
        refused(&["--", "/bin/a"], "missing option `--directory`");
    }

    #[test]
    fn program_is_required() {
        refused(&["--directory", "/", "--"], "missing program after `--`");
        refused(&["--directory", "/"], "missing program after `--`");
    }

    #[test]
    fn relative_program_is_refused() {
        refused(
            &["--directory", "/bin", "--", "./true"],
            "program `./true` is not an absolute path",
        );
    }
}
