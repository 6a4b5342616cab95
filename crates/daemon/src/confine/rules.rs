//! What a machine's process may do with the files that it sees, and which system calls it may make.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use linux::landlock::{Ruleset, access};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use super::launch::Plan;
use super::root;

/// Reads and writes what the view shows, runs programs of the system, makes files and sockets in
/// the machine's own folder; nothing else.
pub fn restrict_files(plan: &Plan) -> io::Result<()> {
    let rules = Ruleset::new()?;
    let allow = |path: &Path, rights: u64| match File::open(path) {
        Ok(folder) => rules.allow(folder, rights),
        Err(_) => Ok(()), // hosts differ in which folders they have
    };
    let use_files = access::READ_FILE
        | access::READ_DIR
        | access::WRITE_FILE
        | access::TRUNCATE
        | access::IOCTL_DEV;
    allow(Path::new("/"), use_files)?;
    for folder in root::PROGRAMS {
        allow(Path::new(folder), access::EXECUTE)?;
    }
    for place in &plan.programs {
        allow(place, access::EXECUTE)?;
    }
    allow(&plan.own, access::MAKE_REG | access::MAKE_SOCK | access::REMOVE_FILE)?;
    rules.enforce()
}

/// Calls that no emulator makes: those that change the host, look into other processes, or open
/// large parts of the kernel to whoever breaks out of a guest. The emulator's own filter comes on
/// top. Taking descriptors of processes stays allowed: our emulator does it with its own, and
/// others are those of other users. Numbers of x86-64, from the kernel's table.
const FORBIDDEN: [i64; 43] = [
    101, // ptrace
    134, // uselib
    136, // ustat
    139, // sysfs
    153, // vhangup
    154, // modify_ldt
    155, // pivot_root
    156, // _sysctl
    159, // adjtimex
    161, // chroot
    163, // acct
    164, // settimeofday
    165, // mount
    166, // umount2
    167, // swapon
    168, // swapoff
    169, // reboot
    170, // sethostname
    171, // setdomainname
    172, // iopl
    173, // ioperm
    175, // init_module
    176, // delete_module
    179, // quotactl
    212, // lookup_dcookie
    227, // clock_settime
    246, // kexec_load
    248, // add_key
    249, // request_key
    250, // keyctl
    272, // unshare
    298, // perf_event_open
    300, // fanotify_init
    304, // open_by_handle_at
    308, // setns
    310, // process_vm_readv
    311, // process_vm_writev
    312, // kcmp
    313, // finit_module
    320, // kexec_file_load
    321, // bpf
    428, // open_tree
    429, // move_mount
];

/// Takes these calls from the process, for good.
pub fn restrict_calls() -> io::Result<()> {
    let rules: BTreeMap<i64, Vec<_>> = FORBIDDEN.map(|call| (call, Vec::new())).into();
    let denied = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error().unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, TargetArch::x86_64);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}
