//! RISC-V: RV64GC with Zba, Zbb, Zbs, Zicond and Zacas.
//!
//! Manual: "The RISC-V Instruction Set Manual, Volume I", version 20240411; one file per chapter,
//! rows in the manual's order. Compressed instructions are rows that expand to full words.

/// Rows of the manual: name, bits, operand format, meaning.
///
/// Gives `ROWS` for the decoder, each row a function `(&mut Lift, word)`. Rows that overlap do not
/// compile.
macro_rules! isa {
    ($($name:ident $bits:literal $operands:ident => $meaning:expr;)*) => {
        $(
            #[allow(non_snake_case, reason = "rows carry the manual's names")]
            fn $name(lift: &mut Lift, word: u32) {
                let meaning: fn(&mut Lift, Args) = $meaning;
                meaning(lift, Args::$operands(word));
            }
        )*
        /// This chapter's rows.
        pub const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            pattern: pattern($bits, 32),
            lift: $name,
        }),*];
        const _: () = {
            let (mut patterns, mut i) = ([Pattern { mask: 0, value: 0 }; ROWS.len()], 0);
            while i < ROWS.len() {
                patterns[i] = ROWS[i].pattern;
                i += 1;
            }
            assert_disjoint(&patterns);
        };
    };
}

mod lift;
mod rv64i;
mod rv64m;
mod rv64a;
mod rv64fd;
mod rounding;
mod rv64b;
mod rvc;
mod state;

pub use lift::{Args, Lift, Row};
pub use state::State;

use crate::front_end::{
    Access, Event, Fetch, FrontEnd, GuestMemory, Helper, Key, Layout, MemoryFault, Physical,
    Registers, Translation,
};
use crate::ir::Ir;
use rounding::Dynamic;
use std::sync::OnceLock;

/// Every chapter.
const CHAPTERS: &[&[Row]] = &[rv64i::ROWS, rv64m::ROWS, rv64a::ROWS, rv64fd::ROWS, rv64b::ROWS];

/// Every row's name, for the coverage table.
pub fn implemented() -> impl Iterator<Item = &'static str> {
    CHAPTERS.iter().flat_map(|rows| rows.iter()).map(|row| row.name)
}

/// The number of the helper that reads the clock.
const HELPER_TIME: usize = 0;
/// The number of the helper that rounds ties away from zero.
const HELPER_AWAY: usize = 1;

/// The front end.
#[derive(Default)]
pub struct RiscV {}

impl FrontEnd for RiscV {
    type State = State;

    const LAYOUT: &'static Layout = &state::LAYOUT;

    const HELPERS: &'static [Helper<State>] = &[
        Helper { name: "time", call: |_, memory, _| Ok(memory.clock_ns()), fp: false },
        Helper { name: "away", call: rounding::away, fp: false },
    ];

    fn reset(&self) -> State {
        State::default()
    }

    fn key(&self, state: &State) -> Key {
        Key { pc: state.pc, mode: Dynamic::of(state).mode() }
    }

    fn translate(&self, key: Key, fetch: &mut dyn Fetch, ir: &mut Ir) {
        lift::block(key.pc, Dynamic::from_mode(key.mode), fetch, ir);
    }

    fn deliver(&self, _: &mut State, _: &mut dyn GuestMemory, event: Event) -> Result<(), Event> {
        Err(event)
    }

    fn walk(
        &self,
        _: &State,
        _: &mut dyn Physical,
        address: u64,
        access: Access,
        _: u16,
    ) -> Result<Translation, MemoryFault> {
        // Bare translation: machine mode, or a supervisor before it sets satp.
        _ = access;
        Ok(Translation {
            physical: address,
            page_bits: 30,
            read: true,
            write: true,
            execute: true,
            global: true,
        })
    }

    fn registers(&self) -> &'static [Registers] {
        state::REGISTERS
    }
}

/// Every row, for tables and tests.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    CHAPTERS.iter().copied().flatten()
}

/// The row that describes a word, if any.
pub fn decode(word: u32) -> Option<&'static Row> {
    static INDEX: OnceLock<Vec<Vec<&'static Row>>> = OnceLock::new();
    let index = INDEX.get_or_init(build_index);
    index[bucket(word)].iter().find(|row| row.pattern.matches(word)).copied()
}

/// Words are told apart first by opcode and funct3.
const fn bucket(word: u32) -> usize {
    ((word >> 2 & 0x1f) | (word >> 12 & 7) << 5) as usize
}

fn build_index() -> Vec<Vec<&'static Row>> {
    let describes = |row: &Row, bucket: u32| {
        let word = (bucket & 0x1f) << 2 | (bucket >> 5) << 12 | 3;
        row.pattern.value & BUCKET_BITS & row.pattern.mask == word & BUCKET_BITS & row.pattern.mask
    };
    const BUCKET_BITS: u32 = 0x707f;
    (0..256).map(|bucket| rows().filter(|row| describes(row, bucket)).collect()).collect()
}
