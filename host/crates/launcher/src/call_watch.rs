//! Watches system calls of a program, to name what its sandbox denies or what its manifest must grant.
//!
//! A filter makes the kernel report the calls to the inner process (seccomp_unotify(2)). The inner process reads the
//! arguments, notes what they name, and lets each call go on. The layers deny access, not this module: the program
//! could change an address or a path after it was read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::net::{SocketType, sockopt::socket_type};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use seccompiler::sock_filter;

use crate::confinement::Confinement;
use crate::control;
use crate::report::{FileAccess, Report};
use crate::reporter::Reporter;
use crate::sys::{self, Notification};
use crate::system;
use crate::watch::Watch;

/// The maximum number of noted ports.
const MAX_PORTS: usize = 20;
/// The maximum number of noted files.
const MAX_FILES: usize = 500;
/// The size of the part of a socket address that contains the family and the port (`struct sockaddr_in` and
/// `struct sockaddr_in6`).
const ADDRESS: usize = 4;
/// The maximum length of a path (PATH_MAX of linux/limits.h).
const MAX_PATH: usize = 4096;
/// The size of the pieces in which a path is read. A piece does not cross the border of a memory page.
const PIECE: usize = 256;

/// The watch of the inner process.
pub(crate) struct CallWatch {
    watch: Watch,
    /// The end of the socket on which the program's process sends the listener. `None` once it has.
    socket: Option<UnixStream>,
    listener: Option<OwnedFd>,
    granted: Vec<u16>,
    /// Granted directories and files, without links. The grant of the whole file system is left out.
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    ports: BTreeSet<u16>,
    files: BTreeMap<PathBuf, FileAccess>,
    is_installed: bool,
}

/// The end of the program's process, which installs the filter.
pub(crate) struct CallFilter {
    watch: Watch,
    socket: UnixStream,
}

/// A call that names a file, with the places of its arguments.
#[derive(Clone, Copy)]
struct FileCall {
    number: i64,
    /// The index of the argument with the descriptor of the directory in which a relative path begins.
    dir: Option<usize>,
    path: usize,
    access: CallAccess,
}

/// The access of a call that names a file.
#[derive(Clone, Copy)]
enum CallAccess {
    Read,
    /// The file is created. The call fails if it exists.
    Create,
    /// The file is removed. If it does not exist, nothing is done.
    Remove,
    /// The file is created or replaced.
    Replace,
    /// As the flags say, which are the argument with this index.
    ByFlags(usize),
    /// As the flags say, which are at the beginning of the structure to which this argument points.
    ByStruct(usize),
}

const fn call(number: i64, dir: Option<usize>, path: usize, access: CallAccess) -> FileCall {
    FileCall { number, dir, path, access }
}

/// The watched calls that name a file.
const FILE_CALLS: &[FileCall] = &[
    call(libc::SYS_openat, Some(0), 1, CallAccess::ByFlags(2)),
    call(libc::SYS_openat2, Some(0), 1, CallAccess::ByStruct(2)),
    call(libc::SYS_execve, None, 0, CallAccess::Read),
    call(libc::SYS_mkdirat, Some(0), 1, CallAccess::Create),
    call(libc::SYS_unlinkat, Some(0), 1, CallAccess::Remove),
    call(libc::SYS_renameat2, Some(2), 3, CallAccess::Replace),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_open, None, 0, CallAccess::ByFlags(1)),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_creat, None, 0, CallAccess::Replace),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_mkdir, None, 0, CallAccess::Create),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_unlink, None, 0, CallAccess::Remove),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_rmdir, None, 0, CallAccess::Remove),
    #[cfg(target_arch = "x86_64")]
    call(libc::SYS_rename, None, 1, CallAccess::Replace),
];

/// Creates the watch for the inner process, and the end for the program's process.
pub(crate) fn start(confinement: &Confinement) -> io::Result<(CallWatch, CallFilter)> {
    let watch = confinement.watch;
    let files = &confinement.files;
    let system = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    let real = |paths: Vec<PathBuf>| -> Vec<PathBuf> {
        let real = paths.iter().filter_map(|path| path.canonicalize().ok());
        real.filter(|path| path.parent().is_some()).collect()
    };
    // A program gets its own devices and its own `/proc`.
    let writable = real([files.write.clone(), system(&["/dev", "/proc", "/sys"])].concat());
    let readable = [files.read.clone(), system(system::READ)].concat();
    let readable = [real(readable), writable.clone()].concat();
    let (ours, theirs) = UnixStream::pair()?;
    // The number must not be one that a descriptor gets in the program.
    let theirs = UnixStream::from(sys::far_copy(theirs.as_fd())?);
    let filter = CallFilter { watch, socket: theirs };
    let watch = CallWatch {
        watch,
        socket: Some(ours),
        listener: None,
        granted: confinement.tcp.clone(),
        readable,
        writable,
        ports: BTreeSet::new(),
        files: BTreeMap::new(),
        is_installed: false,
    };
    Ok((watch, filter))
}

impl CallFilter {
    /// Installs the filter in the calling process, and sends its listener to the inner process. If the kernel refuses
    /// the filter, for example because the process has such a filter already, nothing is watched.
    ///
    /// # Errors
    ///
    /// If the listener cannot be sent. Without a listener, the watched calls would fail.
    pub(crate) fn install(&self) -> io::Result<()> {
        let Ok(listener) = sys::install_listener(&program(self.watch)) else { return Ok(()) };
        control::send(&self.socket, b"l", &[listener.as_fd()])
    }
}

impl CallWatch {
    /// Returns the file descriptor that is readable when there is something to handle.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd).or(self.socket.as_ref().map(AsFd::as_fd))
    }

    /// Handles what the file descriptor announced. `is_readable` is false if only its end was announced. A port is
    /// reported before its connection is tried, so all reports are readable once the program has ended.
    pub(crate) fn handle(&mut self, is_readable: bool, reporter: &Reporter) {
        if let Some(socket) = self.socket.take() {
            // If the program's process has installed no filter, its end of the socket is closed.
            self.listener = control::receive_descriptor(&socket).ok().flatten();
            self.is_installed = self.listener.is_some();
            return;
        }
        let Some(listener) = self.listener.take() else { return };
        if !is_readable {
            // All processes with the filter have ended. Some kernels would wait for ever for a notification.
            return;
        }
        // An error means that the process was killed while it waited, or that a signal interrupted this call.
        if let Ok(call) = sys::receive_notification(listener.as_fd()) {
            self.note(&call, listener.as_fd(), reporter);
            sys::continue_call(listener.as_fd(), &call);
        }
        self.listener = Some(listener);
    }

    fn note(&mut self, call: &Notification, listener: BorrowedFd<'_>, reporter: &Reporter) {
        let is_current = || sys::is_current(listener, call);
        if call.number == libc::SYS_connect {
            let port = tcp_port(call).filter(|_| is_current());
            let is_granted =
                |port: &u16| self.watch == Watch::DeniedPorts && self.granted.contains(port);
            if let Some(port) = port.filter(|port| !is_granted(port))
                && self.ports.len() < MAX_PORTS
                && self.ports.insert(port)
            {
                reporter.write(&Report::Denied { port });
            }
        } else if let Some((path, access)) = file(call).filter(|_| is_current())
            && !self.is_granted(&path, access)
            && self.files.len() < MAX_FILES
        {
            let noted = self.files.entry(path).or_insert(access);
            *noted = (*noted).max(access);
        }
    }

    fn is_granted(&self, path: &Path, access: FileAccess) -> bool {
        let granted = match access {
            FileAccess::Read => &self.readable,
            FileAccess::Write | FileAccess::Create => &self.writable,
        };
        granted.iter().any(|tree| path.starts_with(tree))
    }

    /// Returns the reason why calls may be missing.
    pub(crate) fn shortcoming(&self) -> Option<String> {
        if !self.is_installed {
            return Some("the kernel refused to watch the program".to_owned());
        }
        let is_full = |what, max| Some(format!("only the first {max} {what} are named"));
        match (self.ports.len(), self.files.len()) {
            (_, MAX_FILES..) => is_full("files", MAX_FILES),
            (MAX_PORTS.., _) => is_full("ports", MAX_PORTS),
            _ => None,
        }
    }

    /// Returns a report for each file.
    pub(crate) fn files(&self) -> impl Iterator<Item = Report> {
        self.files.iter().map(|(path, &access)| Report::Used { access, path: path.clone() })
    }
}

/// Returns the port of a `connect` of a TCP socket. `None` for another socket, and if it cannot be read.
fn tcp_port(call: &Notification) -> Option<u16> {
    let memory = File::open(format!("/proc/{}/mem", call.pid)).ok()?;
    let mut address = [0; ADDRESS];
    memory.read_exact_at(&mut address, call.arguments[1]).ok()?;
    let family = i32::from(u16::from_ne_bytes([address[0], address[1]]));
    if !matches!(family, libc::AF_INET | libc::AF_INET6) {
        return None;
    }
    // The caller is a thread, and its process has the descriptors.
    let status = fs::read_to_string(format!("/proc/{}/status", call.pid)).ok()?;
    let process =
        status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let process = pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()?;
    let number = i32::try_from(call.arguments[0]).ok()?;
    let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
    let is_stream = socket_type(socket).ok()? == SocketType::STREAM;
    is_stream.then(|| u16::from_be_bytes([address[2], address[3]]))
}

/// Returns the file that a call names, as an absolute path without links, and the access. `None` if the file does not
/// exist and is not created.
fn file(call: &Notification) -> Option<(PathBuf, FileAccess)> {
    let found = FILE_CALLS.iter().find(|known| known.number == call.number)?;
    let memory = File::open(format!("/proc/{}/mem", call.pid)).ok()?;
    let named = path_at(&memory, call.arguments[found.path])?;
    let start = match found.dir.map(|index| call.arguments[index] as i32) {
        None | Some(libc::AT_FDCWD) => format!("/proc/{}/cwd", call.pid),
        Some(number) => format!("/proc/{}/fd/{number}", call.pid),
    };
    let path = match named.is_absolute() {
        true => named,
        false => fs::read_link(start).ok()?.join(named),
    };
    let real = path.canonicalize().ok();
    let flags = match found.access {
        CallAccess::Create if real.is_some() => return None,
        CallAccess::Remove => return Some((real?, FileAccess::Create)),
        CallAccess::Create | CallAccess::Replace => i64::from(libc::O_CREAT),
        CallAccess::Read => 0,
        CallAccess::ByFlags(index) => call.arguments[index].cast_signed(),
        CallAccess::ByStruct(index) => {
            let mut flags = [0; 8];
            memory.read_exact_at(&mut flags, call.arguments[index]).ok()?;
            i64::from_ne_bytes(flags)
        }
    };
    let writes = flags & i64::from(libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC) != 0;
    let creates = flags & i64::from(libc::O_CREAT) != 0;
    match real {
        Some(real) => {
            Some((real, if writes || creates { FileAccess::Write } else { FileAccess::Read }))
        }
        None if creates => {
            let parent = path.parent()?.canonicalize().ok()?;
            Some((parent.join(path.file_name()?), FileAccess::Create))
        }
        None => None,
    }
}

/// Reads the path at an address of a process.
fn path_at(memory: &File, address: u64) -> Option<PathBuf> {
    let mut path = Vec::new();
    while path.len() < MAX_PATH {
        let from = address.checked_add(u64::try_from(path.len()).ok()?)?;
        let to_border = PIECE - usize::try_from(from % PIECE as u64).ok()?;
        let mut piece = vec![0; to_border];
        memory.read_exact_at(&mut piece, from).ok()?;
        if let Some(end) = piece.iter().position(|&byte| byte == 0) {
            path.extend_from_slice(&piece[..end]);
            return (!path.is_empty())
                .then(|| Path::new(std::ffi::OsStr::from_bytes(&path)).to_owned());
        }
        path.extend(piece);
    }
    None
}

/// Returns a filter that reports the watched calls and allows all others. The filter of `syscalls` refuses the calls
/// of other architectures.
fn program(watch: Watch) -> Vec<sock_filter> {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let files = FILE_CALLS.iter().filter(|_| watch == Watch::Everything).map(|call| call.number);
    let watched: Vec<i64> = std::iter::once(libc::SYS_connect).chain(files).collect();
    let mut program = vec![step(LOAD_NUMBER, 0, 0, 0)];
    for (index, number) in watched.iter().enumerate() {
        // A match jumps over the other comparisons and the first return.
        let others = u8::try_from(watched.len() - index).unwrap_or(u8::MAX);
        program.push(step(JUMP_IF_EQUAL, others, 0, u32::try_from(*number).unwrap_or(u32::MAX)));
    }
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_call_jumps_to_the_notification() {
        for watch in [Watch::DeniedPorts, Watch::Everything] {
            let program = program(watch);
            let notify = program.len() - 1;
            for (at, step) in program.iter().enumerate().filter(|(_, step)| step.jt != 0) {
                assert_eq!(at + 1 + usize::from(step.jt), notify);
            }
        }
        assert_eq!(program(Watch::DeniedPorts).len(), 4);
    }

    #[test]
    fn a_path_is_read_across_the_borders_of_pieces() {
        let mut file = tempfile::tempfile().unwrap();
        let long = format!("/{}", "a".repeat(1000));
        io::Write::write_all(&mut file, format!("{}{long}\0rest", "x".repeat(100)).as_bytes())
            .unwrap();
        io::Write::write_all(&mut file, &[0; PIECE]).unwrap();
        assert_eq!(path_at(&file, 100), Some(long.into()));
        assert_eq!(path_at(&file, 1 << 40), None);
    }
}
