//! Guest memory and registers as an ELF core, for `crash`, gdb and `virsh dump --memory-only`.

mod notes;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use machine::{AddressSpace, Owner, Registers, RunState};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::migration::channel::{Address, Sink};

/// What is copied at once.
const PIECE_BYTES: u64 = 1 << 20;
const FILE_HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;

/// How far a dump is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Status {
    #[default]
    None,
    Active,
    Completed,
    Failed,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// The last dump, or the present one.
#[derive(Default)]
pub struct Dump {
    status: Mutex<Status>,
    completed: AtomicU64,
    total: AtomicU64,
}

impl Dump {
    /// As `query-dump` tells it.
    pub fn describe(&self) -> Value {
        json!({
            "status": self.status.lock().name(),
            "completed": self.completed.load(Ordering::Relaxed),
            "total": self.total.load(Ordering::Relaxed),
        })
    }

    fn begin(&self) -> Result<(), String> {
        let mut status = self.status.lock();
        if *status == Status::Active {
            return Err("There is a dump in process, please wait.".to_owned());
        }
        *status = Status::Active;
        self.completed.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// Memory that lies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    bytes: u64,
}

/// The memory of a machine, or what of it lies in `window`.
fn spans(memory: &AddressSpace, window: Option<(u64, u64)>) -> Vec<Span> {
    let view = memory.view();
    let (low, high) = window.map_or((0, u64::MAX), |(start, bytes)| (start, start + bytes));
    let mut spans: Vec<Span> = Vec::new();
    for range in view.ranges() {
        if !matches!(range.owner, Owner::Ram(_) | Owner::Rom(_)) {
            continue;
        }
        let start = range.start.max(low);
        let end = range.last().saturating_add(1).min(high);
        if start >= end {
            continue;
        }
        match spans.last_mut() {
            Some(last) if last.start + last.bytes == start => last.bytes += end - start,
            _ => spans.push(Span { start, bytes: end - start }),
        }
    }
    spans
}

/// Starts a dump; `detached` does not wait for its end.
pub fn start(
    emulator: &Arc<Emulator>,
    protocol: &str,
    window: Option<(u64, u64)>,
    detached: bool,
) -> Result<(), String> {
    let address = match Address::parse(protocol) {
        Ok(address @ (Address::File(_, 0) | Address::Descriptor(_))) => address,
        _ => return Err("parameter 'protocol' must start with 'file:' or 'fd:'".to_owned()),
    };
    if emulator.machine.control().state() == RunState::InMigrate {
        return Err("Dump not allowed during incoming migration.".to_owned());
    }
    let spans = spans(&emulator.machine.memory(), window);
    if spans.is_empty() {
        return Err("Invalid parameter 'begin'".to_owned());
    }
    let sink = address.sink(&*emulator.passed).map_err(|error| error.to_string())?;
    emulator.dump.begin()?;
    emulator.dump.total.store(spans.iter().map(|span| span.bytes).sum(), Ordering::Relaxed);
    let work = {
        let emulator = Arc::clone(emulator);
        move || carry_out(&emulator, sink, &spans)
    };
    if !detached {
        return work();
    }
    let begun = thread::Builder::new().name("dump".to_owned()).spawn(work);
    begun.map(|_| ()).map_err(|error| {
        *emulator.dump.status.lock() = Status::Failed;
        format!("Cannot start a thread: {error}")
    })
}

fn carry_out(emulator: &Arc<Emulator>, sink: Sink, spans: &[Span]) -> Result<(), String> {
    let written = crate::snapshots::standing(emulator, RunState::SaveVm, |_| {
        let written = write(emulator, sink, spans).map_err(|error| error.to_string());
        let status = if written.is_ok() { Status::Completed } else { Status::Failed };
        *emulator.dump.status.lock() = status;
        let mut data = json!({"result": emulator.dump.describe()});
        if let Err(error) = &written {
            data["error"] = error.as_str().into();
        }
        emulator.monitors.event("DUMP_COMPLETED", data);
        written
    });
    let mut status = emulator.dump.status.lock();
    if *status == Status::Active {
        *status = Status::Failed; // the machine could not be made to stand
    }
    written
}

fn write(emulator: &Emulator, mut sink: Sink, spans: &[Span]) -> io::Result<()> {
    let processors = emulator.machine.processors().all();
    let registers = processors.iter().map(|processor| processor.inspect(|vcpu| vcpu.registers()));
    let registers: Vec<Registers> = registers.flatten().collect();
    sink.write_all(&head(&registers, spans))?;
    let view = emulator.machine.memory().view();
    let mut piece = vec![0; PIECE_BYTES as usize];
    for span in spans {
        let mut done = 0;
        while done < span.bytes {
            let now = (span.bytes - done).min(PIECE_BYTES);
            let piece = &mut piece[..now as usize];
            view.read(span.start + done, piece);
            sink.write_all(piece)?;
            done += now;
            emulator.dump.completed.fetch_add(now, Ordering::Relaxed);
        }
    }
    sink.close()
}

/// Everything before the memory: the file's header, the program headers, the notes.
fn head(registers: &[Registers], spans: &[Span]) -> Vec<u8> {
    const X86_64: u16 = 62;
    const CORE: u16 = 4;
    let notes = notes::all(registers);
    let headers = 1 + spans.len() as u64;
    let at = FILE_HEADER_BYTES + headers * PROGRAM_HEADER_BYTES;
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend([CORE, X86_64].map(u16::to_le_bytes).concat());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0, FILE_HEADER_BYTES, 0].map(u64::to_le_bytes).concat()); // entry, headers, sections
    bytes.extend(0u32.to_le_bytes());
    let sizes = [FILE_HEADER_BYTES, PROGRAM_HEADER_BYTES, headers, 0, 0, 0];
    bytes.extend(sizes.map(|size| (size as u16).to_le_bytes()).concat());
    let mut header = |kind: u32, offset: u64, address: u64, length: u64| {
        bytes.extend([kind, 0].map(u32::to_le_bytes).concat());
        let words = [offset, address, address, length, length, 0];
        bytes.extend(words.map(u64::to_le_bytes).concat());
    };
    const LOAD: u32 = 1;
    const NOTE: u32 = 4;
    header(NOTE, at, 0, notes.len() as u64);
    let mut offset = at + notes.len() as u64;
    for span in spans {
        header(LOAD, offset, span.start, span.bytes);
        offset += span.bytes;
    }
    bytes.extend(notes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_counts_its_segments_and_says_where_they_begin() {
        let spans = [Span { start: 0, bytes: 0xa0000 }, Span { start: 0x10_0000, bytes: 0x1000 }];
        let head = head(&[Registers::default(), Registers::default()], &spans);
        let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        assert_eq!((&head[..4], half(16), half(18), half(56)), (&b"\x7fELF"[..], 4, 62, 3));
        let header = |number: usize| 64 + 56 * number;
        assert_eq!(word(header(0) + 8) + word(header(0) + 32), head.len() as u64, "notes are last");
        assert_eq!(word(header(1) + 8), head.len() as u64);
        assert_eq!(word(header(2) + 8), head.len() as u64 + 0xa0000);
        assert_eq!((word(header(2) + 24), word(header(2) + 32)), (0x10_0000, 0x1000));
    }
}
