//! The filters of system calls.
//!
//! This module contains the lists of calls, and builds the filters from them. A denied call fails with EPERM,
//! as for a user without privileges. `clone3` and the x32 calls of x86-64 fail with ENOSYS, so that libraries
//! fall back to calls that can be filtered. A call of another architecture kills the process. Only the kinds
//! of sockets that playbooks need can be created. Two ways around Landlock's port checks are denied: MPTCP,
//! and TCP Fast Open, which connects without `connect`. The pipeline installs the filters as the last layer
//! before `execve`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// The denied calls. They concern debugging, keys, mounts, namespaces, kernel modules, the clock and other
/// parts of the kernel, or they bypass the checks of other layers.
///
/// The calls of Linux up to 6.18 were reviewed. Some newer calls are allowed because they give no more access
/// than older allowed calls. `statmount` and `listmount` read information that `/proc` also shows. The calls
/// for extended attributes and `file_setattr` change attributes that the owner of a file may change anyway.
/// `lsm_set_self_attr` changes only its caller.
const DENIED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_mq_open,
    libc::SYS_munlockall,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    OPEN_TREE_ATTR,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
];

/// The calls of System V IPC (sysvipc(7)). Without an IPC namespace, its objects outlive the processes of the
/// program, and other programs of the same user can access them.
const SYSTEM_V_IPC: &[i64] = &[libc::SYS_msgget, libc::SYS_semget, libc::SYS_shmget];

/// The number of `open_tree_attr`, which does `open_tree` and `mount_setattr` in one call since Linux 6.15.
/// Calls with numbers from 424 on have the same number on every architecture.
const OPEN_TREE_ATTR: i64 = 467;

/// The flags of `clone` that create namespaces. `unshare` and `clone3` are denied entirely.
const NAMESPACES: i64 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as i64;

/// The allowed address families of sockets: Unix, IPv4, IPv6, and netlink, with which the C library finds the
/// addresses of this machine.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The allowed protocols of sockets: the default protocol, TCP, UDP, and the protocols of `ping`. Landlock
/// does not check the ports of other protocols such as MPTCP, SMC and SCTP, so other protocols are denied.
const PROTOCOLS: [i32; 5] =
    [0, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];

/// The calls that can change other processes of the same user, for example those of the launcher. The second
/// number is the index of the argument that names the process. The value 0 is allowed, because it means the
/// caller or its process group, which contains only processes of the program.
///
/// A call in which a process names itself by its process id is denied too, because a filter does not know the
/// process id. `pthread_setaffinity_np` and `pthread_setschedparam` make such calls. Python, Ansible and ssh
/// do not.
const PROCESS_CALLS: [(i64, u8); 7] = [
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
];

/// The calls of [`PROCESS_CALLS`] that can change all processes of a user. The second number is the value of
/// the first argument that selects a user: IOPRIO_WHO_USER of ioprio_set(2), and PRIO_USER of setpriority(2).
/// With this value, a process argument of 0 means the user of the caller, so the calls are denied.
const USER_CALLS: [(i64, u64); 2] =
    [(libc::SYS_ioprio_set, 3), (libc::SYS_setpriority, libc::PRIO_USER as u64)];

/// The requests of `ioctl` that insert input into a terminal as if its user had typed it (ioctl_tty(2)).
const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, TIOCLINUX];
const TIOCLINUX: u64 = 0x541c;

/// The calls that connect a socket if the flag MSG_FASTOPEN is set (tcp(7)), with the index of the argument
/// that contains the flags.
const SEND_CALLS: [(i64, u8); 3] =
    [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: TargetArch = TargetArch::riscv64;

/// Returns the filters of system calls. The order in which they are installed does not matter.
/// `has_private_ipc` says whether the program has an IPC namespace of its own.
pub(crate) fn filters(has_private_ipc: bool) -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let always = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let mut denied: BTreeMap<i64, Vec<_>> = always(DENIED);
    if !has_private_ipc {
        denied.extend(always(SYSTEM_V_IPC));
    }
    denied.insert(libc::SYS_clone, namespace_rules()?);
    denied.insert(libc::SYS_socket, socket_rules()?);
    let input = TERMINAL_INPUT.map(|request| rule(&[(1, SeccompCmpOp::Eq, request)]));
    denied.insert(libc::SYS_ioctl, input.into_iter().collect::<Result<_, _>>()?);
    for (call, argument) in SEND_CALLS {
        let flag = u64::from(libc::MSG_FASTOPEN.cast_unsigned());
        denied.insert(call, vec![rule(&[(argument, SeccompCmpOp::MaskedEq(flag), flag)])?]);
    }
    for (call, argument) in PROCESS_CALLS {
        denied.insert(call, vec![rule(&[(argument, SeccompCmpOp::Ne, 0)])?]);
    }
    for (call, selector) in USER_CALLS {
        denied.entry(call).or_default().push(rule(&[(0, SeccompCmpOp::Eq, selector)])?);
    }
    let mut programs =
        vec![filter(denied, libc::EPERM)?, filter(always(&[libc::SYS_clone3]), libc::ENOSYS)?];
    if cfg!(target_arch = "x86_64") {
        programs.push(x32_filter());
    }
    Ok(programs)
}

fn filter(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::Error> {
    let matched = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, matched, ARCHITECTURE)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// Returns one rule for each flag that creates a namespace. A single rule could only match calls with all of
/// the flags.
fn namespace_rules() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let bits = (0..i64::BITS).map(|bit| 1_u64 << bit).filter(|bit| NAMESPACES as u64 & bit != 0);
    bits.map(|bit| rule(&[(0, SeccompCmpOp::MaskedEq(bit), bit)])).collect()
}

/// Returns two rules. One rule matches sockets of address families that are not allowed. The other matches
/// sockets of protocols that are not allowed.
fn socket_rules() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let number = |number: i32| u64::from(number.cast_unsigned());
    let others = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, number(family)));
    let protocols = PROTOCOLS.map(|protocol| (2, SeccompCmpOp::Ne, number(protocol)));
    Ok(vec![rule(&others)?, rule(&protocols)?])
}

/// Returns a rule that matches if all conditions match. A condition consists of the index of an argument, a
/// comparison and a value.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::Error> {
    let conditions = conditions.iter().map(|(argument, comparison, value)| {
        // All compared arguments have the C type `int`. Their upper 32 bits are undefined, so only the lower
        // 32 bits are compared.
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, comparison.clone(), *value)
    });
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}

/// Returns a filter that denies the x32 calls of x86-64. Their numbers have the bit `__X32_SYSCALL_BIT` of
/// the kernel's `asm/unistd.h`.
fn x32_filter() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_AT_LEAST, 0, 1, X32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_is_empty() {
        for program in filters(true).unwrap().into_iter().chain(filters(false).unwrap()) {
            assert!(!program.is_empty());
        }
    }

    #[test]
    fn every_namespace_has_a_rule() {
        assert_eq!(namespace_rules().unwrap().len(), 7);
    }
}
