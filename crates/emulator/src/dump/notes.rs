//! The notes of a core: each processor's registers as Linux's `elf_prstatus` has them, for gdb, and
//! all that QEMU adds, for `crash`.

use machine::Registers;
use machine::inspect::SegmentRegister;

const PROCESS_STATUS: u32 = 1;
const PROCESS_STATUS_BYTES: usize = 336;
/// Where in it the number of the thread is, and the registers.
const THREAD: usize = 32;
const REGISTERS: usize = 112;
const QEMU_VERSION: u32 = 1;

/// Places in `Registers::general`.
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// All notes: first those of the one kind, then those of the other.
pub fn all(registers: &[Registers]) -> Vec<u8> {
    let mut notes = Vec::new();
    for (number, registers) in (1u32..).zip(registers) {
        note(&mut notes, b"CORE\0", PROCESS_STATUS, &process_status(number, registers));
    }
    for registers in registers {
        note(&mut notes, b"QEMU\0", 0, &processor(registers));
    }
    notes
}

fn note(into: &mut Vec<u8>, name: &[u8], kind: u32, contents: &[u8]) {
    let lengths = [name.len() as u32, contents.len() as u32, kind];
    into.extend(lengths.map(u32::to_le_bytes).concat());
    for part in [name, contents] {
        into.extend(part);
        into.resize(into.len().next_multiple_of(4), 0);
    }
}

fn process_status(number: u32, registers: &Registers) -> Vec<u8> {
    let general = &registers.general;
    let [es, cs, ss, ds, fs, gs] = registers.segments;
    let selector = |segment: SegmentRegister| u64::from(segment.selector);
    // The order of `user_regs_struct`.
    let words = [
        general[15],
        general[14],
        general[13],
        general[12],
        general[RBP],
        general[RBX],
        general[11],
        general[10],
        general[9],
        general[8],
        general[RAX],
        general[RCX],
        general[RDX],
        general[RSI],
        general[RDI],
        0, // no system call
        registers.rip,
        selector(cs),
        registers.rflags,
        general[RSP],
        selector(ss),
        fs.base,
        gs.base,
        selector(ds),
        selector(es),
        selector(fs),
        selector(gs),
    ];
    let mut bytes = vec![0; REGISTERS];
    bytes[THREAD..THREAD + 4].copy_from_slice(&number.to_le_bytes());
    bytes.extend(words.map(u64::to_le_bytes).concat());
    bytes.resize(PROCESS_STATUS_BYTES, 0);
    bytes
}

fn processor(registers: &Registers) -> Vec<u8> {
    let general = &registers.general;
    let first = [RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut bytes = vec![0; 8]; // version and size
    bytes.extend(first.map(|number| general[number].to_le_bytes()).concat());
    bytes.extend([registers.rip, registers.rflags].map(u64::to_le_bytes).concat());
    let [es, cs, ss, ds, fs, gs] = registers.segments;
    let table = |(base, limit): (u64, u32)| SegmentRegister { base, limit, ..Default::default() };
    let tables = [registers.ldt, registers.task, table(registers.gdt), table(registers.idt)];
    for segment in [cs, ds, es, fs, gs, ss].into_iter().chain(tables) {
        let flags = segment.attributes << 8;
        let halves = [u32::from(segment.selector), segment.limit, flags, 0];
        bytes.extend(halves.map(u32::to_le_bytes).concat());
        bytes.extend(segment.base.to_le_bytes());
    }
    let [cr0, cr2, cr3, cr4, _] = registers.control;
    bytes.extend([cr0, 0, cr2, cr3, cr4, registers.kernel_gs_base].map(u64::to_le_bytes).concat());
    let size = bytes.len() as u32;
    bytes[..8].copy_from_slice(&[QEMU_VERSION, size].map(u32::to_le_bytes).concat());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_processor_has_a_note_of_each_kind_in_their_sizes() {
        let registers = Registers { rip: 0x1234_5678, ..Registers::default() };
        let notes = all(&[registers.clone(), registers]);
        let word = |at: usize| u32::from_le_bytes(notes[at..at + 4].try_into().unwrap());
        let status = 12 + 8 + PROCESS_STATUS_BYTES;
        assert_eq!((word(0), word(4), word(8)), (5, 336, 1));
        assert_eq!((word(20 + THREAD), word(status + 20 + THREAD)), (1, 2));
        assert_eq!(word(20 + REGISTERS + 16 * 8), 0x1234_5678);
        let processor = 2 * status;
        assert_eq!((word(processor), word(processor + 4)), (5, 440), "QEMU's own structure");
        assert_eq!(notes.len(), 2 * (status + 12 + 8 + 440));
    }
}
