//! For people: registers, memory, ports, page tables.

use std::cell::Cell;
use std::fmt::Write;
use std::sync::Arc;

use machine::Registers;
use machine::inspect::{CR0, CR2, CR3, CR4, Mapping};

use super::expression::Reader;
use crate::emulator::Emulator;

type Result<T> = std::result::Result<T, String>;

thread_local! {
    /// The processor that the monitor of the command being executed looks at.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Executes something for a monitor that looks at `processor`, which `cpu` changes.
pub fn looking_at<T>(processor: &Cell<usize>, execute: impl FnOnce() -> T) -> T {
    CURRENT.set(processor.get());
    let result = execute();
    processor.set(CURRENT.get());
    result
}

/// The number of the processor that is looked at.
pub fn current() -> usize {
    CURRENT.get()
}

pub fn registers_of(emulator: &Emulator, number: usize) -> Result<Registers> {
    let processors = emulator.machine.processors().all();
    let processor = processors.get(number).ok_or("invalid CPU index")?;
    processor.inspect(|vcpu| vcpu.registers()).ok_or_else(|| "No CPU".to_owned())
}

fn registers(emulator: &Emulator) -> Result<Registers> {
    registers_of(emulator, current())
}

/// `cpu N`.
pub fn choose(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let number: Option<usize> = line.parse().ok();
    let count = emulator.machine.processors().all().len();
    match number.filter(|number| *number < count) {
        Some(number) => {
            CURRENT.set(number);
            Ok(String::new())
        }
        None => Ok("invalid CPU index\n".to_owned()),
    }
}

/// `info registers [-a]`.
pub fn info_registers(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let count = emulator.machine.processors().all().len();
    let numbers = if line == "-a" { 0..count } else { current()..current() + 1 };
    let mut text = String::new();
    for number in numbers {
        let registers = registers_of(emulator, number)?;
        _ = write!(text, "\nCPU#{number}\n{}", shown(&registers));
    }
    Ok(text)
}

const NAMES: [&str; 8] = ["AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP"];
/// x86's numbers of those.
const ORDER: [usize; 8] = [0, 3, 1, 2, 6, 7, 5, 4];
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

fn shown(registers: &Registers) -> String {
    let long = registers.is_long_code();
    let word = |value: u64| match long {
        true => format!("{value:016x}"),
        false => format!("{:08x}", value & 0xffff_ffff),
    };
    let prefix = if long { 'R' } else { 'E' };
    let mut text = String::new();
    let mut general: Vec<String> = NAMES
        .iter()
        .zip(ORDER)
        .map(|(name, number)| format!("{prefix}{name}={}", word(registers.general[number])))
        .collect();
    if long {
        let rest =
            (8..16).map(|number| format!("R{number:<2}={}", word(registers.general[number])));
        general.extend(rest);
    }
    for row in general.chunks(4) {
        _ = writeln!(text, "{}", row.join(" "));
    }
    let flags = registers.rflags;
    let flag = |bit: u32, name: char| if flags >> bit & 1 != 0 { name } else { '-' };
    let letters: String = [(10, 'D'), (11, 'O'), (7, 'S'), (6, 'Z'), (4, 'A'), (2, 'P'), (0, 'C')]
        .iter()
        .map(|(bit, name)| flag(*bit, *name))
        .collect();
    let level =
        if registers.control[CR0] & 1 != 0 { registers.segments[2].attributes >> 5 & 3 } else { 0 };
    _ = writeln!(
        text,
        "{prefix}IP={} {prefix}FL={:08x} [{letters}] CPL={level} II=0 A20=1 SMM=0 HLT={}",
        word(registers.rip),
        flags & 0xffff_ffff,
        u8::from(registers.halted)
    );
    let protected = registers.control[CR0] & 1 != 0;
    for (name, segment) in SEGMENTS.iter().zip(&registers.segments) {
        text.push_str(&segment_line(name, segment, protected, long, &word));
    }
    text.push_str(&segment_line("LDT", &registers.ldt, protected, long, &word));
    text.push_str(&segment_line("TR", &registers.task, protected, long, &word));
    for (name, (base, limit)) in [("GDT", registers.gdt), ("IDT", registers.idt)] {
        _ = writeln!(text, "{name}=     {} {limit:08x}", word(base));
    }
    let control = &registers.control;
    _ = writeln!(
        text,
        "CR0={:08x} CR2={} CR3={} CR4={:08x}",
        control[CR0] & 0xffff_ffff,
        word(control[CR2]),
        word(control[CR3]),
        control[CR4]
    );
    let debug: String = (0..4).map(|n| format!("DR{n}={:016x} ", registers.debug[n])).collect();
    _ = writeln!(text, "{debug}");
    _ = writeln!(text, "DR6={:016x} DR7={:016x}", registers.debug[6], registers.debug[7]);
    _ = writeln!(text, "EFER={:016x}", registers.efer);
    text.push_str(&floating(registers, if long { 16 } else { 8 }));
    text
}

fn floating(registers: &Registers, vectors: usize) -> String {
    let mut text = String::new();
    _ = writeln!(
        text,
        "FCW={:04x} FSW={:04x} [ST={}] FTW={:02x} MXCSR={:08x}",
        registers.x87_control,
        registers.x87_status,
        registers.x87_status >> 11 & 7,
        registers.x87_valid,
        registers.mxcsr
    );
    // By the registers' own numbers, not as the stack has them.
    let top = usize::from(registers.x87_status >> 11 & 7);
    let x87 = (0..8).map(|n| (n, registers.x87[(n + 8 - top) & 7]));
    let x87: Vec<String> =
        x87.map(|(n, [low, high])| format!("FPR{n}={low:016x} {high:04x}")).collect();
    let xmm = registers.vectors[..vectors].iter().enumerate();
    let xmm: Vec<String> =
        xmm.map(|(n, [low, high])| format!("XMM{n:02}={high:016x} {low:016x}")).collect();
    for row in x87.chunks(2).chain(xmm.chunks(2)) {
        _ = writeln!(text, "{}", row.join(" "));
    }
    text
}

/// A segment register; in protected mode with what its descriptor says.
fn segment_line(
    name: &str,
    segment: &machine::inspect::SegmentRegister,
    protected: bool,
    long: bool,
    word: &impl Fn(u64) -> String,
) -> String {
    let attributes = segment.attributes << 8;
    let mut line = format!(
        "{name:<3}={:04x} {} {:08x} {attributes:08x}",
        segment.selector,
        word(segment.base),
        segment.limit
    );
    let bit = |number: u32| segment.attributes >> number & 1 != 0;
    if protected && bit(7) {
        _ = write!(line, " DPL={} ", segment.attributes >> 5 & 3);
        line.push_str(&descriptor_kind(segment, long));
    }
    line.push('\n');
    line
}

/// What a descriptor is.
fn descriptor_kind(segment: &machine::inspect::SegmentRegister, long: bool) -> String {
    const WIDE: [&str; 16] = [
        "Reserved",
        "Reserved",
        "LDT",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "Reserved",
        "TSS64-avl",
        "Reserved",
        "TSS64-busy",
        "CallGate64",
        "Reserved",
        "IntGate64",
        "TrapGate64",
    ];
    const NARROW: [&str; 16] = [
        "Reserved",
        "TSS16-avl",
        "LDT",
        "TSS16-busy",
        "CallGate16",
        "TaskGate",
        "IntGate16",
        "TrapGate16",
        "Reserved",
        "TSS32-avl",
        "Reserved",
        "TSS32-busy",
        "CallGate32",
        "Reserved",
        "IntGate32",
        "TrapGate32",
    ];
    let bit = |number: u32| segment.attributes >> number & 1 != 0;
    if !bit(4) {
        let names = if long { WIDE } else { NARROW };
        return names[(segment.attributes & 15) as usize].to_owned();
    }
    let kind = match (bit(3), bit(13), bit(14)) {
        (true, true, _) => "CS64",
        (true, false, true) => "CS32",
        (true, false, false) => "CS16",
        (false, _, wide) if wide || long => "DS  ",
        (false, ..) => "DS16",
    };
    let letters = if bit(3) { ['C', 'R'] } else { ['E', 'W'] };
    let mark = |on: bool, letter: char| if on { letter } else { '-' };
    let [second, third] = letters;
    format!("{kind} [{}{}{}]", mark(bit(2), second), mark(bit(1), third), mark(bit(0), 'A'))
}

/// How memory is shown: so many, in this form, of this size.
struct Format {
    count: u64,
    form: char,
    bytes: usize,
}

/// The most that one command shows.
const SHOWN_BYTES_MAX: u64 = 1 << 20;

fn help(command: &str, error: &str) -> String {
    format!("{error}\nTry \"help {command}\" for more information\n")
}

/// `/4xw` and an expression behind it.
fn format(line: &str, default_bytes: usize) -> Result<(Format, &str)> {
    let mut format = Format { count: 1, form: 'x', bytes: default_bytes };
    let Some(rest) = line.trim_start().strip_prefix('/') else { return Ok((format, line)) };
    let (letters, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let digits = letters.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(letters.len());
    if digits > 0 {
        format.count = letters[..digits].parse().map_err(|_| "invalid count".to_owned())?;
    }
    for letter in letters[digits..].chars() {
        match letter {
            'x' | 'd' | 'u' | 'o' | 'c' | 'i' => format.form = letter,
            'b' => format.bytes = 1,
            'h' => format.bytes = 2,
            'w' => format.bytes = 4,
            'g' => format.bytes = 8,
            other => return Err(format!("invalid char in format: '{other}'")),
        }
    }
    Ok((format, rest))
}

/// `x`: memory as the program sees it.
pub fn examine(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let registers = registers(emulator)?;
    let read =
        |address: u64, bytes: usize| registers.read(&emulator.machine.memory(), address, bytes);
    Ok(dump(line, "x", &registers, read).unwrap_or_else(|error| help("x", &error)))
}

/// `xp`: memory as it lies.
pub fn examine_physical(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let registers = registers(emulator)?;
    let read = |address: u64, bytes: usize| {
        let mut contents = vec![0; bytes];
        emulator.machine.memory().view().read(address, &mut contents);
        contents
    };
    Ok(dump(line, "xp", &registers, read).unwrap_or_else(|error| help("xp", &error)))
}

fn dump(
    line: &str,
    command: &str,
    registers: &Registers,
    read: impl Fn(u64, usize) -> Vec<u8>,
) -> Result<String> {
    let (Format { count, form, bytes }, rest) = format(line, 4)?;
    let mut address = Reader::new(rest, Some(registers)).value()?;
    if form == 'i' {
        return Err(format!("'{command} /i' (disassembly) is not built in Hostel"));
    }
    let line_bytes = if bytes == 1 { 8 } else { 16 };
    let mut left = count.saturating_mul(bytes as u64).min(SHOWN_BYTES_MAX);
    let mut text = String::new();
    while left > 0 {
        let now = left.min(line_bytes) as usize;
        _ = write!(text, "{address:016x}:");
        let contents = read(address, now);
        if contents.len() < now {
            _ = writeln!(text, " Cannot access memory");
            break;
        }
        // Letters are bytes, however many of another size are asked for.
        for item in contents.chunks(if form == 'c' { 1 } else { bytes }) {
            let value = item.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            _ = write!(text, " {}", printed(value, form, bytes));
        }
        text.push('\n');
        address = address.wrapping_add(now as u64);
        left -= now as u64;
    }
    Ok(text)
}

fn printed(value: u64, form: char, bytes: usize) -> String {
    let signed = (value << (64 - 8 * bytes)) as i64 >> (64 - 8 * bytes);
    // Columns are as wide as the largest number.
    let decimal = (bytes * 80).div_ceil(33);
    match form {
        'd' if bytes >= 4 => format!("{signed:decimal$}"),
        'd' | 'u' => format!("{value:decimal$}"),
        'o' => {
            let octal = if value == 0 { "0".to_owned() } else { format!("0{value:o}") };
            format!("{octal:>width$}", width = (bytes * 8).div_ceil(3))
        }
        'c' => match char::from(value as u8) {
            '\'' => "'\\''".to_owned(),
            '\n' => "'\\n'".to_owned(),
            '\r' => "'\\r'".to_owned(),
            letter @ ' '..='~' => format!("'{letter}'"),
            _ => format!("'\\x{:02x}'", value as u8),
        },
        _ => format!("0x{value:0width$x}", width = 2 * bytes),
    }
}

/// `print`: the value of an expression.
pub fn print(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let registers = registers(emulator)?;
    let value = format(line, 8)
        .and_then(|(format, rest)| Ok((format.form, Reader::new(rest, Some(&registers)).value()?)));
    Ok(match value {
        Ok((form, value)) => format!("{}\n", number(value, form)),
        Err(error) => help("p", &error),
    })
}

fn number(value: u64, form: char) -> String {
    match form {
        'd' => (value as i64).to_string(),
        'u' => value.to_string(),
        'o' => format!("{value:#o}").replacen("0o", "0", 1),
        'c' => printed(value & 0xff, 'c', 1),
        _ => format!("{value:#x}"),
    }
}

fn has_pages(registers: &Registers) -> bool {
    registers.is_paging()
}

/// No guest has more pages that anybody reads through.
const PAGES_MAX: usize = 1 << 20;

const WRITES: u64 = 2;
const USER: u64 = 4;

/// `info mem`: ranges of addresses with the same rights.
pub fn info_memory(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    let registers = registers(emulator)?;
    if !has_pages(&registers) {
        return Ok("PG disabled\n".to_owned());
    }
    let mut text = String::new();
    let mut open: Option<(u64, u64, u64)> = None;
    let mut close = |open: Option<(u64, u64, u64)>| {
        if let Some((start, end, rights)) = open {
            let letter = |bit: u64, name: char| if rights & bit != 0 { name } else { '-' };
            let (user, writes) = (letter(USER, 'u'), letter(WRITES, 'w'));
            let bytes = end.wrapping_sub(start);
            let wide = if registers.is_long_code() || start >> 32 != 0 { 16 } else { 8 };
            _ = writeln!(text, "{start:0wide$x}-{end:0wide$x} {bytes:0wide$x} {user}r{writes}");
        }
    };
    for Mapping { address, bytes, rights, .. } in
        registers.pages(&emulator.machine.memory(), PAGES_MAX)
    {
        let rights = rights & (USER | WRITES);
        match open {
            Some((start, end, same)) if end == address && same == rights => {
                open = Some((start, end.wrapping_add(bytes), same));
            }
            _ => {
                close(open);
                open = Some((address, address.wrapping_add(bytes), rights));
            }
        }
    }
    close(open);
    Ok(text)
}

/// `info tlb`: every page.
pub fn info_tlb(emulator: &Arc<Emulator>, _: &str) -> Result<String> {
    const FLAGS: [(u32, char); 8] =
        [(8, 'G'), (7, 'P'), (6, 'D'), (5, 'A'), (4, 'C'), (3, 'T'), (2, 'U'), (1, 'W')];
    let registers = registers(emulator)?;
    if !has_pages(&registers) {
        return Ok("PG disabled\n".to_owned());
    }
    let mut text = String::new();
    for Mapping { address, physical, entry, bytes, .. } in
        registers.pages(&emulator.machine.memory(), PAGES_MAX)
    {
        let mark = |on: bool, letter: char| if on { letter } else { '-' };
        let large = bytes > 4096;
        let flags: String = FLAGS
            .iter()
            .map(|(bit, letter)| mark(entry >> bit & 1 != 0 && (*bit != 7 || large), *letter))
            .collect();
        let wide = if registers.control[CR4] & 1 << 5 != 0 { 16 } else { 8 };
        let execute = mark(entry >> 63 != 0, 'X');
        _ = writeln!(text, "{address:0wide$x}: {physical:0wide$x} {execute}{flags}");
    }
    Ok(text)
}

/// `gva2gpa`: where an address lies.
pub fn translate(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let registers = registers(emulator)?;
    let address = match Reader::new(line, Some(&registers)).value() {
        Ok(address) => address,
        Err(error) => return Ok(help("gva2gpa", &error)),
    };
    let found = registers.find(&emulator.machine.memory(), address);
    Ok(match found {
        Some(page) => format!("gpa: {:#x}\n", page.physical + (address - page.address)),
        None => "Unmapped\n".to_owned(),
    })
}

/// `i`: reads a port.
pub fn input(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let registers = registers(emulator)?;
    let read = format(line, 1).and_then(|(format, rest)| {
        let mut reader = Reader::new(rest, Some(&registers));
        Ok((format.bytes.min(4), reader.value()? & 0xffff))
    });
    Ok(match read {
        Ok((bytes, port)) => {
            let value = emulator.machine.ports().view().read_value(port, bytes as u8);
            let suffix = ['b', 'b', 'w', 'l', 'l'][bytes];
            format!("port{suffix}[{port:#06x}] = {value:#0width$x}\n", width = 2 + 2 * bytes)
        }
        Err(error) => help("i", &error),
    })
}

/// `o`: writes a port.
pub fn output(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    let registers = registers(emulator)?;
    let wanted = format(line, 1).and_then(|(format, rest)| {
        let mut reader = Reader::new(rest, Some(&registers));
        let port = reader.value()? & 0xffff;
        Ok((format.bytes.min(4), port, reader.value()?))
    });
    Ok(match wanted {
        Ok((bytes, port, value)) => {
            emulator.machine.ports().view().write_value(port, bytes as u8, value);
            String::new()
        }
        Err(error) => help("o", &error),
    })
}

/// `sum`: of bytes of memory, in 16 bits.
pub fn sum(emulator: &Arc<Emulator>, line: &str) -> Result<String> {
    const BYTES_MAX: u64 = 1 << 30;
    let registers = registers(emulator)?;
    let mut reader = Reader::new(line, Some(&registers));
    let (start, bytes) = match reader.value().and_then(|start| Ok((start, reader.value()?))) {
        Ok((start, bytes)) => (start, bytes.min(BYTES_MAX)),
        Err(error) => return Ok(help("sum", &error)),
    };
    let view = emulator.machine.memory();
    let view = view.view();
    let mut total: u16 = 0;
    let mut page = [0; 4096];
    let mut at = 0;
    while at < bytes {
        let now = (bytes - at).min(page.len() as u64) as usize;
        view.read(start.wrapping_add(at), &mut page[..now]);
        for byte in &page[..now] {
            // Rotated, so that the order of bytes counts.
            total = total.rotate_right(1).wrapping_add(u16::from(*byte));
        }
        at += now as u64;
    }
    Ok(format!("{total:05}\n"))
}
