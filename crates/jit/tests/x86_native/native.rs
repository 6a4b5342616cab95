//! The host's processor: one instruction between loading and storing all registers.

// UNSAFETY: runs arbitrary user-level instructions on the real processor; that is the test.
#![expect(unsafe_code)]

use std::arch::global_asm;
use std::ptr;

use crate::World;

/// Memory that instructions may touch.
pub const DATA_BYTES: usize = 256;

const PAGE: usize = 4096;
const CODE_BYTES: usize = 256 * PAGE;
/// Room for one piece of code.
const PLACE_BYTES: usize = 512;

/// What the stub loads and stores.
#[repr(C, align(16))]
struct Frame {
    gpr: [u64; 16],
    flags: u64,
    code: u64,
    mxcsr: u32,
    /// The processor has AVX.
    wide: u32,
    /// Rust's own.
    host_mxcsr: u32,
    _pad: u32,
    vectors: [[u64; 4]; 16],
}

global_asm!(
    ".local x86_native_frame",
    ".comm x86_native_frame, 8, 8",
    ".local x86_native_stack",
    ".comm x86_native_stack, 8, 8",
    ".local x86_native_kept",
    ".comm x86_native_kept, 8, 8",
    ".globl x86_native_execute",
    "x86_native_execute:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + x86_native_frame], rdi",
    "mov [rip + x86_native_stack], rsp",
    "cmp dword ptr [rdi + 148], 0",
    "je 2f",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovups ymm\\n, [rdi + 160 + 32 * \\n]",
    ".endr",
    "jmp 3f",
    "2:",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups xmm\\n, [rdi + 160 + 32 * \\n]",
    ".endr",
    "3:",
    "ldmxcsr [rdi + 144]",
    "push qword ptr [rdi + 128]",
    "popfq",
    "mov rax, [rdi + 0]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rsp, [rdi + 32]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    ".irp n, 8,9,10,11,12,13,14",
    "mov r\\n, [rdi + 8 * \\n]",
    ".endr",
    "mov r15, [rdi + 136]",
    "mov [rip + x86_native_kept], r15",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "jmp [rip + x86_native_kept]",
    ".globl x86_native_return",
    "x86_native_return:",
    "mov [rip + x86_native_kept], rdi",
    "mov rdi, [rip + x86_native_frame]",
    "mov [rdi + 0], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 32], rsp",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    ".irp n, 8,9,10,11,12,13,14,15",
    "mov [rdi + 8 * \\n], r\\n",
    ".endr",
    "mov rsp, [rip + x86_native_stack]",
    "pushfq",
    "pop qword ptr [rdi + 128]",
    "mov rax, [rip + x86_native_kept]",
    "mov [rdi + 56], rax",
    "cld",
    "stmxcsr [rdi + 144]",
    "ldmxcsr [rdi + 152]",
    "cmp dword ptr [rdi + 148], 0",
    "je 2f",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovups [rdi + 160 + 32 * \\n], ymm\\n",
    ".endr",
    "vzeroupper",
    "jmp 3f",
    "2:",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups [rdi + 160 + 32 * \\n], xmm\\n",
    ".endr",
    "3:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn x86_native_execute(frame: *mut Frame);
    fn x86_native_return();
}

/// Executable memory and data.
pub struct Machine {
    code: *mut u8,
    data: *mut [u8; DATA_BYTES],
    used: usize,
}

impl Machine {
    pub fn new() -> Self {
        let map = |bytes: usize, protection: i32| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping at an address of the system's choice.
            let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
            assert_ne!(memory, libc::MAP_FAILED, "test memory can be had");
            memory
        };
        let write = libc::PROT_READ | libc::PROT_WRITE;
        let code = map(CODE_BYTES, write | libc::PROT_EXEC).cast();
        // In the middle of a page's worth on both sides, for displacements and strings.
        let data = map(3 * PAGE, write).cast::<u8>();
        // SAFETY: within the mapping just made.
        let data = unsafe { data.add(PAGE) }.cast();
        Self { code, data, used: PAGE }
    }

    /// The data has this many bytes before the end of a page, and the rest behind it.
    pub fn straddle(&mut self, bytes: usize) {
        assert!(bytes < DATA_BYTES, "the data reaches into the next page");
        // SAFETY: three pages are mapped, and the data began with the second.
        self.data = unsafe { self.data.cast::<u8>().add(PAGE - bytes) }.cast();
    }

    pub fn data(&mut self) -> &mut [u8; DATA_BYTES] {
        // SAFETY: mapped, aligned, and nothing else refers to it while guest code does not run.
        unsafe { &mut *self.data }
    }

    pub fn data_address(&self) -> u64 {
        self.data as u64
    }

    fn write(&mut self, at: usize, bytes: &[u8]) -> u64 {
        assert!(at + bytes.len() <= CODE_BYTES, "code fits");
        // SAFETY: within the mapping, as just checked.
        let place = unsafe { self.code.add(at) };
        // SAFETY: likewise.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        place as u64
    }

    /// The instruction with UD2 behind it, at a place that was never translated before.
    pub fn place_for_translation(&mut self, insn: &[u8]) -> u64 {
        let code = [insn, &[0x0f, 0x0b]].concat();
        if self.used + PLACE_BYTES > CODE_BYTES {
            self.used = PAGE;
            // Places come again: fresh memory at another address instead.
            let fresh = Self::new();
            self.code = fresh.code;
        }
        assert!(code.len() <= PLACE_BYTES, "the place is large enough");
        self.used += PLACE_BYTES;
        self.write(self.used - PLACE_BYTES, &code)
    }

    /// Runs the instruction on the processor.
    pub fn execute(&mut self, insn: &[u8], before: &World) -> World {
        // Behind it: jmp [rip + 0] and the stub's address.
        let back = (x86_native_return as *const () as u64).to_le_bytes();
        let code = [insn, &[0xff, 0x25, 0, 0, 0, 0], &back].concat();
        let code = self.write(0, &code);
        let mut frame = Frame {
            gpr: before.gpr,
            flags: before.flags | 0x202,
            code,
            mxcsr: before.mxcsr,
            wide: u32::from(std::is_x86_feature_detected!("avx")),
            host_mxcsr: 0x1f80,
            _pad: 0,
            vectors: before.vectors,
        };
        // SAFETY: the code is the instruction, which the cases chose to be harmless, and the way
        // back; the stub restores what the ABI wants kept.
        unsafe { x86_native_execute(&raw mut frame) };
        let Frame { gpr, flags, vectors, mxcsr, .. } = frame;
        World { gpr, flags, vectors, mxcsr, data: before.data }
    }
}
