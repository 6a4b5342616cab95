//! Values as bytes, little-endian, without padding.

use std::collections::{BTreeMap, VecDeque};

use super::{Reason, StateError};

/// Elements that a list may have.
pub const LENGTH_MAX: usize = 1 << 28;

/// Something that can be saved. Loading fills in what is there, so that a structure may keep parts
/// that are not saved.
pub trait Value {
    /// Appends it.
    fn save(&self, into: &mut Vec<u8>);

    /// Takes it off.
    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError>;
}

/// Bytes that are taken off from the front.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// All of these.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next so many bytes.
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], StateError> {
        let taken = self.0.split_at_checked(bytes).ok_or(StateError::of(Reason::Short))?;
        self.0 = taken.1;
        Ok(taken.0)
    }

    /// The number of elements that follow; each has a byte at least.
    pub fn length(&mut self) -> Result<usize, StateError> {
        let mut length = 0_u32;
        length.load(self)?;
        let length = length as usize;
        if length > LENGTH_MAX || length > self.0.len() {
            return Err(StateError::of(Reason::Short));
        }
        Ok(length)
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), StateError> {
        if self.0.is_empty() { Ok(()) } else { Err(StateError::of(Reason::Long)) }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn save_length(length: usize, into: &mut Vec<u8>) {
    let length = u32::try_from(length).expect("lists of a machine's state are short");
    length.save(into);
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn save(&self, into: &mut Vec<u8>) {
                into.extend_from_slice(&self.to_le_bytes());
            }

            fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
                let bytes = from.take(size_of::<$type>())?;
                *self = Self::from_le_bytes(bytes.try_into().expect("as many as were taken"));
                Ok(())
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, u128, i8, i16, i32, i64);

impl Value for usize {
    fn save(&self, into: &mut Vec<u8>) {
        (*self as u64).save(into);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let mut number = 0_u64;
        number.load(from)?;
        *self = Self::try_from(number).map_err(|_| StateError::bad("a size is too large"))?;
        Ok(())
    }
}

impl Value for bool {
    fn save(&self, into: &mut Vec<u8>) {
        u8::from(*self).save(into);
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let mut number = 0_u8;
        number.load(from)?;
        *self = match number {
            0 => false,
            1 => true,
            _ => return Err(StateError::bad(format!("{number} is no truth"))),
        };
        Ok(())
    }
}

impl<T: Value, const N: usize> Value for [T; N] {
    fn save(&self, into: &mut Vec<u8>) {
        self.iter().for_each(|value| value.save(into));
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.iter_mut().try_for_each(|value| value.load(from))
    }
}

impl<T: Value> Value for Box<[T]> {
    fn save(&self, into: &mut Vec<u8>) {
        save_length(self.len(), into);
        self.iter().for_each(|value| value.save(into));
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let length = from.length()?;
        if length != self.len() {
            return Err(StateError::bad(format!("{length} elements instead of {}", self.len())));
        }
        self.iter_mut().try_for_each(|value| value.load(from))
    }
}

fn load_list<T: Value + Default>(from: &mut Reader<'_>) -> Result<Vec<T>, StateError> {
    let length = from.length()?;
    let mut list = Vec::new();
    for _ in 0..length {
        let mut value = T::default();
        value.load(from)?;
        list.push(value);
    }
    Ok(list)
}

impl<T: Value + Default> Value for Vec<T> {
    fn save(&self, into: &mut Vec<u8>) {
        save_length(self.len(), into);
        self.iter().for_each(|value| value.save(into));
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        *self = load_list(from)?;
        Ok(())
    }
}

impl<T: Value + Default> Value for VecDeque<T> {
    fn save(&self, into: &mut Vec<u8>) {
        save_length(self.len(), into);
        self.iter().for_each(|value| value.save(into));
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        *self = load_list(from)?.into();
        Ok(())
    }
}

impl<K: Value + Default + Ord, T: Value + Default> Value for BTreeMap<K, T> {
    fn save(&self, into: &mut Vec<u8>) {
        save_length(self.len(), into);
        for (key, value) in self {
            key.save(into);
            value.save(into);
        }
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        self.clear();
        for _ in 0..from.length()? {
            let (mut key, mut value) = (K::default(), T::default());
            key.load(from)?;
            value.load(from)?;
            self.insert(key, value);
        }
        Ok(())
    }
}

impl<T: Value + Default> Value for Option<T> {
    fn save(&self, into: &mut Vec<u8>) {
        self.is_some().save(into);
        if let Some(value) = self {
            value.save(into);
        }
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let mut is_some = false;
        is_some.load(from)?;
        *self = None;
        if is_some {
            self.insert(T::default()).load(from)?;
        }
        Ok(())
    }
}

impl Value for String {
    fn save(&self, into: &mut Vec<u8>) {
        save_length(self.len(), into);
        into.extend_from_slice(self.as_bytes());
    }

    fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
        let length = from.length()?;
        let bytes = from.take(length)?.to_vec();
        *self = Self::from_utf8(bytes).map_err(|_| StateError::bad("a text is not UTF-8"))?;
        Ok(())
    }
}

macro_rules! tuples {
    ($(($($name:ident $at:tt),*)),*) => {$(
        impl<$($name: Value),*> Value for ($($name,)*) {
            fn save(&self, into: &mut Vec<u8>) {
                $(self.$at.save(into);)*
            }

            fn load(&mut self, from: &mut Reader<'_>) -> Result<(), StateError> {
                $(self.$at.load(from)?;)*
                Ok(())
            }
        }
    )*};
}

tuples!((A 0, B 1), (A 0, B 1, C 2), (A 0, B 1, C 2, D 3));
