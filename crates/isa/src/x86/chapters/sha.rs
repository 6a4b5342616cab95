//! SHA, volume 1, 5.20: rounds and message schedules of SHA-1 and SHA-256.

use iced_x86::Mnemonic as M;

use super::Row;
use crate::ir::Lane;
use crate::x86::helpers::Software;
use crate::x86::lift::Lift;
use crate::x86::state;

pub const ROWS: &[Row] = &[
    (M::Sha1rnds4, |l| sha(l, Lane::Sha1Rounds, Software::Sha1Rounds)),
    (M::Sha1nexte, |l| sha(l, Lane::Sha1NextE, Software::Sha1NextE)),
    (M::Sha1msg1, |l| sha(l, Lane::Sha1Message1, Software::Sha1Message1)),
    (M::Sha1msg2, |l| sha(l, Lane::Sha1Message2, Software::Sha1Message2)),
    (M::Sha256rnds2, |l| sha(l, Lane::Sha256Rounds, Software::Sha256Rounds)),
    (M::Sha256msg1, |l| sha(l, Lane::Sha256Message1, Software::Sha256Message1)),
    (M::Sha256msg2, |l| sha(l, Lane::Sha256Message2, Software::Sha256Message2)),
];

fn sha(l: &mut Lift, lane: Lane, software: Software) {
    let imm = if lane == Lane::Sha1Rounds { l.insn.immediate8() } else { 0 };
    if !l.host.sha {
        return l.in_software(software, [0, 1], imm);
    }
    let (a, b) = (l.read_vector(0), l.read_vector(1));
    let value = match lane {
        Lane::Sha1Rounds => l.ir.lanes2_imm(lane, a, b, imm),
        Lane::Sha256Rounds => {
            let message = l.ir.get(state::xmm(0));
            l.ir.lanes3(lane, a, b, message)
        }
        _ => l.ir.lanes2(lane, a, b),
    };
    l.write_vector(0, value);
}
