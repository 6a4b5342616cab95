//! Transfers: from an endpoint's ring to its device and back. xHCI 4.11.

use memory::FlatView;

use super::slots::{Endpoint, HALTED, RUNNING};
use super::trb::{self, Trb};
use crate::usb::{Setup, UsbDevice};

/// Blocks that are looked at for one doorbell: a ring that runs in a circle ends here.
const BLOCKS_MAX: usize = 1024;
/// Bytes of one block, and of the data of a control transfer.
const BYTES_MAX: usize = 1 << 17;

/// An event for the system: the block, its completion, what was left of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The block, or its data for an event-data block.
    pub parameter: u64,
    /// See `trb`.
    pub code: u8,
    /// Bytes that did not move.
    pub left: u32,
    /// `parameter` is data.
    pub is_data: bool,
    /// The interrupter.
    pub target: u16,
}

/// Works on an endpoint's ring until it is empty, or the device has nothing more.
pub fn run(
    memory: &FlatView,
    index: usize,
    endpoint: &mut Endpoint,
    device: Option<&dyn UsbDevice>,
) -> Vec<Completion> {
    let mut completions = Vec::new();
    for _ in 0..BLOCKS_MAX {
        if endpoint.state != RUNNING {
            break;
        }
        let Some((block, at, behind)) = endpoint.ring.next(memory) else { break };
        let Some(device) = device else { break };
        let done = match block.kind() {
            trb::SETUP => {
                endpoint.setup = Some(block.parameter.to_le_bytes());
                (endpoint.answered, endpoint.data) = (false, Vec::new());
                Done::well(0)
            }
            trb::DATA => data_stage(memory, endpoint, device, &block),
            trb::STATUS => status_stage(endpoint, device),
            trb::NORMAL => match normal(memory, index, device, &block) {
                Some(done) => done,
                None => break, // later
            },
            trb::EVENT_DATA => Done::well(0),
            _ => Done { code: trb::TRB_ERROR, left: 0 },
        };
        endpoint.ring = behind;
        let told = block.control & trb::ON_COMPLETION != 0
            || done.code != trb::SUCCESS && done.code != trb::SHORT_PACKET
            || done.code == trb::SHORT_PACKET && block.control & trb::ON_SHORT != 0;
        if told {
            let is_data = block.kind() == trb::EVENT_DATA;
            completions.push(Completion {
                parameter: if is_data { block.parameter } else { at },
                code: done.code,
                left: done.left,
                is_data,
                target: (block.status >> 22) as u16,
            });
        }
        if !matches!(done.code, trb::SUCCESS | trb::SHORT_PACKET) {
            endpoint.state = HALTED;
        }
    }
    completions
}

struct Done {
    code: u8,
    left: u32,
}

impl Done {
    fn well(left: u32) -> Self {
        Self { code: if left == 0 { trb::SUCCESS } else { trb::SHORT_PACKET }, left }
    }

    fn stalled() -> Self {
        Self { code: trb::STALL, left: 0 }
    }
}

fn length(block: &Trb) -> usize {
    ((block.status & 0x1_ffff) as usize).min(BYTES_MAX)
}

/// The bytes of an outgoing block.
fn outgoing(memory: &FlatView, block: &Trb) -> Vec<u8> {
    let length = length(block);
    if block.control & trb::IMMEDIATE != 0 {
        return block.parameter.to_le_bytes()[..length.min(8)].to_vec();
    }
    let mut bytes = vec![0; length];
    memory.read(block.parameter, &mut bytes);
    bytes
}

fn data_stage(
    memory: &FlatView,
    endpoint: &mut Endpoint,
    device: &dyn UsbDevice,
    block: &Trb,
) -> Done {
    let Some(setup) = endpoint.setup.map(Setup::from_bytes) else {
        return Done { code: trb::TRB_ERROR, left: 0 };
    };
    if !setup.is_in() {
        let bytes = outgoing(memory, block);
        if endpoint.data.len() + bytes.len() <= BYTES_MAX {
            endpoint.data.extend(bytes);
        }
        return Done::well(0);
    }
    if !endpoint.answered {
        let Ok(mut answer) = device.control(setup, &[]) else { return Done::stalled() };
        answer.truncate(usize::from(setup.length));
        (endpoint.data, endpoint.answered) = (answer, true);
    }
    let wanted = length(block);
    let rest = endpoint.data.split_off(endpoint.data.len().min(wanted));
    let now = std::mem::replace(&mut endpoint.data, rest);
    memory.write(block.parameter, &now);
    Done::well((wanted - now.len()) as u32)
}

fn status_stage(endpoint: &mut Endpoint, device: &dyn UsbDevice) -> Done {
    let Some(setup) = endpoint.setup.take().map(Setup::from_bytes) else {
        return Done { code: trb::TRB_ERROR, left: 0 };
    };
    if endpoint.answered {
        return Done::well(0);
    }
    let data = std::mem::take(&mut endpoint.data);
    match device.control(setup, &data) {
        Ok(_) => Done::well(0),
        Err(_) => Done::stalled(),
    }
}

/// A block of an interrupt or bulk endpoint. None: the device has nothing yet.
fn normal(memory: &FlatView, index: usize, device: &dyn UsbDevice, block: &Trb) -> Option<Done> {
    let number = (index / 2) as u8;
    if index % 2 == 1 {
        let wanted = length(block);
        let mut data = device.input(number)?;
        data.truncate(wanted);
        memory.write(block.parameter, &data);
        return Some(Done::well((wanted - data.len()) as u32));
    }
    Some(match device.output(number, &outgoing(memory, block)) {
        Ok(()) => Done::well(0),
        Err(_) => Done::stalled(),
    })
}
