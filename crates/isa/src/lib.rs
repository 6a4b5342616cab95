//! Guest instruction sets, one folder each, and the intermediate representation (IR) in which they
//! say what their instructions mean.
//!
//! Read [`ir`] first: it tells the author of a front end everything. [`riscv`] is the front end to
//! imitate. This crate does no I/O and contains no unsafe code; `jit` turns its IR into host code.

pub mod ir;
pub mod front_end;
pub mod table;
pub mod arm64;
pub mod riscv;
pub mod x86;

pub use front_end::{
    Access, Event, Fetch, FrontEnd, GuestMemory, Helper, HelperResult, Host, Key, Layout,
    MemoryFault, Physical, Pin, Prefer, Registers, Stop, Translation,
};
