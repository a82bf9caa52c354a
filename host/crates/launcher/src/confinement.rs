//! What is confined, and how it is written as arguments.
//!
//! Owns the options of `loopabull-launch`: [`Confinement::to_args`] writes them and
//! [`Confinement::from_args`] reads them, so that both ends agree by one file. Must not know how
//! a layer is applied, nor the values of environment variables: arguments are readable by every
//! user of the machine in /proc, so only names are ever written. Before it: the daemon, which
//! fills in a `Confinement`; after it: the supervisor.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::layer::Layer;
use crate::limits::Limits;
use crate::privileges::User;
use crate::sys;
use crate::system;
use crate::usage::UsageError;

const DIRECTORY: &str = "--directory";
const ENV: &str = "--env";
const HOME: &str = "--home";
const TMP: &str = "--tmp";
const SYSTEM: &str = "--system";
const READ: &str = "--read";
const WRITE: &str = "--write";
const TCP: &str = "--tcp";
const LANDLOCK_ABI: &str = "--landlock-abi";
const USER: &str = "--user";
const REQUIRE: &str = "--require";
const WITHOUT: &str = "--without";
const DESCRIPTOR: &str = "--descriptor";

/// The numbers that can be given to descriptors: the launcher's own are beyond.
const DESCRIPTORS: std::ops::Range<u32> = 3..sys::FAR.cast_unsigned();

/// Says which program is run, and what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The directory in which the program starts.
    pub directory: PathBuf,
    /// What the list of users calls the home of the program's user, in a room: programs that do not ask
    /// `HOME` find it there.
    pub home: Option<PathBuf>,
    /// What is `/tmp` and `/var/tmp` in a room, unless something that was granted is in there.
    pub tmp: Option<PathBuf>,
    /// The names of the environment variables that the program gets, with the values they have
    /// in the launcher's own environment. A name that is not set there is left out.
    pub environment: Vec<String>,
    /// What of the file system the program may use.
    pub files: Files,
    /// The TCP ports that the program may connect to, at whatever address. It may choose none to listen
    /// on, but a socket that listens without gets one by chance. UDP is not limited.
    pub tcp: Vec<u16>,
    /// The newest ABI of Landlock that is made use of: tells what would hold on an older kernel.
    pub landlock_abi: Option<u8>,
    /// Who the program is. Only root can start a program as somebody else.
    pub user: Option<User>,
    /// Layers without which the program is not run, beside [`Layer::ALWAYS`].
    pub required: BTreeSet<Layer>,
    /// Layers that are left out.
    pub without: BTreeSet<Layer>,
    /// The numbers that descriptors from the control socket have in the program, in their order.
    pub descriptors: Vec<u32>,
    /// What the program may use.
    pub limits: Limits,
    /// The absolute path of the program. Nothing searches `PATH`.
    pub program: PathBuf,
    /// The program's arguments, without its own name.
    pub arguments: Vec<OsString>,
}

/// Says what of the file system may be used: trees or single files, by their paths outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// What programs need to run at all: code, names, certificates, a few devices.
    pub system: bool,
    /// To be read and executed.
    pub read: Vec<PathBuf>,
    /// To be read, executed and written.
    pub write: Vec<PathBuf>,
}

impl Files {
    /// Returns all paths that are granted. Not all of them need be there.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        let system = [system::READ, system::WRITE].into_iter().filter(|_| self.system).flatten();
        let own = self.read.iter().chain(&self.write).map(PathBuf::as_path);
        system.map(Path::new).chain(own)
    }

    /// Tells whether nothing is left out.
    pub(crate) fn sees_everything(&self) -> bool {
        self.read.iter().chain(&self.write).any(|path| path.parent().is_none())
    }
}

impl Confinement {
    /// Returns the arguments that make `loopabull-launch` do this, without its own name.
    ///
    /// [`Confinement::from_args`] returns the same confinement, unless it is one that it refuses.
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
        if let Some(abi) = self.landlock_abi {
            push(LANDLOCK_ABI, abi.to_string().into());
        }
        if let Some(User { uid, gid }) = self.user {
            push(USER, format!("{uid}:{gid}").into());
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

    /// Reads the launcher's arguments, without its own name.
    ///
    /// # Errors
    ///
    /// Refuses everything that [`Confinement::to_args`] would not have written, a program that
    /// is not an absolute path among it.
    pub fn from_args(mut args: impl Iterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut directory = None;
        let mut home = None;
        let mut tmp = None;
        let mut environment = Vec::new();
        let mut files = Files::default();
        let mut tcp = Vec::new();
        let mut landlock_abi = None;
        let mut user = None;
        let mut layers = [BTreeSet::new(), BTreeSet::new()];
        let mut descriptors = Vec::new();
        let mut limits = Limits::none();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--") => break,
                Some(DIRECTORY) => {
                    let path = PathBuf::from(value(&mut args, DIRECTORY)?);
                    set(&mut directory, path, DIRECTORY)?;
                }
                Some(HOME) => set(&mut home, absolute(&mut args, HOME)?, HOME)?,
                Some(TMP) => set(&mut tmp, absolute(&mut args, TMP)?, TMP)?,
                Some(ENV) => environment.push(name(value(&mut args, ENV)?)?),
                Some(SYSTEM) => files.system = true,
                Some(READ) => files.read.push(absolute(&mut args, READ)?),
                Some(WRITE) => files.write.push(absolute(&mut args, WRITE)?),
                Some(TCP) => tcp.push(number(&mut args, TCP)?),
                Some(LANDLOCK_ABI) => {
                    set(&mut landlock_abi, number(&mut args, LANDLOCK_ABI)?, LANDLOCK_ABI)?;
                }
                Some(USER) => {
                    let text = value(&mut args, USER)?;
                    set(&mut user, parse_user(&text)?, USER)?;
                }
                Some(REQUIRE) => drop(layers[0].insert(layer(&mut args, REQUIRE)?)),
                Some(WITHOUT) => drop(layers[1].insert(layer(&mut args, WITHOUT)?)),
                Some(DESCRIPTOR) => {
                    let number = number(&mut args, DESCRIPTOR)?;
                    if !DESCRIPTORS.contains(&number) {
                        return Err(UsageError::DescriptorRange { number });
                    }
                    descriptors.push(number);
                }
                Some(option) if limits.slot(option).is_some() => {
                    let (option, slot) = limits.slot(option).expect("it was just found");
                    set(slot, number(&mut args, option)?, option)?;
                }
                _ if arg.as_bytes().starts_with(b"-") => {
                    return Err(UsageError::UnknownOption { option: arg });
                }
                _ => return Err(UsageError::UnexpectedArgument { argument: arg }),
            }
        }
        let [required, without] = layers;
        let never_without =
            |layer: &&Layer| Layer::ALWAYS.contains(layer) || required.contains(layer);
        if let Some(&layer) = without.iter().find(never_without) {
            return Err(UsageError::NeededLayer { layer });
        }
        let program = PathBuf::from(args.next().ok_or(UsageError::NoProgram)?);
        if !program.is_absolute() {
            return Err(UsageError::RelativePath { path: program });
        }
        Ok(Self {
            directory: directory.ok_or(UsageError::NoDirectory)?,
            home,
            tmp,
            environment,
            files,
            tcp,
            landlock_abi,
            user,
            required,
            without,
            descriptors,
            limits,
            program,
            arguments: args.collect(),
        })
    }

    /// Returns where the program's own temporary files are mounted, and from where: not where they would
    /// hide something that was granted.
    pub(crate) fn tmp_mounts(&self) -> Vec<(&Path, &'static str)> {
        let Some(tmp) = &self.tmp else { return Vec::new() };
        let granted = || self.files.read.iter().chain(&self.files.write);
        let is_free = |place: &&&str| !granted().any(|path| path.starts_with(place));
        system::TMP.iter().filter(is_free).map(|place| (tmp.as_path(), *place)).collect()
    }

    /// Tells whether the program is not run without this layer.
    pub fn requires(&self, layer: Layer) -> bool {
        Layer::ALWAYS.contains(&layer) || self.required.contains(&layer)
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

fn parse_user(text: &OsString) -> Result<User, UsageError> {
    let numbers = text.to_str().and_then(|text| text.split_once(':'));
    let user = numbers
        .and_then(|(uid, gid)| Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? }));
    match user {
        Some(User { uid: u32::MAX, .. } | User { gid: u32::MAX, .. }) => Err(UsageError::NoUser),
        Some(user) => Ok(user),
        None => Err(UsageError::InvalidNumber { option: USER, value: text.clone() }),
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
