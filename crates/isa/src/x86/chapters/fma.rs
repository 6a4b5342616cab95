//! FMA3, volume 1, 5.14: a product and a sum, rounded once. The digits of a mnemonic say which
//! operands are multiplied, and the order in which NaNs count.

use iced_x86::Mnemonic as M;

use super::Row;
use crate::ir::{Lane, Type};
use crate::x86::helpers::Fused;
use crate::x86::lift::Lift;
use crate::x86::vectors::Vector;

macro_rules! rows {
    ($($product_first:ident $second_first:ident $second_third:ident $lane:ident;)*) => {
        pub const ROWS: &[Row] = &[$(
            (M::$product_first, |l| fused(l, Lane::$lane, [0, 2, 1])),
            (M::$second_first, |l| fused(l, Lane::$lane, [1, 0, 2])),
            (M::$second_third, |l| fused(l, Lane::$lane, [1, 2, 0])),
        )*];
    };
}

rows! {
    Vfmadd132ps Vfmadd213ps Vfmadd231ps FMulAdd32;
    Vfmadd132pd Vfmadd213pd Vfmadd231pd FMulAdd64;
    Vfmadd132ss Vfmadd213ss Vfmadd231ss FMulAddLow32;
    Vfmadd132sd Vfmadd213sd Vfmadd231sd FMulAddLow64;
    Vfmsub132ps Vfmsub213ps Vfmsub231ps FMulSub32;
    Vfmsub132pd Vfmsub213pd Vfmsub231pd FMulSub64;
    Vfmsub132ss Vfmsub213ss Vfmsub231ss FMulSubLow32;
    Vfmsub132sd Vfmsub213sd Vfmsub231sd FMulSubLow64;
    Vfnmadd132ps Vfnmadd213ps Vfnmadd231ps FNegMulAdd32;
    Vfnmadd132pd Vfnmadd213pd Vfnmadd231pd FNegMulAdd64;
    Vfnmadd132ss Vfnmadd213ss Vfnmadd231ss FNegMulAddLow32;
    Vfnmadd132sd Vfnmadd213sd Vfnmadd231sd FNegMulAddLow64;
    Vfnmsub132ps Vfnmsub213ps Vfnmsub231ps FNegMulSub32;
    Vfnmsub132pd Vfnmsub213pd Vfnmsub231pd FNegMulSub64;
    Vfnmsub132ss Vfnmsub213ss Vfnmsub231ss FNegMulSubLow32;
    Vfnmsub132sd Vfnmsub213sd Vfnmsub231sd FNegMulSubLow64;
    Vfmaddsub132ps Vfmaddsub213ps Vfmaddsub231ps FMulAddSub32;
    Vfmaddsub132pd Vfmaddsub213pd Vfmaddsub231pd FMulAddSub64;
    Vfmsubadd132ps Vfmsubadd213ps Vfmsubadd231ps FMulSubAdd32;
    Vfmsubadd132pd Vfmsubadd213pd Vfmsubadd231pd FMulSubAdd64;
}

/// `x * y + z`, these being the numbers of the operands; a NaN of `x` counts before one of `y`.
fn fused(l: &mut Lift, lane: Lane, operands: [u32; 3]) {
    if !l.host.fused {
        return l.fused_in_software(Fused::of(lane), operands);
    }
    let [x, y, z] = operands.map(|i| l.read_lanes(i));
    // Of the row's operands the second one counts first.
    let value = match (x, y, z) {
        (Vector::Wide(x), Vector::Wide(y), Vector::Wide(z)) => {
            Vector::Wide(l.ir.lanes3(lane, y, x, z))
        }
        (x, y, z) => {
            let [x, y, z] = [x, y, z].map(|vector| vector.halves(l.ir).0);
            Vector::Narrow(l.ir.lanes3(lane, y, x, z))
        }
    };
    let row = lane.row();
    match value {
        Vector::Narrow(value) if row.widest == Type::V128 && operands[1] != 0 => {
            // What is above the number comes from the destination, not from the row's first.
            let old = l.read_vector(0);
            let rest = if row.encoding.w { Lane::MoveLow64 } else { Lane::MoveLow32 };
            let value = l.ir.lanes2(rest, old, value);
            l.write_vector(0, value);
        }
        value => l.write_lanes(0, value),
    }
}
