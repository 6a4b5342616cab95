//! Packets: `$` contents `#` checksum, with `}` in front of what must not stand in contents.

/// No packet is longer; a longer one is dropped as broken.
pub const PACKET_BYTES_MAX: usize = 1 << 16;

/// What came.
#[derive(PartialEq, Eq, Debug)]
pub enum Input {
    /// A packet's contents.
    Packet(Vec<u8>),
    /// A packet with a wrong checksum, to be sent again.
    Broken,
    /// Ctrl-C.
    Interrupt,
}

/// Bytes in, packets out.
#[derive(Default, Debug)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next packet; `None` asks for more bytes.
    pub fn next(&mut self) -> Option<Input> {
        loop {
            match *self.pending.first()? {
                b'$' => return self.packet(),
                0x03 => {
                    self.pending.remove(0);
                    return Some(Input::Interrupt);
                }
                _ => _ = self.pending.remove(0), // acknowledgements
            }
        }
    }

    fn packet(&mut self) -> Option<Input> {
        let Some(end) = self.pending.iter().position(|&byte| byte == b'#') else {
            if self.pending.len() > 2 * PACKET_BYTES_MAX {
                self.pending.clear();
                return Some(Input::Broken);
            }
            return None;
        };
        if self.pending.len() < end + 3 {
            return None;
        }
        let contents = &self.pending[1..end];
        let told = std::str::from_utf8(&self.pending[end + 1..end + 3]).unwrap_or_default();
        let right = u8::from_str_radix(told, 16) == Ok(checksum(contents));
        let input = if right { Input::Packet(unescape(contents)) } else { Input::Broken };
        self.pending.drain(..end + 3);
        Some(input)
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.iter();
    let mut plain = Vec::new();
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'}' => bytes.next().copied().unwrap_or_default() ^ 0x20,
            byte => byte,
        });
    }
    plain
}

/// A packet with these contents.
pub fn encode(contents: &[u8]) -> Vec<u8> {
    let mut packet = vec![b'$'];
    for &byte in contents {
        if matches!(byte, b'$' | b'#' | b'}' | b'*') {
            packet.extend([b'}', byte ^ 0x20]);
        } else {
            packet.push(byte);
        }
    }
    let sum = checksum(&packet[1..]);
    packet.extend(format!("#{sum:02x}").bytes());
    packet
}

/// Bytes in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal; `None` if it is something else.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_any_split() {
        let wire = [&b"+"[..], &encode(b"qSupported"), b"\x03", &encode(b"X0,2:#}")].concat();
        for cut in 0..=wire.len() {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                decoder.feed(part);
                while let Some(input) = decoder.next() {
                    seen.push(input);
                }
            }
            let first = Input::Packet(b"qSupported".to_vec());
            let last = Input::Packet(b"X0,2:#}".to_vec());
            assert_eq!(seen, [first, Input::Interrupt, last], "cut at {cut}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_noticed() {
        let mut decoder = Decoder::default();
        decoder.feed(b"$g#00$g#67");
        assert_eq!(decoder.next(), Some(Input::Broken));
        assert_eq!(decoder.next(), Some(Input::Packet(b"g".to_vec())));
        assert_eq!(from_hex("0x"), None);
    }
}
