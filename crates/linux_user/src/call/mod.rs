//! System calls. A table per ABI names each: most 64-bit ones mean the same on every Linux and go
//! to the host's kernel as they are; those that touch our own state, or whose structures differ,
//! have a function here.

pub mod clock;
pub mod clone;
pub mod file;
pub mod memory;
pub mod narrow;
pub mod process;
pub mod signal;

use crate::guest::Guest;
use crate::host::Answer;
use crate::thread::Thread;

/// A system call of our own.
pub type Own<G> = fn(&mut Thread<G>, [u64; 6]) -> Answer;

/// What becomes of a system call.
pub enum Call<G: Guest> {
    /// It goes to the host under this number.
    Host(i64),
    /// It goes to the host under this number when its arguments are converted.
    Converted(i64, &'static [narrow::Arg]),
    /// It is ours.
    Own(Own<G>),
}

impl<G: Guest> Clone for Call<G> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<G: Guest> Copy for Call<G> {}

/// A row of an ABI's table.
pub struct Row<G: Guest> {
    /// The guest's number.
    pub number: u64,
    /// The name.
    pub name: &'static str,
    /// What becomes of it.
    pub call: Call<G>,
}

/// Calls by their number.
pub type Table<G> = Vec<Option<(&'static str, Call<G>)>>;

/// Rows as a table; a later row of the same number counts.
pub fn by_number<G: Guest>(rows: Vec<Row<G>>) -> Table<G> {
    let mut table = Vec::new();
    for row in rows {
        let number = row.number as usize;
        table.resize(table.len().max(number + 1), None);
        table[number] = Some((row.name, row.call));
    }
    table
}

/// `(guest number, name)` rows that go to the host as they are, and rows with a function.
macro_rules! rows {
    (host: $($host_number:literal $host_name:ident)* own: $($own_number:literal $own_name:ident $function:expr;)*) => {
        vec![
            $(Row {
                number: $host_number,
                name: &stringify!($host_name)[4..],
                call: Call::Host(libc::$host_name),
            },)*
            $(Row {
                number: $own_number,
                name: stringify!($own_name),
                call: Call::Own($function),
            },)*
        ]
    };
}

/// The numbers of `asm-generic/unistd.h`: AArch64, RISC-V and every newer architecture.
pub fn generic64<G: Guest>() -> Vec<Row<G>> {
    let mut rows = generic64_hosts();
    rows.extend(generic64_own());
    rows
}

fn generic64_hosts<G: Guest>() -> Vec<Row<G>> {
    rows! {
        host:
        5 SYS_setxattr 6 SYS_lsetxattr 7 SYS_fsetxattr 8 SYS_getxattr 9 SYS_lgetxattr
        10 SYS_fgetxattr 11 SYS_listxattr 12 SYS_llistxattr 13 SYS_flistxattr 14 SYS_removexattr
        15 SYS_lremovexattr 16 SYS_fremovexattr 17 SYS_getcwd 19 SYS_eventfd2
        20 SYS_epoll_create1 23 SYS_dup 24 SYS_dup3 25 SYS_fcntl 26 SYS_inotify_init1
        28 SYS_inotify_rm_watch 29 SYS_ioctl 32 SYS_flock 33 SYS_mknodat
        34 SYS_mkdirat 35 SYS_unlinkat 36 SYS_symlinkat 37 SYS_linkat 38 SYS_renameat
        40 SYS_mount 39 SYS_umount2 44 SYS_fstatfs 45 SYS_truncate
        46 SYS_ftruncate 47 SYS_fallocate 49 SYS_chdir 50 SYS_fchdir 51 SYS_chroot 52 SYS_fchmod
        53 SYS_fchmodat 54 SYS_fchownat 55 SYS_fchown 57 SYS_close 59 SYS_pipe2 61 SYS_getdents64
        62 SYS_lseek 63 SYS_read 64 SYS_write 65 SYS_readv 66 SYS_writev 67 SYS_pread64
        68 SYS_pwrite64 69 SYS_preadv 70 SYS_pwritev 71 SYS_sendfile
        75 SYS_vmsplice 76 SYS_splice 77 SYS_tee 81 SYS_sync 82 SYS_fsync 83 SYS_fdatasync
        84 SYS_sync_file_range 85 SYS_timerfd_create 86 SYS_timerfd_settime 87 SYS_timerfd_gettime
        90 SYS_capget 91 SYS_capset 95 SYS_waitid
        97 SYS_unshare 98 SYS_futex 101 SYS_nanosleep 102 SYS_getitimer 103 SYS_setitimer
        107 SYS_timer_create 108 SYS_timer_gettime 109 SYS_timer_getoverrun 110 SYS_timer_settime
        111 SYS_timer_delete 112 SYS_clock_settime 114 SYS_clock_getres
        115 SYS_clock_nanosleep 116 SYS_syslog 118 SYS_sched_setparam 119 SYS_sched_setscheduler
        120 SYS_sched_getscheduler 121 SYS_sched_getparam 122 SYS_sched_setaffinity
        123 SYS_sched_getaffinity 124 SYS_sched_yield 125 SYS_sched_get_priority_max
        126 SYS_sched_get_priority_min 127 SYS_sched_rr_get_interval 129 SYS_kill 130 SYS_tkill
        131 SYS_tgkill 140 SYS_setpriority 141 SYS_getpriority 143 SYS_setregid 144 SYS_setgid
        145 SYS_setreuid 146 SYS_setuid 147 SYS_setresuid 148 SYS_getresuid 149 SYS_setresgid
        150 SYS_getresgid 151 SYS_setfsuid 152 SYS_setfsgid 153 SYS_times 154 SYS_setpgid
        155 SYS_getpgid 156 SYS_getsid 157 SYS_setsid 158 SYS_getgroups 159 SYS_setgroups
        161 SYS_sethostname 163 SYS_getrlimit 165 SYS_getrusage 166 SYS_umask
        168 SYS_getcpu  172 SYS_getpid 173 SYS_getppid
        174 SYS_getuid 175 SYS_geteuid 176 SYS_getgid 177 SYS_getegid 178 SYS_gettid 179 SYS_sysinfo
        186 SYS_msgget 187 SYS_msgctl 188 SYS_msgrcv 189 SYS_msgsnd 190 SYS_semget
        193 SYS_semop 194 SYS_shmget 195 SYS_shmctl 198 SYS_socket 199 SYS_socketpair 200 SYS_bind
        201 SYS_listen 202 SYS_accept 203 SYS_connect 204 SYS_getsockname 205 SYS_getpeername
        206 SYS_sendto 207 SYS_recvfrom 208 SYS_setsockopt 209 SYS_getsockopt 210 SYS_shutdown
        211 SYS_sendmsg 212 SYS_recvmsg 213 SYS_readahead 223 SYS_fadvise64 227 SYS_msync
        228 SYS_mlock 229 SYS_munlock 230 SYS_mlockall 231 SYS_munlockall 232 SYS_mincore
        233 SYS_madvise 242 SYS_accept4 243 SYS_recvmmsg 260 SYS_wait4
        267 SYS_syncfs 269 SYS_sendmmsg 276 SYS_renameat2 278 SYS_getrandom 279 SYS_memfd_create
        283 SYS_membarrier 284 SYS_mlock2 285 SYS_copy_file_range 286 SYS_preadv2 287 SYS_pwritev2
        0 SYS_io_setup 1 SYS_io_destroy 2 SYS_io_submit 3 SYS_io_cancel 4 SYS_io_getevents
        18 SYS_lookup_dcookie 30 SYS_ioprio_set 31 SYS_ioprio_get 41 SYS_pivot_root 58 SYS_vhangup
        60 SYS_quotactl 74 SYS_signalfd4 89 SYS_acct 138 SYS_rt_sigqueueinfo 142 SYS_reboot
        162 SYS_setdomainname 170 SYS_settimeofday 171 SYS_adjtimex 180 SYS_mq_open
        181 SYS_mq_unlink 182 SYS_mq_timedsend 183 SYS_mq_timedreceive 184 SYS_mq_notify
        185 SYS_mq_getsetattr 192 SYS_semtimedop 217 SYS_add_key 218 SYS_request_key
        219 SYS_keyctl 224 SYS_swapon 225 SYS_swapoff 235 SYS_mbind 236 SYS_get_mempolicy
        237 SYS_set_mempolicy 238 SYS_migrate_pages 239 SYS_move_pages 240 SYS_rt_tgsigqueueinfo
        262 SYS_fanotify_init 263 SYS_fanotify_mark 264 SYS_name_to_handle_at
        265 SYS_open_by_handle_at 266 SYS_clock_adjtime 268 SYS_setns 270 SYS_process_vm_readv
        271 SYS_process_vm_writev 272 SYS_kcmp 274 SYS_sched_setattr 275 SYS_sched_getattr
        424 SYS_pidfd_send_signal 428 SYS_open_tree 429 SYS_move_mount 430 SYS_fsopen
        431 SYS_fsconfig 432 SYS_fsmount 433 SYS_fspick 434 SYS_pidfd_open 436 SYS_close_range
        438 SYS_pidfd_getfd 442 SYS_mount_setattr 443 SYS_quotactl_fd
        444 SYS_landlock_create_ruleset 445 SYS_landlock_add_rule 446 SYS_landlock_restrict_self
        447 SYS_memfd_secret 448 SYS_process_mrelease 449 SYS_futex_waitv 452 SYS_fchmodat2
        own:
    }
}

fn generic64_own<G: Guest>() -> Vec<Row<G>> {
    rows! {
        host:
        own:
        21 epoll_ctl file::epoll_ctl;
        22 epoll_pwait file::epoll_pwait;
        27 inotify_add_watch |t, a| file::with_path(t, libc::SYS_inotify_add_watch, a, 1);
        43 statfs |t, a| file::with_path(t, libc::SYS_statfs, a, 0);
        88 utimensat |t, a| file::with_path(t, libc::SYS_utimensat, a, 1);
        439 faccessat2 |t, a| file::with_path(t, libc::SYS_faccessat2, a, 1);
        441 epoll_pwait2 file::epoll_pwait2;
        48 faccessat file::faccessat;
        56 openat file::openat;
        72 pselect6 signal::pselect6;
        73 ppoll signal::ppoll;
        78 readlinkat file::readlinkat;
        79 newfstatat file::newfstatat;
        80 fstat file::fstat;
        92 personality process::personality;
        93 exit process::exit;
        94 exit_group process::exit_group;
        96 set_tid_address process::set_tid_address;
        99 set_robust_list process::set_robust_list;
        100 get_robust_list process::get_robust_list;
        113 clock_gettime clock::clock_gettime::<G, false>;
        169 gettimeofday clock::gettimeofday;
        132 sigaltstack signal::sigaltstack;
        133 rt_sigsuspend signal::rt_sigsuspend;
        134 rt_sigaction signal::rt_sigaction;
        135 rt_sigprocmask signal::rt_sigprocmask;
        136 rt_sigpending signal::rt_sigpending;
        137 rt_sigtimedwait signal::rt_sigtimedwait;
        139 rt_sigreturn signal::rt_sigreturn;
        164 setrlimit process::setrlimit;
        167 prctl process::prctl;
        191 semctl process::semctl;
        196 shmat memory::shmat;
        197 shmdt memory::shmdt;
        160 uname process::uname;
        214 brk memory::brk;
        215 munmap memory::munmap;
        216 mremap memory::mremap;
        220 clone clone::clone;
        221 execve process::execve;
        222 mmap memory::mmap;
        226 mprotect memory::mprotect;
        261 prlimit64 process::prlimit64;
        281 execveat process::execveat;
        437 openat2 file::openat2;
        259 riscv_flush_icache memory::flush_icache;
        291 statx file::statx;
    }
}
