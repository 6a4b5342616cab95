//! Semantics too rare or too large for IR, called by number.

mod decimal;
mod elements;
mod fpu_state;
pub(crate) mod identity;
mod integer;
mod privileged;
mod registers;
mod string_compare;
mod strings;
pub(super) mod transfer;
mod vector;
mod vector_float;
mod x87;
pub(super) mod xsave;

pub use elements::{Gather, MaskedMove};
pub use identity::TSC_HZ;
pub use integer::Locked;
pub use strings::{REPEAT_LONG, StringOp};
pub use vector::{Operation, SCRATCH, Software};
pub use vector_float::Fused;

use crate::front_end::{Event, GuestMemory, Helper, HelperResult, Stop};
use crate::x86::lift::exception;
use crate::x86::state::State;
use crate::x86::walk::view;

macro_rules! helpers {
    ($($number:ident $name:literal $function:path, $fp:literal;)*) => {
        /// Helpers by name.
        #[allow(missing_docs, reason = "the rows name the functions that document themselves")]
        pub mod helper {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Number { $($number),* }
            $(pub const $number: usize = Number::$number as usize;)*
        }

        /// The table behind the numbers.
        pub const HELPERS: &[Helper<State>] = &[$(Helper {
            name: $name, call: $function, fp: $fp,
        }),*];
    };
}

helpers! {
    LOAD_SEGMENT "load_segment" registers::load_segment, false;
    ENTER "enter" registers::enter, false;
    LOCKED "locked" integer::locked, false;
    RCL "rcl" integer::rcl, false;
    RCR "rcr" integer::rcr, false;
    DAA "daa" decimal::daa, false;
    DAS "das" decimal::das, false;
    AAA "aaa" decimal::aaa, false;
    AAS "aas" decimal::aas, false;
    AAM "aam" decimal::aam, false;
    AAD "aad" decimal::aad, false;
    STRING "string" strings::string, false;
    REPEAT "repeat" strings::repeat, false;
    COMPARE_STRINGS "compare_strings" string_compare::compare_strings, false;
    MASKED_STORE "masked_store" strings::masked_store, false;
    PEXT "pext" integer::pext, false;
    PDEP "pdep" integer::pdep, false;
    MASKED_MOVE "masked_move" elements::masked_move, false;
    GATHER "gather" elements::gather, false;
    VECTOR "vector" vector::vector, false;
    CPUID "cpuid" identity::cpuid, false;
    XGETBV "xgetbv" identity::xgetbv, false;
    RDTSC "rdtsc" identity::rdtsc, false;
    RANDOM "random" identity::random, false;
    CHECK_BREAKPOINT "check_breakpoint" privileged::check_breakpoint, false;
    CHECK_IOPL "check_iopl" privileged::check_iopl, false;
    POP_FLAGS "pop_flags" privileged::pop_flags, false;
    SET_INTERRUPTS "set_interrupts" privileged::set_interrupts, false;
    PORT_IN "in" privileged::port_in, false;
    PORT_OUT "out" privileged::port_out, false;
    READ_CONTROL "read_control" privileged::read_control, false;
    WRITE_CONTROL "write_control" privileged::write_control, false;
    READ_MSR "rdmsr" privileged::read_msr, false;
    WRITE_MSR "wrmsr" privileged::write_msr, false;
    INVALIDATE "invlpg" privileged::invalidate, false;
    INVALIDATE_PCID "invpcid" privileged::invalidate_pcid, false;
    WRITE_XCR "xsetbv" privileged::write_xcr, false;
    LOAD_TABLE "load_table" registers::load_table, false;
    LOAD_SYSTEM_SEGMENT "load_system_segment" registers::load_system_segment, false;
    EXAMINE_SELECTOR "examine_selector" registers::examine_selector, false;
    FAR_JUMP "far_jump" transfer::far_jump, false;
    FAR_CALL "far_call" transfer::far_call, false;
    FAR_RETURN "far_return" transfer::far_return, false;
    INTERRUPT_RETURN "iret" transfer::interrupt_return, false;
    SOFTWARE_INTERRUPT "int" transfer::software_interrupt, false;
    SYSTEM_CALL "syscall" transfer::system_call, false;
    SYSTEM_RETURN "sysret" transfer::system_return, false;
    SYSTEM_ENTER "sysenter" transfer::system_enter, false;
    SYSTEM_EXIT "sysexit" transfer::system_exit, false;
    X87_OPERATION "x87" x87::operation, true;
    X87_LOAD_DECIMAL "fbld" x87::load_decimal, false;
    X87_STORE_DECIMAL "fbstp" x87::store_decimal, true;
    X87_STORE_ENVIRONMENT "fnstenv" fpu_state::store_environment, false;
    X87_LOAD_ENVIRONMENT "fldenv" fpu_state::load_environment, false;
    SAVE_FPU "fxsave" fpu_state::save, false;
    RESTORE_FPU "fxrstor" fpu_state::restore, false;
    XSAVE "xsave" xsave::xsave, false;
    XRSTOR "xrstor" xsave::xrstor, false;
}

/// An exception with an error code.
pub fn fault<T>(vector: u16, error: u64) -> Result<T, Stop> {
    Err(Stop::Event(Event::Exception { number: vector, info: error }))
}

/// General protection.
pub fn protection<T>(error: u64) -> Result<T, Stop> {
    fault(exception::GP, error)
}

/// The result of a helper that has none.
pub const DONE: HelperResult = Ok(0);

/// The MMU view in which descriptor tables are read, whatever the privilege level.
pub const SUPERVISOR: u16 = view::SUPERVISOR;

/// Loads in the block's own view.
pub fn load(memory: &mut dyn GuestMemory, address: u64, bytes: u32) -> Result<u64, Stop> {
    memory.load(address, bytes, 0).map_err(memory_fault)
}

/// Stores in the block's own view.
pub fn store(
    memory: &mut dyn GuestMemory,
    address: u64,
    bytes: u32,
    value: u64,
) -> Result<(), Stop> {
    memory.store(address, bytes, value, 0).map_err(memory_fault)
}

/// A memory fault as a reason to stop.
pub fn memory_fault(fault: crate::front_end::MemoryFault) -> Stop {
    Stop::Event(Event::Memory(fault))
}
