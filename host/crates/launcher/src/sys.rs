//! The system calls that neither the standard library nor rustix has in a form that fits.
//!
//! Owns all `unsafe` of this crate, each call behind a function that cannot be misused. Must not
//! know in which order, or for what, they are called. Before it: the pipeline; after it: the
//! kernel.

#![expect(unsafe_code, reason = "libc declares every call unsafe")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process;
use std::ptr;

use rustix::process::Pid;

/// The first descriptor that is not standard input, output or error.
const FIRST_OTHER_DESCRIPTOR: libc::c_uint = 3;

/// Where descriptors are that are to get a number of the program's, beyond all such numbers, so that
/// none is in the way of another; and where our own socket is, beyond those.
pub(crate) const FAR: libc::c_int = 20;
const FARTHER: libc::c_int = 40;

/// Names a resource that setrlimit(2) limits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource {
    Core,
    OpenFiles,
    FileSize,
    CpuSeconds,
    Memory,
    Processes,
}

/// Holds a program with its arguments and environment, laid out as execve(2) takes them.
///
/// Laid out ahead, so that [`Image::execute`] allocates nothing.
pub(crate) struct Image {
    program: CString,
    arguments: Strings,
    environment: Strings,
}

impl Image {
    /// Lays out a program; the first argument is its own name.
    pub(crate) fn new(
        program: CString,
        arguments: Vec<CString>,
        environment: Vec<CString>,
    ) -> Self {
        Self { program, arguments: Strings::new(arguments), environment: Strings::new(environment) }
    }

    /// Becomes the program; returns only if that fails, with the reason.
    pub(crate) fn execute(&self) -> io::Error {
        // SAFETY: `program` is nul-terminated, and `Strings` keeps both arrays ended by a null
        // pointer and the strings that they point to alive, unchanged, as long as `self`.
        unsafe {
            libc::execve(
                self.program.as_ptr(),
                self.arguments.pointers.as_ptr(),
                self.environment.pointers.as_ptr(),
            );
        }
        io::Error::last_os_error()
    }
}

/// An array of pointers, ended by a null pointer, and the strings it points to.
struct Strings {
    pointers: Vec<*const libc::c_char>,
    // Never read: it keeps what `pointers` points to. A `CString` has its bytes on the heap, so
    // they stay where they are when this struct is moved.
    _owned: Vec<CString>,
}

impl Strings {
    fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned }
    }
}

/// Sets the permissions that files made from now on do not get.
pub(crate) fn set_umask(mask: libc::mode_t) {
    // SAFETY: umask takes and returns a number, and cannot fail.
    unsafe { libc::umask(mask) };
}

/// Makes the calling process the leader of its own process group, and of its own session unless
/// it leads a group already, in which case the kernel refuses a session.
pub(crate) fn lead_process_group() -> io::Result<()> {
    // SAFETY: setsid takes nothing and touches no memory of ours.
    if unsafe { libc::setsid() } != -1 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // SAFETY: getpgrp takes nothing, touches no memory of ours, and cannot fail.
    let group = unsafe { libc::getpgrp() };
    // The kernel gives the same error when another process still is in a group with our number,
    // so that the claim is checked and not concluded from the error.
    if u32::try_from(group) == Ok(process::id()) { Ok(()) } else { Err(error) }
}

/// Lowers both the soft and the hard limit, so that the program cannot raise it again. A hard
/// limit that is lower already stays: a limit is never raised, not even by root.
pub(crate) fn lower_limit(resource: Resource, to: u64) -> io::Result<()> {
    let resource = match resource {
        Resource::Core => libc::RLIMIT_CORE,
        Resource::OpenFiles => libc::RLIMIT_NOFILE,
        Resource::FileSize => libc::RLIMIT_FSIZE,
        Resource::CpuSeconds => libc::RLIMIT_CPU,
        Resource::Memory => libc::RLIMIT_AS,
        Resource::Processes => libc::RLIMIT_NPROC,
    };
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `old` is a valid rlimit that outlives the call.
    check(unsafe { libc::getrlimit(resource, &raw mut old) })?;
    let limit = to.min(old.rlim_max);
    let new = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `new` is a valid rlimit that outlives the call.
    check(unsafe { libc::setrlimit(resource, &raw const new) })
}

/// Has the kernel close every descriptor beyond the first three when the program is executed.
///
/// Not at once: if something in this process does own one, it stays valid until then. Needs
/// Linux 5.11.
pub(crate) fn close_descriptors_on_execute() -> io::Result<()> {
    // By number, because not every libc that we build for has the function.
    // SAFETY: close_range takes numbers only, and with CLOSE_RANGE_CLOEXEC closes nothing here.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_OTHER_DESCRIPTOR,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Unblocks all signals, and sets SIGPIPE to its default. Both outlive execve; Rust's start-up
/// code ignores SIGPIPE, and many programs do not expect to inherit that.
pub(crate) fn reset_signals() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no code of ours.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given, and that set outlives the call.
    check(unsafe { libc::sigemptyset(none.as_mut_ptr()) })?;
    // SAFETY: the set was just initialised; a null pointer says that the old one is not wanted.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) })
}

/// Becomes two processes, as fork(2), with these namespaces of its own for the new one. Returns the
/// new one's number in the old, and nothing in the new.
///
/// Only for a process with one thread: a lock that another thread holds would be held for ever in the
/// new process.
pub(crate) fn fork(namespaces: libc::c_int) -> io::Result<Option<Pid>> {
    let flags = libc::c_ulong::from((namespaces | libc::SIGCHLD).cast_unsigned());
    let none: libc::c_ulong = 0;
    // SAFETY: without a stack and without CLONE_VM the call has the semantics of fork: the new process
    // has a copy of this one's memory, and there is no thread whose locks it could miss.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?))
}

/// The arguments of clone3(2), as Linux 5.7 has them.
#[derive(Default)]
#[repr(C)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The same with the new process in this control group from its beginning: to move one there takes
/// the kernel milliseconds.
pub(crate) fn fork_into(group: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = CloneArguments {
        flags: INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        cgroup: u64::from(group.as_raw_fd().cast_unsigned()),
        ..CloneArguments::default()
    };
    let size = size_of::<CloneArguments>();
    // SAFETY: the arguments are those of the size that is told, and outlive the call. Without a stack
    // and without CLONE_VM it has the semantics of fork, as in `fork`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?))
}

/// Blocks the signals that end a process, tell of a child or are our own, and returns a descriptor
/// that tells of them.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given, and that set outlives the call.
    check(unsafe { libc::sigemptyset(set.as_mut_ptr()) })?;
    // SAFETY: the set was just initialised.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD, libc::SIGUSR1] {
        // SAFETY: the set is initialised and outlives the call.
        check(unsafe { libc::sigaddset(&raw mut set, signal) })?;
    }
    // SAFETY: the set is initialised; a null pointer says that the old mask is not wanted.
    check(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) })?;
    // SAFETY: the set is initialised and outlives the call; -1 asks for a new descriptor.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    check(descriptor)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Takes every capability that this kernel has out of the bounding set.
pub(crate) fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..libc::c_ulong::from(u64::BITS) {
        // SAFETY: PR_CAPBSET_DROP takes a number.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result == -1 {
            let error = io::Error::last_os_error();
            // The first number that is no capability of this kernel.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// What may be done through a mount.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mount {
    /// Nothing of it can be changed, modes and times included; setuid programs give nothing.
    Read,
    /// It can; setuid programs give nothing, and devices are none.
    Write,
}

/// Restricts a mount and all in it (mount_setattr(2), Linux 5.12).
pub(crate) fn set_mount(place: &Path, mount: Mount) -> io::Result<()> {
    let place = CString::new(place.as_os_str().as_bytes())?;
    let set = match mount {
        Mount::Read => libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        Mount::Write => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
    };
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is nul-terminated, and the attributes are valid for the size that is given;
    // both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            place.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives a descriptor another number, under which it outlives `execve`.
pub(crate) fn place_descriptor(descriptor: BorrowedFd<'_>, number: u32) -> io::Result<()> {
    let number = libc::c_int::try_from(number).map_err(io::Error::other)?;
    // SAFETY: dup2 takes numbers; what was open under that number is closed, and nothing in this
    // process, which is about to become another program, uses it.
    check(unsafe { libc::dup2(descriptor.as_raw_fd(), number) })
}

/// Takes over a descriptor that this process was started with.
///
/// # Errors
///
/// If nothing is open under that number.
pub(crate) fn inherited(number: u32) -> io::Result<OwnedFd> {
    let number = libc::c_int::try_from(number).map_err(io::Error::other)?;
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers and gives a new descriptor.
    let descriptor = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FARTHER) };
    check(descriptor)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
