//! The system calls that are of no use to a well-meaning program.
//!
//! Owns the list and the filters. They fail with EPERM, as they would for a user without privileges;
//! `clone3` and the x32 calls of x86-64 with ENOSYS, so that libraries fall back to what can be
//! filtered; a call of another architecture ends the process. Before it: the pipeline, as the last
//! layer; after it: nothing that we do but `execve`.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

/// Debugging, keys, mounts and namespaces, modules, the clock, the kernel's own interfaces, and calls
/// that go round what other layers see.
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
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
];

/// Namespaces that `clone` would make; `unshare` and `clone3` are denied whole.
const NAMESPACES: i64 = (libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS) as i64;

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
    let mut programs =
        vec![filter(denied, libc::EPERM)?, filter(whole(&[libc::SYS_clone3]), libc::ENOSYS)?];
    if cfg!(target_arch = "x86_64") {
        programs.push(without_x32());
    }
    Ok(programs)
}

fn filter(
    calls: BTreeMap<i64, Vec<seccompiler::SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::Error> {
    let matched = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, matched, ARCHITECTURE)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// One rule for each namespace: a rule can ask for bits that are set, not for any of several.
fn making_namespaces() -> Result<Vec<seccompiler::SeccompRule>, seccompiler::Error> {
    use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
    let bits = (0..i64::BITS).map(|bit| 1_u64 << bit).filter(|bit| NAMESPACES as u64 & bit != 0);
    bits.map(|bit| {
        let is_set = SeccompCmpOp::MaskedEq(bit);
        let flags = SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_set, bit)?;
        Ok(SeccompRule::new(vec![flags])?)
    })
    .collect()
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
