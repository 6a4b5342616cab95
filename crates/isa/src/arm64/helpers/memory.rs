//! Accesses of more than one step.

use crate::arm64::state::State;
use crate::front_end::{Access, Event, GuestMemory, HelperResult, MemoryFault, Stop};
use crate::table::bits;

fn stop(fault: MemoryFault) -> Stop {
    Stop::Event(Event::Memory(fault))
}

pub fn store_pair(state: &mut State, memory: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    let [address, low, high] = a;
    if address % 16 != 0 {
        return Err(stop(MemoryFault { address, access: Access::Unaligned, detail: 0 }));
    }
    if address != state.exclusive_address {
        return Ok(1);
    }
    let wide = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
    let [old_low, old_high] = state.exclusive_value;
    let old = wide(old_low, old_high);
    let found = memory.compare_exchange(address, 16, old, wide(low, high), 0).map_err(stop)?;
    Ok(u64::from(found != old))
}

/// Lanes in memory order: lane 0 of every register, then lane 1, ...
pub fn structures(state: &mut State, memory: &mut dyn GuestMemory, a: [u64; 3]) -> HelperResult {
    let (word, address) = (a[0] as u32, a[1]);
    let count = match bits(word, 15, 12) {
        0b0000 => 4,
        0b0100 => 3,
        _ => 2,
    };
    let lane_bytes = 1usize << bits(word, 11, 10);
    let vector_bytes = 8usize << bits(word, 30, 30);
    let mut buffer = [0; 64];
    let buffer = &mut buffer[..count * vector_bytes];
    let place = |lane: usize, register: usize| (lane * count + register) * lane_bytes;
    let lanes = vector_bytes / lane_bytes;
    let number = |register: usize| (bits(word, 4, 0) as usize + register) % 32;
    if bits(word, 22, 22) == 0 {
        for register in 0..count {
            let bytes = super::vector::to_bytes(state.v[number(register)]);
            for lane in 0..lanes {
                let from = &bytes[lane * lane_bytes..][..lane_bytes];
                buffer[place(lane, register)..][..lane_bytes].copy_from_slice(from);
            }
        }
        memory.write(address, buffer, 0).map_err(stop)?;
        return Ok(0);
    }
    memory.read(address, buffer, 0).map_err(stop)?;
    for register in 0..count {
        let mut bytes = [0; 16];
        for lane in 0..lanes {
            let from = &buffer[place(lane, register)..][..lane_bytes];
            bytes[lane * lane_bytes..][..lane_bytes].copy_from_slice(from);
        }
        state.v[number(register)] = super::vector::from_bytes(bytes);
    }
    Ok(0)
}
