//! Processes: what they are told of themselves, exec, exit.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::elf::Elf;
use crate::guest::Guest;
use crate::host::{self, Answer};
use crate::memory;
use crate::thread::{self, Thread};

pub fn exit<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if !thread.threaded.load(Ordering::Relaxed) {
        return exit_group(thread, a);
    }
    thread.ended = Some(a[0] as i32);
    Err(thread::RETURNED)
}

pub fn exit_group<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    // Locks in memory that other processes share outlive this one.
    crate::robust::release(thread.robust_list, G::MACHINE.pointer_bytes);
    thread.tell_end(gdb::Stop::Exited(a[0] as u8));
    let _ = host::plain(libc::SYS_exit_group, [a[0] & 0xff, 0, 0, 0, 0, 0]);
    std::process::exit(a[0] as i32)
}

pub fn set_tid_address<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    thread.clear_tid = a[0];
    host::plain(libc::SYS_gettid, [0; 6])
}

/// The list has the guest's words, so it is walked here when the thread ends (`robust`).
pub fn set_robust_list<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if a[1] != 3 * G::MACHINE.pointer_bytes as u64 {
        return Err(libc::EINVAL);
    }
    thread.robust_list = a[0];
    Ok(0)
}

/// Only one's own can be told.
pub fn get_robust_list<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let own = host::plain(libc::SYS_gettid, [0; 6])?;
    if a[0] != 0 && a[0] != own {
        return Err(libc::EPERM);
    }
    let bytes = G::MACHINE.pointer_bytes;
    memory::write_word(a[1], thread.robust_list, bytes)?;
    memory::write_word(a[2], 3 * bytes as u64, bytes)?;
    Ok(0)
}

pub fn uname<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let mut names = [0u8; 6 * 65];
    thread.pass(libc::SYS_uname, [names.as_mut_ptr() as u64, 0, 0, 0, 0, 0])?;
    let mut set = |field: usize, text: &str| {
        let bytes = text.len().min(64);
        names[field * 65..][..65].fill(0);
        names[field * 65..][..bytes].copy_from_slice(&text.as_bytes()[..bytes]);
    };
    set(4, G::MACHINE.platform);
    if let Some(release) = &thread.process.options.release {
        set(2, release);
    }
    memory::write(a[0], &names)?;
    Ok(0)
}

/// Limits of memory would hit the emulator, which needs more than the guest; they stay unset.
pub fn limits_only_the_guest(resource: u64) -> bool {
    matches!(resource as u32, libc::RLIMIT_AS | libc::RLIMIT_DATA | libc::RLIMIT_STACK)
}

pub fn setrlimit<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if limits_only_the_guest(a[0]) { Ok(0) } else { thread.pass(libc::SYS_setrlimit, a) }
}

pub fn prlimit64<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    if limits_only_the_guest(a[1]) {
        a[2] = 0;
    }
    thread.pass(libc::SYS_prlimit64, a)
}

/// What would change the emulator instead of the program is refused, as by a kernel without it.
pub fn prctl<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    const REFUSED: [i32; 5] = [
        libc::PR_SET_SECCOMP,
        libc::PR_SET_MM,
        PR_SET_SYSCALL_USER_DISPATCH,
        libc::PR_SET_UNALIGN,
        libc::PR_SET_TSC,
    ];
    // From PR_SVE_SET_VL to PR_GET_TAGGED_ADDR_CTRL.
    const FEATURES: std::ops::RangeInclusive<i32> = 50..=56;
    match a[0] as i32 {
        option if REFUSED.contains(&option) || FEATURES.contains(&option) => Err(libc::EINVAL),
        libc::PR_GET_TID_ADDRESS => {
            memory::write_word(a[1], thread.clear_tid, G::MACHINE.pointer_bytes)?;
            Ok(0)
        }
        _ => thread.pass(libc::SYS_prctl, a),
    }
}

/// The emulator's own mappings depend on the personality; the program is told that of Linux.
pub fn personality<G: Guest>(_: &mut Thread<G>, a: [u64; 6]) -> Answer {
    const ASK: u64 = 0xffff_ffff;
    const RANDOMLY_PLACED: u64 = 0x004_0000;
    match a[0] & 0xffff_ffff {
        // Mappings stay where the host puts them, which breaks no program.
        ASK | 0 | RANDOMLY_PLACED => Ok(0),
        _ => Err(libc::EINVAL),
    }
}

/// x86-64's `struct semid64_ds` has a spare word behind each time, others have none.
pub fn semctl<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    const IPC_64: u64 = 0x100;
    const STATS: [u64; 3] = [libc::IPC_STAT as u64, 18, 20]; // SEM_STAT, SEM_STAT_ANY
    const PERMISSIONS: usize = 6; // words in front of the times
    a[2] &= !IPC_64;
    let target = a[3];
    let mut host = [0u64; 13];
    if a[2] == libc::IPC_SET as u64 {
        for (place, word) in (0..).zip(&mut host[..PERMISSIONS]) {
            *word = memory::read_word(target + 8 * place, 8)?;
        }
    } else if !STATS.contains(&a[2]) {
        return thread.pass(libc::SYS_semctl, a);
    }
    a[3] = host.as_mut_ptr() as u64;
    let answer = thread.pass(libc::SYS_semctl, a)?;
    if STATS.contains(&a[2]) {
        let [otime, _, ctime, _, rest @ ..] = &host[PERMISSIONS..] else { return Ok(answer) };
        let words = host[..PERMISSIONS].iter().chain([otime, ctime]).chain(rest);
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        memory::write(target, &bytes)?;
    }
    Ok(answer)
}

pub fn execve<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let pointer = G::MACHINE.pointer_bytes;
    let path = memory::read_string(a[0])?;
    let arguments = memory::read_strings(a[1], pointer)?;
    let environment = memory::read_strings(a[2], pointer)?;
    execute::<G>(thread, path, arguments, environment)
}

/// `execveat`: of a path, or of a descriptor (AT_EMPTY_PATH).
pub fn execveat<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let pointer = G::MACHINE.pointer_bytes;
    let path = memory::read_string(a[1])?;
    let arguments = memory::read_strings(a[2], pointer)?;
    let environment = memory::read_strings(a[3], pointer)?;
    let current = a[0] as i32 == libc::AT_FDCWD;
    let path = match path.first() {
        Some(b'/') => path,
        None if a[4] as i32 & libc::AT_EMPTY_PATH == 0 => return Err(libc::ENOENT),
        None => opened(a[0] as i32)?,
        _ if current => path,
        _ => [format!("/proc/self/fd/{}/", a[0] as i32).as_bytes(), &path].concat(),
    };
    execute::<G>(thread, path, arguments, environment)
}

/// The path of an open file. One that has none any more gets a descriptor that stays open.
fn opened(fd: i32) -> Result<Vec<u8>, i32> {
    let link = PathBuf::from(format!("/proc/self/fd/{fd}"));
    let error = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EBADF);
    let file = std::fs::metadata(&link).map_err(|_| libc::EBADF)?;
    let path = std::fs::read_link(&link).map_err(error)?;
    let there = std::fs::metadata(&path);
    if there.is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino())) {
        return Ok(path.into_os_string().into_vec());
    }
    let kept = host::plain(libc::SYS_fcntl, [fd as u64, libc::F_DUPFD as u64, 3, 0, 0, 0])?;
    Ok(format!("/proc/self/fd/{kept}").into_bytes())
}

/// Scripts may name scripts, so often.
const SCRIPT_DEPTH_MAX: u32 = 4;

/// Becomes another program. What that takes belongs to the thread meanwhile: after `vfork` the memory
/// is still the parent's.
fn execute<G: Guest>(
    thread: &mut Thread<G>,
    path: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
) -> Answer {
    thread.programs = programs(thread, path, arguments, &environment, 0)?;
    drop(environment);
    let mut errno = libc::ENOENT;
    for program in &thread.programs {
        errno = host::execute(program);
        if errno != libc::ENOENT {
            break;
        }
    }
    thread.programs.clear();
    Err(errno)
}

/// What the kernel is to execute, and what else if it does not find that.
fn programs<G: Guest>(
    thread: &Thread<G>,
    path: Vec<u8>,
    mut arguments: Vec<Vec<u8>>,
    environment: &[Vec<u8>],
    depth: u32,
) -> Result<Vec<host::Program>, i32> {
    let own =
        matches!(crate::proc::entry(&thread.process, &path), Some(crate::proc::Entry::Executable));
    let host_path = match own {
        true => thread.process.executable.clone().into_bytes(),
        false => thread.process.options.path(&path),
    };
    let place = Path::new(OsStr::from_bytes(&host_path));
    let head = read_head(place)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        if depth >= SCRIPT_DEPTH_MAX {
            return Err(libc::ELOOP);
        }
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
        let (program, option) = match line.iter().position(u8::is_ascii_whitespace) {
            Some(at) => (&line[..at], Some(line[at..].trim_ascii())),
            None => (line, None),
        };
        let rest = arguments.split_off(arguments.len().min(1));
        let mut words = vec![program.to_vec()];
        words.extend(option.map(<[u8]>::to_vec));
        words.push(path);
        words.extend(rest);
        return programs(thread, program.to_vec(), words, environment, depth + 1);
    }
    if Elf::open(place, &G::MACHINE).is_err() {
        return Ok(vec![host::Program::new(host_path, arguments, environment)?]);
    }
    let typed = thread.process.options.typed.iter().map(|word| word.clone().into_vec());
    let mut words = vec![format!("qemu-{}", G::MACHINE.name).into_bytes()];
    words.extend(typed);
    let first = arguments.first().cloned().unwrap_or_default();
    words.extend([b"-0".to_vec(), first, host_path.clone()]);
    words.extend(arguments.iter().skip(1).cloned());
    let ourselves = host::Program::new(b"/proc/self/exe".to_vec(), words, environment)?;
    // In a chroot without /proc, the kernel finds us itself if it was told of us (binfmt_misc).
    Ok(vec![ourselves, host::Program::new(host_path, arguments, environment)?])
}

/// The first bytes of an executable file.
fn read_head(path: &Path) -> Result<Vec<u8>, i32> {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    let error = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let file = std::fs::File::open(path).map_err(error)?;
    let meta = file.metadata().map_err(error)?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(libc::EACCES);
    }
    let mut head = Vec::new();
    file.take(256).read_to_end(&mut head).map_err(error)?;
    Ok(head)
}
