//! The system calls that the standard library does not have.
//!
//! Owns all `unsafe` of this crate, each call behind a function that cannot be misused. Must not
//! know in which order, or for what, they are called. Before it: the pipeline; after it: the
//! kernel.

#![expect(
    unsafe_code,
    reason = "the standard library has no such calls, and libc declares every call unsafe"
)]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::process;
use std::ptr;

/// The first descriptor that is not standard input, output or error.
const FIRST_OTHER_DESCRIPTOR: libc::c_uint = 3;

/// Names a resource that setrlimit(2) limits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resource {
    Core,
    OpenFiles,
    FileSize,
    CpuSeconds,
    Memory,
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
    };
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `old` is a valid rlimit that outlives the call.
    check(unsafe { libc::getrlimit(resource, &raw mut old) })?;
    let limit = to.min(old.rlim_max);
    let new = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `new` is a valid rlimit that outlives the call.
    check(unsafe { libc::setrlimit(resource, &raw const new) })
}

/// Rules out, for this process and all it will ever start, that executing a program adds
/// privileges: setuid, setgid and file capabilities are ignored.
pub(crate) fn forbid_new_privileges() -> io::Result<()> {
    // The kernel reads five full words and refuses this call if the last three are not zero.
    let (yes, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, unused, unused, unused) })
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

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
