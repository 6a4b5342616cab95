//! gdb's side: the connection, and the program as the protocol's target.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use gdb::{Description, Resume, Session, Stop, Target, WatchKind};
use jit::Engine;

use super::{Debugger, Input, Place};
use crate::guest::Guest;
use crate::{host, memory};

/// A connection's two directions.
type Connection = (Box<dyn Read + Send>, Box<dyn Write + Send>);

/// Waits for gdb at a port of this machine, or at a socket of that path.
fn accept(place: &str) -> std::io::Result<Connection> {
    if let Ok(port) = place.parse::<u16>() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        return Ok((Box::new(stream.try_clone()?), Box::new(stream)));
    }
    let _ = std::fs::remove_file(place); // of an earlier run
    let listener = UnixListener::bind(place)?;
    let (stream, _) = listener.accept()?;
    Ok((Box::new(stream.try_clone()?), Box::new(stream)))
}

/// Waits for gdb; the program then stands at its first instruction.
pub fn listen<G: Guest>(
    engine: &Arc<Engine<G::FrontEnd>>,
    place: &str,
    auxiliary: &[u8],
    executable: &Path,
) -> Result<Arc<Debugger>, String> {
    let (mut reader, writer) =
        accept(place).map_err(|error| format!("gdbstub: cannot listen at {place}: {error}"))?;
    let (debugger, inputs) = Debugger::new();
    let debugger = Arc::new(debugger);
    let program = Program {
        debugger: debugger.clone(),
        description: G::description(),
        auxiliary: auxiliary.to_vec(),
        executable: executable.as_os_str().as_bytes().to_vec(),
        invalidate: {
            let engine = engine.clone();
            Box::new(move |start, end| engine.invalidate(start, end))
        },
        breakpoint: G::breakpoint,
    };
    let sender = debugger.inputs.lock().clone();
    let read = move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            if sender.send(Input::Bytes(bytes[..count].to_vec())).is_err() {
                return;
            }
        }
        let _ = sender.send(Input::Bytes(Vec::new()));
    };
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(name.into());
        // Signals of the program are for its own threads.
        let mask = crate::signals::inherited_mask();
        crate::signals::set_mask(u64::MAX);
        let spawned = thread.spawn(body);
        crate::signals::set_mask(mask);
        spawned.map(|_| ()).map_err(|error| format!("gdbstub: {error}"))
    };
    spawn("gdb-reader", Box::new(read))?;
    spawn("gdb", Box::new(move || serve(program, &inputs, writer)))?;
    Ok(debugger)
}

fn serve(mut program: Program, inputs: &Receiver<Input>, mut writer: Box<dyn Write + Send>) {
    let mut session = Session::new(std::process::id().into());
    while let Ok(input) = inputs.recv() {
        let (answer, waiting): (Vec<u8>, Option<Sender<()>>) = match input {
            Input::Bytes(bytes) if bytes.is_empty() => {
                // As when gdb detaches: a program should not hang because its debugger died.
                program.detach();
                return;
            }
            Input::Bytes(bytes) => {
                program.debugger.settle();
                (session.feed(&bytes, &mut program), None)
            }
            Input::Stop(stop) => {
                program.debugger.halt();
                (session.stopped(stop), None)
            }
            Input::End(stop, waiting) => (session.stopped(stop), Some(waiting)),
        };
        let sent = writer.write_all(&answer).and_then(|()| writer.flush());
        if let Some(waiting) = waiting {
            let _ = waiting.send(());
        }
        if sent.is_err() || session.is_over() {
            program.detach();
            return;
        }
    }
}

impl Debugger {
    /// Waits until those who were stopped stand still.
    fn settle(&self) {
        if self.books.lock().stopped {
            self.halt();
        }
    }
}

/// Writes to memory whatever its rights, as debuggers may.
pub fn poke(address: u64, contents: &[u8]) -> bool {
    let file = std::fs::OpenOptions::new().write(true).open("/proc/self/mem");
    file.is_ok_and(|file| file.write_all_at(contents, address).is_ok())
}

struct Program {
    debugger: Arc<Debugger>,
    description: Description,
    auxiliary: Vec<u8>,
    executable: Vec<u8>,
    invalidate: Box<dyn Fn(u64, u64) + Send>,
    breakpoint: fn(u64) -> &'static [u8],
}

impl Program {
    fn write(&self, address: u64, contents: &[u8]) -> bool {
        let written = poke(address, contents);
        (self.invalidate)(address, address.saturating_add(contents.len() as u64));
        written
    }
}

impl Target for Program {
    fn description(&self) -> &Description {
        &self.description
    }

    fn threads(&mut self) -> Vec<u64> {
        self.debugger.books.lock().threads.keys().copied().collect()
    }

    fn thread_name(&mut self, thread: u64) -> Option<String> {
        let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()?;
        Some(name.trim_end().into())
    }

    fn read_registers(&mut self, thread: u64) -> Option<Vec<u8>> {
        let books = self.debugger.books.lock();
        let entry = books.threads.get(&thread)?;
        Some(entry.written.clone().unwrap_or_else(|| entry.registers.clone()))
    }

    fn write_registers(&mut self, thread: u64, values: &[u8]) -> bool {
        let mut books = self.debugger.books.lock();
        let Some(entry) = books.threads.get_mut(&thread) else { return false };
        // In a call, the result is still to be written.
        let possible = entry.place == Place::AtGate && values.len() == entry.registers.len();
        if possible {
            entry.written = Some(values.to_vec());
        }
        possible
    }

    fn read_memory(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let mut contents = Vec::new();
        while contents.len() < bytes {
            let at = address.wrapping_add(contents.len() as u64);
            let piece = (0x1000 - (at & 0xfff) as usize).min(bytes - contents.len());
            let mut page = vec![0; piece];
            if memory::read(at, &mut page).is_err() {
                break;
            }
            contents.extend(page);
        }
        // gdb sees the program's own code.
        for (&place, original) in &self.debugger.books.lock().breakpoints {
            for (index, &byte) in original.iter().enumerate() {
                let offset = (place + index as u64).wrapping_sub(address) as usize;
                if let Some(seen) = contents.get_mut(offset) {
                    *seen = byte;
                }
            }
        }
        contents
    }

    fn write_memory(&mut self, address: u64, contents: &[u8]) -> bool {
        self.write(address, contents)
    }

    fn breakpoint(&mut self, address: u64, bytes: u64, set: bool) -> bool {
        let code = (self.breakpoint)(bytes);
        if !set {
            let original = self.debugger.books.lock().breakpoints.remove(&address);
            return original.is_none_or(|original| self.write(address, &original));
        }
        if self.debugger.books.lock().breakpoints.contains_key(&address) {
            return true;
        }
        let mut original = vec![0; code.len()];
        if memory::read(address, &mut original).is_err() || !self.write(address, code) {
            return false;
        }
        self.debugger.books.lock().breakpoints.insert(address, original);
        true
    }

    fn watch(&mut self, _: WatchKind, address: u64, bytes: u64, set: bool) -> bool {
        let mut books = self.debugger.books.lock();
        if !set {
            return books.watched.remove(&address).is_some();
        }
        let mut now = vec![0; bytes as usize];
        let readable = memory::read(address, &mut now).is_ok();
        if readable {
            books.watched.insert(address, now);
        }
        readable
    }

    fn object(&mut self, name: &str) -> Option<Vec<u8>> {
        match name {
            "auxv" => Some(self.auxiliary.clone()),
            "exec-file" => Some(self.executable.clone()),
            _ => None,
        }
    }

    fn resume(&mut self, resume: Resume) {
        self.debugger.resume(resume);
    }

    fn interrupt(&mut self) {
        let running = !self.debugger.books.lock().stopped;
        if running {
            self.debugger.halt();
            let first = self.debugger.books.lock().threads.keys().next().copied();
            let stop = Stop::interrupted(first.unwrap_or(1));
            let _ = self.debugger.inputs.lock().send(Input::Stop(stop));
        }
    }

    fn detach(&mut self) {
        let set: Vec<u64> = self.debugger.books.lock().breakpoints.keys().copied().collect();
        for address in set {
            self.breakpoint(address, 0, false);
        }
        self.debugger.let_go();
    }

    fn kill(&mut self) {
        host::die_of(libc::SIGKILL)
    }
}
