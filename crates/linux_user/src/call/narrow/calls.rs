//! The system calls of i386, by what becomes of them.

use super::Arg::{Both, Id, In, Out, Pair, Path, Same, Signed};
use super::shape::{MQ_ATTR, SIGEVENT, STATFS, TIME, TIMES, TIMEX, USAGE, UTIMBUF};
use super::{directory, socket, time, vector};
use super::{file as narrow_file, ioctl, ipc, process as narrow_process, signal as narrow_signal};
use crate::call::{Call, Row, clock, clone, file, memory, process, signal};
use crate::guest::Guest;

/// Rows that go to the host under their own name; those that are described; those with a function.
macro_rules! rows {
    (
        same: $($number:literal $name:ident)*
        described: $($described_number:literal $described_name:ident $host:ident [$($argument:expr),*];)*
        own: $($own_number:literal $own_name:ident $function:expr;)*
    ) => {
        vec![
            $(Row {
                number: $number,
                name: &stringify!($name)[4..],
                call: Call::Host(libc::$name),
            },)*
            $(Row {
                number: $described_number,
                name: stringify!($described_name),
                call: Call::Converted(libc::$host, &[$($argument),*]),
            },)*
            $(Row {
                number: $own_number,
                name: stringify!($own_name),
                call: Call::Own($function),
            },)*
        ]
    };
}

/// "No limit" of the old `getrlimit`, and of the new one.
const OLD_NO_LIMIT: u64 = 0x7fff_ffff;
const NO_LIMIT: u64 = 0xffff_ffff;

/// i386's rows but for those that touch its segments and frames.
pub fn rows<G: Guest>() -> Vec<Row<G>> {
    [
        old_same(),
        old_described(),
        old_own(),
        old_own_more(),
        new_same(),
        new_described(),
        new_own(),
        new_own_more(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// From the days of 16-bit users and 32-bit offsets.
fn old_same<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        3 SYS_read 4 SYS_write 6 SYS_close 8 SYS_creat 9 SYS_link 10 SYS_unlink 12 SYS_chdir
        14 SYS_mknod 15 SYS_chmod 20 SYS_getpid 21 SYS_mount 27 SYS_alarm 29 SYS_pause 36 SYS_sync
        37 SYS_kill 38 SYS_rename 39 SYS_mkdir 40 SYS_rmdir 41 SYS_dup 42 SYS_pipe 51 SYS_acct
        52 SYS_umount2 57 SYS_setpgid 60 SYS_umask 61 SYS_chroot 63 SYS_dup2 64 SYS_getppid
        65 SYS_getpgrp 66 SYS_setsid 74 SYS_sethostname 83 SYS_symlink 87 SYS_swapon 88 SYS_reboot
        94 SYS_fchmod 96 SYS_getpriority 97 SYS_setpriority 103 SYS_syslog 111 SYS_vhangup
        115 SYS_swapoff 118 SYS_fsync 121 SYS_setdomainname 132 SYS_getpgid 133 SYS_fchdir
        135 SYS_sysfs 143 SYS_flock 144 SYS_msync 147 SYS_getsid 148 SYS_fdatasync 150 SYS_mlock
        151 SYS_munlock 152 SYS_mlockall 153 SYS_munlockall 154 SYS_sched_setparam
        155 SYS_sched_getparam 156 SYS_sched_setscheduler 157 SYS_sched_getscheduler
        158 SYS_sched_yield 159 SYS_sched_get_priority_max 160 SYS_sched_get_priority_min
        168 SYS_poll 183 SYS_getcwd 184 SYS_capget 185 SYS_capset
        described:
        own:
    }
}

fn old_described<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        described:
        16 lchown SYS_lchown [Same, Id, Id];
        23 setuid SYS_setuid [Id];
        30 utime SYS_utime [Same, In(UTIMBUF)];
        46 setgid SYS_setgid [Id];
        70 setreuid SYS_setreuid [Id, Id];
        71 setregid SYS_setregid [Id, Id];
        77 getrusage SYS_getrusage [Same, Out(USAGE)];
        79 settimeofday SYS_settimeofday [In(TIME), Same];
        92 truncate SYS_truncate [Same, Signed];
        93 ftruncate SYS_ftruncate [Same, Signed];
        95 fchown SYS_fchown [Same, Id, Id];
        99 statfs SYS_statfs [Path, Out(STATFS)];
        100 fstatfs SYS_fstatfs [Same, Out(STATFS)];
        104 setitimer SYS_setitimer [Same, In(TIMES), Out(TIMES)];
        105 getitimer SYS_getitimer [Same, Out(TIMES)];
        114 wait4 SYS_wait4 [Same, Same, Same, Out(USAGE)];
        124 adjtimex SYS_adjtimex [Both(TIMEX)];
        138 setfsuid SYS_setfsuid [Id];
        139 setfsgid SYS_setfsgid [Id];
        161 sched_rr_get_interval SYS_sched_rr_get_interval [Same, Out(TIME)];
        164 setresuid SYS_setresuid [Id, Id, Id];
        170 setresgid SYS_setresgid [Id, Id, Id];
        180 pread64 SYS_pread64 [Same, Same, Same, Pair];
        181 pwrite64 SYS_pwrite64 [Same, Same, Same, Pair];
        182 chown SYS_chown [Same, Id, Id];
        own:
    }
}

fn old_own<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        described:
        own:
        1 exit process::exit;
        2 fork clone::fork_call;
        5 open file::open;
        7 waitpid narrow_process::waitpid;
        11 execve process::execve;
        13 time clock::time;
        78 gettimeofday clock::gettimeofday;
        19 lseek narrow_file::lseek;
        22 umount narrow_process::umount;
        24 getuid narrow_file::own_id16::<G, { libc::SYS_getuid }>;
        25 stime time::stime;
        33 access |t, a| file::with_path(t, libc::SYS_access, a, 0);
        34 nice narrow_process::nice;
        43 times time::times;
        45 brk memory::brk;
        47 getgid narrow_file::own_id16::<G, { libc::SYS_getgid }>;
        48 signal narrow_signal::old_signal;
        49 geteuid narrow_file::own_id16::<G, { libc::SYS_geteuid }>;
        50 getegid narrow_file::own_id16::<G, { libc::SYS_getegid }>;
        54 ioctl ioctl::ioctl;
        55 fcntl narrow_file::fcntl;
        62 ustat narrow_file::ustat;
        67 sigaction narrow_signal::sigaction;
        68 sgetmask narrow_signal::sgetmask;
        69 ssetmask narrow_signal::ssetmask;
        72 sigsuspend narrow_signal::sigsuspend;
        73 sigpending narrow_signal::sigpending;
        75 setrlimit narrow_process::setrlimit;
        76 getrlimit narrow_process::getrlimit::<G, OLD_NO_LIMIT>;
        80 getgroups narrow_file::getgroups16;
        81 setgroups narrow_file::setgroups16;
        82 select time::old_select;
    }
}

fn old_own_more<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        described:
        own:
        85 readlink file::readlink;
        90 mmap narrow_file::old_mmap;
        91 munmap memory::munmap;
        102 socketcall socket::socketcall;
        106 stat narrow_file::stat::<G, { libc::SYS_stat }, false>;
        107 lstat narrow_file::stat::<G, { libc::SYS_lstat }, false>;
        108 fstat narrow_file::fstat::<G, false>;
        116 sysinfo narrow_process::sysinfo;
        117 ipc ipc::ipc;
        120 clone clone::clone;
        122 uname process::uname;
        125 mprotect memory::mprotect;
        126 sigprocmask narrow_signal::sigprocmask;
        136 personality process::personality;
        140 _llseek narrow_file::llseek;
        141 getdents directory::getdents;
        142 _newselect time::select;
        145 readv vector::plain::<G, { libc::SYS_readv }>;
        146 writev vector::plain::<G, { libc::SYS_writev }>;
        162 nanosleep time::nanosleep;
        163 mremap memory::mremap;
        165 getresuid narrow_file::three_ids16::<G, { libc::SYS_getresuid }>;
        171 getresgid narrow_file::three_ids16::<G, { libc::SYS_getresgid }>;
        172 prctl process::prctl;
        173 rt_sigreturn signal::rt_sigreturn;
        174 rt_sigaction signal::rt_sigaction;
        175 rt_sigprocmask signal::rt_sigprocmask;
        176 rt_sigpending signal::rt_sigpending;
        177 rt_sigtimedwait narrow_signal::rt_sigtimedwait;
        178 rt_sigqueueinfo narrow_signal::queue::<G, { libc::SYS_rt_sigqueueinfo }, 2>;
        179 rt_sigsuspend signal::rt_sigsuspend;
        186 sigaltstack signal::sigaltstack;
        187 sendfile narrow_file::sendfile;
    }
}

/// From `vfork` to today.
fn new_same<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        199 SYS_getuid 200 SYS_getgid 201 SYS_geteuid 202 SYS_getegid 198 SYS_lchown
        203 SYS_setreuid 204 SYS_setregid 205 SYS_getgroups 206 SYS_setgroups 207 SYS_fchown
        208 SYS_setresuid 209 SYS_getresuid 210 SYS_setresgid 211 SYS_getresgid 212 SYS_chown
        213 SYS_setuid 214 SYS_setgid 215 SYS_setfsuid 216 SYS_setfsgid 217 SYS_pivot_root
        218 SYS_mincore 219 SYS_madvise 224 SYS_gettid 226 SYS_setxattr
        227 SYS_lsetxattr 228 SYS_fsetxattr 229 SYS_getxattr 230 SYS_lgetxattr 231 SYS_fgetxattr
        232 SYS_listxattr 233 SYS_llistxattr 234 SYS_flistxattr 235 SYS_removexattr
        236 SYS_lremovexattr 237 SYS_fremovexattr 238 SYS_tkill 239 SYS_sendfile
        241 SYS_sched_setaffinity 254 SYS_epoll_create 255 SYS_epoll_ctl 256 SYS_epoll_wait
        262 SYS_timer_getoverrun 263 SYS_timer_delete 270 SYS_tgkill 278 SYS_mq_unlink
        286 SYS_add_key 287 SYS_request_key 289 SYS_ioprio_set 290 SYS_ioprio_get
        291 SYS_inotify_init 293 SYS_inotify_rm_watch 296 SYS_mkdirat 297 SYS_mknodat
        298 SYS_fchownat 301 SYS_unlinkat 302 SYS_renameat 303 SYS_linkat 304 SYS_symlinkat
        306 SYS_fchmodat 310 SYS_unshare 313 SYS_splice 315 SYS_tee 318 SYS_getcpu 321 SYS_signalfd
        322 SYS_timerfd_create 323 SYS_eventfd 327 SYS_signalfd4 328 SYS_eventfd2
        329 SYS_epoll_create1 330 SYS_dup3 331 SYS_pipe2 332 SYS_inotify_init1
        338 SYS_fanotify_init 341 SYS_name_to_handle_at 342 SYS_open_by_handle_at 344 SYS_syncfs
        346 SYS_setns 349 SYS_kcmp 351 SYS_sched_setattr 352 SYS_sched_getattr 353 SYS_renameat2
        355 SYS_getrandom 356 SYS_memfd_create 359 SYS_socket 360 SYS_socketpair 361 SYS_bind
        362 SYS_connect 363 SYS_listen 364 SYS_accept4 367 SYS_getsockname 368 SYS_getpeername
        369 SYS_sendto 371 SYS_recvfrom 373 SYS_shutdown 375 SYS_membarrier 376 SYS_mlock2
        377 SYS_copy_file_range 393 SYS_semget 395 SYS_shmget 399 SYS_msgget
        404 SYS_clock_settime 405 SYS_clock_adjtime 406 SYS_clock_getres
        407 SYS_clock_nanosleep 408 SYS_timer_gettime 409 SYS_timer_settime 410 SYS_timerfd_gettime
        411 SYS_timerfd_settime 418 SYS_mq_timedsend 419 SYS_mq_timedreceive 420 SYS_semtimedop
        422 SYS_futex 423 SYS_sched_rr_get_interval 424 SYS_pidfd_send_signal 428 SYS_open_tree
        429 SYS_move_mount 430 SYS_fsopen 431 SYS_fsconfig 432 SYS_fsmount 433 SYS_fspick
        434 SYS_pidfd_open 436 SYS_close_range 438 SYS_pidfd_getfd 442 SYS_mount_setattr
        443 SYS_quotactl_fd 444 SYS_landlock_create_ruleset 445 SYS_landlock_add_rule
        446 SYS_landlock_restrict_self 447 SYS_memfd_secret 448 SYS_process_mrelease
        449 SYS_futex_waitv 452 SYS_fchmodat2 462 SYS_mseal
        described:
        own:
    }
}

fn new_described<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        described:
        193 truncate64 SYS_truncate [Same, Pair];
        194 ftruncate64 SYS_ftruncate [Same, Pair];
        225 readahead SYS_readahead [Same, Pair, Same];
        250 fadvise64 SYS_fadvise64 [Same, Pair, Same, Same];
        259 timer_create SYS_timer_create [Same, In(SIGEVENT), Same];
        260 timer_settime SYS_timer_settime [Same, Same, In(TIMES), Out(TIMES)];
        261 timer_gettime SYS_timer_gettime [Same, Out(TIMES)];
        264 clock_settime SYS_clock_settime [Same, In(TIME)];
        266 clock_getres SYS_clock_getres [Same, Out(TIME)];
        271 utimes SYS_utimes [Same, In(TIMES)];
        272 fadvise64_64 SYS_fadvise64 [Same, Pair, Pair, Same];
        277 mq_open SYS_mq_open [Same, Same, Same, In(MQ_ATTR)];
        279 mq_timedsend SYS_mq_timedsend [Same, Same, Same, Same, In(TIME)];
        280 mq_timedreceive SYS_mq_timedreceive [Same, Same, Same, Same, In(TIME)];
        281 mq_notify SYS_mq_notify [Same, In(SIGEVENT)];
        282 mq_getsetattr SYS_mq_getsetattr [Same, In(MQ_ATTR), Out(MQ_ATTR)];
        292 inotify_add_watch SYS_inotify_add_watch [Same, Path, Same];
        299 futimesat SYS_futimesat [Same, Same, In(TIMES)];
        314 sync_file_range SYS_sync_file_range [Same, Pair, Pair, Same];
        320 utimensat SYS_utimensat [Same, Path, In(TIMES), Same];
        324 fallocate SYS_fallocate [Same, Same, Pair, Pair];
        325 timerfd_settime SYS_timerfd_settime [Same, Same, In(TIMES), Out(TIMES)];
        326 timerfd_gettime SYS_timerfd_gettime [Same, Out(TIMES)];
        339 fanotify_mark SYS_fanotify_mark [Same, Same, Pair, Same, Same];
        343 clock_adjtime SYS_clock_adjtime [Same, Both(TIMEX)];
        412 utimensat_time64 SYS_utimensat [Same, Path, Same, Same];
        own:
    }
}

fn new_own<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        described:
        own:
        190 vfork clone::vfork_call;
        191 ugetrlimit narrow_process::getrlimit::<G, NO_LIMIT>;
        192 mmap2 narrow_file::mmap2;
        195 stat64 narrow_file::stat::<G, { libc::SYS_stat }, true>;
        196 lstat64 narrow_file::stat::<G, { libc::SYS_lstat }, true>;
        197 fstat64 narrow_file::fstat::<G, true>;
        220 getdents64 directory::getdents64;
        221 fcntl64 narrow_file::fcntl;
        240 futex time::futex;
        242 sched_getaffinity narrow_process::sched_getaffinity;
        252 exit_group process::exit_group;
        258 set_tid_address process::set_tid_address;
        265 clock_gettime clock::clock_gettime::<G, false>;
        403 clock_gettime64 clock::clock_gettime::<G, true>;
        267 clock_nanosleep time::clock_nanosleep;
        268 statfs64 narrow_file::statfs64::<G, { libc::SYS_statfs }>;
        269 fstatfs64 narrow_file::statfs64::<G, { libc::SYS_fstatfs }>;
        284 waitid narrow_process::waitid;
        295 openat file::openat;
        300 fstatat64 narrow_file::fstatat64;
        305 readlinkat file::readlinkat;
        307 faccessat file::faccessat;
        308 pselect6 time::pselect6::<G, false>;
        309 ppoll time::ppoll::<G, false>;
        311 set_robust_list process::set_robust_list;
        312 get_robust_list process::get_robust_list;
        316 vmsplice vector::plain::<G, { libc::SYS_vmsplice }>;
        319 epoll_pwait signal::epoll_pwait::<G, { libc::SYS_epoll_pwait }>;
        333 preadv narrow_file::at_offset::<G, { libc::SYS_preadv }>;
    }
}

fn new_own_more<G: Guest>() -> Vec<Row<G>> {
    rows! {
        same:
        described:
        own:
        334 pwritev narrow_file::at_offset::<G, { libc::SYS_pwritev }>;
        335 rt_tgsigqueueinfo narrow_signal::queue::<G, { libc::SYS_rt_tgsigqueueinfo }, 3>;
        337 recvmmsg socket::recvmmsg::<G, false>;
        340 prlimit64 process::prlimit64;
        345 sendmmsg socket::sendmmsg;
        347 process_vm_readv vector::process::<G, { libc::SYS_process_vm_readv }>;
        348 process_vm_writev vector::process::<G, { libc::SYS_process_vm_writev }>;
        358 execveat process::execveat;
        365 getsockopt socket::get_option;
        366 setsockopt socket::set_option;
        370 sendmsg socket::sendmsg;
        372 recvmsg socket::recvmsg;
        378 preadv2 narrow_file::at_offset::<G, { libc::SYS_preadv2 }>;
        379 pwritev2 narrow_file::at_offset::<G, { libc::SYS_pwritev2 }>;
        383 statx file::statx;
        394 semctl ipc::semctl;
        396 shmctl ipc::shmctl;
        397 shmat memory::shmat;
        398 shmdt memory::shmdt;
        400 msgsnd ipc::msgsnd;
        401 msgrcv ipc::msgrcv;
        402 msgctl ipc::msgctl;
        413 pselect6_time64 time::pselect6::<G, true>;
        414 ppoll_time64 time::ppoll::<G, true>;
        417 recvmmsg_time64 socket::recvmmsg::<G, true>;
        421 rt_sigtimedwait_time64 signal::rt_sigtimedwait;
        437 openat2 file::openat2;
        439 faccessat2 |t, a| file::with_path(t, libc::SYS_faccessat2, a, 1);
        441 epoll_pwait2 signal::epoll_pwait::<G, { libc::SYS_epoll_pwait2 }>;
    }
}
