//! Numbers as people type them at the monitor: sums, products, masks, and registers of a processor.

use machine::Registers;
use machine::inspect::{CR0, CR2, CR3, CR4, CR8};

/// Reads an expression from the start of a text: its value, and the rest of the text. The texts of
/// errors are QEMU's.
pub struct Reader<'a> {
    rest: &'a str,
    registers: Option<&'a Registers>,
    depth: usize,
}

/// Nobody types more parentheses.
const DEPTH_MAX: usize = 64;

type Result<T> = std::result::Result<T, String>;

impl<'a> Reader<'a> {
    pub fn new(text: &'a str, registers: Option<&'a Registers>) -> Self {
        Self { rest: text.trim_start(), registers, depth: 0 }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start();
    }

    /// The value.
    pub fn value(&mut self) -> Result<u64> {
        let mut value = self.mask()?;
        while let Some(sign @ ('+' | '-')) = self.peek() {
            self.skip(1);
            let other = self.mask()?;
            value = if sign == '+' { value.wrapping_add(other) } else { value.wrapping_sub(other) };
        }
        Ok(value)
    }

    fn mask(&mut self) -> Result<u64> {
        let mut value = self.product()?;
        while let Some(sign @ ('&' | '|' | '^')) = self.peek() {
            self.skip(1);
            let other = self.product()?;
            value = match sign {
                '&' => value & other,
                '|' => value | other,
                _ => value ^ other,
            };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<u64> {
        let mut value = self.unary()?;
        while let Some(sign @ ('*' | '/' | '%')) = self.peek() {
            self.skip(1);
            let other = self.unary()?;
            value = match sign {
                '*' => value.wrapping_mul(other),
                _ if other == 0 => return Err("division by zero".to_owned()),
                '/' => value / other,
                _ => value % other,
            };
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<u64> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the expression is too deep".to_owned());
        }
        let value = self.term();
        self.depth -= 1;
        value
    }

    fn term(&mut self) -> Result<u64> {
        match self.peek() {
            None => Err("unexpected end of expression".to_owned()),
            Some('+') => {
                self.skip(1);
                self.unary()
            }
            Some('-') => {
                self.skip(1);
                Ok(self.unary()?.wrapping_neg())
            }
            Some('~') => {
                self.skip(1);
                Ok(!self.unary()?)
            }
            Some('(') => {
                self.skip(1);
                let value = self.value()?;
                if self.peek() != Some(')') {
                    return Err("')' expected".to_owned());
                }
                self.skip(1);
                Ok(value)
            }
            Some('\'') => {
                let mut letters = self.rest[1..].chars();
                let letter = letters.next().ok_or("character constant expected")?;
                if letters.next() != Some('\'') {
                    return Err("missing terminating ' character".to_owned());
                }
                self.skip(2 + letter.len_utf8());
                Ok(u64::from(u32::from(letter)))
            }
            Some('$') => self.register(),
            Some(digit) if digit.is_ascii_digit() => self.number(),
            Some(other) => Err(format!("invalid char '{other}' in expression")),
        }
    }

    fn register(&mut self) -> Result<u64> {
        let name = &self.rest[1..];
        let end = name.find(|sign: char| !(sign.is_ascii_alphanumeric() || "_.".contains(sign)));
        let name = &name[..end.unwrap_or(name.len())];
        let registers = self.registers.ok_or("no CPU available")?;
        let value = register(registers, name).ok_or("unknown register")?;
        self.skip(1 + name.len());
        Ok(value)
    }

    fn number(&mut self) -> Result<u64> {
        let end = self.rest.find(|sign: char| !sign.is_ascii_alphanumeric());
        let digits = &self.rest[..end.unwrap_or(self.rest.len())];
        let parsed = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
            (Some(hex), _) => u64::from_str_radix(hex, 16),
            (None, Some(octal)) if !octal.is_empty() => u64::from_str_radix(octal, 8),
            _ => digits.parse(),
        };
        let value = parsed.map_err(|_| "invalid char in expression".to_owned())?;
        self.skip(digits.len());
        Ok(value)
    }
}

fn register(registers: &Registers, name: &str) -> Option<u64> {
    const GENERAL: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
    const CONTROL: [(&str, usize); 5] =
        [("cr0", CR0), ("cr2", CR2), ("cr3", CR3), ("cr4", CR4), ("cr8", CR8)];
    let short = name.strip_prefix(['r', 'e']).unwrap_or_default();
    if let Some(number) = GENERAL.iter().position(|known| *known == short) {
        let value = registers.general[number];
        return Some(if name.starts_with('e') { value & 0xffff_ffff } else { value });
    }
    if let Some(number) = SEGMENTS.iter().position(|known| *known == name) {
        return Some(registers.segments[number].selector.into());
    }
    if let Some((_, place)) = CONTROL.iter().find(|(known, _)| *known == name) {
        return Some(registers.control[*place]);
    }
    match name {
        "sp" => Some(registers.general[4]),
        "fp" => Some(registers.general[5]),
        "rip" | "eip" => Some(registers.rip),
        // As instructions are fetched.
        "pc" if registers.is_long_code() => Some(registers.rip),
        "pc" => Some(registers.segments[1].base.wrapping_add(registers.rip)),
        "eflags" | "rflags" => Some(registers.rflags),
        _ => {
            let number: usize = name.strip_prefix('r')?.parse().ok()?;
            (8..16).contains(&number).then(|| registers.general[number])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_have_values() {
        let mut registers = Registers::default();
        registers.general[0] = 0x1_0000_0002;
        registers.general[9] = 7;
        registers.rip = 0x10;
        registers.segments[1].base = 0x7c0_0000;
        for (text, value) in [
            ("1+2*3", Ok(7)),
            ("(1+2)*3", Ok(9)),
            ("0x10|1", Ok(17)),
            ("010", Ok(8)),
            ("-1", Ok(u64::MAX)),
            ("~0 & 0xff", Ok(0xff)),
            ("'A'+1", Ok(66)),
            ("$eax+1", Ok(3)),
            ("$rax", Ok(0x1_0000_0002)),
            ("$r9", Ok(7)),
            ("$pc", Ok(0x7c0_0010)),
            ("1/0", Err("division by zero")),
            ("(3", Err("')' expected")),
            ("foo", Err("invalid char 'f' in expression")),
            ("", Err("unexpected end of expression")),
            ("$xyz", Err("unknown register")),
        ] {
            let found = Reader::new(text, Some(&registers)).value();
            assert_eq!(found, value.map_err(str::to_owned), "{text}");
        }
        let mut reader = Reader::new("1 2", None);
        assert_eq!((reader.value(), reader.value()), (Ok(1), Ok(2)));
        assert!(Reader::new(&"(".repeat(100), None).value().is_err());
    }
}
