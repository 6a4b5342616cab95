//! What memory operations mean.

use isa::ir::{AtomicOp, Code, Mem, Op, Type};
use isa::{Access, MemoryFault};

use super::{Bits, Leave, Machine, Run, from_bytes, int, integer, to_bytes};

/// The smallest pages there are.
const PAGE: u64 = 0x1000;

impl<M: Machine> Run<'_, M> {
    pub(super) fn access(&mut self, op: &Op) -> Result<Bits, Leave> {
        match op.code {
            Code::Load => self.load(op),
            Code::Store => self.store(op),
            Code::Atomic => self.atomic(op),
            Code::Cas => self.compare_and_swap(op),
            Code::StoreConditional => self.store_conditional(op),
            Code::Fence => {
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                int(0)
            }
            _ => self.zero_block(op),
        }
    }

    /// The address, when its alignment will do.
    fn address(&mut self, op: &Op, displacement: i32) -> Result<(u64, Mem), Leave> {
        let mem = Mem(op.aux);
        let address = self.word(op.a).wrapping_add(displacement as u64);
        if mem.is_aligned() && !address.is_multiple_of(u64::from(mem.bytes())) {
            return Err(self.fault(address, Access::Unaligned));
        }
        Ok((address, mem))
    }

    /// What the memory says, with its fault told as the current instruction's.
    fn told<R>(&mut self, result: Result<R, MemoryFault>) -> Result<R, Leave> {
        result.map_err(|fault| {
            self.set_pc(self.own.pc);
            fault.into()
        })
    }

    fn load(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (address, mem) = self.address(op, op.displacement())?;
        let bytes = mem.bytes();
        if bytes > 8 {
            // Devices are accessed by words.
            let mut whole = [0; 32];
            for (at, word) in (0..u64::from(bytes)).step_by(8).zip(whole.chunks_mut(8)) {
                let place = address.wrapping_add(at);
                let result = self.machine.memory().load(place, 8, mem.mmu_index());
                word.copy_from_slice(&self.told(result)?.to_le_bytes());
            }
            return Ok(from_bytes(whole));
        }
        let result = self.machine.memory().load(address, bytes, mem.mmu_index());
        let mut value = self.told(result)?;
        if mem.is_big_endian() {
            value = value.swap_bytes() >> (64 - 8 * bytes);
        }
        if mem.is_signed() {
            value = integer::signed(Type::integer(bytes), value) as u64 & op.ty.mask();
        }
        int(value)
    }

    /// A store goes to both pages or to none.
    fn store(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (address, mem) = self.address(op, op.displacement())?;
        let count = mem.bytes() as usize;
        let mut bytes = to_bytes(self.bits(op.b));
        if mem.is_big_endian() {
            bytes[..count].reverse();
        }
        let last = address.wrapping_add(count as u64 - 1);
        if address / PAGE != last / PAGE {
            let first = self.machine.memory().probe(address, 1, Access::Write);
            self.told(first)?;
            let second = self.machine.memory().probe(last & !(PAGE - 1), 1, Access::Write);
            self.told(second)?;
        }
        for (at, word) in (0..).step_by(8).zip(bytes[..count].chunks(8)) {
            let mut value = [0; 8];
            value[..word.len()].copy_from_slice(word);
            let (place, value) = (address.wrapping_add(at), u64::from_le_bytes(value));
            let width = word.len() as u32;
            let result = self.machine.memory().store(place, width, value, mem.mmu_index());
            self.told(result)?;
        }
        self.written(address, count as u64);
        int(0)
    }

    /// A block that writes to its own code ends after the instruction.
    fn written(&mut self, address: u64, bytes: u64) {
        let (start, end) = self.own.code;
        self.own.stale |= address < end && address.wrapping_add(bytes) > start;
    }

    fn atomic(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (address, mem) = self.address(op, 0)?;
        let (bytes, index) = (mem.bytes(), mem.mmu_index());
        let (kind, ty) = (AtomicOp::ALL[op.c.0 as usize], Type::integer(bytes));
        let operand = self.word(op.b) & ty.mask();
        // Whatever it does, it counts as a store.
        let as_store = |fault: MemoryFault| MemoryFault { access: Access::Write, ..fault };
        loop {
            let old = self.machine.memory().load(address, bytes, index).map_err(as_store);
            let old = self.told(old)?;
            let new = kind.apply(ty, old, operand);
            if !address.is_multiple_of(u64::from(bytes)) {
                // Across words it is atomic on no guest that minds.
                let result = self.machine.memory().store(address, bytes, new, index);
                self.told(result)?;
                self.written(address, u64::from(bytes));
                return int(old);
            }
            if self.exchange(address, mem, old.into(), new.into())? == u128::from(old) {
                return int(old);
            }
        }
    }

    fn exchange(&mut self, address: u64, mem: Mem, old: u128, new: u128) -> Result<u128, Leave> {
        let (bytes, index) = (mem.bytes(), mem.mmu_index());
        let seen = self.machine.memory().compare_exchange(address, bytes, old, new, index);
        let seen = self.told(seen)?;
        self.written(address, u64::from(bytes));
        Ok(seen)
    }

    fn compare_and_swap(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (address, mem) = self.address(op, 0)?;
        let mask = u128::MAX >> (128 - 8 * mem.bytes());
        let (old, new) = (self.bits(op.b)[0] & mask, self.bits(op.c)[0] & mask);
        Ok([self.exchange(address, mem, old, new)?, 0])
    }

    fn store_conditional(&mut self, op: &Op) -> Result<Bits, Leave> {
        let reserved = self.bits(op.c)[0];
        if self.word(op.a) != reserved as u64 {
            return int(0);
        }
        let (address, mem) = self.address(op, 0)?;
        let mask = u128::MAX >> (128 - 8 * mem.bytes());
        let (old, new) = (reserved >> 64 & mask, self.bits(op.b)[0] & mask);
        int(u64::from(self.exchange(address, mem, old, new)? == old))
    }

    fn zero_block(&mut self, op: &Op) -> Result<Bits, Leave> {
        let (address, count) = (self.word(op.a), usize::from(op.aux));
        // As atomic operations it needs memory: devices have no such accesses.
        self.exchange(address, Mem::new(8), 0, 0)?;
        let zeroes = [0; 64];
        for at in (0..count).step_by(zeroes.len()) {
            let piece = &zeroes[..zeroes.len().min(count - at)];
            let place = address.wrapping_add(at as u64);
            let result = self.machine.memory().write(place, piece, 0);
            self.told(result)?;
        }
        self.written(address, count as u64);
        int(0)
    }
}
