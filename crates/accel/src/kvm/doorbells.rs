//! Doorbells: writes that the kernel takes without stopping the guest (ioeventfd). A thread of their
//! own carries them out.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use memory::{AddressSpace, FlatView, Listener, Owner};
use parking_lot::Mutex;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::board_bus::view;

/// Of one device: no queue of a device is left out by it.
const COUNT_MAX: u64 = 64;
/// Of all: the kernel's limit is a thousand for all that lies on its bus.
const ALL_MAX: usize = 512;
const EVENTS_MAX: usize = 32;
/// The end of the thread; no register lies there.
const QUIT: u64 = u64::MAX;

/// All doorbells of a machine, by their addresses.
pub struct Doorbells {
    vm: Arc<VmFd>,
    memory: Arc<AddressSpace>,
    epoll: Epoll,
    quit: EventFd,
    bells: Mutex<BTreeMap<u64, EventFd>>,
}

impl Doorbells {
    /// Starts the thread.
    pub fn start(
        vm: &Arc<VmFd>,
        memory: &Arc<AddressSpace>,
    ) -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let doorbells = Arc::new(Self {
            vm: Arc::clone(vm),
            memory: Arc::clone(memory),
            epoll: Epoll::new()?,
            quit: EventFd::new(EFD_NONBLOCK)?,
            bells: Mutex::default(),
        });
        doorbells.watch(&doorbells.quit, QUIT)?;
        memory.listen(Arc::clone(&doorbells) as _);
        let own = Arc::clone(&doorbells);
        let thread = thread::Builder::new().name("doorbells".to_owned());
        Ok((doorbells, thread.spawn(move || own.run())?))
    }

    /// Ends the thread.
    pub fn quit(&self) {
        // A counter that was zero takes a one.
        _ = self.quit.write(1);
    }

    fn watch(&self, bell: &EventFd, token: u64) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, token);
        self.epoll.ctl(ControlOperation::Add, bell.as_raw_fd(), event)
    }

    fn run(&self) {
        let mut events = [EpollEvent::default(); EVENTS_MAX];
        loop {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                let address = event.data();
                if address == QUIT {
                    return;
                }
                // One that has gone meanwhile is nobody's.
                let rings = self.bells.lock().get(&address).is_some_and(|bell| bell.read().is_ok());
                if rings {
                    view(&self.memory).write_value(address, 2, 0);
                }
            }
        }
    }

    /// One more. Where the kernel has no room, vCPUs carry the writes out themselves.
    fn add(&self, address: u64, bells: &mut BTreeMap<u64, EventFd>) {
        let Ok(bell) = EventFd::new(EFD_NONBLOCK) else { return };
        let place = IoEventAddress::Mmio(address);
        if self.watch(&bell, address).is_err() {
            return;
        }
        if self.vm.register_ioevent(&bell, &place, NoDatamatch).is_ok() {
            bells.insert(address, bell);
        }
    }
}

impl Listener for Doorbells {
    fn changed(&self, _before: &FlatView, after: &FlatView) {
        let mut wanted = Vec::new();
        for range in after.ranges() {
            let Owner::Io(io) = &range.owner else { continue };
            let Some(row) = io.doorbells() else { continue };
            for number in 0..row.count.min(COUNT_MAX) {
                let offset = row.offset + number * row.stride;
                let within = offset.checked_sub(range.offset);
                wanted.extend(within.filter(|at| *at < range.length).map(|at| range.start + at));
            }
        }
        wanted.sort_unstable();
        wanted.truncate(ALL_MAX);
        let mut bells = self.bells.lock();
        let gone = bells.extract_if(.., |address, _| wanted.binary_search(address).is_err());
        for (address, bell) in gone {
            let place = IoEventAddress::Mmio(address);
            _ = self.vm.unregister_ioevent(&bell, &place, NoDatamatch);
        }
        for address in wanted {
            if !bells.contains_key(&address) {
                self.add(address, &mut bells);
            }
        }
    }
}
