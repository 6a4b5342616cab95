//! The dynamic binary translator: IR to host code, code cache, soft MMU.
//!
//! # The face
//! An [`Engine`] is made of a front end ([`isa::FrontEnd`]) and a [`Space`]: a user-mode address
//! space, or a machine's [`Bus`]. Each vCPU thread makes a [`Vcpu`] of it, sets its registers
//! through [`Vcpu::state_mut`], and calls [`Vcpu::run`] until [`Exit`] says that something happened
//! that the guest does not handle itself. [`Kick`] makes `run` return, from any thread (an
//! interrupt is pending: look, inject through the front end, run again).
//!
//! ```text
//! let engine = Engine::new(front_end, Space::System(Box::new(bus)), Options::detect())?;
//! let mut vcpu = Vcpu::new(&engine)?;
//! loop { match vcpu.run() { Exit::Kicked => .., Exit::Event(Event::Halt) => .., .. } }
//! ```
//!
//! In system mode `engine.invalidate(physical range)` tells of changes to RAM behind the CPUs' back
//! (DMA into code), `engine.flush_tlbs()` of a changed memory map, `vcpu.flush_tlb` of page tables.
//! Stores by vCPUs to translated code are noticed without help.
//!
//! # Threads
//! vCPUs run in parallel. Translation takes one lock; running translated code takes none.

mod engine;
mod faults;
mod host;
mod interpret;
mod mapping;
mod raw;
mod second_tier;
mod space;
mod stops;
mod translator;
mod vcpu;

pub use engine::{Engine, Options};
pub use faults::hand_on_sent;
pub use host::x86_64::Features;
pub use second_tier::SecondTier;
pub use space::{Bus, HostPage, Space, Unwatched, UserSpace};
pub use stops::Watch;
pub use translator::Counters;
pub use vcpu::{Exit, Kick, Vcpu};
