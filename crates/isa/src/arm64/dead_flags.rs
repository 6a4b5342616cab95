//! Flags that nobody reads: a look at the code behind a block's exits.
//!
//! Only code on the block's own page is looked at, because a change there invalidates the block
//! (`Ir::peeked`).

/// So many instructions decide; mostly one to three do, in a loop over vectors twenty.
const INSNS_MAX: u32 = 32;

/// Whether the code at `pc` overwrites the flags before it reads them. `word` gives the code.
pub fn are_dead(pc: u64, word: &mut dyn FnMut(u64) -> Option<u32>) -> bool {
    // A branch that looks at a register has two ways on; one of them waits here.
    let mut waiting = Some(pc);
    let mut left = INSNS_MAX;
    while let Some(mut pc) = waiting.take() {
        loop {
            let Some(next) = left.checked_sub(1) else { return false };
            left = next;
            let Some(word) = word(pc) else { return false };
            match look(word) {
                Look::Writes => break,
                Look::Passes => pc = pc.wrapping_add(4),
                Look::Jumps(by) => pc = pc.wrapping_add_signed(by),
                Look::Branches(by) if waiting.is_none() => {
                    waiting = Some(pc.wrapping_add_signed(by));
                    pc = pc.wrapping_add(4);
                }
                Look::Branches(_) | Look::Unknown => return false,
            }
        }
    }
    true
}

enum Look {
    Writes,
    Passes,
    Jumps(i64),
    Branches(i64),
    Unknown,
}

/// What an instruction does with the flags. A store may fault and show them to a signal handler,
/// which is no reason to keep them (`Layout::relaxed`).
fn look(word: u32) -> Look {
    let matches = |mask: u32, value: u32| word & mask == value;
    if matches(0x3f80_0000, 0x3100_0000) // adds, subs (immediate)
        || matches(0x3f00_0000, 0x2b00_0000) // adds, subs (register, shifted or extended)
        || matches(0x7f80_0000, 0x7200_0000) // ands (immediate)
        || matches(0x7f00_0000, 0x6a00_0000) // ands, bics
        || matches(0xff20_fc07, 0x1e20_2000) // fcmp
        || matches(0xff20_fc17, 0x1e20_2010)
    // fcmpe
    {
        return Look::Writes;
    }
    if matches(0x7c00_0000, 0x1400_0000) {
        return Look::Jumps(i64::from((word << 6) as i32 >> 4)); // b, bl
    }
    if matches(0x7e00_0000, 0x3400_0000) {
        return Look::Branches(i64::from((word << 8) as i32 >> 11 & !3)); // cbz, cbnz
    }
    if matches(0x7e00_0000, 0x3600_0000) {
        return Look::Branches(i64::from((word << 13) as i32 >> 16 & !3)); // tbz, tbnz
    }
    let conditional = matches(0xff20_0400, 0x1e20_0400); // fccmp, fcsel
    if matches(0x0e00_0000, 0x0e00_0000) && !conditional {
        return Look::Passes;
    }
    let data = matches(0x1f00_0000, 0x1100_0000) // add, sub (immediate)
        || matches(0x1f00_0000, 0x1000_0000) // adr, adrp
        || matches(0x1f80_0000, 0x1200_0000) // and, orr, eor, mov
        || matches(0x1f80_0000, 0x1280_0000)
        || matches(0x1f00_0000, 0x1300_0000) // bitfield, extract
        || matches(0x1f00_0000, 0x0a00_0000) // logical
        || matches(0x3f00_0000, 0x0b00_0000) // add, sub
        || matches(0x1f00_0000, 0x1b00_0000) // three sources
        || matches(0x7fe0_0000, 0x1ac0_0000) // two sources
        || matches(0x7fe0_0000, 0x5ac0_0000) // one source
        || matches(0xffff_f01f, 0xd503_201f); // hints
    let memory = matches(0x0a00_0000, 0x0800_0000);
    if data || memory { Look::Passes } else { Look::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(code: &[u32]) -> bool {
        are_dead(0, &mut |pc| code.get(pc as usize / 4).copied())
    }

    #[test]
    fn writers_kill_and_readers_keep() {
        assert!(dead(&[0x9100_0400, 0xf100_041f])); // add x0,x0,#1; cmp x0,#1
        assert!(!dead(&[0x9100_0400, 0x5400_0000])); // add; b.eq
        assert!(!dead(&[0x9a82_0020])); // csel x0,x1,x2,eq
        assert!(!dead(&[0x9a02_0020])); // adc x0,x1,x2
        assert!(dead(&[0x1400_0002, 0x9a02_0020, 0xeb01_001f])); // b +8; adc; cmp x0,x1
        // cbz x0, +8; cmp x0,x1; cmp x0,x1 or adc
        assert!(dead(&[0xb400_0040, 0xeb01_001f, 0xeb01_001f]));
        assert!(!dead(&[0xb400_0040, 0xeb01_001f, 0x9a02_0020]));
        // tbnz w0, #3, +8
        assert!(!dead(&[0x3718_0040, 0xeb01_001f, 0x9a02_0020]));
        assert!(dead(&[0x4ee2_8420, 0x1e62_2820, 0xeb01_001f])); // vector and scalar sums
        assert!(!dead(&[0x1e62_1c20, 0xeb01_001f])); // fcsel d0, d1, d2, ne
    }
}
