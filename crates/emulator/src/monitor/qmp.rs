//! QMP over a byte stream.

use std::sync::{Arc, Weak};

use device::{Stream, StreamEvent, StreamPeer};
use parking_lot::Mutex;
use qemu_compat::json;
use qemu_compat::qmp::server::{self, Input, Refusal, Request};
use serde_json::{Value, json};

use super::output::Output;
use crate::commands::{self, Caller};
use crate::emulator::Emulator;
use crate::{PACKAGE, QEMU_VERSION};

/// What one turn reads.
const ROOM_BYTES: usize = 64 << 10;

/// One client's conversation.
pub struct QmpMonitor {
    emulator: Arc<Emulator>,
    output: Output,
    pretty: bool,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    input: Input,
    /// The client has sent `qmp_capabilities`.
    is_ready: bool,
}

impl QmpMonitor {
    /// Starts to listen on a stream.
    pub fn start(emulator: &Arc<Emulator>, stream: Arc<dyn Stream>, pretty: bool) -> Arc<Self> {
        let monitor = Arc::new(Self {
            emulator: Arc::clone(emulator),
            output: Output::new(stream),
            pretty,
            session: Mutex::default(),
        });
        emulator.monitors.add(&monitor);
        let peer: Weak<Self> = Arc::downgrade(&monitor);
        monitor.output.stream().attach(peer);
        monitor
    }

    /// Sends an event, to a client that is ready for them.
    pub fn tell(&self, event: &Value) {
        if self.session.lock().is_ready {
            self.send(event, true);
        }
    }

    fn send(&self, value: &Value, droppable: bool) {
        let mut text = if self.pretty { json::pretty(value) } else { json::compact(value) };
        text.push_str("\r\n");
        self.output.say(text.as_bytes(), droppable);
    }

    fn serve(&self, incoming: server::Incoming) {
        let (id, result) = match incoming {
            Ok(request) => {
                let id = request.id.clone();
                let result = self.execute(request);
                (id, result)
            }
            Err((id, refusal)) => (id, Err(refusal)),
        };
        self.send(&server::answer(id, result), false);
        if std::mem::take(&mut *self.emulator.quit_after_answer.lock()) {
            self.emulator.quit();
        }
    }

    fn execute(&self, request: Request) -> Result<Value, Refusal> {
        let Request { command, arguments, .. } = request;
        let is_ready = self.session.lock().is_ready;
        match (command.as_str(), is_ready) {
            ("qmp_capabilities", false) => {
                let enable = arguments.get("enable").and_then(Value::as_array);
                for capability in enable.into_iter().flatten() {
                    if capability != "oob" {
                        let text = format!("Capability {capability} is not available");
                        return Err(Refusal::new(text));
                    }
                }
                self.session.lock().is_ready = true;
                Ok(json!({}))
            }
            ("qmp_capabilities", true) => Err(Refusal::of(
                "CommandNotFound",
                "Capabilities negotiation is already complete, command ignored",
            )),
            (_, false) => Err(Refusal::of(
                "CommandNotFound",
                "Expecting capabilities negotiation with 'qmp_capabilities'",
            )),
            (name, true) => {
                let caller = Caller { stream: self.output.stream() };
                commands::execute(&self.emulator, &caller, name, &arguments)
            }
        }
    }
}

impl StreamPeer for QmpMonitor {
    fn room(&self) -> usize {
        ROOM_BYTES
    }

    fn receive(&self, bytes: &[u8]) {
        let found = self.session.lock().input.push(bytes);
        found.into_iter().for_each(|incoming| self.serve(incoming));
    }

    fn event(&self, event: StreamEvent) {
        match event {
            StreamEvent::Opened => {
                *self.session.lock() = Session::default();
                self.send(&server::greeting(QEMU_VERSION, PACKAGE), false);
            }
            StreamEvent::Closed => {
                *self.session.lock() = Session::default();
                self.output.forget();
            }
            StreamEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.output.writable();
    }
}
