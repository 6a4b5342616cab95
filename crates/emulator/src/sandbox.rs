//! `-sandbox`: a filter in the kernel that takes from the process what an emulator never does.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use libc_numbers as number;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

/// System calls by number: those of x86-64, from the kernel's table.
mod libc_numbers {
    pub const OBSOLETE: &[i64] = &[
        134, // uselib
        136, // ustat
        139, // sysfs
        153, // vhangup
        156, // _sysctl
        174, // create_module
        177, // get_kernel_syms
        178, // query_module
        180, // nfsservctl
    ];
    /// What no emulator needs, whatever is asked.
    pub const NEVER: &[i64] = &[
        163, // acct
        164, // settimeofday
        165, // mount
        166, // umount2
        167, // swapon
        168, // swapoff
        169, // reboot
        172, // iopl
        173, // ioperm
        175, // init_module
        176, // delete_module
        246, // kexec_load
        155, // pivot_root
        159, // adjtimex
        227, // clock_settime
        313, // finit_module
        320, // kexec_file_load
        321, // bpf
        323, // userfaultfd
        101, // ptrace
        310, // process_vm_readv
        311, // process_vm_writev
        298, // perf_event_open
        304, // open_by_handle_at
    ];
    pub const ELEVATE: &[i64] = &[
        105, // setuid
        106, // setgid
        109, // setpgid
        112, // setsid
        113, // setreuid
        114, // setregid
        117, // setresuid
        119, // setresgid
        122, // setfsuid
        123, // setfsgid
        116, // setgroups
        126, // capset
    ];
    pub const SPAWN: &[i64] = &[
        57,  // fork
        58,  // vfork
        59,  // execve
        322, // execveat
    ];
    pub const RESOURCES: &[i64] = &[
        141, // setpriority
        142, // sched_setparam
        144, // sched_setscheduler
        203, // sched_setaffinity
        238, // set_mempolicy
        160, // setrlimit
        251, // ioprio_set
    ];
}

/// Puts the filter on all threads, and on those to come.
pub fn apply(options: &[(String, String)]) -> Result<()> {
    let mut denied: Vec<i64> = Vec::new();
    let mut is_on = false;
    for (name, value) in options {
        let deny = match (name.as_str(), value.as_str()) {
            ("enable", "on") => {
                is_on = true;
                continue;
            }
            ("enable", "off") | (_, "allow") => continue,
            (_, "deny") => true,
            _ => false,
        };
        match name.as_str() {
            "obsolete" if deny => denied.extend(number::OBSOLETE),
            "elevateprivileges" if deny => denied.extend(number::ELEVATE),
            "spawn" if deny => denied.extend(number::SPAWN),
            "resourcecontrol" if deny => denied.extend(number::RESOURCES),
            _ => {
                bail!("-sandbox {name}={value}: Parameter '{name}' does not accept value '{value}'")
            }
        }
    }
    if !is_on {
        return Ok(());
    }
    denied.extend(number::NEVER);
    let rules: BTreeMap<i64, Vec<_>> = denied.into_iter().map(|call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        TargetArch::x86_64,
    );
    let program: BpfProgram =
        filter.and_then(TryInto::try_into).context("failed to build the seccomp filter")?;
    apply_filter_all_threads(&program).context("failed to install seccomp syscall filter")
}
