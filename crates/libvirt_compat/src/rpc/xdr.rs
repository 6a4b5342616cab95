//! XDR (RFC 4506) as libvirt uses it: big-endian words, everything padded to four bytes.
//!
//! Reading is lenient where clients are known to be wrong (any non-zero flag means present),
//! writing is strict.

use crate::Uuid;

/// libvirt's limit on one string.
pub const STRING_BYTES_MAX: usize = 4 << 20;
/// The largest opaque value: a migration's cookie, a peek into memory.
pub const OPAQUE_BYTES_MAX: usize = 8 << 20;

/// Why a payload is not what its procedure takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum XdrError {
    /// The payload ends early.
    #[error("The payload ends where {wanted} more bytes are needed")]
    Short {
        /// How many bytes are missing at least.
        wanted: usize,
    },
    /// A length that libvirt's own limits forbid or the payload cannot hold.
    #[error("Length {length} exceeds the limit {limit}")]
    TooLong {
        /// What was announced.
        length: usize,
        /// What is allowed here.
        limit: usize,
    },
    /// Text that is not UTF-8 or holds a NUL.
    #[error("A string is not text")]
    NotText,
    /// A union's tag that no branch has.
    #[error("Tag {tag} is unknown")]
    BadTag {
        /// The tag.
        tag: i32,
    },
}

/// A payload being read.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the payload's first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], XdrError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(XdrError::Short { wanted: count - self.bytes.len() });
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<[u8; 4], XdrError> {
        Ok(self.take(4)?.try_into().expect("four bytes were taken"))
    }

    fn double_word(&mut self) -> Result<[u8; 8], XdrError> {
        Ok(self.take(8)?.try_into().expect("eight bytes were taken"))
    }

    /// `length` bytes and the padding behind them.
    fn padded(&mut self, length: usize) -> Result<&'a [u8], XdrError> {
        let bytes = self.take(length)?;
        self.take(length.next_multiple_of(4) - length)?;
        Ok(bytes)
    }

    fn length(&mut self, limit: usize) -> Result<usize, XdrError> {
        let length = u32::decode(self)? as usize;
        if length > limit { Err(XdrError::TooLong { length, limit }) } else { Ok(length) }
    }
}

/// A value with a place on the wire.
pub trait Xdr: Sized {
    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads a value. Allocates no more than a small multiple of what the payload holds.
    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError>;
}

macro_rules! number {
    ($($type:ty, $read:ident;)*) => {
        $(impl Xdr for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
                Ok(Self::from_be_bytes(input.$read()?))
            }
        })*
    };
}

number! {
    u32, word;
    i32, word;
    u64, double_word;
    i64, double_word;
    f64, double_word;
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u32).encode(out);
    out.extend_from_slice(bytes);
    out.resize(out.len() + bytes.len().next_multiple_of(4) - bytes.len(), 0);
}

impl Xdr for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        let length = input.length(STRING_BYTES_MAX)?;
        let bytes = input.padded(length)?;
        if bytes.contains(&0) {
            return Err(XdrError::NotText);
        }
        Self::from_utf8(bytes.to_vec()).map_err(|_| XdrError::NotText)
    }
}

impl<T: Xdr> Xdr for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::from(self.is_some()).encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        // go-libvirt writes 0x0100_0000 for "present".
        if u32::decode(input)? == 0 { Ok(None) } else { T::decode(input).map(Some) }
    }
}

impl<T: Xdr> Xdr for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.len() as u32).encode(out);
        for value in self {
            value.encode(out);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        // Every element takes at least a word, so the payload itself bounds the count.
        let count = input.length(input.rest().len() / 4)?;
        (0..count).map(|_| T::decode(input)).collect()
    }
}

impl Xdr for Uuid {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(Self(input.take(16)?.try_into().expect("sixteen bytes were taken")))
    }
}

/// `opaque x<>`: bytes as they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Opaque(pub Vec<u8>);

impl Xdr for Opaque {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(&self.0, out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        let length = input.length(OPAQUE_BYTES_MAX)?;
        Ok(Self(input.padded(length)?.to_vec()))
    }
}

/// `char x<>`: unlike `opaque`, every byte takes a whole word.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chars(pub Vec<u8>);

impl Xdr for Chars {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.0.len() as u32).encode(out);
        for byte in &self.0 {
            u32::from(*byte).encode(out);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        let words = Vec::<u32>::decode(input)?;
        Ok(Self(words.into_iter().map(|word| word as u8).collect()))
    }
}

/// `char model[32]`: the processor's name, a word per character.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Model(pub [u8; 32]);

impl Model {
    /// Keeps the last place for the NUL that C programs look for.
    pub fn new(name: &str) -> Self {
        let mut model = [0; 32];
        let length = name.len().min(31);
        model[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self(model)
    }
}

impl Xdr for Model {
    fn encode(&self, out: &mut Vec<u8>) {
        for byte in self.0 {
            u32::from(byte).encode(out);
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
        let mut model = [0; 32];
        for byte in &mut model {
            *byte = u32::decode(input)? as u8;
        }
        Ok(Self(model))
    }
}

macro_rules! tuple {
    ($($($name:ident)*;)*) => {
        $(impl<$($name: Xdr),*> Xdr for ($($name,)*) {
            #[expect(non_snake_case, reason = "a tuple's members are named after their types")]
            fn encode(&self, out: &mut Vec<u8>) {
                let ($($name,)*) = self;
                $($name.encode(out);)*
            }
            fn decode(input: &mut Reader<'_>) -> Result<Self, XdrError> {
                Ok(($($name::decode(input)?,)*))
            }
        })*
    };
}

impl Xdr for () {
    fn encode(&self, _out: &mut Vec<u8>) {}

    fn decode(_input: &mut Reader<'_>) -> Result<Self, XdrError> {
        Ok(())
    }
}

tuple! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
}

/// The value's bytes.
pub fn to_bytes(value: &impl Xdr) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    bytes
}

/// The value that the bytes begin with.
pub fn from_bytes<T: Xdr>(bytes: &[u8]) -> Result<T, XdrError> {
    T::decode(&mut Reader::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Xdr + PartialEq + std::fmt::Debug>(value: T, bytes: &[u8]) {
        assert_eq!(to_bytes(&value), bytes);
        assert_eq!(from_bytes::<T>(bytes), Ok(value));
        for cut in 0..bytes.len() {
            assert!(from_bytes::<T>(&bytes[..cut]).is_err(), "{cut} bytes are enough");
        }
    }

    #[test]
    fn values_have_the_bytes_of_the_rfc() {
        check(0x0102_0304u32, &[1, 2, 3, 4]);
        check(-1i32, &[255; 4]);
        check(1u64, &[0, 0, 0, 0, 0, 0, 0, 1]);
        check(String::from("vm1"), &[0, 0, 0, 3, b'v', b'm', b'1', 0]);
        check(Some(7u32), &[0, 0, 0, 1, 0, 0, 0, 7]);
        check(vec![1u32, 2], &[0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        check(Opaque(vec![9]), &[0, 0, 0, 1, 9, 0, 0, 0]);
        check(Chars(vec![9]), &[0, 0, 0, 1, 0, 0, 0, 9]);
    }

    #[test]
    fn a_false_presence_flag_is_read_as_present() {
        assert_eq!(from_bytes(&[1, 0, 0, 0, 0, 0, 0, 7]), Ok(Some(7u32)));
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_allocated() {
        let huge = [0xff; 8];
        assert!(matches!(from_bytes::<String>(&huge), Err(XdrError::TooLong { .. })));
        assert!(matches!(from_bytes::<Opaque>(&huge), Err(XdrError::TooLong { .. })));
        assert!(matches!(from_bytes::<Vec<u32>>(&huge), Err(XdrError::TooLong { .. })));
    }

    #[test]
    fn a_string_with_a_nul_is_refused() {
        assert_eq!(from_bytes::<String>(&[0, 0, 0, 1, 0, 0, 0, 0]), Err(XdrError::NotText));
    }
}
