//! Reads and writes of qemu-io, with their many options.

use std::time::Instant;

use block::node::Zeroing;
use block::{Error, NodeRef};

use super::numbers::{number, pattern};
use super::{Done, Failed, report};

/// Requests are at most this long (the largest sector-aligned signed 32-bit number).
const REQUEST_BYTES_MAX: i64 = 2_147_483_136;
/// What buffers hold that are not otherwise filled: 0xab is read, 0xcd is written.
const READ_FILL: u8 = 0xab;
const WRITE_FILL: u8 = 0xcd;
const SECTOR: i64 = 512;

/// The options of a request.
#[derive(Default)]
struct Flags {
    vm_state: bool,
    compact: bool,
    compressed: bool,
    fua: bool,
    no_fallback: bool,
    quiet: bool,
    unmap: bool,
    dump: bool,
    zeros: bool,
    invalid: bool,
    pattern: Option<u8>,
    /// `-l` and `-s` of a read: which part must have the pattern.
    part_length: Option<i64>,
    part_start: Option<i64>,
    /// `-s` of a write: a file with what to write.
    source: Option<String>,
    operands: Vec<String>,
}

/// Which letters a command has; those in `valued` take a value.
fn parse(arguments: &[String], letters: &str, valued: &str) -> Result<Flags, Failed> {
    let mut flags = Flags::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(given) = argument
            .strip_prefix('-')
            .filter(|given| !given.is_empty() && !given.as_bytes()[0].is_ascii_digit())
        else {
            flags.operands.push(argument.clone());
            continue;
        };
        for (at, letter) in given.char_indices() {
            if valued.contains(letter) {
                let behind = &given[at + letter.len_utf8()..];
                let value = if behind.is_empty() {
                    rest.next().cloned().ok_or_else(|| missing(letter))?
                } else {
                    behind.to_string()
                };
                flags.set_value(letter, value, valued)?;
                break;
            }
            if !letters.contains(letter) {
                eprintln!("qemu-io: invalid option -- '{letter}'");
                return Err(Failed);
            }
            flags.set(letter, letters);
        }
    }
    Ok(flags)
}

fn missing(letter: char) -> Failed {
    eprintln!("qemu-io: option requires an argument -- '{letter}'");
    Failed
}

impl Flags {
    fn set(&mut self, letter: char, letters: &str) {
        match letter {
            'b' => self.vm_state = true,
            'C' => self.compact = true,
            'c' => self.compressed = true,
            'f' => self.fua = true,
            'i' => self.invalid = true,
            'n' => self.no_fallback = true,
            'q' => self.quiet = true,
            'u' => self.unmap = true,
            'v' => self.dump = true,
            'z' => self.zeros = true,
            // -r registers a buffer and -p was once an interface: neither changes the result.
            _ => debug_assert!(letters.contains(letter)),
        }
    }

    fn set_value(&mut self, letter: char, value: String, valued: &str) -> Done {
        match letter {
            'P' => self.pattern = Some(pattern(&value)?),
            'l' => self.part_length = Some(number(&value)?),
            's' if valued.contains('l') => self.part_start = Some(number(&value)?),
            _ => self.source = Some(value),
        }
        Ok(())
    }
}

fn failed(what: &str, error: &Error) -> Failed {
    println!("{what} failed: {}", error.reason());
    Failed
}

fn wrong_arguments(name: &str, usage: &str) -> Failed {
    eprintln!("{name} -- {usage}");
    Failed
}

/// `read`, `readv` and `aio_read`.
pub fn read(node: &NodeRef, name: &str, arguments: &[String]) -> Done {
    let vectors = name != "read";
    let flags = if vectors {
        parse(arguments, "Cqviru", "P")?
    } else {
        parse(arguments, "bCpqruv", "Pls")?
    };
    let (offset, lengths) = place(&flags, vectors, name, "off len")?;
    let total: i64 = lengths.iter().sum();
    let base = state_base(node, &flags, "read")?;
    let start = flags.part_start.unwrap_or(0);
    let part = flags.part_length.unwrap_or(total - start);
    if (flags.part_length.is_some() || flags.part_start.is_some()) && flags.pattern.is_none() {
        return Err(wrong_arguments(name, "-l and -s need -P"));
    }
    if flags.pattern.is_some() && (start < 0 || part < 0 || start + part > total) {
        println!("pattern verification range exceeds end of read data");
        return Err(Failed);
    }
    let began = Instant::now();
    let mut buffer = vec![READ_FILL; total as usize];
    let read = match base {
        Some(base) => node.read_at(&mut buffer, base + offset as u64),
        None => within(node, offset, total).and_then(|()| node.read_at(&mut buffer, offset as u64)),
    };
    let took = began.elapsed();
    let verb = if vectors { "readv" } else { "read" };
    read.map_err(|error| failed(verb, &error))?;
    let mut outcome = Ok(());
    if let Some(pattern) = flags.pattern
        && buffer[start as usize..(start + part) as usize].iter().any(|byte| *byte != pattern)
    {
        println!("Pattern verification failed at offset {}, {part} bytes", offset + start);
        outcome = Err(Failed);
    }
    if flags.quiet {
        return outcome;
    }
    if flags.dump {
        report::dump(&buffer, offset);
    }
    report::print("read", took, offset, total, total, flags.compact);
    outcome
}

/// `write`, `writev` and `aio_write`.
pub fn write(node: &NodeRef, name: &str, arguments: &[String]) -> Done {
    let vectors = name != "write";
    let flags = match name {
        "write" => parse(arguments, "bcCfnpqruz", "Ps")?,
        "writev" => parse(arguments, "Cfqr", "P")?,
        _ => parse(arguments, "Cfqruzi", "P")?,
    };
    check_write(name, &flags)?;
    let (offset, lengths) = place(&flags, vectors, name, "off len")?;
    if name == "aio_write" && flags.zeros && lengths.len() > 1 {
        println!("-z supports only a single length parameter");
        return Err(Failed);
    }
    let total: i64 = lengths.iter().sum();
    let base = state_base(node, &flags, "write")?;
    let buffer = fill(&flags, total)?;
    let began = Instant::now();
    let written = match base {
        Some(base) => node.write_at(&buffer, base + offset as u64),
        None => {
            within(node, offset, total).and_then(|()| store(node, &flags, offset, total, &buffer))
        }
    };
    let written = written.and_then(|()| if flags.fua { node.flush() } else { Ok(()) });
    let took = began.elapsed();
    let verb = match name {
        "write" => "write",
        "writev" => "writev",
        _ => "aio_write",
    };
    written.map_err(|error| failed(verb, &error))?;
    if !flags.quiet {
        report::print("wrote", took, offset, total, total, flags.compact);
    }
    Ok(())
}

fn check_write(name: &str, flags: &Flags) -> Done {
    let problem = if flags.vm_state && flags.zeros {
        "-b and -z cannot be specified at the same time"
    } else if flags.fua && (flags.vm_state || flags.compressed) {
        "-f and -b or -c cannot be specified at the same time"
    } else if flags.no_fallback && !flags.zeros {
        "-n requires -z to be specified"
    } else if flags.unmap && !flags.zeros {
        "-u requires -z to be specified"
    } else if name == "aio_write" && flags.zeros && flags.pattern.is_some() {
        "-z and -P cannot be specified at the same time"
    } else if u8::from(flags.zeros)
        + u8::from(flags.pattern.is_some())
        + u8::from(flags.source.is_some())
        > 1
    {
        "Only one of -z, -P, and -s can be specified at the same time"
    } else {
        return Ok(());
    };
    println!("{problem}");
    Err(Failed)
}

fn fill(flags: &Flags, total: i64) -> Result<Vec<u8>, Failed> {
    if flags.zeros {
        return Ok(Vec::new());
    }
    if let Some(source) = &flags.source {
        let bytes = std::fs::read(source).map_err(|error| {
            let text = error.to_string();
            println!("{source}: {}", text.split(" (os").next().unwrap_or_default());
            Failed
        })?;
        if bytes.is_empty() {
            eprintln!("{source}: file is empty");
            return Err(Failed);
        }
        return Ok(bytes.iter().copied().cycle().take(total as usize).collect());
    }
    Ok(vec![flags.pattern.unwrap_or(WRITE_FILL); total as usize])
}

fn store(
    node: &NodeRef,
    flags: &Flags,
    offset: i64,
    total: i64,
    buffer: &[u8],
) -> block::Result<()> {
    let at = offset as u64;
    if !node.writable() {
        return Err(Error::Os(rustix::io::Errno::PERM));
    }
    if flags.zeros {
        let zeroing = if flags.unmap { Zeroing::Unmap } else { Zeroing::Keep };
        return if flags.no_fallback {
            node.zero_fast(at, total as u64, zeroing)
        } else {
            node.zero_at(at, total as u64, zeroing)
        };
    }
    if !flags.compressed {
        return node.write_at(buffer, at);
    }
    let compressing =
        node.compressing().ok_or_else(|| Error::unsupported("Operation not supported"))?;
    let unit = compressing.unit();
    if !at.is_multiple_of(unit as u64) {
        return Err(Error::Os(rustix::io::Errno::INVAL));
    }
    let ends_image = at + total as u64 == node.size();
    if !(total as usize).is_multiple_of(unit) && !ends_image {
        return Err(Error::Os(rustix::io::Errno::INVAL));
    }
    for (number, piece) in buffer.chunks(unit).enumerate() {
        let packed = compressing.pack(piece)?;
        compressing.store(at + (number * unit) as u64, piece, &packed)?;
    }
    Ok(())
}

/// Where machine state begins, if the request is about that.
fn state_base(node: &NodeRef, flags: &Flags, verb: &str) -> Result<Option<u64>, Failed> {
    if !flags.vm_state {
        return Ok(None);
    }
    match node.vm_state_offset() {
        Some(base) => Ok(Some(base)),
        None => {
            println!("{verb} failed: Operation not supported");
            Err(Failed)
        }
    }
}

/// A request beyond the end fails as a whole.
fn within(node: &NodeRef, offset: i64, length: i64) -> block::Result<()> {
    let end = (offset as u64).saturating_add(length as u64);
    if end <= node.size() { Ok(()) } else { Err(Error::Os(rustix::io::Errno::IO)) }
}

/// The offset and the lengths of a request.
fn place(flags: &Flags, vectors: bool, name: &str, usage: &str) -> Result<(i64, Vec<i64>), Failed> {
    let operands = &flags.operands;
    if operands.len() < 2 || (!vectors && operands.len() != 2) {
        return Err(wrong_arguments(name, usage));
    }
    let offset = number(&operands[0])?;
    let mut lengths = Vec::new();
    let mut total = 0;
    for text in &operands[1..] {
        let length = number(text)?;
        if vectors && length > REQUEST_BYTES_MAX {
            println!("Argument '{text}' exceeds maximum size {REQUEST_BYTES_MAX}");
            return Err(Failed);
        }
        if !vectors && length > REQUEST_BYTES_MAX && !flags.no_fallback {
            if name == "write" {
                println!("length cannot exceed {REQUEST_BYTES_MAX} without -n, given {text}");
            } else {
                println!("length cannot exceed {REQUEST_BYTES_MAX}, given {text}");
            }
            return Err(Failed);
        }
        if vectors && total > REQUEST_BYTES_MAX - length {
            println!("The total number of bytes exceed the maximum size {REQUEST_BYTES_MAX}");
            return Err(Failed);
        }
        total += length;
        lengths.push(length);
    }
    if flags.vm_state || flags.compressed {
        for (value, word) in [(offset, "offset"), (total, "count")] {
            if value % SECTOR != 0 {
                println!("{value} is not a sector-aligned value for '{word}'");
                return Err(Failed);
            }
        }
    }
    Ok((offset, lengths))
}

/// `discard` and `aio_discard`.
pub fn discard(node: &NodeRef, name: &str, arguments: &[String]) -> Done {
    let flags = parse(arguments, "Cq", "")?;
    let (offset, lengths) = place(&flags, false, name, "off len")?;
    let length = lengths[0];
    let began = Instant::now();
    let done = if node.writable() {
        within(node, offset, length).and_then(|()| node.discard_at(offset as u64, length as u64))
    } else {
        Err(Error::Os(rustix::io::Errno::PERM))
    };
    let took = began.elapsed();
    done.map_err(|error| failed(name, &error))?;
    if !flags.quiet {
        report::print("discard", took, offset, length, length, flags.compact);
    }
    Ok(())
}
