//! The machine as translated code sees it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jit::{Bus, HostPage};
use memory::{AddressSpace, FlatView, Owner, PAGE_SIZE};

use crate::{Chipset, Identity};

/// I/O ports among the machine spaces of the x86 front end.
const PORT_SPACE: u32 = 0;
/// Random numbers.
const ENTROPY_SPACE: u32 = 1;
/// Registers of the local APIC.
const APIC_SPACE: u32 = 2;

/// What CPUID answers.
const IDENTITY_SPACE: u32 = isa::x86::IDENTITY_SPACE;

/// Pages that a thread remembers: enough for the page tables of a busy guest.
const PAGES: usize = 1024;

thread_local! {
    static NUMBER: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
}

/// Says which processor this thread is.
pub fn set_processor(number: usize) {
    NUMBER.set(number);
}

/// What a thread has seen of an address space: the look at it costs no shared lock.
struct Seen {
    space: Arc<AddressSpace>,
    generation: u64,
    view: Arc<FlatView>,
    /// Pages in RAM or ROM, by the low bits of their numbers; the number that is none is no page's.
    pages: Box<[(u64, HostPage)]>,
}

impl Seen {
    fn new(space: &Arc<AddressSpace>) -> Self {
        let nothing = (u64::MAX, HostPage { address: 0, writable: false });
        let pages = vec![nothing; PAGES].into();
        // A generation that never is, so that the first look is a fresh one.
        Self { space: Arc::clone(space), generation: u64::MAX, view: Arc::default(), pages }
    }

    fn refresh(&mut self) {
        let generation = self.space.generation();
        if self.generation != generation {
            self.view = self.space.view();
            self.generation = generation;
            self.pages.iter_mut().for_each(|page| page.0 = u64::MAX);
        }
    }

    fn page(&mut self, physical: u64) -> Option<HostPage> {
        self.refresh();
        let number = physical / PAGE_SIZE;
        let slot = &mut self.pages[number as usize % PAGES];
        if slot.0 != number {
            *slot = (number, host_page(&self.view, physical)?);
        }
        Some(slot.1)
    }
}

fn host_page(view: &FlatView, physical: u64) -> Option<HostPage> {
    let range = view.find(physical)?;
    if physical + (PAGE_SIZE - 1) > range.last() {
        return None; // two owners share the page: every access asks
    }
    let offset = physical - range.start + range.offset;
    let (ram, writable) = match &range.owner {
        Owner::Ram(ram) => (ram, true),
        Owner::Rom(ram) | Owner::RomDevice(ram, _) => (ram, false),
        Owner::Io(_) => return None,
    };
    let address = ram.host_address().addr().get() as u64 + offset;
    Some(HostPage { address, writable })
}

/// Looks at a space through what this thread has seen of it.
fn seen<T>(space: &Arc<AddressSpace>, look: impl FnOnce(&mut Seen) -> T) -> T {
    SEEN.with_borrow_mut(|all| {
        let known = all.iter().position(|seen| Arc::ptr_eq(&seen.space, space));
        let index = known.unwrap_or_else(|| {
            all.push(Seen::new(space));
            all.len() - 1
        });
        look(&mut all[index])
    })
}

/// The present view. Devices are called without the thread's memory of it held.
pub fn view(space: &Arc<AddressSpace>) -> Arc<FlatView> {
    seen(space, |seen| {
        seen.refresh();
        Arc::clone(&seen.view)
    })
}

/// The machine as translated code sees it.
pub struct BoardBus {
    memory: Arc<AddressSpace>,
    ports: Arc<AddressSpace>,
    chipset: Arc<dyn Chipset>,
    entropy: AtomicU64,
    identity: Option<(Arc<Identity>, isa::Host)>,
}

impl BoardBus {
    /// A view of these spaces and chips.
    pub fn new(
        memory: &Arc<AddressSpace>,
        ports: &Arc<AddressSpace>,
        chipset: &Arc<dyn Chipset>,
    ) -> Self {
        Self {
            memory: Arc::clone(memory),
            ports: Arc::clone(ports),
            chipset: Arc::clone(chipset),
            entropy: AtomicU64::new(0),
            identity: None,
        }
    }

    /// With processors that are this, on a back end that can do that.
    pub fn with_identity(mut self, identity: &Arc<Identity>, host: isa::Host) -> Self {
        self.identity = Some((Arc::clone(identity), host));
        self
    }

    /// See `isa::x86::IDENTITY_SPACE`.
    fn identity(&self, address: u64) -> Option<u64> {
        let (identity, host) = self.identity.as_ref()?;
        let native = |leaf, subleaf| isa::x86::native_identity(*host, leaf, subleaf);
        let (leaf, subleaf) = (address as u32, (address >> 32) as u32 & 0xffff);
        let [a, b, c, d] = identity.answer(&native, NUMBER.get(), leaf, subleaf)?;
        Some(match address >> 48 {
            0 => u64::from(a) | u64::from(b) << 32,
            1 => u64::from(c) | u64::from(d) << 32,
            _ => 1,
        })
    }

    /// A number that no guest can foresee: a counter under a keyed hash.
    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, RandomState};
        thread_local! {
            static KEY: RandomState = RandomState::new();
        }
        let count = self.entropy.fetch_add(1, Ordering::Relaxed);
        KEY.with(|key| key.hash_one(count))
    }
}

impl Bus for BoardBus {
    fn page(&self, physical: u64) -> Option<HostPage> {
        seen(&self.memory, |seen| seen.page(physical))
    }

    fn read(&self, physical: u64, bytes: u32) -> u64 {
        view(&self.memory).read_value(physical, bytes as u8)
    }

    fn write(&self, physical: u64, bytes: u32, value: u64) {
        view(&self.memory).write_value(physical, bytes as u8, value);
    }

    fn machine_read(&self, space: u32, address: u64, bytes: u32) -> u64 {
        match space {
            PORT_SPACE => view(&self.ports).read_value(address, bytes as u8),
            ENTROPY_SPACE => self.random(),
            IDENTITY_SPACE => self.identity(address).unwrap_or(u64::MAX),
            APIC_SPACE => self.chipset.read_apic(NUMBER.get(), address as u32),
            _ => u64::MAX,
        }
    }

    fn machine_write(&self, space: u32, address: u64, bytes: u32, value: u64) {
        match space {
            PORT_SPACE => view(&self.ports).write_value(address, bytes as u8, value),
            APIC_SPACE => self.chipset.write_apic(NUMBER.get(), address as u32, value),
            _ => {}
        }
    }

    fn clock_ns(&self) -> u64 {
        self.chipset.clock_ns()
    }
}
