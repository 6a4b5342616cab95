//! The monitor for people: lines in, text out.

use std::sync::{Arc, Weak};

use device::{Stream, StreamEvent, StreamPeer};
use parking_lot::Mutex;

use super::output::Output;
use crate::QEMU_VERSION;
use crate::commands::{hmp, registers};
use crate::emulator::Emulator;

const PROMPT: &str = "(qemu) ";
const ROOM_BYTES: usize = 4096;
const LINE_BYTES_MAX: usize = 4096;
const HISTORY_MAX: usize = 100;

/// A conversation with a person, or a script that pretends to be one.
pub struct HmpMonitor {
    emulator: Arc<Emulator>,
    output: Output,
    editor: Mutex<Editor>,
    /// The number of the one that commands are about.
    processor: Mutex<usize>,
}

/// The line under the cursor.
#[derive(Default)]
struct Editor {
    line: Vec<u8>,
    history: Vec<String>,
    /// Where in the history the arrow keys are.
    recalled: usize,
    escape: Vec<u8>,
    last_was_return: bool,
}

/// What a key does beside changing the line.
enum Key {
    Echo(Vec<u8>),
    Line(String),
}

impl Editor {
    fn press(&mut self, byte: u8) -> Option<Key> {
        if !self.escape.is_empty() {
            return self.sequence(byte);
        }
        let after_return = std::mem::take(&mut self.last_was_return);
        match byte {
            b'\n' if after_return => None,
            b'\r' | b'\n' => {
                self.last_was_return = byte == b'\r';
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                if !line.trim().is_empty() && self.history.last() != Some(&line) {
                    self.history.push(line.clone());
                    let excess = self.history.len().saturating_sub(HISTORY_MAX);
                    self.history.drain(..excess);
                }
                self.recalled = self.history.len();
                Some(Key::Line(line))
            }
            0x08 | 0x7f => self.line.pop().map(|_| Key::Echo(b"\x08 \x08".to_vec())),
            0x15 => Some(self.replace(Vec::new())),
            0x1b => {
                self.escape.push(byte);
                None
            }
            b' '.. if self.line.len() < LINE_BYTES_MAX => {
                self.line.push(byte);
                Some(Key::Echo(vec![byte]))
            }
            _ => None,
        }
    }

    /// Arrow keys up and down.
    fn sequence(&mut self, byte: u8) -> Option<Key> {
        self.escape.push(byte);
        if self.escape == b"\x1b[" || self.escape == b"\x1bO" {
            return None;
        }
        let key = std::mem::take(&mut self.escape);
        let up = match key.last() {
            Some(b'A') => true,
            Some(b'B') => false,
            _ => return None,
        };
        let last = self.history.len();
        self.recalled =
            if up { self.recalled.saturating_sub(1) } else { (self.recalled + 1).min(last) };
        let line = self.history.get(self.recalled).cloned().unwrap_or_default();
        Some(self.replace(line.into_bytes()))
    }

    fn replace(&mut self, line: Vec<u8>) -> Key {
        let mut echo = b"\x08 \x08".repeat(self.line.len());
        echo.extend(&line);
        self.line = line;
        Key::Echo(echo)
    }
}

impl HmpMonitor {
    /// Starts to listen on a stream.
    pub fn start(emulator: &Arc<Emulator>, stream: Arc<dyn Stream>) -> Arc<Self> {
        let monitor = Arc::new(Self {
            emulator: Arc::clone(emulator),
            output: Output::new(stream),
            editor: Mutex::default(),
            processor: Mutex::default(),
        });
        let peer: Weak<Self> = Arc::downgrade(&monitor);
        monitor.output.stream().attach(peer);
        monitor
    }

    fn say(&self, text: &str) {
        self.output.say(text.replace('\n', "\r\n").as_bytes(), false);
    }

    fn run(&self, line: &str) {
        self.say("\n");
        let processor = std::cell::Cell::new(*self.processor.lock());
        let text = registers::looking_at(&processor, || hmp::execute(&self.emulator, line));
        *self.processor.lock() = processor.get();
        self.say(&text);
        if std::mem::take(&mut *self.emulator.quit_after_answer.lock()) {
            self.emulator.quit();
            return;
        }
        self.say(PROMPT);
    }
}

/// Runs one line, as `human-monitor-command` does too.
pub fn execute_line(emulator: &Arc<Emulator>, line: &str) -> String {
    registers::looking_at(&std::cell::Cell::new(0), || hmp::execute(emulator, line))
}

impl StreamPeer for HmpMonitor {
    fn room(&self) -> usize {
        ROOM_BYTES
    }

    fn receive(&self, bytes: &[u8]) {
        for &byte in bytes {
            let key = self.editor.lock().press(byte);
            match key {
                Some(Key::Echo(echo)) => self.output.say(&echo, false),
                Some(Key::Line(line)) => self.run(&line),
                None => {}
            }
        }
    }

    fn event(&self, event: StreamEvent) {
        match event {
            StreamEvent::Opened => {
                let (major, minor, micro) = QEMU_VERSION;
                self.say(&format!(
                    "QEMU {major}.{minor}.{micro} monitor - type 'help' for more information\n"
                ));
                self.say(PROMPT);
            }
            StreamEvent::Closed => {
                let history = std::mem::take(&mut self.editor.lock().history);
                let recalled = history.len();
                *self.editor.lock() = Editor { history, recalled, ..Editor::default() };
                self.output.forget();
            }
            StreamEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.output.writable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(keys: &[u8]) -> Vec<String> {
        let mut editor = Editor::default();
        let pressed = keys.iter().filter_map(|key| editor.press(*key));
        let line = |key| match key {
            Key::Line(line) => Some(line),
            Key::Echo(_) => None,
        };
        pressed.filter_map(line).collect()
    }

    #[test]
    fn lines_are_edited_and_recalled() {
        assert_eq!(lines(b"infx\x7fo\r\n"), ["info"]);
        assert_eq!(lines(b"a\rb\r\x1b[A\x1b[A\r"), ["a", "b", "a"]);
        assert_eq!(lines(b"abc\x15d\n"), ["d"]);
    }
}
