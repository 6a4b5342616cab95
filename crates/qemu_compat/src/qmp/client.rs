//! The client's side of a monitor, sans-IO: bytes in, replies and events out.

use serde_json::{Map, Value};

/// A reply to `query-qmp-schema` has about 200 KB; what is much longer is no monitor.
const LINE_BYTES_MAX: usize = 16 << 20;

/// What a monitor sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// The first line, with the emulator's version.
    Greeting(Value),
    /// The answer to the command with this number.
    Reply(u64, Result<Value, QmpError>),
    /// Something happened.
    Event(Event),
}

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `STOP`, `SHUTDOWN`, ...
    pub name: String,
    /// What belongs to it; null when nothing does.
    pub data: Value,
    /// When.
    pub seconds: i64,
    /// And the microseconds.
    pub micros: u32,
}

/// A monitor's refusal, or a broken conversation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QmpError {
    /// The command failed.
    #[error("{description}")]
    Refused {
        /// `GenericError`, `CommandNotFound`, ...
        class: String,
        /// The monitor's own words.
        description: String,
    },
    /// A line is longer than any reply.
    #[error("A line of the monitor is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// A line is no JSON object of a known form.
    #[error("The monitor sent what is no reply: {0}")]
    Unreadable(String),
}

/// Numbers commands and takes lines apart. Owns no socket.
#[derive(Default)]
pub struct Client {
    pending: Vec<u8>,
    /// Bytes of `pending` that hold no line's end.
    scanned: usize,
    next: u64,
}

impl Client {
    /// The line for a command, and the number its reply will bear.
    pub fn command(&mut self, name: &str, arguments: Option<Value>) -> (u64, Vec<u8>) {
        let number = self.next;
        self.next += 1;
        let mut command = Map::new();
        command.insert("execute".into(), name.into());
        if let Some(arguments) = arguments {
            command.insert("arguments".into(), arguments);
        }
        command.insert("id".into(), number.into());
        (number, line(&Value::Object(command)))
    }

    /// The line for a command that a user wrote; its own id gives way to ours.
    pub fn raw_command(&mut self, mut command: Map<String, Value>) -> (u64, Vec<u8>) {
        let number = self.next;
        self.next += 1;
        command.insert("id".into(), number.into());
        (number, line(&Value::Object(command)))
    }

    /// Takes what a socket gave.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next message; `Ok(None)` asks for more bytes. After an error the monitor is lost.
    pub fn next_message(&mut self) -> Result<Option<Incoming>, QmpError> {
        loop {
            let end = self.pending[self.scanned..].iter().position(|byte| *byte == b'\n');
            let Some(end) = end else {
                self.scanned = self.pending.len();
                let too_long = self.pending.len() > LINE_BYTES_MAX;
                return if too_long { Err(QmpError::TooLong) } else { Ok(None) };
            };
            let line: Vec<u8> = self.pending.drain(..=self.scanned + end).collect();
            self.scanned = 0;
            if line.trim_ascii().is_empty() {
                continue;
            }
            return parse(&line).map(Some);
        }
    }
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn parse(line: &[u8]) -> Result<Incoming, QmpError> {
    let unreadable = |problem: &str| QmpError::Unreadable(problem.to_owned());
    let mut value: Value =
        serde_json::from_slice(line).map_err(|error| unreadable(&error.to_string()))?;
    let object = value.as_object_mut().ok_or_else(|| unreadable("no object"))?;
    if let Some(greeting) = object.remove("QMP") {
        return Ok(Incoming::Greeting(greeting));
    }
    if let Some(name) = object.get("event").and_then(Value::as_str).map(str::to_owned) {
        let time = |key: &str| object.get("timestamp").and_then(|time| time[key].as_i64());
        let (seconds, micros) = (time("seconds").unwrap_or(0), time("microseconds").unwrap_or(0));
        let micros = u32::try_from(micros).unwrap_or(0);
        let data = object.remove("data").unwrap_or(Value::Null);
        return Ok(Incoming::Event(Event { name, data, seconds, micros }));
    }
    let id = object.get("id").and_then(Value::as_u64);
    if let Some(error) = object.remove("error") {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let refused = QmpError::Refused { class: text("class"), description: text("desc") };
        let id = id.ok_or_else(|| unreadable("an error without id"))?;
        return Ok(Incoming::Reply(id, Err(refused)));
    }
    match (object.remove("return"), id) {
        (Some(result), Some(id)) => Ok(Incoming::Reply(id, Ok(result))),
        _ => Err(unreadable("neither a reply nor an event")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_conversation_survives_any_split() {
        let mut client = Client::default();
        let (number, line) = client.command("query-status", None);
        assert_eq!(line, b"{\"execute\":\"query-status\",\"id\":0}\n");
        let wire = b"{\"QMP\":{\"version\":{}}}\r\n\r\n\
            {\"timestamp\":{\"seconds\":5,\"microseconds\":7},\"event\":\"STOP\"}\r\n\
            {\"return\":{\"status\":\"paused\"},\"id\":0}\r\n\
            {\"id\":1,\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n";
        for cut in 0..=wire.len() {
            let mut client = Client::default();
            let mut seen = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                client.feed(part);
                while let Some(message) = client.next_message().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen.len(), 4, "cut at {cut}");
            assert!(
                matches!(&seen[1], Incoming::Event(event) if event.name == "STOP" && event.micros == 7)
            );
            assert_eq!(seen[2], Incoming::Reply(number, Ok(json!({"status": "paused"}))));
            assert!(matches!(&seen[3], Incoming::Reply(1, Err(QmpError::Refused { .. }))));
        }
    }

    #[test]
    fn what_is_no_reply_ends_the_conversation() {
        for bad in ["[1]\n", "{\"return\":1}\n", "{\n", "{\"error\":{}}\n", "\u{0}\n"] {
            let mut client = Client::default();
            client.feed(bad.as_bytes());
            assert!(client.next_message().is_err(), "{bad}");
        }
        let mut client = Client::default();
        client.feed(&vec![b' '; LINE_BYTES_MAX + 1]);
        assert_eq!(client.next_message(), Err(QmpError::TooLong));
    }
}
