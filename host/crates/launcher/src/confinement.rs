//! The description of a confined program, and its form as arguments.
//!
//! This module defines the options of `loopabull-launch`. The daemon writes them with
//! [`Confinement::to_args`], and the launcher reads them with [`Confinement::from_args`]. This module does
//! not know how a layer is applied.
//!
//! The options contain the names of environment variables but not their values, because every user of the
//! machine can read the arguments of a process in `/proc`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::layer::Layer;
use crate::limits::Limits;
use crate::privileges::User;
use crate::sys;
use crate::system;
use crate::usage::UsageError;
use crate::watch::Watch;

const DIRECTORY: &str = "--directory";
const ENV: &str = "--env";
const HOME: &str = "--home";
const TMP: &str = "--tmp";
const SYSTEM: &str = "--system";
const READ: &str = "--read";
const WRITE: &str = "--write";
const TCP: &str = "--tcp";
const WATCH: &str = "--watch";
const LANDLOCK_ABI: &str = "--landlock-abi";
const USER: &str = "--user";
const GROUP: &str = "--group";
const REQUIRE: &str = "--require";
const WITHOUT: &str = "--without";
const DESCRIPTOR: &str = "--descriptor";

/// The numbers that passed-on file descriptors can have in the program. The launcher's own file descriptors
/// have higher numbers.
const DESCRIPTORS: Range<u32> = 3..sys::FAR.cast_unsigned();

/// A program with its grants, limits and layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The working directory of the program.
    pub directory: PathBuf,
    /// The home directory of the program's user in `/etc/passwd`, in a private root file system. Programs
    /// that ignore `HOME` read `/etc/passwd`.
    pub home: Option<PathBuf>,
    /// The directory that is mounted on `/tmp` and `/var/tmp` in a private root file system. A mount that
    /// would hide a granted path is left out.
    pub tmp: Option<PathBuf>,
    /// The names of the environment variables that the program gets. [`Launch`](crate::Launch) contains the
    /// values. A name without a value is skipped.
    pub environment: Vec<String>,
    /// The files that the program may use.
    pub files: Files,
    /// The TCP ports that the program may connect to, at any address. The program cannot bind a TCP port. A
    /// socket that listens without binding still gets a random port. UDP is not limited.
    pub tcp: Vec<u16>,
    /// The system calls that are watched and reported.
    pub watch: Watch,
    /// The newest Landlock ABI that may be used. A lower number tries the sandbox as on an older kernel.
    pub landlock_abi: Option<u8>,
    /// The user that the program runs as. Only root can switch to another user.
    pub user: Option<User>,
    /// The supplementary groups of that user. Without a user, the program has none.
    pub groups: Vec<u32>,
    /// The required layers, in addition to [`Layer::ALWAYS`]. The program is not run without these layers.
    pub required: BTreeSet<Layer>,
    /// The layers that are left out.
    pub without: BTreeSet<Layer>,
    /// The numbers that the passed-on file descriptors have in the program, in the order in which the
    /// control socket delivers the file descriptors.
    pub descriptors: Vec<u32>,
    /// The limits on the resources of the program.
    pub limits: Limits,
    /// The absolute path of the program. `PATH` is not searched.
    pub program: PathBuf,
    /// The arguments of the program, without the program name.
    pub arguments: Vec<OsString>,
}

/// The files that a program may use. Each path names a file or a directory tree on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Whether the files that most programs need are granted: code, names of users and hosts, certificates
    /// and a few devices.
    pub system: bool,
    /// Paths that the program may read and execute.
    pub read: Vec<PathBuf>,
    /// Paths that the program may read, execute and write.
    pub write: Vec<PathBuf>,
}

impl Files {
    /// Returns all granted paths, including paths that do not exist.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        let system = [system::READ, system::WRITE].into_iter().filter(|_| self.system).flatten();
        let own = self.read.iter().chain(&self.write).map(PathBuf::as_path);
        system.map(Path::new).chain(own)
    }

    /// Returns whether the whole file system is granted.
    pub(crate) fn grants_everything(&self) -> bool {
        self.read.iter().chain(&self.write).any(|path| path.parent().is_none())
    }
}

impl Confinement {
    /// Returns the arguments of `loopabull-launch` for this confinement, without the program name.
    ///
    /// [`Confinement::from_args`] turns the arguments back into an equal confinement, or refuses them.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![DIRECTORY.into(), self.directory.clone().into_os_string()];
        let mut push = |option: &str, value: OsString| args.extend([option.into(), value]);
        for name in &self.environment {
            push(ENV, name.into());
        }
        for (option, path) in [(HOME, &self.home), (TMP, &self.tmp)] {
            if let Some(path) = path {
                push(option, path.into());
            }
        }
        for path in &self.files.read {
            push(READ, path.into());
        }
        for path in &self.files.write {
            push(WRITE, path.into());
        }
        for port in &self.tcp {
            push(TCP, port.to_string().into());
        }
        if self.watch != Watch::Nothing {
            push(WATCH, self.watch.name().into());
        }
        if let Some(abi) = self.landlock_abi {
            push(LANDLOCK_ABI, abi.to_string().into());
        }
        if let Some(User { uid, gid }) = self.user {
            push(USER, format!("{uid}:{gid}").into());
        }
        for group in &self.groups {
            push(GROUP, group.to_string().into());
        }
        for layer in &self.required {
            push(REQUIRE, layer.name().into());
        }
        for layer in &self.without {
            push(WITHOUT, layer.name().into());
        }
        for number in &self.descriptors {
            push(DESCRIPTOR, number.to_string().into());
        }
        for (option, limit) in self.limits.options() {
            push(option, limit.to_string().into());
        }
        args.extend(self.files.system.then(|| SYSTEM.into()));
        args.extend(["--".into(), self.program.clone().into_os_string()]);
        args.extend(self.arguments.iter().cloned());
        args
    }

    /// Reads the arguments of `loopabull-launch`, without the program name.
    ///
    /// # Errors
    ///
    /// Fails if the arguments do not describe a valid confinement, for example if the path of the program is
    /// relative.
    pub fn from_args(mut args: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut directory = None;
        let mut read = Self::empty();
        while let Some(arg) = args.next() {
            if arg == "--" {
                break;
            }
            read.read_option(arg, &mut directory, &mut args)?;
        }
        if let Some(&layer) = read.without.iter().find(|&&layer| read.requires(layer)) {
            return Err(UsageError::RequiredLayer { layer });
        }
        read.program = PathBuf::from(args.next().ok_or(UsageError::NoProgram)?);
        if !read.program.is_absolute() {
            return Err(UsageError::RelativePath { path: read.program });
        }
        read.directory = directory.ok_or(UsageError::NoDirectory)?;
        read.arguments = args.collect();
        Ok(read)
    }

    /// Returns a confinement without grants, in which the paths of the program and the working directory are
    /// empty.
    fn empty() -> Self {
        Self {
            directory: PathBuf::new(),
            home: None,
            tmp: None,
            environment: Vec::new(),
            files: Files::default(),
            tcp: Vec::new(),
            watch: Watch::Nothing,
            landlock_abi: None,
            user: None,
            groups: Vec::new(),
            required: BTreeSet::new(),
            without: BTreeSet::new(),
            descriptors: Vec::new(),
            limits: Limits::none(),
            program: PathBuf::new(),
            arguments: Vec::new(),
        }
    }

    /// Reads one option, and takes its value from `args`.
    fn read_option(
        &mut self,
        option: OsString,
        directory: &mut Option<PathBuf>,
        args: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), UsageError> {
        match option.to_str() {
            Some(DIRECTORY) => set(directory, value(args, DIRECTORY)?.into(), DIRECTORY)?,
            Some(HOME) => set(&mut self.home, absolute(args, HOME)?, HOME)?,
            Some(TMP) => set(&mut self.tmp, absolute(args, TMP)?, TMP)?,
            Some(ENV) => self.environment.push(name(value(args, ENV)?)?),
            Some(SYSTEM) => self.files.system = true,
            Some(READ) => self.files.read.push(absolute(args, READ)?),
            Some(WRITE) => self.files.write.push(absolute(args, WRITE)?),
            Some(TCP) => self.tcp.push(number(args, TCP)?),
            Some(WATCH) => self.watch = watch(value(args, WATCH)?)?,
            Some(LANDLOCK_ABI) => {
                set(&mut self.landlock_abi, number(args, LANDLOCK_ABI)?, LANDLOCK_ABI)?;
            }
            Some(USER) => set(&mut self.user, parse_user(value(args, USER)?)?, USER)?,
            Some(GROUP) => self.groups.push(group(args)?),
            Some(REQUIRE) => drop(self.required.insert(layer(args, REQUIRE)?)),
            Some(WITHOUT) => drop(self.without.insert(layer(args, WITHOUT)?)),
            Some(DESCRIPTOR) => self.descriptors.push(descriptor(args)?),
            name => match name.and_then(|name| self.limits.slot(name)) {
                Some((name, slot)) => set(slot, number(args, name)?, name)?,
                None if option.as_bytes().starts_with(b"-") => {
                    return Err(UsageError::UnknownOption { option });
                }
                None => return Err(UsageError::UnexpectedArgument { argument: option }),
            },
        }
        Ok(())
    }

    /// Returns the source and target of each mount for the program's temporary files. A mount that would
    /// hide a granted path is left out.
    pub(crate) fn tmp_mounts(&self) -> Vec<(&Path, &'static str)> {
        let Some(tmp) = &self.tmp else { return Vec::new() };
        let grants = || self.files.read.iter().chain(&self.files.write);
        let is_free = |target: &&&str| !grants().any(|path| path.starts_with(target));
        system::TMP.iter().filter(is_free).map(|target| (tmp.as_path(), *target)).collect()
    }

    /// Returns whether this layer is required, so that the program is not run without it.
    pub fn requires(&self, layer: Layer) -> bool {
        Layer::ALWAYS.contains(&layer) || self.required.contains(&layer)
    }

    /// Returns whether the launcher tries to apply this layer. `false` if `--without` names the layer.
    pub(crate) fn wants(&self, layer: Layer) -> bool {
        !self.without.contains(&layer)
    }

    /// Returns the maximum number of processes. `None` if there is no limit or the layer is left out.
    pub(crate) fn max_processes(&self) -> Option<u64> {
        self.limits.processes.filter(|_| self.wants(Layer::Processes))
    }
}

fn value(
    args: &mut impl Iterator<Item = OsString>,
    option: &'static str,
) -> Result<OsString, UsageError> {
    args.next().ok_or(UsageError::MissingValue { option })
}

fn number<T: std::str::FromStr>(
    args: &mut impl Iterator<Item = OsString>,
    option: &'static str,
) -> Result<T, UsageError> {
    let value = value(args, option)?;
    match value.to_str().map(str::parse) {
        Some(Ok(number)) => Ok(number),
        _ => Err(UsageError::InvalidNumber { option, value }),
    }
}

fn absolute(
    args: &mut impl Iterator<Item = OsString>,
    option: &'static str,
) -> Result<PathBuf, UsageError> {
    let path = PathBuf::from(value(args, option)?);
    if path.is_absolute() { Ok(path) } else { Err(UsageError::RelativePath { path }) }
}

fn layer(
    args: &mut impl Iterator<Item = OsString>,
    option: &'static str,
) -> Result<Layer, UsageError> {
    let name = value(args, option)?;
    let layer = name.to_str().and_then(|name| name.parse().ok());
    layer.ok_or(UsageError::UnknownLayer { name })
}

fn descriptor(args: &mut impl Iterator<Item = OsString>) -> Result<u32, UsageError> {
    let number = number(args, DESCRIPTOR)?;
    if DESCRIPTORS.contains(&number) {
        Ok(number)
    } else {
        Err(UsageError::DescriptorRange { number })
    }
}

fn watch(name: OsString) -> Result<Watch, UsageError> {
    name.to_str().and_then(Watch::from_name).ok_or(UsageError::UnknownWatch { name })
}

fn parse_user(value: OsString) -> Result<User, UsageError> {
    let numbers = value.to_str().and_then(|text| text.split_once(':'));
    let user = numbers
        .and_then(|(uid, gid)| Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? }));
    match user {
        Some(User { uid: u32::MAX, .. } | User { gid: u32::MAX, .. }) => Err(UsageError::NoUser),
        Some(user) => Ok(user),
        None => Err(UsageError::InvalidUser { value }),
    }
}

fn group(args: &mut impl Iterator<Item = OsString>) -> Result<u32, UsageError> {
    match number(args, GROUP)? {
        u32::MAX => Err(UsageError::NoUser),
        group => Ok(group),
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
mod tests;
