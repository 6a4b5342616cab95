//! Device slots and their endpoints: what commands do to contexts. xHCI 4.5, 4.6, 6.2.

use memory::FlatView;

use super::trb::{self, Ring};

/// States of an endpoint.
pub const RUNNING: u8 = 1;
pub const HALTED: u8 = 2;
pub const ENDPOINT_STOPPED: u8 = 3;

/// Bytes of a context.
const CONTEXT: u64 = 32;

/// An endpoint.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// 0 for off.
    pub state: u8,
    /// Kind: 3 and 7 interrupt, 4 control, 2 and 6 bulk.
    pub kind: u8,
    /// Where its next transfer is.
    pub ring: Ring,
    /// A setup packet whose stages follow.
    pub setup: Option<[u8; 8]>,
    /// Data of a control transfer: from the device, or for it.
    pub data: Vec<u8>,
    /// The data has been asked for already.
    pub answered: bool,
}

device::saved!(Endpoint { state, kind, ring, setup, data, answered });

/// A slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Where its device context is.
    pub context: u64,
    /// The port of its device, from 0.
    pub port: usize,
    /// By device context index; the first one is not used.
    pub endpoints: Box<[Endpoint]>,
}

device::saved!(Slot { context, port, endpoints });

impl Default for Slot {
    fn default() -> Self {
        Self { context: 0, port: usize::MAX, endpoints: vec![Endpoint::default(); 32].into() }
    }
}

impl Slot {
    fn context_of(&self, index: usize) -> u64 {
        self.context.wrapping_add(CONTEXT * index as u64)
    }

    /// Writes an endpoint's state where the system sees it.
    pub fn publish(&self, memory: &FlatView, index: usize) {
        let (at, endpoint) = (self.context_of(index), &self.endpoints[index]);
        let first = memory.read_value(at, 4) & !7 | u64::from(endpoint.state);
        memory.write_value(at, 4, first);
        memory.write_value(at.wrapping_add(8), 8, endpoint.ring.pointer());
    }

    /// Takes an endpoint over from an input context.
    fn load(&mut self, memory: &FlatView, input: u64, index: usize) {
        let from = input.wrapping_add(CONTEXT * (index as u64 + 1));
        let mut bytes = [0; CONTEXT as usize];
        memory.read(from, &mut bytes);
        memory.write(self.context_of(index), &bytes);
        let pointer = memory.read_value(from.wrapping_add(8), 8);
        self.endpoints[index] = Endpoint {
            state: RUNNING,
            kind: bytes[4] >> 3 & 7,
            ring: Ring::new(pointer),
            ..Endpoint::default()
        };
        self.publish(memory, index);
    }

    fn set_state(&self, memory: &FlatView, state: u64, address: u64) {
        let at = self.context.wrapping_add(12);
        memory.write_value(at, 4, state << 27 | address);
    }

    /// Address Device: the default endpoint starts. `quiet` leaves the device without an address.
    pub fn address(&mut self, memory: &FlatView, input: u64, number: u8, quiet: bool) -> u8 {
        let flags = memory.read_value(input.wrapping_add(4), 4);
        if flags & 3 != 3 {
            return trb::PARAMETER_ERROR;
        }
        let mut bytes = [0; CONTEXT as usize];
        memory.read(input.wrapping_add(CONTEXT), &mut bytes);
        let Some(port) = usize::from(bytes[6]).checked_sub(1) else {
            return trb::PARAMETER_ERROR;
        };
        self.port = port;
        memory.write(self.context, &bytes);
        self.load(memory, input, 1);
        let (state, address) = if quiet { (1, 0) } else { (2, u64::from(number)) };
        self.set_state(memory, state, address);
        trb::SUCCESS
    }

    /// Configure Endpoint.
    pub fn configure(&mut self, memory: &FlatView, input: u64, number: u8, off: bool) -> u8 {
        if self.port == usize::MAX {
            return trb::STATE_ERROR;
        }
        if off {
            for index in 2..32 {
                self.endpoints[index] = Endpoint::default();
                self.publish(memory, index);
            }
            self.set_state(memory, 2, u64::from(number));
            return trb::SUCCESS;
        }
        let drops = memory.read_value(input, 4);
        let adds = memory.read_value(input.wrapping_add(4), 4);
        for index in 2..32 {
            if drops >> index & 1 != 0 {
                self.endpoints[index] = Endpoint::default();
                self.publish(memory, index);
            }
            if adds >> index & 1 != 0 {
                self.load(memory, input, index);
            }
        }
        let entries = memory.read_value(input.wrapping_add(CONTEXT), 4) & 0xf800_0000;
        let first = memory.read_value(self.context, 4) & 0x07ff_ffff | entries;
        memory.write_value(self.context, 4, first);
        self.set_state(memory, 3, u64::from(number));
        trb::SUCCESS
    }

    /// Evaluate Context: the size of the default endpoint's packets, the latency.
    pub fn evaluate(&self, memory: &FlatView, input: u64) -> u8 {
        let adds = memory.read_value(input.wrapping_add(4), 4);
        if adds & 1 != 0 {
            let at = self.context.wrapping_add(4);
            let latency = memory.read_value(input.wrapping_add(CONTEXT + 4), 2);
            memory.write_value(at, 2, latency);
            let target = memory.read_value(input.wrapping_add(CONTEXT + 8), 4);
            memory.write_value(self.context.wrapping_add(8), 4, target);
        }
        if adds & 2 != 0 {
            let size = memory.read_value(input.wrapping_add(2 * CONTEXT + 6), 2);
            memory.write_value(self.context_of(1).wrapping_add(6), 2, size);
        }
        trb::SUCCESS
    }

    /// Reset Endpoint, Stop Endpoint, Set TR Dequeue Pointer: from a state to another.
    pub fn command(&mut self, memory: &FlatView, index: usize, command: u8, pointer: u64) -> u8 {
        let Some(endpoint) = self.endpoints.get_mut(index).filter(|endpoint| endpoint.state != 0)
        else {
            return trb::STATE_ERROR;
        };
        match (command, endpoint.state) {
            (trb::RESET_ENDPOINT, HALTED) | (trb::STOP_ENDPOINT, RUNNING) => {
                endpoint.state = ENDPOINT_STOPPED;
            }
            (trb::SET_DEQUEUE, ENDPOINT_STOPPED) => {
                // Streams are not announced, so bits 1 to 3 mean nothing.
                endpoint.ring = Ring::new(pointer & !14);
                (endpoint.setup, endpoint.answered) = (None, false);
            }
            _ => return trb::STATE_ERROR,
        }
        self.publish(memory, index);
        trb::SUCCESS
    }

    /// Reset Device: only the default endpoint is left.
    pub fn reset(&mut self, memory: &FlatView) -> u8 {
        for index in 2..32 {
            if self.endpoints[index].state != 0 {
                self.endpoints[index] = Endpoint::default();
                self.publish(memory, index);
            }
        }
        self.set_state(memory, 1, 0);
        trb::SUCCESS
    }
}
