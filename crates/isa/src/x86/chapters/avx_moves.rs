//! AVX and AVX2 moves, volume 1, 5.13 and 5.16: loads, stores, halves, broadcasts, masked moves,
//! gathers.

use iced_x86::{Mnemonic as M, OpKind, Register};

use super::Row;
use super::sse_moves::{
    extract, high_to_low, insert, insertps, ldmxcsr, low_to_high, mask, maskmov, move_half,
    move_integer, move_scalar, move_whole, stmxcsr,
};
use crate::ir::{Lane, Type, Value};
use crate::x86::helpers::{Gather, MaskedMove, helper};
use crate::x86::lift::Lift;
use crate::x86::state;
use crate::x86::vectors::Vector;

pub const ROWS: &[Row] = &[
    (M::Vmovaps, move_whole),
    (M::Vmovapd, move_whole),
    (M::Vmovups, move_whole),
    (M::Vmovupd, move_whole),
    (M::Vmovdqa, move_whole),
    (M::Vmovdqu, move_whole),
    (M::Vlddqu, move_whole),
    (M::Vmovntps, move_whole),
    (M::Vmovntpd, move_whole),
    (M::Vmovntdq, move_whole),
    (M::Vmovntdqa, move_whole),
    (M::Vmovss, |l| move_scalar(l, Type::F32, Lane::MoveLow32)),
    (M::Vmovsd, |l| move_scalar(l, Type::F64, Lane::MoveLow64)),
    (M::Vmovd, |l| move_integer(l, Type::I32)),
    (M::Vmovq, |l| move_integer(l, Type::I64)),
    (M::Vmovlps, |l| move_half(l, 0)),
    (M::Vmovlpd, |l| move_half(l, 0)),
    (M::Vmovhps, |l| move_half(l, 1)),
    (M::Vmovhpd, |l| move_half(l, 1)),
    (M::Vmovhlps, high_to_low),
    (M::Vmovlhps, low_to_high),
    (M::Vmovmskps, |l| mask(l, Lane::Mask32)),
    (M::Vmovmskpd, |l| mask(l, Lane::Mask64)),
    (M::Vpmovmskb, |l| mask(l, Lane::Mask8)),
    (M::Vpinsrb, |l| insert(l, Type::I8)),
    (M::Vpinsrw, |l| insert(l, Type::I16)),
    (M::Vpinsrd, |l| insert(l, Type::I32)),
    (M::Vpinsrq, |l| insert(l, Type::I64)),
    (M::Vpextrb, |l| extract(l, Type::I8)),
    (M::Vpextrw, |l| extract(l, Type::I16)),
    (M::Vpextrd, |l| extract(l, Type::I32)),
    (M::Vpextrq, |l| extract(l, Type::I64)),
    (M::Vextractps, |l| extract(l, Type::I32)),
    (M::Vinsertps, insertps),
    (M::Vmaskmovdqu, maskmov),
    (M::Vldmxcsr, ldmxcsr),
    (M::Vstmxcsr, stmxcsr),
    // halves
    (M::Vinsertf128, insert_half),
    (M::Vinserti128, insert_half),
    (M::Vextractf128, extract_half),
    (M::Vextracti128, extract_half),
    (M::Vzeroupper, zero_upper),
    (M::Vzeroall, zero_all),
    // broadcasts
    (M::Vbroadcastss, |l| broadcast(l, Lane::Broadcast32)),
    (M::Vbroadcastsd, |l| broadcast(l, Lane::Broadcast64)),
    (M::Vpbroadcastb, |l| broadcast(l, Lane::Broadcast8)),
    (M::Vpbroadcastw, |l| broadcast(l, Lane::Broadcast16)),
    (M::Vpbroadcastd, |l| broadcast(l, Lane::Broadcast32)),
    (M::Vpbroadcastq, |l| broadcast(l, Lane::Broadcast64)),
    (M::Vbroadcastf128, broadcast_half),
    (M::Vbroadcasti128, broadcast_half),
    // some elements
    (M::Vmaskmovps, |l| masked_move(l, 4)),
    (M::Vmaskmovpd, |l| masked_move(l, 8)),
    (M::Vpmaskmovd, |l| masked_move(l, 4)),
    (M::Vpmaskmovq, |l| masked_move(l, 8)),
    (M::Vpgatherdd, |l| gather(l, 4, 4)),
    (M::Vpgatherdq, |l| gather(l, 4, 8)),
    (M::Vpgatherqd, |l| gather(l, 8, 4)),
    (M::Vpgatherqq, |l| gather(l, 8, 8)),
    (M::Vgatherdps, |l| gather(l, 4, 4)),
    (M::Vgatherdpd, |l| gather(l, 4, 8)),
    (M::Vgatherqps, |l| gather(l, 8, 4)),
    (M::Vgatherqpd, |l| gather(l, 8, 8)),
];

fn insert_half(l: &mut Lift) {
    let (a, half) = (l.read_lanes(1), l.read_vector(2));
    let (low, high) = a.halves(l.ir);
    let result = match l.insn.immediate8() & 1 {
        0 => l.join(half, high),
        _ => l.join(low, half),
    };
    l.write_lanes(0, result);
}

fn extract_half(l: &mut Lift) {
    let (low, high) = l.read_lanes(1).halves(l.ir);
    let half = if l.insn.immediate8() & 1 == 0 { low } else { high };
    if l.is_memory(0) {
        let at = l.address();
        return l.store(at, half);
    }
    l.write_vector(0, half);
}

/// How many vector registers the code can name.
fn registers(l: &Lift) -> usize {
    if l.mode.is_long() { 16 } else { 8 }
}

/// All upper halves are zero from here on. In a system's narrow code the last eight stay as wide
/// code has left them; a program's are zero if it never was anything but narrow.
fn clear_uppers(l: &mut Lift) {
    if !l.upper_halves {
        return;
    }
    if l.mode.is_long() || !l.system {
        l.ir.clear_uppers(state::ymm(0), 16);
        return l.change_variant(false);
    }
    for n in 0..registers(l) {
        let low = l.ir.get(state::xmm(n));
        let whole = l.ir.widen(low);
        l.ir.put(state::ymm(n), whole);
    }
}

fn zero_upper(l: &mut Lift) {
    if l.host.wide {
        return clear_uppers(l);
    }
    let zero = l.ir.constant(Type::V128, 0);
    for n in 0..registers(l) {
        l.ir.put(state::upper_half(n), zero);
    }
}

fn zero_all(l: &mut Lift) {
    for n in 0..registers(l) {
        let zero = l.ir.constant(Type::V128, 0);
        l.set_xmm(n, zero);
    }
    if l.host.wide {
        clear_uppers(l);
    }
}

/// All lanes = the lowest of the source.
fn broadcast(l: &mut Lift, lane: Lane) {
    let source = l.read_vector(1);
    let wide = l.is_wide(0);
    let result = if l.host.wide {
        let ty = if wide { Type::V256 } else { Type::V128 };
        let value = l.ir.lanes_as(ty, lane, [source, Value::NONE, Value::NONE], 0);
        if wide { Vector::Wide(value) } else { Vector::Narrow(value) }
    } else {
        let value = match lane {
            Lane::Broadcast8 => {
                let zero = l.ir.constant(Type::V128, 0);
                l.ir.lanes2(Lane::Shuffle8, source, zero)
            }
            Lane::Broadcast16 => {
                let value = l.ir.lanes1(Lane::ShuffleLo16, source, 0);
                l.ir.lanes1(Lane::Shuffle32, value, 0)
            }
            Lane::Broadcast32 => l.ir.lanes1(Lane::Shuffle32, source, 0),
            _ => l.ir.lanes1(Lane::Shuffle32, source, 0x44),
        };
        if wide { Vector::Pair(value, value) } else { Vector::Narrow(value) }
    };
    l.write_lanes(0, result);
}

fn broadcast_half(l: &mut Lift) {
    let half = l.read_vector(1);
    let result = l.join(half, half);
    l.write_lanes(0, result);
}

/// Elements whose mask is negative, by helper: the others are not accessed.
fn masked_move(l: &mut Lift, element_bytes: u32) {
    let store = l.is_memory(0);
    let register = if store { 2 } else { 0 };
    let wide = l.is_wide(register);
    let what = MaskedMove {
        register: l.vector(register) as u8,
        mask: l.vector(1) as u8,
        element_bytes: element_bytes as u8,
        count: ((if wide { 32 } else { 16 }) / element_bytes) as u8,
        store,
    };
    let at = l.address();
    let at = l.flatten(at);
    if wide && !store {
        l.use_upper_halves();
    }
    let what = l.ir.imm(what.pack() as i64);
    l.ir.helper(helper::MASKED_MOVE, at, what, Value::NONE);
}

fn gather(l: &mut Lift, index_bytes: u8, element_bytes: u8) {
    let index = l.insn.memory_index();
    let (register, mask) = (l.vector(0), l.vector(2));
    if register == mask || register == index.number() || mask == index.number() {
        return l.illegal();
    }
    let register_bytes = if l.insn.op0_register().is_ymm() { 32 } else { 16 };
    let index_register_bytes = if index.is_ymm() { 32 } else { 16 };
    let count = (register_bytes / element_bytes).min(index_register_bytes / index_bytes);
    let base = l.insn.memory_base();
    let narrow = !l.mode.is_long() || base.size() == 4;
    let what = Gather {
        register: register as u8,
        mask: mask as u8,
        index: index.number() as u8,
        index_bytes,
        element_bytes,
        count,
        scale: l.insn.memory_index_scale().trailing_zeros() as u8,
        narrow,
    };
    // The segment's base is added to each offset.
    let offset = match base {
        Register::None => l.ir.imm(0),
        base => {
            let ty = if narrow { Type::I32 } else { Type::I64 };
            let base = l.gpr(base.number(), ty);
            l.ir.zext(Type::I64, base)
        }
    };
    let offset = l.ir.add_imm(offset, l.insn.memory_displacement64() as i64);
    let segment = l.insn.memory_segment().number();
    let ignored = l.mode.is_long() && !matches!(segment, state::FS | state::GS);
    let segment = match ignored {
        true => l.ir.imm(0),
        false => l.ir.get(state::segment_base(segment)),
    };
    if register_bytes == 32 || l.insn.op_kind(2) != OpKind::Register {
        l.use_upper_halves();
    }
    let what = l.ir.imm(what.pack() as i64);
    l.ir.helper(helper::GATHER, offset, segment, what);
}
