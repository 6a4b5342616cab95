//! System V: one call that is all of them, and each by itself.

use super::shape::{QUEUE, SEMAPHORES, SHARED, SHARED_LIMITS, SHARED_USE, Shape};
use super::{Arg, words};
use crate::call::memory as mapping;
use crate::guest::Guest;
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

const IPC_SET: u64 = 1;
const IPC_STAT: u64 = 2;
const IPC_INFO: u64 = 3;
/// Structures in their second form, which is the host's only one.
const IPC_64: u64 = 0x100;

/// A message may be this long, as by the kernel's default.
const MESSAGE_MAX: u64 = 1 << 16;

pub fn ipc<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let [call, first, second, third, pointer, fifth] = a;
    let same = |thread: &mut Thread<G>, host, words: [u64; 4]| {
        thread.pass(host, [words[0], words[1], words[2], words[3], 0, 0])
    };
    match call & 0xffff {
        1 => same(thread, libc::SYS_semop, [first, pointer, second, 0]),
        2 => same(thread, libc::SYS_semget, [first, second, third, 0]),
        3 => {
            let argument = memory::read_word(pointer, 4)?;
            semctl(thread, [first, second, third, argument, 0, 0])
        }
        4 => {
            let arguments = [Arg::Same, Arg::Same, Arg::Same, Arg::In(super::shape::TIME)];
            let words = [first, pointer, second, fifth, 0, 0];
            super::converted(thread, libc::SYS_semtimedop, &arguments, words)
        }
        11 => msgsnd(thread, [first, pointer, second, third, 0, 0]),
        12 if call >> 16 == 0 => {
            let [buffer, kind] = words::<2>(pointer)?;
            msgrcv(thread, [first, buffer, second, kind, third, 0])
        }
        12 => msgrcv(thread, [first, pointer, second, fifth, third, 0]),
        13 => same(thread, libc::SYS_msgget, [first, second, 0, 0]),
        14 => msgctl(thread, [first, second, pointer, 0, 0, 0]),
        21 => {
            let address = mapping::shmat(thread, [first, pointer, second, 0, 0, 0])?;
            memory::write_word(third, address, 4)?;
            Ok(0)
        }
        22 => mapping::shmdt(thread, [pointer, 0, 0, 0, 0, 0]),
        23 => same(thread, libc::SYS_shmget, [first, second, third, 0]),
        24 => shmctl(thread, [first, second, pointer, 0, 0, 0]),
        _ => Err(libc::ENOSYS),
    }
}

/// How a structure goes by a command.
fn by_command(command: u64, shape: Shape) -> Arg {
    const STAT_COMMANDS: [u64; 7] = [IPC_STAT, 11, 13, 15, 18, 19, 20];
    match command {
        IPC_SET => Arg::In(shape),
        command if STAT_COMMANDS.contains(&command) => Arg::Out(shape),
        _ => Arg::Same,
    }
}

pub fn semctl<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    const SEM_STAT: u64 = 18;
    const SEM_STAT_ANY: u64 = 20;
    a[2] &= !IPC_64;
    let last = match a[2] {
        IPC_SET | IPC_STAT | SEM_STAT | SEM_STAT_ANY => by_command(a[2], SEMAPHORES),
        _ => Arg::Same,
    };
    super::converted(thread, libc::SYS_semctl, &[Arg::Same, Arg::Same, Arg::Same, last], a)
}

pub fn shmctl<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    const SHM_INFO: u64 = 14;
    a[1] &= !IPC_64;
    let last = match a[1] {
        IPC_INFO => Arg::Out(SHARED_LIMITS),
        SHM_INFO => Arg::Out(SHARED_USE),
        command => by_command(command, SHARED),
    };
    super::converted(thread, libc::SYS_shmctl, &[Arg::Same, Arg::Same, last], a)
}

pub fn msgctl<G: Guest>(thread: &mut Thread<G>, mut a: [u64; 6]) -> Answer {
    a[1] &= !IPC_64;
    let last = by_command(a[1], QUEUE);
    super::converted(thread, libc::SYS_msgctl, &[Arg::Same, Arg::Same, last], a)
}

/// A message begins with its kind, a long.
pub fn msgsnd<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    if a[2] > MESSAGE_MAX {
        return Err(libc::EINVAL);
    }
    let mut message = vec![0; 8 + a[2] as usize];
    let kind = memory::read_word(a[1], 4)? as i32 as u64;
    message[..8].copy_from_slice(&kind.to_le_bytes());
    memory::read(a[1] + 4, &mut message[8..])?;
    thread.pass(libc::SYS_msgsnd, [a[0], message.as_ptr() as u64, a[2], a[3], 0, 0])
}

pub fn msgrcv<G: Guest>(thread: &mut Thread<G>, a: [u64; 6]) -> Answer {
    let room = a[2].min(MESSAGE_MAX);
    let mut message = vec![0u8; 8 + room as usize];
    let pointer = message.as_mut_ptr() as u64;
    let kind = a[3] as i32 as u64;
    let bytes = thread.pass(libc::SYS_msgrcv, [a[0], pointer, room, kind, a[4], 0])?;
    memory::write(a[1], &message[..4])?;
    memory::write(a[1] + 4, &message[8..8 + bytes as usize])?;
    Ok(bytes)
}
