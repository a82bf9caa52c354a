//! The paths that the option `--system` grants, which most programs need.
//!
//! The paths are sufficient for a Python program that uses ssh, on Debian and Fedora. The lists contain code,
//! names of users and hosts, certificates and time zones. They do not contain password hashes, host keys,
//! logs, home directories or sockets. Paths that do not exist are skipped. This module does not know how a
//! path is granted: the modules `landlock` and `rootfs` use the lists.

/// The directory trees and files that the program may read and execute.
pub(crate) const READ: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/etc/alternatives",
    "/etc/ansible",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/default/locale",
    "/etc/environment",
    "/etc/fedora-release",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/lsb-release",
    "/etc/machine-id",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/profile",
    "/etc/protocols",
    "/etc/python3",
    "/etc/redhat-release",
    "/etc/resolv.conf",
    "/etc/rpc",
    "/etc/services",
    "/etc/shells",
    "/etc/ssh/ssh_config",
    "/etc/ssh/ssh_config.d",
    "/etc/ssh/ssh_known_hosts",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/system-release",
    "/etc/terminfo",
    "/etc/timezone",
    "/dev/random",
    "/dev/urandom",
    "/proc",
    "/sys",
];

/// The devices and the shared memory that the program may write. The locks of Python's `multiprocessing` are
/// in `/dev/shm`.
pub(crate) const WRITE: &[&str] = &["/dev/full", "/dev/null", "/dev/shm", "/dev/tty", "/dev/zero"];

/// The mount points for the program's own temporary files, in a private root file system.
pub(crate) const TMP: &[&str] = &["/tmp", "/var/tmp"];

/// The pseudo-terminals, on which `ssh` asks for a password. These paths are granted only in a private root
/// file system, which has its own pseudo-terminals. Those of the host belong to other processes too.
pub(crate) const PRIVATE_WRITE: &[&str] = &["/dev/ptmx", "/dev/pts"];
