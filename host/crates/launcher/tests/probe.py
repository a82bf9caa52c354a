#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Attempts actions that a sandbox forbids and actions that it allows, and prints the results.

The probe runs as a program, from a shell task, or as an Ansible module. The program prints a table, or JSON
with --json. Ansible passes the path of a JSON file with arguments, because this text contains the word
WANT_JSON. The input is one JSON object, and all of its keys are optional. It is read from the file that the
first argument names, from the variable LOOPABULL_PROBE, or from standard input.

Verdicts: `allowed`; `denied`; `limited` (a resource limit stopped the attempt); `absent` (the target does
not exist); `untried` (an input is missing); `info` (a fact without a judgement). "reached, EINVAL" means
that the kernel's check of privileges allowed the call, and that the kernel then refused its meaningless
arguments. Each attempt runs in its own child process, except those marked `here`. Therefore an attempt that
is killed, or that succeeds, does not affect other attempts. The probe does no harm as root without a
sandbox. The numbers of system calls are those of x86_64.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import pty
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

ATTEMPT_TIMEOUT = 60  # seconds
# More than every limit that a test sets, and no more, because each fork of a Python costs milliseconds.
FILES, FORKS, CHUNKS, CHUNK, BIG_FILE = 10**5, 1000, 64, 64 << 20, 64 << 30
PARENT = os.getppid()
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
KNOWN_NUMBERS = os.uname().machine == "x86_64" and struct.calcsize("P") == 8
NULL = ctypes.c_void_p(0)
NOT_THERE = {errno.ENOENT, errno.ESRCH, errno.ENXIO, errno.ENOTDIR, errno.ECONNREFUSED}
# The errors of a kernel that was built without a feature, or of a filter that makes a feature look absent.
NOT_BUILT = {errno.ENOSYS, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
ATTEMPTS = []


def attempt(group, name, reached=(), here=False):
    def add(function):
        ATTEMPTS.append((group, name, function, set(reached), here))
        return function
    return add


def all_of(group, functions):
    for name, function in functions.items():
        attempt(group, name)(function)


def call(number, *arguments):
    if not KNOWN_NUMBERS:
        raise NotImplementedError("x86_64 only")
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result


def prctl(option, argument=0):
    return call(157, option, argument, 0, 0, 0)


def name_of(error):
    return errno.errorcode.get(error.errno, str(error))


def filtered():
    try:
        return prctl(21) != 0  # PR_GET_SECCOMP
    except (OSError, NotImplementedError):
        return True


def judge(function, reached, given):
    try:
        answer = function(given)
    except KeyError as missing:
        return "untried", f"no input {missing}"
    except OSError as error:
        if error.errno in reached:
            return "allowed", "reached, " + name_of(error)
        if error.errno in NOT_THERE or error.errno in NOT_BUILT and not filtered():
            return "absent", name_of(error)
        return "denied", name_of(error)
    except Exception as error:
        return "untried", repr(error)
    return answer if isinstance(answer, tuple) else ("allowed", str(answer or ""))


def judge_in_child(function, reached, given):
    back, there = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(back), os.close(there)
        return "untried", "fork: " + name_of(error)
    if pid == 0:
        try:
            signal.alarm(ATTEMPT_TIMEOUT)
            os.write(there, json.dumps(judge(function, reached, given)).encode())
        finally:
            os._exit(0)
    os.close(there)
    with open(back, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if answer:
        return tuple(json.loads(answer))
    if not os.WIFSIGNALED(status):
        return "untried", "no answer"
    killer = signal.Signals(os.WTERMSIG(status))
    # Only the attempt "32-bit call" can end with SIGSEGV, on a kernel without 32-bit calls.
    verdict = {signal.SIGALRM: "untried", signal.SIGSEGV: "absent"}.get(killer, "denied")
    return verdict, "killed by " + killer.name


# ---- files


def read(path):
    with open(path, "rb") as file:
        return f"{len(file.read(4096))} bytes"


def create(folder):
    path = os.path.join(folder, f".probe-{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    remove(path)


def remove(path):
    try:
        os.unlink(path)
    except OSError:
        pass


def secret(i):
    return os.path.join(i["outside"], "secret")


def own(i, name):
    return os.path.join(i["run_dir"], f"probe-{os.getpid()}-{name}")


def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))


all_of("files", {
    "read /etc/passwd": lambda i: read("/etc/passwd"),
    "read /etc/shadow": lambda i: read("/etc/shadow"),
    "read the journal": lambda i: read(os.path.join(i["state_dir"], "journal.db")),
    "list the state directory": lambda i: str(len(os.listdir(i["state_dir"]))),
    "list /root": lambda i: str(len(os.listdir("/root"))),
    "list /": lambda i: str(len(os.listdir("/"))),
    "read outside": lambda i: read(secret(i)),
    "stat outside": lambda i: f"{os.stat(secret(i)).st_size} bytes",
    "create outside": lambda i: create(i["outside"]),
    "open outside to write": lambda i: opened(secret(i), os.O_WRONLY),
    "truncate outside": lambda i: os.truncate(secret(i), os.stat(secret(i)).st_size),
    "chmod outside": lambda i: os.chmod(secret(i), stat.S_IMODE(os.stat(secret(i)).st_mode)),
    "create in /tmp": lambda i: create("/tmp"),
    "create in /usr": lambda i: create("/usr"),
    "create in the run directory": lambda i: create(i["run_dir"]),
    "create in the read-only grant": lambda i: create(i["granted_ro"]),
    "create in the writable grant": lambda i: create(i["granted_rw"]),
    "outside by ..": lambda i: read(i["run_dir"] + "/.." * 40 + secret(i)),
    "outside by /proc/self/root": lambda i: read("/proc/self/root" + secret(i)),
    "outside by /proc/1/root": lambda i: read("/proc/1/root" + secret(i)),
    "open core_pattern to write": lambda i: opened("/proc/sys/kernel/core_pattern", os.O_WRONLY),
    "open /dev/mem": lambda i: opened("/dev/mem"),
    "open /dev/kmsg": lambda i: opened("/dev/kmsg"),
    "open /dev/tty": lambda i: opened("/dev/tty", os.O_RDWR),
    "write /dev/null": lambda i: opened("/dev/null", os.O_WRONLY),
    "read /dev/urandom": lambda i: opened("/dev/urandom"),
    "create in /dev/shm": lambda i: create("/dev/shm"),
})


@attempt("files", "read the read-only grant")
def _(i):
    names = sorted(os.listdir(i["granted_ro"]))
    files = [f for f in (os.path.join(i["granted_ro"], n) for n in names) if os.path.isfile(f)]
    return read(files[0]) if files else "empty"


def executable(path, flags):
    return os.open(path, flags, 0o700)


@attempt("files", "execute in the run directory")
def _(i):
    program = own(i, "true")
    try:
        with open("/usr/bin/true", "rb") as true, open(program, "xb", opener=executable) as copy:
            copy.write(true.read())
        return f"code {subprocess.run([program]).returncode}"
    finally:
        remove(program)


@attempt("files", "outside by symbolic link")
def _(i):
    link = own(i, "symlink")
    try:
        os.symlink(secret(i), link)
        return read(link)
    finally:
        remove(link)


@attempt("files", "outside by hard link")
def _(i):
    if os.stat(secret(i)).st_dev != os.stat(i["run_dir"]).st_dev:
        return "untried", "another file system"
    link = own(i, "hardlink")
    try:
        os.link(secret(i), link)
        return read(link)
    finally:
        remove(link)


@attempt("files", "rename from the writable grant")
def _(i):
    here, there = os.path.join(i["granted_rw"], f".probe-{os.getpid()}"), own(i, "renamed")
    try:
        opened(here, os.O_CREAT | os.O_WRONLY)
        os.rename(here, there)
    finally:
        remove(here), remove(there)


@attempt("files", "make a device")
def _(i):
    device = own(i, "device")
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    finally:
        remove(device)


@attempt("files", "open a block device")
def _(i):
    names = "sda vda xvda nvme0n1 mmcblk0 dm-0 loop0 zram0".split()
    paths = [path for path in map("/dev/".__add__, names) if os.path.exists(path)]
    refusal = FileNotFoundError(errno.ENOENT, "none of them")
    for path in paths:
        try:
            opened(path)
            return path
        except OSError as error:
            refusal = error
    raise refusal


# ---- network


def connect(family, address, kind=socket.SOCK_STREAM, protocol=0):
    with socket.socket(family, kind, protocol) as s:
        s.settimeout(5)
        s.connect(address)


def local(i, port):
    return "127.0.0.1", int(i[port])


all_of("network", {
    "connect to the granted port": lambda i: connect(socket.AF_INET, local(i, "open_port")),
    "connect to another port": lambda i: connect(socket.AF_INET, local(i, "closed_port")),
    "another port by MPTCP": lambda i: connect(
        socket.AF_INET, local(i, "closed_port"), protocol=262),
    "connect to a Unix socket": lambda i: connect(socket.AF_UNIX, i["unix_socket"]),
    "connect to an abstract socket": lambda i: connect(
        socket.AF_UNIX, "\0" + i["abstract_socket"].lstrip("@\0")),
    "raw socket": lambda i: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
    "packet socket": lambda i: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close(),
    "netlink socket": lambda i: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "vsock socket": lambda i: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close(),
    "crypto socket": lambda i: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close(),
})


@attempt("network", "another port by fast open")
def _(i):
    with socket.socket() as s:
        s.sendto(b"x", socket.MSG_FASTOPEN, local(i, "closed_port"))


@attempt("network", "bind a TCP port")
def _(i):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))


@attempt("network", "listen without bind")
def _(i):
    with socket.socket() as s:
        s.listen()
        return f"port {s.getsockname()[1]}"


@attempt("network", "send by UDP")
def _(i):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"probe", local(i, "udp_port"))


@attempt("network", "own abstract socket")
def _(i):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"\0probe-{os.getpid()}")
        s.listen()
        connect(socket.AF_UNIX, s.getsockname())


# ---- other processes


def victim(i):
    return int(i["victim_pid"])


def parent(i):
    if not i.get("parent"):
        raise KeyError("parent")
    if not PARENT:
        raise ProcessLookupError(errno.ESRCH, "the parent is in another namespace")
    return PARENT


def first():
    if os.getppid() == 1:
        raise ProcessLookupError(errno.ESRCH, "the probe is process 1")
    return 1


def environment(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read().split(b"\0")


def has_variable(pid, name):
    return any(line.startswith(name.encode() + b"=") for line in environment(pid))


def pids():
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


all_of("processes", {
    "signal the victim": lambda i: os.kill(victim(i), 0),
    "signal the parent": lambda i: os.kill(parent(i), 0),
    "signal process 1": lambda i: os.kill(first(), 0),
    "read the parent's environment": lambda i: f"{len(environment(parent(i)))} lines",
    "open the victim's memory": lambda i: opened(f"/proc/{victim(i)}/mem"),
    "set the victim's priority": lambda i: os.setpriority(
        os.PRIO_PROCESS, victim(i), os.getpriority(os.PRIO_PROCESS, victim(i))),
    "set the victim's affinity": lambda i: os.sched_setaffinity(
        victim(i), os.sched_getaffinity(victim(i))),
    "set the victim's scheduler": lambda i: os.sched_setscheduler(
        victim(i), os.sched_getscheduler(victim(i)), os.sched_getparam(victim(i))),
    "set the victim's scheduling parameter": lambda i: os.sched_setparam(
        victim(i), os.sched_getparam(victim(i))),
    "set own affinity": lambda i: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "set own affinity by number": lambda i: os.sched_setaffinity(
        os.getpid(), os.sched_getaffinity(0)),
    "set own scheduler": lambda i: os.sched_setscheduler(
        0, os.sched_getscheduler(0), os.sched_getparam(0)),
    "set own priority": lambda i: os.setpriority(
        os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0)),
    "read the victim's limits": lambda i: resource.prlimit(
        victim(i), resource.RLIMIT_NOFILE) and None,
    # PTRACE_SEIZE does not stop the victim. The tracing ends when this child process ends.
    "trace the victim": lambda i: call(101, 0x4206, victim(i), 0, 0) and None,
    "pidfd_open the victim": lambda i: os.pidfd_open(victim(i)) and None,
})


@attempt("processes", "pidfd_getfd the victim", [errno.EBADF])
def _(i):
    pidfd = os.pidfd_open(victim(i))
    call(438, pidfd, 0, 0)


@attempt("processes", "process_vm_readv the victim", [errno.EFAULT])
def _(i):
    byte = ctypes.create_string_buffer(1)
    mine = (ctypes.c_ulong * 2)(ctypes.addressof(byte), 1)
    call(310, victim(i), mine, 1, (ctypes.c_ulong * 2)(0, 1), 1, 0)


@attempt("processes", "set the victim's scheduling attributes")
def _(i):
    os.sched_getscheduler(victim(i))  # raises an error if the victim does not exist
    keep_all = 0x18  # SCHED_FLAG_KEEP_POLICY and SCHED_FLAG_KEEP_PARAMS
    call(314, victim(i), struct.pack("IIQiIQQQ", 48, 0, keep_all, 0, 0, 0, 0, 0), 0)


@attempt("processes", "set own group's priority")
def _(i):
    os.setpgid(0, 0)
    os.setpriority(os.PRIO_PGRP, 0, os.getpriority(os.PRIO_PGRP, 0))


def of_all_of_the_user(function):
    # Outside a sandbox, `function` would change other processes of the user, so it is not called there.
    return function() if filtered() else ("untried", "outside a sandbox")


all_of("processes", {
    "set the user's priority": lambda i: of_all_of_the_user(lambda: os.setpriority(
        os.PRIO_USER, 0, os.getpriority(os.PRIO_USER, 0))),
    # The arguments mean IOPRIO_WHO_USER and IOPRIO_CLASS_NONE.
    "set the user's disk priority": lambda i: of_all_of_the_user(
        lambda: call(251, 3, 0, 0) and None),
})


@attempt("processes", "read the victim's environment")
def _(i):
    found = has_variable(victim(i), "VICTIM_SECRET")
    return "VICTIM_SECRET" if found else ("absent", "no VICTIM_SECRET")


@attempt("processes", "see other processes")
def _(i):
    mine, pid = set(), os.getpid()
    seen = pids()
    while pid:
        mine.add(pid)
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
    others = seen - mine
    if "victim_pid" in i:
        found = victim(i) in seen
    else:
        found = bool(others)
    return "allowed" if found else "denied", f"{len(others)} others"


# ---- privileges


AT_CWD = -100
HANDLE = struct.pack("Ii8x", 8, 1)
PERF = struct.pack("IIQQQQQQQ", 1, 64, 9, 0, 0, 0, 0x61, 0, 0)  # the dummy event, excluding the kernel
MAP = struct.pack("IIII", 2, 4, 4, 1) + bytes(56)
E = errno

# Each entry has the name, the number and the arguments of a call, and the errors that the kernel returns only
# after its check of privileges. No call may have an effect that outlasts the child process.
for name, number, arguments, reached in [
    ("keyctl", 250, [9999], [E.EOPNOTSUPP]),
    ("add_key", 248, [NULL, NULL, NULL, 0, -1], [E.EFAULT]),
    ("unshare a user namespace", 272, [0x10000000], []),
    ("unshare a mount namespace", 272, [0x00020000], []),
    ("mount", 165, [NULL, b"/", NULL, 0x1000, NULL], [E.EINVAL]),  # MS_BIND without a source
    ("umount2", 166, [b"/", 6], [E.EINVAL]),  # MNT_EXPIRE with MNT_DETACH
    ("pivot_root", 155, [b"/", b"/"], [E.EBUSY, E.EINVAL]),
    ("chroot", 161, [b"/"], []),
    ("fsopen", 430, [NULL, 0], [E.EFAULT]),
    ("open_tree", 428, [AT_CWD, NULL, 1], [E.EFAULT]),  # OPEN_TREE_CLONE
    ("open_tree_attr", 467, [AT_CWD, b"/", 0, NULL, 0], []),  # no OPEN_TREE_CLONE, so it changes nothing
    ("move_mount", 429, [-1, NULL, -1, NULL, 0], [E.EFAULT, E.EBADF]),
    ("mount_setattr", 442, [AT_CWD, b"/", 0, bytes(32), 32], []),  # changes nothing
    ("bpf", 321, [0, MAP, len(MAP)], []),
    ("perf_event_open", 298, [PERF, 0, -1, -1, 0], []),
    ("userfaultfd", 323, [1], []),  # UFFD_USER_MODE_ONLY
    ("io_uring_setup", 425, [1, NULL], [E.EFAULT]),
    ("init_module", 175, [NULL, 0, NULL], [E.ENOEXEC, E.EFAULT]),
    ("finit_module", 313, [-1, NULL, 0], [E.EBADF]),
    ("kexec_load", 246, [0, 9999, NULL, 0], [E.EINVAL]),
    ("reboot", 169, [0, 0, 0, NULL], [E.EINVAL]),
    ("swapon", 167, [NULL, 0], [E.EFAULT]),
    ("acct", 163, [1], [E.EFAULT]),
    ("quotactl", 179, [0x80000200, NULL, 0, NULL], [E.ENODEV]),
    ("settimeofday", 164, [NULL, NULL], []),  # a null pointer, so it sets no time
    ("sethostname", 170, [NULL, -1], [E.EINVAL]),
    ("syslog", 103, [10, NULL, 0], []),
    ("iopl", 172, [3], []),
    ("personality", 135, [0x0040000], []),
    ("name_to_handle_at", 303, [AT_CWD, b"/", NULL, NULL, 0], [E.EFAULT]),
    ("open_by_handle_at", 304, [AT_CWD, HANDLE, 0], [E.ESTALE]),
    ("mq_open", 240, [b"loopabull-probe-none", 0, 0, NULL], [E.ENOENT]),
    ("shmget", 29, [0x1F2E3D4C, 0, 0], [E.ENOENT]),
    ("clone3", 435, [NULL, 0], [E.EINVAL]),
    ("x32 call", 0x40000000 + 39, [], []),
]:
    attempt("privileges", name, reached)(lambda i, n=number, a=arguments: call(n, *a) and None)


@attempt("privileges", "clone a user namespace")
def _(i):
    pid = call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@attempt("privileges", "setns", [errno.EBADF])
def _(i):
    try:
        fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    except OSError:
        fd = -1
    call(308, fd, 0)


@attempt("privileges", "vhangup")
def _(i):
    os.setsid()  # a new session has no terminal, so none is hung up
    call(153)


@attempt("privileges", "clock_settime")
def _(i):
    time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns())


@attempt("privileges", "TIOCSTI", [errno.EFAULT, errno.ENOTTY])
def _(i):
    terminal = next(filter(os.isatty, range(3)), None)
    try:
        if terminal is None:
            terminal = pty.openpty()[1]
            os.setsid()
            fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY
    except OSError:
        terminal = os.open("/dev/null", os.O_RDONLY)
    call(16, terminal, 0x5412, NULL)  # a null pointer, so no character is inserted


@attempt("privileges", "32-bit call")
def _(i):
    call(39)  # raises an error on machines other than x86_64
    try:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError as error:
        return "untried", "mmap: " + name_of(error)
    page.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")  # mov eax, getpid; int 0x80; ret
    code = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(code)()
    if result < 0:
        raise OSError(-result, "int 0x80")


@attempt("privileges", "become another user")
def _(i):
    user = 0 if os.getuid() else 65534
    os.setresuid(user, user, user)
    return f"uid {user}"


def run_setuid(folder):
    program = os.path.join(folder, "suid-id")
    done = subprocess.run([program, "-u"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    user = done.stdout.decode().strip()
    return "allowed" if user == "0" else "denied", f"effective uid {user}, own {os.geteuid()}"


attempt("privileges", "setuid program outside")(lambda i: run_setuid(i["outside"]))
attempt("privileges", "setuid program granted")(lambda i: run_setuid(i["granted_ro"]))


@attempt("privileges", "new privileges at execute")
def _(i):
    flag = prctl(39)  # PR_GET_NO_NEW_PRIVS
    return "denied" if flag else "allowed", f"NoNewPrivs {flag}"


@attempt("privileges", "capabilities held")
def _(i):
    sets = (ctypes.c_uint32 * 6)()
    call(125, struct.pack("Ii", 0x20080522, 0), sets)
    effective, permitted, inheritable = (sets[n] | sets[n + 3] << 32 for n in range(3))
    text = f"Eff {effective:x} Prm {permitted:x} Inh {inheritable:x}"
    return "allowed" if effective | permitted | inheritable else "denied", text


@attempt("privileges", "capabilities to be had")
def _(i):
    bounding = 0
    for number in range(64):
        try:
            bounding |= prctl(23, number) << number  # PR_CAPBSET_READ
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break
    return "allowed" if bounding else "denied", f"Bnd {bounding:x}"


# ---- resources


@attempt("resources", "descriptors")
def _(i):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES + 100, FILES + 100))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fd = os.pipe()[0]
    for count in range(FILES):
        try:
            os.dup(fd)
        except OSError as error:
            return "limited", f"{count}, {name_of(error)}"
    return str(FILES)


@attempt("resources", "processes")
def _(i):
    def idle():
        try:
            signal.alarm(ATTEMPT_TIMEOUT)
            prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            while os.getppid() == bomber:
                signal.pause()
        finally:
            os._exit(0)

    bomber, children = os.getpid(), []
    try:
        while len(children) < FORKS:
            pid = os.fork()
            if pid == 0:
                idle()
            children.append(pid)
    except OSError as error:
        return "limited", f"{len(children)}, {name_of(error)}"
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)
    return str(FORKS)


@attempt("resources", "memory")
def _(i):
    taken = []
    try:
        while len(taken) < CHUNKS:
            taken.append(mmap.mmap(-1, CHUNK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return f"{CHUNKS * CHUNK >> 20} MiB"
    except OSError as error:
        count = len(taken)
        taken.clear()
        return "limited", f"{count * CHUNK >> 20} MiB, {name_of(error)}"


@attempt("resources", "file size")
def _(i):
    path = own(i, "big")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open(path, "wb") as file:
            file.truncate(BIG_FILE)
        return f"{BIG_FILE >> 30} GiB, sparse"
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        return "limited", f"{limit} bytes, EFBIG"
    finally:
        remove(path)


@attempt("resources", "core dump")
def _(i):
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    text = f"soft {soft}, hard {hard}, dumpable {prctl(3)}"  # PR_GET_DUMPABLE
    return "allowed" if hard else "denied", text


@attempt("resources", "limits", here=True)
def _(i):
    names = "AS CORE CPU DATA FSIZE MEMLOCK NOFILE NPROC STACK".split()
    pairs = [(n, resource.getrlimit(getattr(resource, "RLIMIT_" + n))[1]) for n in names]
    return "info", ", ".join(f"{n} {'-' if limit < 0 else limit}" for n, limit in pairs)


# ---- inherited resources, and processes that are left behind


@attempt("inherited", "descriptors inherited", here=True)
def _(i):
    found = []
    for fd in range(3, min(65536, max(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0]))):
        try:
            fcntl.fcntl(fd, fcntl.F_GETFD)
            found.append(fd)
        except OSError:
            pass
    return "allowed" if found else "absent", " ".join(map(str, found))


@attempt("inherited", "secret in own environment")
def _(i):
    return ("allowed" if i["secret_env"] in os.environ else "absent"), ""


@attempt("inherited", "secret in another's environment")
def _(i):
    name, readable, refusal = i["secret_env"], 0, None
    for pid in sorted(pids() - {os.getpid()}):
        try:
            if has_variable(pid, name):
                return f"process {pid}"
            readable += 1
        except OSError as error:
            refusal = error
    if refusal and not readable:
        raise refusal
    return "absent", f"{readable} readable"


@attempt("inherited", "parent-death signal", here=True)
def _(i):
    number = ctypes.c_int()
    prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
    return "info", str(number.value)


def umask():
    mask = os.umask(0o077)
    os.umask(mask)
    return f"{mask:03o}"


def session():
    ids = f"pid {os.getpid()}, group {os.getpgrp()}, session {os.getsid(0)}"
    return ("own, " if os.getsid(0) == os.getpid() else "shared, ") + ids


for name, function in {
    "session": session,
    "user": lambda: "uid %d %d %d" % os.getresuid(),
    "group": lambda: "gid %d %d %d" % os.getresgid(),
    "groups": lambda: " ".join(map(str, os.getgroups())),
    "umask": umask,
    "directory": os.getcwd,
    "environment": lambda: " ".join(sorted(os.environ)),
    "seccomp": lambda: "filtered" if filtered() else "none",
}.items():
    attempt("inherited", name, here=True)(lambda i, f=function: ("info", f()))


@attempt("leftovers", "stay behind", here=True)
def leave(i):
    if not i.get("leave"):
        raise KeyError("leave")
    path = os.path.join(i["run_dir"], "leftover.pid")
    remove(path)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                with open(path + ".new", "w") as file:
                    file.write(str(os.getpid()))
                os.rename(path + ".new", path)
                time.sleep(300)  # keeps standard output open
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    while not os.path.exists(path):
        time.sleep(0.01)
    return path


# ---- input and output


def inputs(arguments):
    if arguments:
        with open(arguments[0]) as file:
            text = file.read()
    elif "LOOPABULL_PROBE" in os.environ:
        text = os.environ["LOOPABULL_PROBE"]
    elif sys.stdin and not sys.stdin.isatty() and select.select([sys.stdin], [], [], 1)[0]:
        text = sys.stdin.read()
    else:
        text = ""
    return json.loads(text) if text.strip() else {}


def main():
    options = [word for word in sys.argv[1:] if word.startswith("--")]
    given = inputs([word for word in sys.argv[1:] if not word.startswith("--")])
    if "--leave" in options:
        given["leave"] = True
    table = {}
    for group, name, function, reached, here in ATTEMPTS:
        verdict, detail = (judge if here else judge_in_child)(function, reached, given)
        table[name] = {"group": group, "verdict": verdict, "detail": detail}
    if "--json" in options or any(key.startswith("_ansible_") for key in given):
        print(json.dumps({"changed": False, "table": table}))
        return
    for name, row in table.items():
        print(f"{row['group']:<11} {name:<31} {row['verdict']:<8} {row['detail']}".rstrip())


if __name__ == "__main__":
    main()
