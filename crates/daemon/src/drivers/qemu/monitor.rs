//! The conversation with a running emulator: commands from any thread, one thread that listens.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::{Condvar, Mutex};
use qemu_compat::qmp::{Client, Event, Incoming, QmpError};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Map, Value};

/// No command of a healthy emulator takes longer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// A loaded host may take long to start a process.
const GREETING_TIMEOUT: Duration = Duration::from_secs(60);

/// What the listening thread passes on.
pub enum Heard {
    Event(Event),
    /// The conversation is over: the emulator is gone, or talks nonsense.
    Closed,
}

/// A monitor. `state` is a leaf; replies wake everyone who waits.
pub struct Monitor {
    writer: UnixStream,
    state: Mutex<State>,
    replied: Condvar,
}

#[derive(Default)]
struct State {
    client: Client,
    greeted: bool,
    closed: bool,
    /// Commands whose senders wait.
    waiting: HashMap<u64, Option<std::result::Result<Value, QmpError>>>,
}

impl Monitor {
    /// Starts to listen. `hear` is called from the listening thread.
    pub fn start(
        stream: UnixStream,
        name: &str,
        hear: impl Fn(&Monitor, Heard) + Send + 'static,
    ) -> Result<Arc<Self>> {
        let failed = |error| crate::files::system("Cannot talk to the monitor", &error);
        let reader = stream.try_clone().map_err(failed)?;
        let monitor =
            Arc::new(Self { writer: stream, state: Mutex::default(), replied: Condvar::new() });
        let own = Arc::clone(&monitor);
        thread::Builder::new()
            .name(format!("qmp-{name}"))
            .stack_size(256 << 10)
            .spawn(move || own.listen(reader, &hear))
            .map_err(failed)?;
        Ok(monitor)
    }

    fn listen(&self, mut reader: UnixStream, hear: &dyn Fn(&Self, Heard)) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            let mut events = Vec::new();
            let lost = {
                let mut state = self.state.lock();
                state.client.feed(&buffer[..count]);
                loop {
                    match state.client.next_message() {
                        Ok(Some(Incoming::Greeting(_))) => state.greeted = true,
                        Ok(Some(Incoming::Reply(number, result))) => {
                            if let Some(place) = state.waiting.get_mut(&number) {
                                *place = Some(result);
                            }
                        }
                        Ok(Some(Incoming::Event(event))) => events.push(event),
                        Ok(None) => break false,
                        Err(_) => break true,
                    }
                }
            };
            self.replied.notify_all();
            for event in events {
                hear(self, Heard::Event(event));
            }
            if lost {
                break;
            }
        }
        self.state.lock().closed = true;
        self.replied.notify_all();
        hear(self, Heard::Closed);
    }

    /// Waits for the first line and agrees on the protocol.
    pub fn greet(&self) -> Result<()> {
        let deadline = Instant::now() + GREETING_TIMEOUT;
        let mut state = self.state.lock();
        while !state.greeted {
            if state.closed || self.replied.wait_until(&mut state, deadline).timed_out() {
                return Err(closed());
            }
        }
        drop(state);
        self.execute("qmp_capabilities", None).map(|_| ())
    }

    /// Sends a command and waits for the answer.
    pub fn execute(&self, name: &str, arguments: Option<Value>) -> Result<Value> {
        self.ask(name, arguments).map_err(|error| self.describe(name, &error))
    }

    /// The same with the monitor's own error.
    pub fn ask(
        &self,
        name: &str,
        arguments: Option<Value>,
    ) -> std::result::Result<Value, QmpError> {
        self.converse(|client| client.command(name, arguments), None)
    }

    /// A command that a user wrote.
    pub fn ask_raw(&self, command: Map<String, Value>) -> std::result::Result<Value, QmpError> {
        self.converse(|client| client.raw_command(command), None)
    }

    /// Sends a command with a descriptor.
    pub fn execute_with(
        &self,
        name: &str,
        arguments: Value,
        descriptor: BorrowedFd<'_>,
    ) -> Result<Value> {
        self.converse(|client| client.command(name, Some(arguments)), Some(descriptor))
            .map_err(|error| self.describe(name, &error))
    }

    /// Sends a command and does not wait: for the listening thread, which must not.
    pub fn send(&self, name: &str, arguments: Option<Value>) {
        let mut state = self.state.lock();
        let (_, line) = state.client.command(name, arguments);
        // A monitor that is closed is noticed by the listening thread.
        _ = (&self.writer).write_all(&line);
    }

    fn converse(
        &self,
        command: impl FnOnce(&mut Client) -> (u64, Vec<u8>),
        descriptor: Option<BorrowedFd<'_>>,
    ) -> std::result::Result<Value, QmpError> {
        let lost = || QmpError::Unreadable("the monitor closed".to_owned());
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut state = self.state.lock();
        if state.closed {
            return Err(lost());
        }
        let (number, line) = command(&mut state.client);
        state.waiting.insert(number, None);
        // Under the lock, so that lines of two threads do not mix.
        if self.write(&line, descriptor).is_err() {
            state.waiting.remove(&number);
            return Err(lost());
        }
        loop {
            if state.waiting.get(&number).is_some_and(Option::is_some) {
                let reply = state.waiting.remove(&number).flatten();
                return reply.unwrap_or_else(|| Err(lost()));
            }
            if state.closed || self.replied.wait_until(&mut state, deadline).timed_out() {
                state.waiting.remove(&number);
                return Err(lost());
            }
        }
    }

    fn write(&self, line: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let Some(descriptor) = descriptor else { return (&self.writer).write_all(line) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent =
            sendmsg(self.writer.as_fd(), &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?;
        (&self.writer).write_all(&line[sent..])
    }

    fn describe(&self, command: &str, error: &QmpError) -> Error {
        match error {
            QmpError::Refused { description, .. } => {
                let text = format!("unable to execute QEMU command '{command}': {description}");
                Error::new(Code::InternalError, text).from(Origin::Qemu)
            }
            _ => closed(),
        }
    }
}

fn closed() -> Error {
    Error::new(Code::OperationFailed, "domain is no longer running").from(Origin::Qemu)
}
