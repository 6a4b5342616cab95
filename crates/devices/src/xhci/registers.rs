//! The register machine: capability, operational, port, runtime and doorbell registers. xHCI 5.

use std::sync::Arc;

use memory::FlatView;

use super::events::Interrupter;
use super::slots::Slot;
use super::transfers::{self, Completion};
use super::trb::{self, Ring, Trb};
use crate::usb::{RootHub, Speed};

/// Slots for devices.
pub const SLOTS: usize = 64;
/// Interrupters, and MSI-X vectors.
pub const INTERRUPTERS: usize = 16;

const CAPABILITY_BYTES: u64 = 0x40;
const PORTS_AT: u64 = 0x440;
const RUNTIME: u64 = 0x1000;
const DOORBELLS: u64 = 0x2000;

const RUN: u32 = 1;
const RESET: u32 = 1 << 1;
const INTERRUPTS: u32 = 1 << 2;
const COMMAND_WRITABLE: u32 = 0xf0d;

const HALTED: u32 = 1;
const EVENT: u32 = 1 << 3;
const PORT_CHANGE: u32 = 1 << 4;

const CONNECTED: u32 = 1;
const ENABLED: u32 = 1 << 1;
const PORT_RESET: u32 = 1 << 4;
const LINK: u32 = 15 << 5;
const LINK_DISABLED: u32 = 5 << 5;
const LINK_POLLING: u32 = 7 << 5;
const POWER: u32 = 1 << 9;
const LINK_WRITE: u32 = 1 << 16;
const CONNECT_CHANGE: u32 = 1 << 17;
const RESET_CHANGE: u32 = 1 << 21;
const WARM_RESET: u32 = 1 << 31;
/// Bits that writing a one clears.
const CHANGES: u32 = 0xfe_0000;
const WAKES: u32 = 0x0e00_0000;

/// Commands that are carried out for one doorbell.
const COMMANDS_MAX: usize = 256;

/// The controller.
#[derive(Clone)]
pub struct Xhci {
    hub: Arc<RootHub>,
    /// How many ports are of USB 2; the others are of USB 3.
    usb2: usize,
    ports: Box<[u32]>,
    command: u32,
    status: u32,
    notifications: u32,
    command_ring: u64,
    ring: Ring,
    ring_runs: bool,
    contexts: u64,
    config: u32,
    slots: Box<[Option<Slot>]>,
    interrupters: Box<[Interrupter]>,
}

device::saved!(Xhci {
    ports,
    command,
    status,
    notifications,
    command_ring,
    ring,
    ring_runs,
    contexts,
    config,
    slots,
    interrupters,
});

impl Xhci {
    /// A controller before these ports.
    #[must_use]
    pub fn new(hub: Arc<RootHub>, usb2: usize, ports: usize) -> Self {
        let mut xhci = Self {
            hub,
            usb2,
            ports: vec![POWER | LINK_DISABLED; ports].into(),
            command: 0,
            status: HALTED,
            notifications: 0,
            command_ring: 0,
            ring: Ring::default(),
            ring_runs: false,
            contexts: 0,
            config: 0,
            slots: vec![None; SLOTS + 1].into(),
            interrupters: vec![Interrupter::default(); INTERRUPTERS].into(),
        };
        (0..ports).for_each(|port| xhci.look(port));
        xhci
    }

    /// As after power-on, with the same devices.
    pub fn reset(&mut self) {
        *self = Self::new(Arc::clone(&self.hub), self.usb2, self.ports.len());
    }

    /// Interrupters that ask for an interrupt now.
    pub fn pending(&self) -> Vec<usize> {
        if self.command & INTERRUPTS == 0 {
            return Vec::new();
        }
        let all = self.interrupters.iter().enumerate();
        all.filter(|(_, interrupter)| interrupter.is_pending()).map(|(at, _)| at).collect()
    }

    /// An interrupter's message was sent.
    pub fn was_sent(&mut self, interrupter: usize) {
        self.interrupters[interrupter].was_sent();
    }

    /// Brings a port's connection in line with what is plugged in.
    fn look(&mut self, port: usize) {
        let device = self.hub.get(port);
        let now = &mut self.ports[port];
        let before = *now & CONNECTED != 0;
        *now &= !(CONNECTED | ENABLED | LINK | 15 << 10);
        match &device {
            Some(device) => {
                let speed = match device.speed() {
                    Speed::Full => 1,
                    Speed::High => 3,
                };
                *now |= CONNECTED | LINK_POLLING | speed << 10;
            }
            None => *now |= LINK_DISABLED,
        }
        if before != device.is_some() {
            *now |= CONNECT_CHANGE;
        }
    }

    /// Something was plugged into a port, or out of it.
    pub fn changed(&mut self, memory: Option<&FlatView>, port: usize) {
        self.look(port);
        self.tell_port(memory, port);
    }

    fn tell_port(&mut self, memory: Option<&FlatView>, port: usize) {
        self.status |= PORT_CHANGE;
        let parameter = (port as u64 + 1) << 24;
        let status = u32::from(trb::SUCCESS) << 24;
        let control = u32::from(trb::PORT_EVENT) << 10;
        self.tell(memory, 0, Trb { parameter, status, control });
    }

    fn tell(&mut self, memory: Option<&FlatView>, interrupter: usize, event: Trb) {
        let Some(memory) = memory.filter(|_| self.status & HALTED == 0) else { return };
        if let Some(interrupter) = self.interrupters.get_mut(interrupter) {
            interrupter.add(memory, event);
            self.status |= EVENT;
        }
    }

    /// Reads a register of four bytes.
    #[must_use]
    pub fn read(&self, at: u64, now_ns: u64) -> u32 {
        match at {
            0x00 => 0x0100 << 16 | CAPABILITY_BYTES as u32,
            0x04 => (self.ports.len() as u32) << 24 | (INTERRUPTERS as u32) << 8 | SLOTS as u32,
            0x08 => 0x0f,
            0x10 => 8 << 16 | 1, // extended capabilities at 0x20; 64-bit addresses
            0x14 => DOORBELLS as u32,
            0x18 => RUNTIME as u32,
            // Which ports speak which protocol.
            0x20 => 0x0200 << 16 | 4 << 8 | 2,
            0x24 | 0x34 => u32::from_le_bytes(*b"USB "),
            0x28 => (self.usb2 as u32) << 8 | 1,
            0x30 => 0x0300 << 16 | 2,
            0x38 => ((self.ports.len() - self.usb2) as u32) << 8 | (self.usb2 as u32 + 1),
            0x40 => self.command,
            0x44 => self.status,
            0x48 => 1, // pages of 4 KiB
            0x54 => self.notifications,
            0x58 => u32::from(self.ring_runs) << 3,
            0x70 => self.contexts as u32,
            0x74 => (self.contexts >> 32) as u32,
            0x78 => self.config,
            PORTS_AT..RUNTIME => {
                let port = ((at - PORTS_AT) / 16) as usize;
                let status = self.ports.get(port).filter(|_| at.is_multiple_of(16));
                status.copied().unwrap_or(0)
            }
            RUNTIME..DOORBELLS => {
                let interrupter = at.checked_sub(RUNTIME + 0x20).map(|at| (at / 32, at % 32));
                let microframes = if at == RUNTIME { now_ns / 125_000 } else { 0 };
                interrupter.map_or(microframes as u32 & 0x3fff, |(number, register)| {
                    let interrupter = self.interrupters.get(number as usize);
                    interrupter.map_or(0, |interrupter| interrupter.read(register))
                })
            }
            _ => 0,
        }
    }

    /// Writes a register of four bytes.
    pub fn write(&mut self, memory: Option<&FlatView>, at: u64, value: u32) {
        let low = |now: u64, mask: u32| now & !0xffff_ffff | u64::from(value & mask);
        let high = |now: u64| now & 0xffff_ffff | u64::from(value) << 32;
        match at {
            0x40 => {
                if value & RESET != 0 {
                    return self.reset();
                }
                self.command = value & COMMAND_WRITABLE;
                let halted = if value & RUN == 0 { HALTED } else { 0 };
                let starts = self.status & HALTED != 0 && halted == 0;
                self.status = self.status & !HALTED | halted;
                if starts {
                    let changed = |port: &usize| self.ports[*port] & CHANGES != 0;
                    let ports: Vec<usize> = (0..self.ports.len()).filter(changed).collect();
                    ports.into_iter().for_each(|port| self.tell_port(memory, port));
                }
            }
            0x44 => self.status &= !(value & (EVENT | PORT_CHANGE | 0x404)),
            0x54 => self.notifications = value & 0xffff,
            0x58 => {
                self.command_ring = low(self.command_ring, !0);
                if value & 6 != 0 {
                    self.ring_runs = false; // stop, abort: nothing is ever under way
                }
            }
            0x5c => {
                self.command_ring = high(self.command_ring);
                if !self.ring_runs {
                    self.ring = Ring::new(self.command_ring & !14);
                }
            }
            0x70 => self.contexts = low(self.contexts, !63),
            0x74 => self.contexts = high(self.contexts),
            0x78 => self.config = value & 0xff,
            PORTS_AT..RUNTIME if at.is_multiple_of(16) => {
                self.write_port(memory, ((at - PORTS_AT) / 16) as usize, value);
            }
            RUNTIME..DOORBELLS => {
                if let Some(at) = at.checked_sub(RUNTIME + 0x20)
                    && let Some(interrupter) = self.interrupters.get_mut((at / 32) as usize)
                {
                    interrupter.write(at % 32, value);
                }
            }
            DOORBELLS.. => {
                let slot = ((at - DOORBELLS) / 4) as usize;
                let Some(memory) = memory.filter(|_| self.status & HALTED == 0) else { return };
                match slot {
                    0 => self.run_commands(memory),
                    _ => self.run_endpoint(memory, slot, (value & 31) as usize),
                }
            }
            _ => {}
        }
    }

    fn write_port(&mut self, memory: Option<&FlatView>, number: usize, value: u32) {
        let Some(port) = self.ports.get_mut(number) else { return };
        *port &= !(value & CHANGES);
        *port = *port & !WAKES | value & WAKES;
        if value & ENABLED != 0 && *port & ENABLED != 0 {
            *port &= !ENABLED; // writing a one switches it off
        }
        if value & LINK_WRITE != 0 {
            *port = *port & !LINK | value & LINK;
        }
        if value & (PORT_RESET | WARM_RESET) != 0 {
            if let Some(device) = self.hub.get(number) {
                device.reset();
                *port = *port & !LINK | ENABLED;
            }
            *port |= RESET_CHANGE;
            self.tell_port(memory, number);
        }
    }

    fn run_commands(&mut self, memory: &FlatView) {
        self.ring_runs = true;
        for _ in 0..COMMANDS_MAX {
            let Some((block, at, behind)) = self.ring.next(memory) else { return };
            self.ring = behind;
            let (code, slot) = self.carry_out(memory, &block);
            let event = Trb {
                parameter: at,
                status: u32::from(code) << 24,
                control: u32::from(trb::COMMAND_EVENT) << 10 | u32::from(slot) << 24,
            };
            self.tell(Some(memory), 0, event);
        }
    }

    fn carry_out(&mut self, memory: &FlatView, block: &Trb) -> (u8, u8) {
        let number = (block.control >> 24) as u8;
        let input = block.parameter & !15;
        let flag = block.control & 1 << 9 != 0;
        let endpoint = (block.control >> 16 & 31) as usize;
        if block.kind() == trb::ENABLE_SLOT {
            let free = (1..=SLOTS).find(|slot| self.slots[*slot].is_none());
            let Some(free) = free else { return (trb::NO_SLOTS, 0) };
            self.slots[free] = Some(Slot::default());
            return (trb::SUCCESS, free as u8);
        }
        if block.kind() == trb::NO_OP_COMMAND {
            return (trb::SUCCESS, 0);
        }
        let contexts = self.contexts;
        let Some(place) = self.slots.get_mut(usize::from(number)) else {
            return (trb::SLOT_OFF, number);
        };
        if block.kind() == trb::DISABLE_SLOT {
            let code = if place.take().is_some() { trb::SUCCESS } else { trb::SLOT_OFF };
            return (code, number);
        }
        let Some(slot) = place else { return (trb::SLOT_OFF, number) };
        let code = match block.kind() {
            trb::ADDRESS_DEVICE => {
                let entry = contexts.wrapping_add(8 * u64::from(number));
                slot.context = memory.read_value(entry, 8) & !63;
                slot.address(memory, input, number, flag)
            }
            trb::CONFIGURE => slot.configure(memory, input, number, flag),
            trb::EVALUATE => slot.evaluate(memory, input),
            trb::RESET_DEVICE => slot.reset(memory),
            kind @ (trb::RESET_ENDPOINT | trb::STOP_ENDPOINT | trb::SET_DEQUEUE) => {
                let stops = kind == trb::STOP_ENDPOINT;
                let at = slot.endpoints.get(endpoint).map_or(0, |endpoint| endpoint.ring.at);
                let code = slot.command(memory, endpoint, kind, block.parameter);
                if stops && code == trb::SUCCESS {
                    // Where the ring stands, for whoever wants to go on elsewhere.
                    let stopped = Completion {
                        parameter: at,
                        code: trb::STOPPED,
                        left: 0,
                        is_data: false,
                        target: 0,
                    };
                    self.tell_transfer(memory, usize::from(number), endpoint, stopped);
                }
                code
            }
            _ => trb::TRB_ERROR,
        };
        (code, number)
    }

    fn tell_transfer(&mut self, memory: &FlatView, slot: usize, endpoint: usize, done: Completion) {
        let Completion { parameter, code, left, is_data, target } = done;
        let event = Trb {
            parameter,
            status: left & 0xff_ffff | u32::from(code) << 24,
            control: u32::from(trb::TRANSFER_EVENT) << 10
                | u32::from(is_data) << 2
                | (endpoint as u32) << 16
                | (slot as u32) << 24,
        };
        self.tell(Some(memory), usize::from(target), event);
    }

    fn run_endpoint(&mut self, memory: &FlatView, number: usize, index: usize) {
        let Some(Some(slot)) = self.slots.get_mut(number) else { return };
        let device = self.hub.get(slot.port);
        let Some(endpoint) = slot.endpoints.get_mut(index).filter(|endpoint| endpoint.state != 0)
        else {
            return;
        };
        if endpoint.state == super::slots::ENDPOINT_STOPPED {
            endpoint.state = super::slots::RUNNING; // a doorbell starts it again
        }
        let completions = transfers::run(memory, index, endpoint, device.as_deref());
        slot.publish(memory, index);
        for completion in completions {
            self.tell_transfer(memory, number, index, completion);
        }
    }

    /// A device has data: the endpoints that wait for some look again.
    pub fn has_data(&mut self, memory: Option<&FlatView>, port: usize) {
        let Some(memory) = memory.filter(|_| self.status & HALTED == 0) else { return };
        for number in 1..=SLOTS {
            let Some(Some(slot)) = self.slots.get(number) else { continue };
            if slot.port != port {
                continue;
            }
            let waits = |index: &usize| {
                let endpoint = &slot.endpoints[*index];
                endpoint.state == super::slots::RUNNING && matches!(endpoint.kind, 6 | 7)
            };
            let waiting: Vec<usize> = (3..32).step_by(2).filter(waits).collect();
            waiting.into_iter().for_each(|index| self.run_endpoint(memory, number, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use memory::{AddressSpace, Owner, Ram, Region};

    use super::*;

    fn fixture() -> (Xhci, Arc<FlatView>) {
        let space = AddressSpace::new();
        let ram = Arc::new(Ram::new("ram", 0x10000).unwrap());
        space.add(Region::new("ram", 0, 0x10000, Owner::Ram(ram)));
        (Xhci::new(RootHub::new(4), 2, 4), space.view())
    }

    fn set_up(xhci: &mut Xhci, memory: &FlatView) {
        memory.write_value(0x1000, 8, 0x2000); // one segment of 16 events
        memory.write_value(0x1008, 4, 16);
        let memory = Some(memory);
        for (at, value) in [
            (0x1028, 1),
            (0x1030, 0x1000),
            (0x1034, 0),
            (0x1038, 0x2000),
            (0x1020, 2),
            (0x58, 0x3001),
            (0x5c, 0),
            (0x70, 0x4000),
            (0x74, 0),
            (0x78, 8),
            (0x40, 5),
        ] {
            xhci.write(memory, at, value);
        }
    }

    #[test]
    fn a_command_is_answered_by_an_event_and_an_interrupt() {
        let (mut xhci, memory) = fixture();
        set_up(&mut xhci, &memory);
        let enable = Trb { control: u32::from(trb::ENABLE_SLOT) << 10 | 1, ..Trb::default() };
        enable.write(&memory, 0x3000);
        xhci.write(Some(&memory), DOORBELLS, 0);
        let event = Trb::read(&memory, 0x2000);
        assert_eq!((event.parameter, event.kind()), (0x3000, trb::COMMAND_EVENT));
        assert_eq!((event.status >> 24, event.control >> 24), (1, 1));
        assert_eq!(xhci.pending(), [0]);
        xhci.was_sent(0);
        assert!(xhci.pending().is_empty());
    }

    #[test]
    fn random_registers_and_rings_break_nothing() {
        let (mut xhci, memory) = fixture();
        let mut seed = 17_u64;
        for round in 0..40_000_u64 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            memory.write_value(seed >> 30 & 0xfff8, 8, seed.rotate_left(9) & 0xff00_fc01_0000_fff1);
            if round % 500 == 0 {
                set_up(&mut xhci, &memory);
            }
            let at = match seed >> 62 {
                0 => seed >> 50 & 0xffc,
                1 => RUNTIME + (seed >> 50 & 0xfc),
                _ => DOORBELLS + (seed >> 50 & 0x1c),
            };
            xhci.write(Some(&memory), at, (seed >> 13) as u32 & 0xffff_0fff & !RESET);
            _ = xhci.read(at, round);
        }
    }
}
