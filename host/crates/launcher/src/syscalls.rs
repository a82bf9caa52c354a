//! The system calls that are of no use to a well-meaning program.
//!
//! Owns the list and the filters. They fail with EPERM, as they would for a user without privileges;
//! `clone3` and the x32 calls of x86-64 with ENOSYS, so that libraries fall back to what can be
//! filtered; a call of another architecture ends the process. Of sockets those are left that a play
//! needs, without the two ways round Landlock's ports: MPTCP, and data in the first packet, which
//! connects without `connect`. Before it: the pipeline, as the last
//! layer; after it: nothing that we do but `execve`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// Debugging, keys, mounts and namespaces, modules, the clock, the kernel's own interfaces, and calls
/// that go round what other layers see.
///
/// Those of Linux 6.18 and before were looked through. Of the newer ones some are left that do what older
/// ones do that are left too: `statmount` and `listmount` read what `/proc` shows, the calls on extended
/// attributes and `file_setattr` change what a file's owner may, and `lsm_set_self_attr` its caller.
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

/// `open_tree` and `mount_setattr` in one call, from Linux 6.15 on. It has this number on every
/// architecture, as all calls from 424 on have.
const OPEN_TREE_ATTR: i64 = 467;

/// Namespaces that `clone` would make; `unshare` and `clone3` are denied whole.
const NAMESPACES: i64 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as i64;

/// Families of sockets that may be made: files, the internet, and netlink, by which the C library asks
/// for the addresses of this machine.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Protocols of these families: the usual one, TCP, UDP and what `ping` needs. Others connect round
/// Landlock's ports: MPTCP, SMC, SCTP.
const PROTOCOLS: [i32; 5] =
    [0, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];

/// Calls that change other processes of the same user, those that watch over this one among them, and
/// which argument says whose: 0 is the caller, or its process group, in which nobody else is.
///
/// A process that names itself by its number is refused too, since a filter cannot know that number: it
/// is what `pthread_setaffinity_np` and `pthread_setschedparam` do. Python, Ansible and ssh do not.
const MEDDLING: [(i64, u8); 7] = [
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
];

/// Those of them that can be about all processes of a user, where 0 is the caller's, and how their first
/// argument says so: IOPRIO_WHO_USER of ioprio_set(2), PRIO_USER of setpriority(2).
const MEDDLING_WITH_ALL: [(i64, u64); 2] =
    [(libc::SYS_ioprio_set, 3), (libc::SYS_setpriority, libc::PRIO_USER as u64)];

/// Requests that type into a terminal, as if its user had (ioctl_tty(2)).
const TYPING: [u64; 2] = [libc::TIOCSTI, TIOCLINUX];
const TIOCLINUX: u64 = 0x541c;

/// Sending with this flag connects (tcp(7), MSG_FASTOPEN), and where it stands among the arguments.
const SENDING: [(i64, u8); 3] =
    [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: TargetArch = TargetArch::riscv64;

/// Returns the programs to be installed, in any order.
pub(crate) fn filters() -> Result<Vec<BpfProgram>, seccompiler::Error> {
    let whole = |calls: &[i64]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let mut denied: BTreeMap<i64, Vec<_>> = whole(DENIED);
    denied.insert(libc::SYS_clone, making_namespaces()?);
    denied.insert(libc::SYS_socket, odd_sockets()?);
    let typing = TYPING.map(|request| rule(&[(1, SeccompCmpOp::Eq, request)]));
    denied.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    for (call, argument) in SENDING {
        let flag = u64::from(libc::MSG_FASTOPEN.cast_unsigned());
        denied.insert(call, vec![rule(&[(argument, SeccompCmpOp::MaskedEq(flag), flag)])?]);
    }
    for (call, argument) in MEDDLING {
        denied.insert(call, vec![rule(&[(argument, SeccompCmpOp::Ne, 0)])?]);
    }
    for (call, whose) in MEDDLING_WITH_ALL {
        denied.entry(call).or_default().push(rule(&[(0, SeccompCmpOp::Eq, whose)])?);
    }
    let mut programs =
        vec![filter(denied, libc::EPERM)?, filter(whole(&[libc::SYS_clone3]), libc::ENOSYS)?];
    if cfg!(target_arch = "x86_64") {
        programs.push(without_x32());
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

/// One rule for each namespace: a rule can ask for bits that are set, not for any of several.
fn making_namespaces() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let bits = (0..i64::BITS).map(|bit| 1_u64 << bit).filter(|bit| NAMESPACES as u64 & bit != 0);
    bits.map(|bit| rule(&[(0, SeccompCmpOp::MaskedEq(bit), bit)])).collect()
}

/// Sockets of other families and protocols.
fn odd_sockets() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let number = |number: i32| u64::from(number.cast_unsigned());
    let others = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, number(family)));
    let protocols = PROTOCOLS.map(|protocol| (2, SeccompCmpOp::Ne, number(protocol)));
    Ok(vec![rule(&others)?, rule(&protocols)?])
}

/// A rule that holds if all of these do: argument, comparison, value.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, seccompiler::Error> {
    let conditions = conditions.iter().map(|(argument, comparison, value)| {
        // The arguments that are looked at are of type int, so their upper half is anything.
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, comparison.clone(), *value)
    });
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}

/// The calls of the x32 interface are those of x86-64 and some more, with this bit set
/// (`__X32_SYSCALL_BIT` of the kernel's `asm/unistd.h`).
fn without_x32() -> BpfProgram {
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
    fn the_filters_are_programs() {
        for program in filters().unwrap() {
            assert!(!program.is_empty());
        }
    }

    #[test]
    fn every_namespace_has_a_rule() {
        assert_eq!(making_namespaces().unwrap().len(), 7);
    }
}
