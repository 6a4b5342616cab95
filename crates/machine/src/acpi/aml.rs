//! ACPI's machine language, as far as our tables speak it. ACPI 6.5, chapter 20.
//!
//! Each function gives the bytes of a term; terms are put together by concatenation.

/// A term's bytes.
pub type Term = Vec<u8>;

/// Terms one behind the other.
pub fn all(terms: impl IntoIterator<Item = Term>) -> Term {
    terms.into_iter().flatten().collect()
}

/// The length of what follows, which counts itself.
fn with_length(opcode: &[u8], body: &[u8]) -> Term {
    let mut term = opcode.to_vec();
    let length = body.len();
    match length {
        0..=0x3e => term.push(length as u8 + 1),
        _ => {
            let extra = match length {
                0x3f..=0xffd => 1,
                0xffe..=0xf_fffc => 2,
                _ => 3,
            };
            let whole = length + 1 + extra;
            term.push((extra as u8) << 6 | whole as u8 & 15);
            term.extend((0..extra).map(|at| (whole >> (4 + 8 * at)) as u8));
        }
    }
    term.extend(body);
    term
}

/// A path of names: `\`, `^`, dots and segments of up to four characters.
pub fn path(text: &str) -> Term {
    let rest = text.trim_start_matches(['\\', '^']);
    let mut term = text.as_bytes()[..text.len() - rest.len()].to_vec();
    let segments: Vec<&str> = rest.split('.').filter(|segment| !segment.is_empty()).collect();
    match segments.len() {
        0 => term.push(0),
        1 => {}
        2 => term.push(0x2e),
        count => term.extend([0x2f, count as u8]),
    }
    for segment in segments {
        let mut padded = [b'_'; 4];
        for (to, from) in padded.iter_mut().zip(segment.bytes()) {
            *to = from;
        }
        term.extend(padded);
    }
    term
}

/// A number in as few bytes as it takes.
pub fn int(value: u64) -> Term {
    match value {
        0 => vec![0],
        1 => vec![1],
        2..=0xff => vec![0x0a, value as u8],
        0x100..=0xffff => [&[0x0b][..], &(value as u16).to_le_bytes()].concat(),
        0x1_0000..=0xffff_ffff => [&[0x0c][..], &(value as u32).to_le_bytes()].concat(),
        _ => [&[0x0e][..], &value.to_le_bytes()].concat(),
    }
}

/// A text.
pub fn string(text: &str) -> Term {
    [&[0x0d][..], text.as_bytes(), &[0]].concat()
}

/// An identifier such as `PNP0A03`, packed.
pub fn eisa_id(text: &str) -> Term {
    let bytes = text.as_bytes();
    let letter = |at: usize| u32::from(bytes[at] - 0x40);
    let digits = u32::from_str_radix(&text[3..], 16).unwrap_or(0);
    let value = letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | digits;
    [&[0x0c][..], &value.swap_bytes().to_le_bytes()].concat()
}

/// `Name(path, value)`.
pub fn name(at: &str, value: Term) -> Term {
    all([vec![0x08], path(at), value])
}

/// `Package() { ... }`.
pub fn package(terms: &[Term]) -> Term {
    with_length(&[0x12], &[&[terms.len() as u8][..], &terms.concat()].concat())
}

/// `Buffer() { ... }`.
pub fn buffer(bytes: &[u8]) -> Term {
    with_length(&[0x11], &[int(bytes.len() as u64), bytes.to_vec()].concat())
}

/// `Scope(path) { ... }`.
pub fn scope(at: &str, body: &[Term]) -> Term {
    with_length(&[0x10], &[path(at), body.concat()].concat())
}

/// `Device(path) { ... }`.
pub fn device(at: &str, body: &[Term]) -> Term {
    with_length(&[0x5b, 0x82], &[path(at), body.concat()].concat())
}

/// `Method(path, arguments) { ... }`.
pub fn method(at: &str, arguments: u8, body: &[Term]) -> Term {
    with_length(&[0x14], &[path(at), vec![arguments], body.concat()].concat())
}

/// `Return(value)`.
pub fn give(value: Term) -> Term {
    all([vec![0xa4], value])
}

/// `If(condition) { ... }`.
pub fn when(condition: Term, body: &[Term]) -> Term {
    with_length(&[0xa0], &[condition, body.concat()].concat())
}

/// `Else { ... }`.
pub fn otherwise(body: &[Term]) -> Term {
    with_length(&[0xa1], &body.concat())
}

/// `Store(value, target)`.
pub fn store(value: Term, target: Term) -> Term {
    all([vec![0x70], value, target])
}

/// `And(a, b)` or `And(a, b, target)`.
pub fn and(a: Term, b: Term, target: Option<Term>) -> Term {
    all([vec![0x7b], a, b, target.unwrap_or(vec![0])])
}

/// `Or(a, b, target)`.
pub fn or(a: Term, b: Term, target: Term) -> Term {
    all([vec![0x7d], a, b, target])
}

/// `LEqual(a, b)`.
pub fn equal(a: Term, b: Term) -> Term {
    all([vec![0x93], a, b])
}

/// `LNot(LEqual(a, b))`.
pub fn differs(a: Term, b: Term) -> Term {
    all([vec![0x92], equal(a, b)])
}

/// An argument of the method.
pub fn arg(number: u8) -> Term {
    vec![0x68 + number]
}

/// `CreateDWordField(source, byte, name)`.
pub fn dword_field(source: Term, byte: u64, field: &str) -> Term {
    all([vec![0x8a], source, int(byte), path(field)])
}

/// `ToUUID`'s bytes of a text such as `33db4d5b-1ff7-401c-9657-7441c03dd766`.
pub fn uuid(text: &str) -> Term {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |at: usize| {
        let pair = std::str::from_utf8(&digits[2 * at..2 * at + 2]).unwrap_or("0");
        u8::from_str_radix(pair, 16).unwrap_or(0)
    };
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    buffer(&order.map(byte))
}

/// The space of operation regions in a device's configuration registers.
pub const PCI_CONFIG: u8 = 2;

/// `OperationRegion(name, space, start, length)`.
pub fn region(at: &str, space: u8, start: u64, length: u64) -> Term {
    all([vec![0x5b, 0x80], path(at), vec![space], int(start), int(length)])
}

/// `Field(region, access, NoLock, Preserve) { name, bits, ... }`; an empty name skips bits.
pub fn field(of: &str, access: u8, fields: &[(&str, u32)]) -> Term {
    let mut body = [path(of), vec![access]].concat();
    for (name, bits) in fields {
        if name.is_empty() {
            body.push(0);
        } else {
            body.extend(path(name));
        }
        body.extend(package_length(*bits));
    }
    with_length(&[0x5b, 0x81], &body)
}

/// A length that does not count itself.
fn package_length(bits: u32) -> Term {
    match bits {
        0..=0x3f => vec![bits as u8],
        _ => vec![1 << 6 | bits as u8 & 15, (bits >> 4) as u8],
    }
}

/// `ResourceTemplate() { ... }`.
pub fn resources(items: &[Term]) -> Term {
    buffer(&[items.concat(), vec![0x79, 0]].concat())
}

/// Ports.
pub fn ports(start: u16, length: u8) -> Term {
    let [low, high] = start.to_le_bytes();
    vec![0x47, 1, low, high, low, high, 1, length]
}

/// An old interrupt line, edge-triggered.
pub fn irq(line: u8) -> Term {
    let [low, high] = (1_u16 << line).to_le_bytes();
    vec![0x22, low, high]
}

/// Interrupts that can be chosen, or are: level-triggered, active high, shared.
pub fn interrupts(numbers: &[u32]) -> Term {
    let mut term = vec![0x89];
    term.extend((2 + 4 * numbers.len() as u16).to_le_bytes());
    term.extend([0x09, numbers.len() as u8]);
    term.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    term
}

/// Fixed memory.
pub fn memory(start: u32, length: u32) -> Term {
    [&[0x86, 9, 0, 1][..], &start.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// What an address window is of.
#[derive(Clone, Copy)]
pub enum Window {
    /// Memory that the bridge passes on.
    Memory,
    /// Ports.
    Io,
    /// Bus numbers.
    Bus,
}

/// A window of a bridge, from `first` to `last`, in the smallest form that holds it.
pub fn window(kind: Window, first: u64, last: u64) -> Term {
    let (kind_byte, specific) = match kind {
        Window::Memory => (0, 1), // writable, not cacheable
        Window::Io => (1, 3),     // the whole range
        Window::Bus => (2, 0),
    };
    let length = last - first + 1;
    let fields = [0, first, last, 0, length];
    let (tag, bytes) = match (kind, last) {
        (Window::Io | Window::Bus, _) => (0x88, 2),
        (Window::Memory, ..=0xffff_ffff) => (0x87, 4),
        (Window::Memory, _) => (0x8a, 8),
    };
    let mut term = vec![tag];
    term.extend((3 + 5 * bytes as u16).to_le_bytes());
    term.extend([kind_byte, 0x0c, specific]); // positive decode, both ends fixed
    for value in fields {
        term.extend(&value.to_le_bytes()[..bytes]);
    }
    term
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_have_the_specifications_bytes() {
        assert_eq!(path("\\_SB.PCI0"), b"\\\x2e_SB_PCI0");
        assert_eq!(eisa_id("PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
        assert_eq!(int(0x1234), [0x0b, 0x34, 0x12]);
        assert_eq!(name("_S5", package(&[int(0), int(5)])), b"\x08_S5_\x12\x05\x02\x00\x0a\x05");
        let long = scope("X", &[vec![0xa3; 0x100]]);
        assert_eq!(long[..3], [0x10, 0x46, 0x10]);
        assert_eq!(long.len(), 1 + 0x106);
    }
}
