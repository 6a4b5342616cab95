//! A machine: a board with its chips, what it boots, and its run state.
//!
//! [`Machine::new`] builds it from a [`Config`], [`Machine::run`] is its main loop: it rings timers
//! and does what the guest or the outside asks for (reset, power-off, pause) until it ends.

mod acpi;
mod boot;
mod board;
mod main_loop;
mod power;
mod run_state;

pub use accel::TranslatorOptions;
pub use devices::catalog;
pub use board::{Config, Machine, MachineError};
pub use boot::{BootError, Kernel};
pub use main_loop::{End, Request, Requests};
pub use run_state::{Actions, Cause, MachineEvent, Observer, RunControl, RunState};
