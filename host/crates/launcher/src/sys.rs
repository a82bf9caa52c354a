//! The system calls for which the standard library and rustix have no suitable function.
//!
//! All `unsafe` code of this crate is in this module. Each call is wrapped in a safe function. The module
//! does not know the order or the purpose of the calls. The other modules call these functions.

#![expect(unsafe_code, reason = "libc declares every call unsafe")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rustix::process::Pid;
use seccompiler::sock_filter;

/// The number of the first file descriptor after standard input, output and error.
const FIRST_OTHER_DESCRIPTOR: libc::c_uint = 3;

/// The lowest temporary number of file descriptors for the program. All numbers that a file descriptor can
/// have in the program are lower, so that no file descriptor overwrites another.
pub(crate) const FAR: libc::c_int = 20;
/// The lowest number for the control socket.
const FARTHER: libc::c_int = 40;

/// A program with its arguments and environment, in the memory layout that execve(2) takes.
///
/// The memory is allocated in advance, so that [`Image::execute`] allocates nothing.
pub(crate) struct Image {
    program: CString,
    arguments: Strings,
    environment: Strings,
}

impl Image {
    /// Prepares a program for execution. The first argument is the name of the program.
    pub(crate) fn new(
        program: CString,
        arguments: Vec<CString>,
        environment: Vec<CString>,
    ) -> Self {
        Self { program, arguments: Strings::new(arguments), environment: Strings::new(environment) }
    }

    /// Replaces the calling process by the program. Returns only on failure, with the error.
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

/// An array of pointers to strings, which ends with a null pointer, and the strings themselves.
struct Strings {
    pointers: Vec<*const libc::c_char>,
    // This field is never read. It keeps the strings alive, because `pointers` points to them. A `CString`
    // has its bytes on the heap, so the bytes do not move when this struct is moved.
    _owned: Vec<CString>,
}

impl Strings {
    fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned }
    }
}

/// Marks all file descriptors above 2 as close-on-exec. The file descriptors stay open until the program is
/// executed. Needs Linux 5.11.
pub(crate) fn close_descriptors_on_execute() -> io::Result<()> {
    // The call is made by its number, because some supported C libraries have no function for it.
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

/// Unblocks all signals, and resets SIGPIPE to its default action. Both settings survive `execve`. Rust's
/// start-up code ignores SIGPIPE, but many programs rely on its default action.
pub(crate) fn reset_signals() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no code of ours.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given, and that set outlives the call.
    check(unsafe { libc::sigemptyset(none.as_mut_ptr()) })?;
    // SAFETY: the set was just initialised; a null pointer says that the old set is not wanted.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) })
}

/// Forks the process like fork(2). The child is in new namespaces, which are named by flags of clone(2).
/// Returns the child's process id in the parent, and `None` in the child.
///
/// The process must have only one thread. A lock that another thread holds would stay locked in the child.
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

/// Forks the process like [`fork`], with the child in this control group from its start. Needs Linux 5.7.
/// This is faster than moving the child into the group later, which takes the kernel milliseconds.
pub(crate) fn fork_into(group: BorrowedFd<'_>) -> io::Result<Option<Pid>> {
    // The libc crate declares this constant as a `c_int` for glibc, which is too small for its value.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = libc::clone_args {
        flags: CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::from(group.as_raw_fd().cast_unsigned()),
    };
    let size = size_of::<libc::clone_args>();
    // SAFETY: the arguments have the given size and outlive the call. Without a stack and without
    // CLONE_VM the call has the semantics of fork, as in `fork`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?))
}

/// Blocks the signals that stop the launcher, SIGCHLD, and SIGUSR1, which the outer process sends to the
/// inner process. Returns a file descriptor from which these signals are read (signalfd(2)).
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
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A system call that waits for an answer (seccomp_unotify(2)).
pub(crate) struct Notification {
    id: u64,
    /// The number of the call.
    pub(crate) number: i64,
    /// The process id of the caller.
    pub(crate) pid: i32,
    pub(crate) arguments: [u64; 6],
}

/// Installs a filter of system calls in the calling process, which must have given up new privileges. Returns the
/// listener for its notifications. Needs Linux 5.5.
///
/// # Errors
///
/// Fails if the process already has a filter with a listener.
pub(crate) fn install_listener(program: &[sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?,
        // `seccompiler` declares the same struct as libc: `struct sock_filter` of linux/filter.h.
        filter: program.as_ptr().cast_mut().cast(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: the kernel reads the given number of instructions, which outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        }
    };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // With the second flag, signals do not interrupt a call that is being answered. It needs Linux 5.19.
    let mut descriptor = install(listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    if descriptor == -1 {
        descriptor = install(listener);
    }
    if descriptor == -1 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = libc::c_int::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Receives a notification, and waits until there is one.
pub(crate) fn receive_notification(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    let mut received = MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the kernel writes a notification into the memory, which is large enough and zeroed, as it demands.
    check(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, received.as_mut_ptr())
    })?;
    // SAFETY: the kernel has written the notification. All its fields are numbers.
    let received = unsafe { received.assume_init() };
    let pid = i32::try_from(received.pid).map_err(io::Error::other)?;
    let number = i64::from(received.data.nr);
    Ok(Notification { id: received.id, number, pid, arguments: received.data.args })
}

/// Returns true if the caller still waits, so that its process id was not reused.
pub(crate) fn is_current(listener: BorrowedFd<'_>, notification: &Notification) -> bool {
    // SAFETY: the kernel reads the number, which outlives the call.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const notification.id,
        )
    };
    result == 0
}

/// Lets the kernel go on with the call. If the caller has ended meanwhile, nothing happens.
pub(crate) fn continue_call(listener: BorrowedFd<'_>, notification: &Notification) {
    let response = libc::seccomp_notif_resp {
        id: notification.id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: the kernel reads the response, which outlives the call.
    unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response);
    }
}

/// The access that a mount allows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MountAccess {
    /// Reading only. File contents, modes and times cannot be changed. Setuid programs give no privileges.
    Read,
    /// Reading and writing. Setuid programs give no privileges, and devices do not work.
    Write,
}

/// Restricts a mount and all mounts below it with mount_setattr(2). Needs Linux 5.12.
pub(crate) fn restrict_mount(place: &Path, access: MountAccess) -> io::Result<()> {
    let place = CString::new(place.as_os_str().as_bytes())?;
    let set = match access {
        MountAccess::Read => libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        MountAccess::Write => libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
    };
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is nul-terminated, and the attributes are valid for the given size; both outlive
    // the call.
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

/// Copies a file descriptor to another number. The copy stays open across `execve`.
pub(crate) fn place_descriptor(descriptor: BorrowedFd<'_>, number: u32) -> io::Result<()> {
    let number = libc::c_int::try_from(number).map_err(io::Error::other)?;
    // SAFETY: dup2 takes numbers. It closes a descriptor that had this number before; nothing in this
    // process uses that one, because the number is one of the program's or that of the control socket.
    check(unsafe { libc::dup2(descriptor.as_raw_fd(), number) })
}

/// Returns a copy of an inherited file descriptor. The copy has a high number.
///
/// # Errors
///
/// Fails if no file descriptor with this number is open.
pub(crate) fn inherited(number: u32) -> io::Result<OwnedFd> {
    let number = libc::c_int::try_from(number).map_err(io::Error::other)?;
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers and returns a new descriptor.
    let descriptor = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FARTHER) };
    check(descriptor)?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Returns a copy of a file descriptor. The copy has a high number and is closed at `execve`.
pub(crate) fn far_copy(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_DUPFD_CLOEXEC takes numbers and returns a new descriptor.
    let copy = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FARTHER) };
    check(copy)?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
