//! Operations of `Code::Fpu`: a stack of eight numbers of 80 bits with tags, as the x87 has it.
//!
//! The helper that the operation names does all of them. A back end whose host has such a unit does
//! what needs no exception and no empty register itself, where [`Fpu`] says the guest's stack is.

/// Where a guest's state keeps its stack: offsets.
#[derive(Clone, Copy, Debug)]
pub struct Fpu {
    /// Eight registers of 16 bytes, by physical number: significand, then sign and exponent.
    pub registers: u16,
    /// The control word, in 64 bits.
    pub control: u16,
    /// The status word without the number of the top register, in 64 bits.
    pub status: u16,
    /// The physical register that is on top, in 64 bits.
    pub top: u16,
    /// A bit for each physical register that is empty, in 64 bits.
    pub empty: u16,
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the manual's mnemonics")]
        pub enum $name { $($variant),* }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),*];

            /// By its number.
            #[must_use]
            pub fn from_bits(bits: u64) -> Self {
                Self::ALL[bits as usize % Self::ALL.len()]
            }
        }
    };
}

numbered! {
    /// What an operation does.
    X87 {
        Arithmetic, ArithmeticTo, Load, LoadConstant, Store, Convert, Pop, Exchange, Compare,
        CompareFlags, Apply, MoveIf, Initialise, ClearExceptions, Rotate, Free, Examine, Wait, Status, Control,
        LoadWords, Significand, Top,
    }
}

numbered! {
    /// Where the other operand comes from.
    Source { Stack, F32, F64, Integer }
}

numbered! {
    /// `R`: operands exchanged.
    Arithmetic { Add, Mul, Sub, SubR, Div, DivR }
}

numbered! {
    /// The constants that can be loaded.
    Constant { One, Log2Of10, Log2OfE, Pi, Log10Of2, LnOf2, Zero }
}

numbered! {
    /// Functions of ST(0), and some of ST(1).
    Function {
        ChangeSign, Absolute, SquareRoot, Sine, Cosine, SineCosine, Tangent, ArcTangent,
        PowerOf2Less1, LogTimes, LogPlus1Times, Round, Scale, Extract, Remainder, IeeeRemainder,
        Test,
    }
}

/// An operation in one word: [`X87`], register, pops, [`Source`], and what else it needs.
#[derive(Clone, Copy)]
pub struct Fields(pub u64);

impl Fields {
    /// An operation without anything else.
    #[must_use]
    pub fn new(what: X87) -> Self {
        Self(what as u64)
    }

    /// The same with ST(i).
    #[must_use]
    pub fn with_register(self, i: u64) -> Self {
        Self(self.0 | i << 8)
    }

    /// The same, and so many registers are popped.
    #[must_use]
    pub fn with_pops(self, count: u64) -> Self {
        Self(self.0 | count << 11)
    }

    /// The same with an operand from there.
    #[must_use]
    pub fn with_source(self, source: Source) -> Self {
        Self(self.0 | (source as u64) << 13)
    }

    /// The same with a further number.
    #[must_use]
    pub fn with_detail(self, detail: u64) -> Self {
        Self(self.0 | detail << 16)
    }

    /// What is done.
    #[must_use]
    pub fn what(self) -> X87 {
        X87::from_bits(self.0 & 0xff)
    }

    /// Which register.
    #[must_use]
    pub fn register(self) -> u64 {
        self.0 >> 8 & 7
    }

    /// How many registers are popped.
    #[must_use]
    pub fn pops(self) -> u64 {
        self.0 >> 11 & 3
    }

    /// Where the other operand comes from.
    #[must_use]
    pub fn source(self) -> Source {
        Source::from_bits(self.0 >> 13 & 3)
    }

    /// What else it needs.
    #[must_use]
    pub fn detail(self) -> u64 {
        self.0 >> 16 & 0xff
    }
}
