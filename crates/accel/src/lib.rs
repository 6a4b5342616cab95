//! Virtual processors: threads that run guest code until the machine wants something else.
//!
//! A [`Board`] is what an accelerator must know of the machine; [`jit::JitMachine`] runs it on the
//! translator, [`kvm::KvmMachine`] on KVM. One thread a vCPU; the machine steers them through
//! [`Processors`].

pub mod identity;
pub mod inspect;
pub mod jit;
pub mod kvm;

mod board_bus;
mod processor;
mod saved;

use std::sync::Arc;

use memory::AddressSpace;

pub use ::jit::Options as TranslatorOptions;
pub use identity::{Identity, Topology};
pub use inspect::{DebugStop, Inspect, Pace, Registers, SegmentRegister};
pub use processor::{Pending, Processor, Processors};
pub use saved::{SavedError, SavedProcessor};

/// What an accelerator must know of the machine.
pub struct Board {
    /// Guest physical memory.
    pub memory: Arc<AddressSpace>,
    /// I/O ports, as addresses.
    pub ports: Arc<AddressSpace>,
    /// Interrupts and time.
    pub chipset: Arc<dyn Chipset>,
    /// What the processors say of themselves.
    pub identity: Arc<Identity>,
}

/// The machine's side of a vCPU. Called from vCPU threads, without any lock held.
pub trait Chipset: Send + Sync {
    /// This thread now runs vCPU `number`.
    fn enter(&self, number: usize);
    /// Whether vCPU `number` has an interrupt to take.
    fn is_pending(&self, number: usize) -> bool;
    /// vCPU `number` takes its interrupt: the vector.
    fn acknowledge(&self, number: usize) -> Option<u8>;
    /// A model-specific register of the local APIC.
    fn read_apic(&self, number: usize, register: u32) -> u64;
    /// The same, written.
    fn write_apic(&self, number: usize, register: u32, value: u64);
    /// Nanoseconds of guest time.
    fn clock_ns(&self) -> u64;
    /// vCPU `number` has failed three times over: on a PC the board resets.
    fn triple_fault(&self, number: usize);
    /// A local APIC outside of the board has ended a level-triggered interrupt.
    fn ended(&self, vector: u8);
    /// vCPU `number` has stopped for the debugger, and stands.
    fn stopped(&self, number: usize, stop: DebugStop);
    /// The accelerator cannot go on with this guest: why.
    fn failed(&self, text: &str);
}
