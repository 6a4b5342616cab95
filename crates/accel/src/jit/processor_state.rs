//! A processor of the translator's as fields of words, and back.

use isa::x86::{Segment, State, Table};

use crate::saved::{SavedError, SavedProcessor, field};

const SEGMENTS: [&str; 8] = ["es", "cs", "ss", "ds", "fs", "gs", "ldt", "task"];

/// Among the debug registers: there is no DR4, so its place has the trap that waits.
const TRAP_DUE: usize = 4;

/// A word of a state.
type Word = fn(&mut State) -> &mut u64;

/// Single words by their names.
const WORDS: &[(&str, Word)] = &[
    ("pc", |state| &mut state.pc),
    ("flags", |state| &mut state.flags),
    ("eflags", |state| &mut state.eflags),
    ("x87_control", |state| &mut state.x87_control),
    ("x87_status", |state| &mut state.x87_status),
    ("x87_top", |state| &mut state.x87_top),
    ("x87_empty", |state| &mut state.x87_empty),
    ("efer", |state| &mut state.efer),
    ("xcr0", |state| &mut state.xcr0),
    ("shadow", |state| &mut state.shadow),
    ("nmi_masked", |state| &mut state.nmi_masked),
    ("halted", |state| &mut state.halted),
    ("star", |state| &mut state.msr.star),
    ("lstar", |state| &mut state.msr.lstar),
    ("cstar", |state| &mut state.msr.cstar),
    ("fmask", |state| &mut state.msr.fmask),
    ("kernel_gs_base", |state| &mut state.msr.kernel_gs_base),
    ("tsc_aux", |state| &mut state.msr.tsc_aux),
    ("tsc_offset", |state| &mut state.msr.tsc_offset),
    ("sysenter_cs", |state| &mut state.msr.sysenter_cs),
    ("sysenter_esp", |state| &mut state.msr.sysenter_esp),
    ("sysenter_eip", |state| &mut state.msr.sysenter_eip),
    ("pat", |state| &mut state.msr.pat),
    ("misc_enable", |state| &mut state.msr.misc_enable),
    ("spec_ctrl", |state| &mut state.msr.spec_ctrl),
    ("mtrr_default", |state| &mut state.msr.mtrr_default),
];

fn segments(state: &mut State) -> [&mut Segment; 8] {
    let [es, cs, ss, ds, fs, gs] = &mut state.segments;
    [es, cs, ss, ds, fs, gs, &mut state.ldtr, &mut state.tr]
}

fn tables(state: &mut State) -> [(&'static str, &mut Table); 2] {
    [("gdt", &mut state.gdtr), ("idt", &mut state.idtr)]
}

/// The fields. The processor's number is not among them: who loads it has one.
pub fn save(state: &State) -> SavedProcessor {
    let mut state = *state;
    let mut saved = SavedProcessor::new();
    let mut put = |name: &str, words: Vec<u64>| _ = saved.insert(name.to_owned(), words);
    for (name, word) in WORDS {
        put(name, vec![*word(&mut state)]);
    }
    put("general", state.gpr.to_vec());
    put("vectors", state.vectors.concat());
    put("x87", state.x87.concat());
    put("control", state.cr.to_vec());
    let mut debug = state.dr;
    debug[TRAP_DUE] = state.trap_due;
    put("debug", debug.to_vec());
    put("mtrr_variable", state.msr.mtrr_variable.to_vec());
    put("mtrr_fixed", state.msr.mtrr_fixed.to_vec());
    for (name, segment) in SEGMENTS.into_iter().zip(segments(&mut state)) {
        let Segment { base, limit, attributes, selector } = *segment;
        put(name, vec![base, limit.into(), attributes.into(), selector]);
    }
    for (name, table) in tables(&mut state) {
        put(name, vec![table.base, table.limit]);
    }
    saved
}

/// Fills them in. After an error some may be changed.
pub fn load(state: &mut State, saved: &SavedProcessor) -> Result<(), SavedError> {
    for (name, word) in WORDS {
        [*word(state)] = field(saved, name)?;
    }
    state.gpr = field(saved, "general")?;
    state.cr = field(saved, "control")?;
    state.dr = field(saved, "debug")?;
    state.trap_due = std::mem::take(&mut state.dr[TRAP_DUE]) & 0xe00f;
    state.msr.mtrr_variable = field(saved, "mtrr_variable")?;
    state.msr.mtrr_fixed = field(saved, "mtrr_fixed")?;
    let vectors: [u64; 64] = field(saved, "vectors")?;
    for (vector, words) in state.vectors.iter_mut().zip(vectors.as_chunks().0) {
        *vector = *words;
    }
    let x87: [u64; 16] = field(saved, "x87")?;
    for (register, words) in state.x87.iter_mut().zip(x87.as_chunks().0) {
        *register = *words;
    }
    for (name, segment) in SEGMENTS.into_iter().zip(segments(state)) {
        let [base, limit, attributes, selector] = field(saved, name)?;
        let (limit, attributes) = (limit as u32, attributes as u32);
        *segment = Segment { base, limit, attributes, selector: selector & 0xffff };
    }
    for (name, table) in tables(state) {
        [table.base, table.limit] = field(saved, name)?;
    }
    state.x87_top &= 7;
    state.x87_empty &= 0xff;
    state.interrupt_waits = 0;
    state.note_upper_halves();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_comes_back_and_a_missing_one_is_named() {
        let mut state = State::default();
        state.gpr[3] = 7;
        state.vectors[15] = [1, 2, 3, 4];
        state.x87[7] = [5, 6];
        state.msr.lstar = 0xffff_ffff_8000_0000;
        state.segments[4].base = 9;
        state.tr.selector = 0x40;
        (state.idtr.base, state.halted) = (0x1000, 1);
        state.trap_due = 1 << 14;
        let saved = save(&state);
        let mut loaded = State::default();
        load(&mut loaded, &saved).unwrap();
        assert_eq!(loaded.upper_halves, 1);
        assert_eq!(save(&loaded), saved);
        assert_ne!(save(&State::default()), saved);

        for name in saved.keys() {
            let mut cut = saved.clone();
            cut.remove(name);
            let error = load(&mut loaded, &cut).unwrap_err().to_string();
            assert_eq!(error, format!("The state of a CPU has no '{name}'"));
        }
        let mut long = saved.clone();
        long.insert("general".to_owned(), vec![0; 17]);
        assert!(load(&mut loaded, &long).is_err());
    }
}
