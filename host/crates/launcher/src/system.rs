//! What of the system a program needs to run at all: `--system`.
//!
//! Owns the lists. They are chosen for a Python program that speaks ssh, on Debian and Fedora: code,
//! names of users and hosts, certificates, time zones; no password file, no host keys, no logs, no
//! home directories, no sockets. What is not there is skipped.

/// Trees and files that may be read and executed.
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

/// Devices and memory that may be written. Python's locks between processes are in `/dev/shm`.
pub(crate) const WRITE: &[&str] = &["/dev/full", "/dev/null", "/dev/shm", "/dev/tty", "/dev/zero"];

/// Where temporary files of the program's own are, in a room that has some.
pub(crate) const TMP: &[&str] = &["/tmp", "/var/tmp"];

/// Pseudo-terminals, on which `ssh` asks for a password: in a room they are the program's own, outside
/// they are everybody's.
pub(crate) const OWN_WRITE: &[&str] = &["/dev/ptmx", "/dev/pts"];
