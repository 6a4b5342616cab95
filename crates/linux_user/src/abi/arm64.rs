//! AArch64. Frames and registers as in the kernel's arch/arm64/include/uapi/asm.

use isa::arm64::{Arm64, EXCEPTIONS, State, mxcsr_of};
use jit::Vcpu;

use crate::call::{Call, Row, file, generic64};
use crate::debug::arm64;
use crate::guest::{Delivery, Guest, Machine};
use crate::host::Answer;
use crate::memory;
use crate::thread::Thread;

/// See the module.
pub struct Aarch64;

const FP: usize = 29;
const LR: usize = 30;
/// The register with the number of a system call.
const NUMBER: usize = 8;

/// Offsets into the frame: `siginfo`, then `ucontext`.
const UCONTEXT: u64 = 128;
const STACK: u64 = UCONTEXT + 16;
const MASK: u64 = UCONTEXT + 40;
const FAULT_ADDRESS: u64 = UCONTEXT + 176;
const REGISTERS: u64 = FAULT_ADDRESS + 8;
const RECORDS: u64 = UCONTEXT + 464;
const RECORDS_BYTES: u64 = 4096;
/// The frame record for unwinders stands behind the frame.
const FRAME_RECORD: u64 = RECORDS + RECORDS_BYTES;
const FRAME_BYTES: u64 = FRAME_RECORD + 16;

/// A record: magic number and size, then its contents.
const FPSIMD_MAGIC: u64 = 0x4650_8001;
const FPSIMD_BYTES: u64 = 528;
const ESR_MAGIC: u64 = 0x4553_5201;
const ESR_BYTES: u64 = 16;

/// PSTATE's condition bits, and those of a flags image.
const CONDITIONS: [(u32, u64); 4] =
    [(31, isa::ir::SIGN), (30, isa::ir::ZERO), (29, isa::ir::CARRY), (28, isa::ir::OVERFLOW)];

/// System calls of `generic64` that are another architecture's.
const FOREIGN_CALLS: [u64; 1] = [259];

/// Each is `mov x8, NUMBER; svc #0; ret`.
#[rustfmt::skip]
const VDSO: &[(&str, &[u8])] = &[
    ("__kernel_clock_gettime", &[0x28, 0x0e, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6]),
    ("__kernel_gettimeofday", &[0x28, 0x15, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6]),
    ("__kernel_clock_getres", &[0x48, 0x0e, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6]),
    ("__kernel_rt_sigreturn", &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4]),
];

/// A processor in /proc/cpuinfo.
const CPU_INFO: &str = "\
    processor\t: {}\n\
    model name\t: ARMv8 Processor rev 0 (v8l)\n\
    BogoMIPS\t: 100.00\n\
    Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 asimdfhm ilrcpc flagm sb\n\
    CPU implementer\t: 0x00\n\
    CPU architecture: 8\n\
    CPU variant\t: 0x0\n\
    CPU part\t: 0x051\n\
    CPU revision\t: 0\n\
    \n\
";

impl Guest for Aarch64 {
    type FrontEnd = Arm64;

    const MACHINE: Machine = Machine {
        name: "aarch64",
        elf_machine: 183,
        pointer_bytes: 8,
        address_end: 1 << 47,
        // FP ASIMD; AES to SHA512, which is all but EVTSTRM (2) and SVE (22); ASIMDFHM, ILRCPC,
        // FLAGM, SB
        hwcap: 0b11 | 0x3f_fff8 | 1 << 23 | 1 << 26 | 1 << 27 | 1 << 29,
        platform: "aarch64",
        signal_stack_min: 4720,
        // mov x8, #139; svc #0
        sigreturn_code: &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4],
        cpu_info: Some(CPU_INFO),
        vdso: VDSO,
        vdso_version: "LINUX_2.6.39",
        system_call_function: None,
        call_bytes: 4,
        cpus: &["max", "any", "cortex-a76", "neoverse-n1"],
    };

    type Local = ();

    const HAS_RESTORER: bool = true;

    fn calls() -> Vec<Row<Self>> {
        let mut rows = generic64();
        rows.retain(|row| !FOREIGN_CALLS.contains(&row.number));
        let own = |number, name, call| Row { number, name, call: Call::Own(call) };
        rows.push(own(25, "fcntl", fcntl));
        rows.push(own(56, "openat", openat));
        rows.push(own(59, "pipe2", pipe2));
        rows
    }

    fn front_end(cpu: Option<&str>) -> Option<Arm64> {
        let known = cpu.is_none_or(|cpu| Self::MACHINE.cpus.contains(&cpu));
        known.then(Arm64::default)
    }

    fn call_arguments(state: &State) -> (u64, [u64; 6]) {
        let x = &state.x;
        (x[NUMBER], [x[0], x[1], x[2], x[3], x[4], x[5]])
    }

    fn set_result(state: &mut State, result: i64) {
        state.x[0] = result as u64;
    }

    fn restart(state: &mut State, _: u64, arguments: &[u64; 6]) {
        state.x[0] = arguments[0];
        state.pc -= Self::MACHINE.call_bytes;
    }

    fn start(state: &mut State, (): &mut (), pc: u64, stack: u64) {
        state.pc = pc;
        state.sp = stack;
    }

    fn description() -> gdb::Description {
        arm64::description()
    }

    fn debug_registers(vcpu: &Vcpu<Arm64>) -> Vec<u8> {
        arm64::read(vcpu)
    }

    fn set_debug_registers(vcpu: &mut Vcpu<Arm64>, values: &[u8]) {
        arm64::write(vcpu, values);
    }

    fn breakpoint(_: u64) -> &'static [u8] {
        &[0x00, 0x00, 0x20, 0xd4]
    }

    fn set_pc(state: &mut State, pc: u64) {
        state.pc = pc;
    }

    fn position(state: &State) -> (u64, u64) {
        (state.pc, state.sp)
    }

    fn set_thread(
        state: &mut State,
        (): &mut (),
        stack: Option<u64>,
        tls: Option<u64>,
    ) -> Result<(), i32> {
        if let Some(stack) = stack {
            state.sp = stack;
        }
        if let Some(tls) = tls {
            state.tpidr = tls;
        }
        Ok(())
    }

    fn enter_handler(vcpu: &mut Vcpu<Arm64>, delivery: &Delivery) -> Result<(), i32> {
        let mxcsr = vcpu.fp_control();
        let state = vcpu.state();
        let frame = (delivery.stack.wrapping_sub(FRAME_BYTES)) & !15;
        memory::write(frame, &delivery.info)?;
        memory::write(frame + UCONTEXT, &[0; 176])?;
        for (place, word) in (0..).zip(delivery.alternate) {
            memory::write_word(frame + STACK + 8 * place, word, 8)?;
        }
        memory::write_word(frame + MASK, delivery.mask, 8)?;
        let fault = matches!(delivery.signal, libc::SIGSEGV | libc::SIGBUS);
        let address = delivery.info[16..24].try_into().map_or(0, u64::from_le_bytes);
        let mut words = vec![if fault { address } else { 0 }];
        words.extend(state.x);
        words.extend([state.sp, state.pc, pstate(state.flags)]);
        write_words(frame + FAULT_ADDRESS, &words)?;
        let flags: u64 =
            EXCEPTIONS.iter().map(|(flag, bit)| u64::from(mxcsr >> bit & 1) << flag).sum();
        let mut records =
            vec![FPSIMD_MAGIC | FPSIMD_BYTES << 32, flags | state.qc | state.fpcr << 32];
        records.extend(state.v.iter().flatten());
        if fault {
            records.extend([ESR_MAGIC | ESR_BYTES << 32, syndrome(state.pc)]);
        }
        records.push(0);
        write_words(frame + RECORDS, &records)?;
        write_words(frame + FRAME_RECORD, &[state.x[FP], state.x[LR]])?;
        let state = vcpu.state_mut();
        state.exclusive_address = u64::MAX;
        state.x[LR] = delivery.return_address();
        state.x[FP] = frame + FRAME_RECORD;
        state.sp = frame;
        state.x[0] = delivery.signal as u64;
        state.x[1] = frame;
        state.x[2] = frame + UCONTEXT;
        state.pc = delivery.handler;
        Ok(())
    }

    fn leave_handler(vcpu: &mut Vcpu<Arm64>, (): &mut ()) -> Result<(u64, [u64; 3]), i32> {
        let frame = vcpu.state().sp;
        let mask = memory::read_word(frame + MASK, 8)?;
        let mut alternate = [0; 3];
        for (place, word) in (0..).zip(&mut alternate) {
            *word = memory::read_word(frame + STACK + 8 * place, 8)?;
        }
        let mut registers = [0; 34];
        read_words(frame + REGISTERS, &mut registers)?;
        let fpsimd = find_fpsimd(frame + RECORDS)?;
        let status = memory::read_word(fpsimd + 8, 8)?;
        let mut vectors = [0; 64];
        read_words(fpsimd + 16, &mut vectors)?;
        let state = vcpu.state_mut();
        state.x.copy_from_slice(&registers[..31]);
        [state.sp, state.pc] = [registers[31], registers[32]];
        state.flags = image(registers[33]);
        state.v.as_flattened_mut().copy_from_slice(&vectors);
        state.qc = status & 1 << 27;
        state.fpcr = status >> 32;
        state.exclusive_address = u64::MAX;
        let flags: u32 =
            EXCEPTIONS.iter().map(|(flag, bit)| ((status >> flag & 1) as u32) << bit).sum();
        let control = mxcsr_of(state.fpcr) | flags;
        vcpu.set_fp_control(control);
        Ok((mask, alternate))
    }
}

/// PSTATE of a flags image.
pub fn pstate(image: u64) -> u64 {
    CONDITIONS.iter().filter(|(_, flag)| image & flag != 0).map(|(bit, _)| 1 << bit).sum()
}

/// The flags image of a PSTATE.
pub fn image(pstate: u64) -> u64 {
    CONDITIONS.iter().filter(|(bit, _)| pstate >> bit & 1 != 0).map(|(_, flag)| flag).sum()
}

fn write_words(address: u64, words: &[u64]) -> Result<(), i32> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory::write(address, &bytes)
}

fn read_words(address: u64, words: &mut [u64]) -> Result<(), i32> {
    let mut bytes = vec![0; words.len() * 8];
    memory::read(address, &mut bytes)?;
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(())
}

/// ESR_EL1 of a data abort by a translation fault at level 3; bit 6 says that it was a write,
/// which the instruction tells.
fn syndrome(pc: u64) -> u64 {
    const DATA_ABORT: u64 = 0x24 << 26 | 1 << 25 | 0b000111;
    const INSTRUCTION_ABORT: u64 = 0x20 << 26 | 1 << 25 | 0b000111;
    let Ok(word) = memory::read_word(pc, 4) else { return INSTRUCTION_ABORT };
    let is_access = word & 0x0a00_0000 == 0x0800_0000;
    let atomic = word & 0x3b20_0c00 == 0x3820_0000;
    let quad_store = word & 0xfec0_0000 == 0x3c80_0000;
    let write = is_access && (word & 0x00c0_0000 == 0 || atomic || quad_store)
        || word & 0x3a40_0000 == 0x2800_0000; // pairs
    DATA_ABORT | u64::from(write) << 6
}

/// The FP record among the records of a frame; a frame without one is refused, as by Linux.
fn find_fpsimd(records: u64) -> Result<u64, i32> {
    let mut at = 0;
    while at + 8 <= RECORDS_BYTES {
        let head = memory::read_word(records + at, 8)?;
        let (magic, bytes) = (head & 0xffff_ffff, head >> 32);
        if magic == FPSIMD_MAGIC && bytes == FPSIMD_BYTES && at + bytes <= RECORDS_BYTES {
            return Ok(records + at);
        }
        if magic == 0 || bytes < 16 || bytes % 16 != 0 {
            break;
        }
        at += bytes;
    }
    Err(libc::EFAULT)
}

/// Flags of `open` whose numbers are AArch64's own: guest's, host's.
const OPEN_FLAGS: [(u64, i32); 4] = [
    (0o40_000, libc::O_DIRECTORY),
    (0o100_000, libc::O_NOFOLLOW),
    (0o200_000, libc::O_DIRECT),
    (0o400_000, 0o100_000), // O_LARGEFILE
];

fn host_open_flags(flags: u64) -> u64 {
    let own: u64 = OPEN_FLAGS.iter().map(|(guest, _)| guest).sum();
    let moved = OPEN_FLAGS.iter().filter(|(guest, _)| flags & guest != 0);
    moved.fold(flags & !own, |flags, (_, host)| flags | *host as u64)
}

fn guest_open_flags(flags: u64) -> u64 {
    let own: u64 = OPEN_FLAGS.iter().map(|(_, host)| *host as u64).sum();
    let moved = OPEN_FLAGS.iter().filter(|(_, host)| flags & *host as u64 != 0);
    moved.fold(flags & !own, |flags, (guest, _)| flags | guest)
}

fn openat(thread: &mut Thread<Aarch64>, mut a: [u64; 6]) -> Answer {
    a[2] = host_open_flags(a[2]);
    file::openat(thread, a)
}

fn pipe2(thread: &mut Thread<Aarch64>, mut a: [u64; 6]) -> Answer {
    a[1] = host_open_flags(a[1]);
    thread.pass(libc::SYS_pipe2, a)
}

fn fcntl(thread: &mut Thread<Aarch64>, mut a: [u64; 6]) -> Answer {
    if a[1] as i32 == libc::F_SETFL {
        a[2] = host_open_flags(a[2]);
    }
    let answer = thread.pass(libc::SYS_fcntl, a)?;
    Ok(if a[1] as i32 == libc::F_GETFL { guest_open_flags(answer) } else { answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_are_translated_both_ways() {
        let guest = 0o40_000 | 0o2_000_000 | 2; // O_DIRECTORY | O_CLOEXEC | O_RDWR
        let host = host_open_flags(guest);
        assert_eq!(host, (libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_RDWR) as u64);
        assert_eq!(guest_open_flags(host), guest);
    }

    #[test]
    fn conditions_survive_a_frame() {
        for nzcv in 0..16u64 {
            assert_eq!(pstate(image(nzcv << 28)), nzcv << 28);
        }
    }
}
