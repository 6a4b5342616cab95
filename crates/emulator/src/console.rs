//! COM1's peer: the terminal, a file, nobody.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use machine::{Request, Requests, SerialOutput, SerialPort};
use parking_lot::{Condvar, Mutex};
use rustix::termios::{self, OptionalActions, Termios};

/// The key before a command to the emulator: Ctrl-A.
const ESCAPE: u8 = 0x01;

const ESCAPE_HELP: &str = "\r\n\
    C-a h    print this help\r\n\
    C-a x    exit emulator\r\n\
    C-a C-a  sends C-a\r\n";

/// COM1's peer. Dropping it gives the terminal back.
pub struct Console {
    sink: Arc<Sink>,
    escapes: bool,
    reads_stdin: bool,
    cooked: Option<Termios>,
}

/// Where bytes go, and a bell for when the guest has room again.
struct Sink {
    target: Mutex<Target>,
    room: Mutex<u64>,
    changed: Condvar,
}

enum Target {
    Null,
    Stdout,
    File(File),
}

impl Console {
    fn new(target: Target, reads_stdin: bool, escapes: bool) -> Self {
        let sink =
            Sink { target: Mutex::new(target), room: Mutex::new(0), changed: Condvar::new() };
        Self { sink: Arc::new(sink), escapes, reads_stdin, cooked: None }
    }

    /// Nobody listens.
    pub fn null() -> Self {
        Self::new(Target::Null, false, false)
    }

    /// A file takes what the guest says.
    pub fn file(path: &str) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("could not open '{path}'"))?;
        Ok(Self::new(Target::File(file), false, false))
    }

    /// The terminal. With `escapes`, Ctrl-A commands the emulator, and Ctrl-C is the guest's.
    pub fn stdio(escapes: bool) -> Self {
        let mut console = Self::new(Target::Stdout, true, escapes);
        let stdin = io::stdin();
        if let Ok(cooked) = termios::tcgetattr(&stdin) {
            let mut raw = cooked.clone();
            raw.make_raw();
            // Output of the emulator itself still wants line ends.
            raw.output_modes = cooked.output_modes;
            if !escapes {
                raw.local_modes |= termios::LocalModes::ISIG;
            }
            if termios::tcsetattr(&stdin, OptionalActions::Now, &raw).is_ok() {
                console.cooked = Some(cooked);
            }
        }
        console
    }

    /// For the serial port.
    pub fn output(&self) -> Arc<dyn SerialOutput> {
        Arc::clone(&self.sink) as Arc<dyn SerialOutput>
    }

    /// Begins to carry input to the port.
    pub fn connect(&self, port: Arc<SerialPort>, requests: Arc<Requests>) {
        if !self.reads_stdin {
            return;
        }
        let (sink, escapes) = (Arc::clone(&self.sink), self.escapes);
        // The thread ends with the process: a read from a terminal cannot be interrupted.
        _ = thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || carry_input(&sink, escapes, &port, &requests));
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(cooked) = &self.cooked {
            _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, cooked);
        }
    }
}

fn carry_input(sink: &Sink, escapes: bool, port: &SerialPort, requests: &Requests) {
    let mut bytes = [0; 256];
    let mut escaped = false;
    loop {
        let count = match io::stdin().read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        for &byte in &bytes[..count] {
            if std::mem::take(&mut escaped) {
                match byte {
                    b'x' => return requests.put(Request::Quit),
                    b'h' | b'?' => sink.print(ESCAPE_HELP),
                    ESCAPE => sink.send_when_ready(port, ESCAPE),
                    _ => {}
                }
            } else if escapes && byte == ESCAPE {
                escaped = true;
            } else {
                sink.send_when_ready(port, byte);
            }
        }
    }
}

impl Sink {
    fn print(&self, text: &str) {
        text.bytes().for_each(|byte| self.send(byte));
    }

    /// Waits until the guest has taken what came before.
    fn send_when_ready(&self, port: &SerialPort, byte: u8) {
        let mut seen = self.room.lock();
        while port.room() == 0 {
            self.changed.wait(&mut seen);
        }
        drop(seen);
        port.receive(&[byte]);
    }
}

impl SerialOutput for Sink {
    fn send(&self, byte: u8) {
        // What cannot be written is lost, as on a line that nobody listens to.
        _ = match &mut *self.target.lock() {
            Target::Null => Ok(()),
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&[byte]).and_then(|()| stdout.flush())
            }
            Target::File(file) => file.write_all(&[byte]),
        };
    }

    fn room(&self) {
        *self.room.lock() += 1;
        self.changed.notify_one();
    }
}
