//! What the engine must know of the world: memory and the machine.

use isa::{Access, MemoryFault};

/// Where guest memory is.
pub enum Space {
    /// User mode: guest addresses are host addresses.
    User(Box<dyn UserSpace>),
    /// System mode: guest physical memory and devices.
    System(Box<dyn Bus>),
}

/// The address space of a user-mode program, as its mapper knows it.
///
/// Called with the translator's lock held: implementations must not call the engine.
pub trait UserSpace: Send + Sync {
    /// Whether guest code may be fetched at this address.
    fn executable(&self, address: u64) -> bool;
    /// Code was translated from this 4 KiB page: writes to it must fault from now on.
    fn protect_code(&self, page: u64);
    /// A write to this address faulted. `true`: only because of `protect_code`, and the page is
    /// writable again.
    fn unprotect_code(&self, address: u64) -> bool;
    /// `GuestMemory::machine_read` of a program: what its front end wants of the world (x86: space
    /// 1 is random numbers).
    fn machine_read(&self, _space: u32, _address: u64, _bytes: u32) -> u64 {
        u64::MAX
    }
}

/// A program's address space in which all is code and nothing of it is ever written: of tests, listings
/// and figures.
#[derive(Clone, Copy, Default, Debug)]
pub struct Unwatched;

impl UserSpace for Unwatched {
    fn executable(&self, _: u64) -> bool {
        true
    }

    fn protect_code(&self, _: u64) {}

    fn unprotect_code(&self, _: u64) -> bool {
        false
    }
}

/// Guest physical memory and devices of a machine. All methods may be called by any vCPU at any
/// time, in parallel.
pub trait Bus: Send + Sync {
    /// The host address of the guest physical 4 KiB page, if it is RAM or ROM, and whether guest
    /// stores go straight to it. It must stay valid until `Engine::flush_tlbs` was called after a
    /// change.
    fn page(&self, physical: u64) -> Option<HostPage>;
    /// A load from a device.
    fn read(&self, physical: u64, bytes: u32) -> u64;
    /// A store to a device, or to a page that is not writable (ROM, dirty tracking).
    fn write(&self, physical: u64, bytes: u32, value: u64);
    /// `GuestMemory::machine_read`: x86's I/O ports.
    fn machine_read(&self, space: u32, address: u64, bytes: u32) -> u64;
    /// The same, written.
    fn machine_write(&self, space: u32, address: u64, bytes: u32, value: u64);
    /// Nanoseconds of guest time.
    fn clock_ns(&self) -> u64;
}

/// A page of guest memory in host memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostPage {
    /// The host address of its first byte.
    pub address: u64,
    /// Guest stores go straight to it.
    pub writable: bool,
}

/// A fault at an address.
pub(crate) fn fault(address: u64, access: Access) -> MemoryFault {
    MemoryFault { address, access, detail: 0 }
}
