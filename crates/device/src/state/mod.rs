//! Saved state: what a device knows, as named fields.
//!
//! A register machine declares with [`saved!`](crate::saved) what is saved of it, once for both
//! directions. An adapter hands its parts to [`Fields`], which either collects or fills them in
//! ([`Device::transfer`](crate::Device::transfer)). A stream comes from anywhere: reading allocates
//! no more than it was given, and declares with `check` what the machine relies on.

mod fields;
mod values;

#[cfg(test)]
mod tests;

use std::fmt;

pub use fields::{Fields, Group, NamedMemory, put_field};
pub use values::{LENGTH_MAX, Reader, Value};

/// Why a state cannot be saved or loaded.
#[derive(Debug, PartialEq, Eq)]
pub struct StateError {
    /// The names of sections and fields, outermost first, with dots between.
    path: String,
    reason: Reason,
}

#[derive(Debug, PartialEq, Eq)]
enum Reason {
    Unsupported,
    Missing,
    Unknown,
    Short,
    Long,
    Bad(String),
}

impl StateError {
    const fn of(reason: Reason) -> Self {
        Self { path: String::new(), reason }
    }

    /// The device does not know how to be saved.
    #[must_use]
    pub const fn unsupported() -> Self {
        Self::of(Reason::Unsupported)
    }

    /// A value that the machine cannot have.
    #[must_use]
    pub fn bad(text: impl Into<String>) -> Self {
        Self::of(Reason::Bad(text.into()))
    }

    /// The same, within this.
    #[must_use]
    pub fn within(mut self, name: &str) -> Self {
        self.path = match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{name}.{}", self.path),
        };
        self
    }

    /// Whether the device does not know how to be saved, so that nothing is wrong with the stream.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.reason == Reason::Unsupported
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason } = self;
        match reason {
            Reason::Unsupported => write!(formatter, "The state of '{path}' cannot be saved"),
            Reason::Missing => write!(formatter, "The state has no '{path}'"),
            Reason::Unknown => write!(formatter, "The state has '{path}', which is not known here"),
            Reason::Short => write!(formatter, "The state of '{path}' is cut off"),
            Reason::Long => write!(formatter, "The state of '{path}' is too long"),
            Reason::Bad(text) => write!(formatter, "The state of '{path}' is wrong: {text}"),
        }
    }
}

impl std::error::Error for StateError {}

/// Declares which fields of a structure are saved, and what must hold of loaded ones.
///
/// ```
/// #[derive(Default)]
/// struct Chip { index: u8, registers: [u8; 4], reads: u64 }
///
/// device::saved!(Chip { index, registers } check |chip: &Chip| chip.index < 4);
/// ```
#[macro_export]
macro_rules! saved {
    ($type:ty { $($field:tt),* $(,)? } $(check $check:expr)?) => {
        impl $crate::state::Value for $type {
            fn save(&self, into: &mut Vec<u8>) {
                let mut fields = Vec::new();
                $($crate::state::put_field(&mut fields, stringify!($field), &self.$field);)*
                $crate::state::Value::save(&fields, into);
            }

            fn load(
                &mut self,
                from: &mut $crate::state::Reader<'_>,
            ) -> Result<(), $crate::state::StateError> {
                #[allow(unused_mut, reason = "a structure may have no fields")]
                let mut group = $crate::state::Group::read(from)?;
                $(group.take(stringify!($field), &mut self.$field)?;)*
                group.finish()?;
                $(
                    let check: fn(&$type) -> bool = $check;
                    if !check(self) {
                        return Err($crate::state::StateError::bad(concat!(
                            "a ", stringify!($type), " is never like this"
                        )));
                    }
                )?
                Ok(())
            }
        }
    };
}

/// Declares the numbers under which the variants of an enumeration without data are saved.
#[macro_export]
macro_rules! saved_enum {
    ($type:ty { $($variant:ident = $number:literal),* $(,)? }) => {
        impl $crate::state::Value for $type {
            fn save(&self, into: &mut Vec<u8>) {
                let number: u8 = match self { $(Self::$variant => $number,)* };
                $crate::state::Value::save(&number, into);
            }

            fn load(
                &mut self,
                from: &mut $crate::state::Reader<'_>,
            ) -> Result<(), $crate::state::StateError> {
                let mut number = 0_u8;
                $crate::state::Value::load(&mut number, from)?;
                *self = match number {
                    $($number => Self::$variant,)*
                    _ => return Err($crate::state::StateError::bad(
                        format!("{number} is none of the variants of {}", stringify!($type)))),
                };
                Ok(())
            }
        }
    };
}
