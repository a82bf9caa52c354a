//! The control socket, on which the launcher receives its plan and sends its report.
//!
//! This module encodes and decodes the plan, which has two parts. The first part contains the arguments of
//! the launcher, in the format of `/proc/PID/cmdline`. The second part contains the environment variables of
//! the program, in the format of `/proc/PID/environ`. Before each part comes its length in four bytes,
//! big-endian. The file descriptors for the program are attached to the first byte of the plan.
//!
//! The variables of the program are never in the environment of the launcher itself, because some variables
//! could change how the privileged launcher behaves.
//!
//! The launcher sends each [`Report`] as a line. When the daemon closes its end of the socket, the program is
//! killed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::confinement::Confinement;
use crate::error::{LaunchError, Step};
use crate::report::Report;
use crate::sys;

/// The environment variables of a program, by name.
pub type Environment = BTreeMap<String, OsString>;

/// The plan that the launcher receives on the control socket.
pub struct Plan {
    /// The arguments of the launcher.
    pub arguments: Vec<OsString>,
    /// The available environment variables. The program gets those that the arguments name.
    pub environment: Environment,
    /// The file descriptors for the program.
    pub descriptors: Vec<OwnedFd>,
}

/// The maximum number of file descriptors in a plan.
const MAX_DESCRIPTORS: usize = 4;
/// The maximum size of each part of a plan, in bytes.
const MAX_BLOCK_BYTES: usize = 4 << 20;

/// Sends a plan to a launcher that was started with `--control`. The file descriptors are in the order of
/// [`Confinement::descriptors`].
///
/// # Errors
///
/// Fails if sending fails, or if the length of a part does not fit into four bytes.
pub fn send_plan(
    socket: &UnixStream,
    confinement: &Confinement,
    environment: &Environment,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut plan = block(confinement.to_args())?;
    let variables = environment.iter().map(|(name, value)| {
        let mut variable = OsString::from(name);
        variable.push("=");
        variable.push(value);
        variable
    });
    plan.extend(block(variables)?);
    send(socket, &plan, descriptors)
}

fn block(words: impl IntoIterator<Item = OsString>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend(word.into_vec());
        bytes.push(0);
    }
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &bytes].concat())
}

/// Sends bytes, with file descriptors attached to the first byte.
///
/// # Errors
///
/// Fails if sending fails, or if there are more than four file descriptors.
pub fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many file descriptors in one plan"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut socket = socket;
    socket.write_all(&bytes[sent..])
}

/// Receives one file descriptor, which [`send`] attached to a byte. Returns `None` if the other end is closed.
pub(crate) fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let iov = &mut [IoSliceMut::new(&mut byte)];
    recvmsg(socket, iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let rights = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    Ok(rights)
}

/// The launcher's end of the socket.
pub struct Control(UnixStream);

impl Control {
    /// Takes over the socket that this process inherited as file descriptor `number`, and reads the plan.
    /// After that, file descriptor `number` is `/dev/null`, because it may be standard input.
    ///
    /// # Errors
    ///
    /// Fails if the file descriptor is not open, or if no complete plan arrives on the socket.
    pub fn open(number: u32) -> Result<(Self, Plan), LaunchError> {
        let open = || {
            let control = Self::new(sys::inherited(number)?);
            let null = File::open("/dev/null")?;
            sys::place_descriptor(null.as_fd(), number)?;
            let plan = control.read_plan()?;
            Ok::<_, io::Error>((control, plan))
        };
        open().map_err(LaunchError::at(Step::Plan))
    }

    fn new(socket: OwnedFd) -> Self {
        Self(socket.into())
    }

    fn read_plan(&self) -> io::Result<Plan> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let iov = &mut [IoSliceMut::new(&mut length)];
        let received = recvmsg(&self.0, iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let mut socket = &self.0;
        socket.read_exact(&mut length[received.bytes..])?;
        let arguments = self.read_words(length)?;
        socket.read_exact(&mut length)?;
        let variables = self.read_words(length)?.into_iter().filter_map(|variable| {
            let text = variable.into_vec();
            let end = text.iter().position(|&byte| byte == b'=')?;
            let name = String::from_utf8(text[..end].to_vec()).ok()?;
            Some((name, OsString::from_vec(text[end + 1..].to_vec())))
        });
        let environment = variables.collect();
        Ok(Plan { arguments, environment, descriptors })
    }

    fn read_words(&self, length: [u8; 4]) -> io::Result<Vec<OsString>> {
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length > MAX_BLOCK_BYTES {
            return Err(io::Error::other("a part of the plan is longer than 4 MiB"));
        }
        let mut words = vec![0; length];
        (&self.0).read_exact(&mut words)?;
        let words = words.split_inclusive(|&byte| byte == 0);
        Ok(words.map(|word| OsString::from_vec(word[..word.len() - 1].to_vec())).collect())
    }

    /// Writes a line of the report. A write error means that the daemon has ended, and is ignored.
    pub(crate) fn report(&self, report: &Report) {
        (&self.0).write_all(format!("{report}\n").as_bytes()).ok();
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn plan_and_descriptors_survive_the_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let words = ["--directory", "/", "--descriptor", "3", "--", "/bin/a", "", "b c"];
        let confinement = Confinement::from_args(words.iter().map(OsString::from)).unwrap();
        let file = File::open("/dev/null").unwrap();
        let environment = Environment::from([("A".to_owned(), "b=c".into())]);
        send_plan(&ours, &confinement, &environment, &[file.as_fd()]).unwrap();
        let plan = Control::new(theirs.into()).read_plan().unwrap();
        assert_eq!(Confinement::from_args(plan.arguments.into_iter()), Ok(confinement));
        assert_eq!(plan.environment, environment);
        let descriptors = plan.descriptors;
        assert_eq!(descriptors.len(), 1);
        assert_ne!(descriptors[0].as_raw_fd(), file.as_raw_fd());
    }

    #[test]
    fn truncated_plan_is_an_error() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&[0, 0, 0, 9, b'x']).unwrap();
        drop(ours);
        assert!(Control::new(theirs.into()).read_plan().is_err());
    }
}
