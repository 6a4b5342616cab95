//! Lines of `-strace`: a call's name and arguments as a reader of programs would write them.

use crate::host::{Answer, ERESTARTNOINTR, ERESTARTSYS};
use crate::memory;
use crate::thread::RETURNED;

/// The arguments of calls, a letter each: `d` number, `x` in hexadecimal, `p` pointer, `s` string,
/// `f` directory, `o` flags of `open`, `m` mode, `r` rights, `g` signal.
const FORMATS: &[(&str, &str)] = &[
    ("access", "sd"),
    ("arch_prctl", "xp"),
    ("brk", "p"),
    ("chdir", "s"),
    ("chmod", "sm"),
    ("chown", "sdd"),
    ("clock_gettime", "dp"),
    ("clock_nanosleep", "ddpp"),
    ("clone", "xpppp"),
    ("close", "d"),
    ("connect", "dpd"),
    ("dup", "d"),
    ("dup2", "dd"),
    ("dup3", "ddo"),
    ("epoll_ctl", "dddp"),
    ("epoll_pwait", "dpddpd"),
    ("execve", "spp"),
    ("exit", "d"),
    ("exit_group", "d"),
    ("faccessat", "fsd"),
    ("faccessat2", "fsdx"),
    ("fchmodat", "fsm"),
    ("fcntl", "ddx"),
    ("fcntl64", "ddx"),
    ("fstat", "dp"),
    ("fstat64", "dp"),
    ("fstatat64", "fspx"),
    ("ftruncate", "dd"),
    ("futex", "pxdppx"),
    ("getcwd", "pd"),
    ("getdents64", "dpd"),
    ("getegid", ""),
    ("geteuid", ""),
    ("getgid", ""),
    ("getpid", ""),
    ("getppid", ""),
    ("getrandom", "pdx"),
    ("gettid", ""),
    ("gettimeofday", "pp"),
    ("getuid", ""),
    ("ioctl", "dxp"),
    ("kill", "dg"),
    ("linkat", "fsfsx"),
    ("lseek", "ddd"),
    ("lstat", "sp"),
    ("madvise", "pdd"),
    ("mkdir", "sm"),
    ("mkdirat", "fsm"),
    ("mmap", "pdrxdx"),
    ("mmap2", "pdrxdx"),
    ("mprotect", "pdr"),
    ("mremap", "pddxp"),
    ("munmap", "pd"),
    ("nanosleep", "pp"),
    ("newfstatat", "fspx"),
    ("open", "som"),
    ("openat", "fsom"),
    ("pipe", "p"),
    ("pipe2", "po"),
    ("poll", "pdd"),
    ("ppoll", "pdppd"),
    ("prctl", "dxxxx"),
    ("pread64", "dpdd"),
    ("prlimit64", "ddpp"),
    ("pselect6", "dppppp"),
    ("pwrite64", "dpdd"),
    ("read", "dpd"),
    ("readlink", "spd"),
    ("readlinkat", "fspd"),
    ("readv", "dpd"),
    ("recvfrom", "dpdxpp"),
    ("recvmsg", "dpx"),
    ("rename", "ss"),
    ("renameat2", "fsfsx"),
    ("rmdir", "s"),
    ("rt_sigaction", "gppd"),
    ("rt_sigprocmask", "dppd"),
    ("rt_sigreturn", ""),
    ("rt_sigsuspend", "pd"),
    ("sched_getaffinity", "ddp"),
    ("sched_yield", ""),
    ("sendmsg", "dpx"),
    ("sendto", "dpdxpd"),
    ("set_robust_list", "pd"),
    ("set_thread_area", "p"),
    ("set_tid_address", "p"),
    ("setsockopt", "dddpd"),
    ("sigaltstack", "pp"),
    ("sigreturn", ""),
    ("socket", "ddx"),
    ("socketcall", "dp"),
    ("stat", "sp"),
    ("stat64", "sp"),
    ("statfs", "sp"),
    ("statx", "fsxxp"),
    ("symlinkat", "sfs"),
    ("tgkill", "ddg"),
    ("ugetrlimit", "dp"),
    ("uname", "p"),
    ("unlink", "s"),
    ("unlinkat", "fsx"),
    ("utimensat", "fspx"),
    ("wait4", "dpdp"),
    ("waitpid", "dpd"),
    ("write", "dpd"),
    ("writev", "dpd"),
];

const OPEN_FLAGS: [(u64, &str); 8] = [
    (libc::O_CREAT as u64, "O_CREAT"),
    (libc::O_EXCL as u64, "O_EXCL"),
    (libc::O_TRUNC as u64, "O_TRUNC"),
    (libc::O_APPEND as u64, "O_APPEND"),
    (libc::O_NONBLOCK as u64, "O_NONBLOCK"),
    (libc::O_DIRECTORY as u64, "O_DIRECTORY"),
    (libc::O_NOFOLLOW as u64, "O_NOFOLLOW"),
    (libc::O_CLOEXEC as u64, "O_CLOEXEC"),
];

const RIGHTS: [(u64, &str); 3] = [(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Longer strings are cut.
const STRING_MAX: usize = 200;

fn flags(value: u64, base: Option<&str>, names: &[(u64, &str)]) -> String {
    let known = names.iter().filter(|(bit, _)| value & bit == *bit);
    let rest = names.iter().fold(value, |rest, (bit, _)| rest & !bit);
    let mut words: Vec<String> = base.into_iter().map(String::from).collect();
    words.extend(known.map(|(_, name)| (*name).to_string()));
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    if words.is_empty() { "0".into() } else { words.join("|") }
}

fn argument(letter: u8, word: u64, pointer_bytes: usize) -> String {
    let signed = if pointer_bytes == 4 { i64::from(word as i32) } else { word as i64 };
    match letter {
        b'd' => format!("{}", if word >> 32 == 0 { i64::from(word as i32) } else { signed }),
        b'p' if word == 0 => "NULL".into(),
        b's' => match memory::read_string(word) {
            Ok(text) => {
                let cut = if text.len() > STRING_MAX { "..." } else { "" };
                let text = String::from_utf8_lossy(&text[..text.len().min(STRING_MAX)]);
                format!("\"{}\"{cut}", text.escape_debug())
            }
            Err(_) => format!("{word:#x}"),
        },
        b'f' if word as i32 == libc::AT_FDCWD => "AT_FDCWD".into(),
        b'f' => format!("{}", word as i32),
        b'o' => {
            let access = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"][(word & 3) as usize];
            flags(word & !3, Some(access), &OPEN_FLAGS)
        }
        b'm' => format!("0{word:o}"),
        b'r' if word == 0 => "PROT_NONE".into(),
        b'r' => flags(word, None, &RIGHTS),
        b'g' => match SIGNALS.get((word as usize).wrapping_sub(1)) {
            Some(name) => format!("SIG{name}"),
            None => word.to_string(),
        },
        _ => format!("{word:#x}"),
    }
}

/// A call before it is made.
pub fn call(name: &str, arguments: &[u64; 6], pointer_bytes: usize) -> String {
    let format = FORMATS.binary_search_by_key(&name, |(name, _)| name).ok();
    let letters = format.map_or("xxxxxx", |row| FORMATS[row].1);
    let words: Vec<String> = letters
        .bytes()
        .zip(arguments)
        .map(|(letter, &word)| argument(letter, word, pointer_bytes))
        .collect();
    let pid = std::process::id();
    format!("{pid} {name}({})", words.join(","))
}

/// Calls that do not return are shown before they are made.
pub fn does_not_return(line: &str) -> bool {
    line.contains(" exit(") || line.contains(" exit_group(")
}

/// Calls whose result is an address.
const ADDRESSES: [&str; 5] = [" brk(", " mmap(", " mmap2(", " mremap(", " shmat("];

/// What stands behind a call that returned.
pub fn result(line: &str, answer: &Answer) -> String {
    match answer {
        Ok(value) if ADDRESSES.iter().any(|name| line.contains(name)) => {
            format!(" = {value:#010x}")
        }
        Ok(value) => format!(" = {}", *value as i64),
        Err(ERESTARTSYS | ERESTARTNOINTR) => " = ? (interrupted)".into(),
        Err(RETURNED) => " = ?".into(),
        Err(errno) => {
            let text = std::io::Error::from_raw_os_error(*errno).to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            format!(" = -1 errno={errno} ({text})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        let unsorted = FORMATS.windows(2).find(|rows| rows[0].0 >= rows[1].0);
        assert_eq!(unsorted, None);
    }

    #[test]
    fn arguments_are_readable() {
        let pid = std::process::id();
        let path = c"/etc/passwd";
        let words = [libc::AT_FDCWD as u64, path.as_ptr() as u64, 0o2_000_000, 0, 0, 0];
        let line = call("openat", &words, 8);
        assert_eq!(line, format!("{pid} openat(AT_FDCWD,\"/etc/passwd\",O_RDONLY|O_CLOEXEC,00)"));
        assert_eq!(result(&line, &Err(libc::ENOENT)), " = -1 errno=2 (No such file or directory)");
        assert_eq!(call("kill", &[7, 9, 0, 0, 0, 0], 8), format!("{pid} kill(7,SIGKILL)"));
        assert_eq!(argument(b'r', 5, 8), "PROT_READ|PROT_EXEC");
        assert_eq!(argument(b'd', 0xffff_ffff, 4), "-1");
    }
}
