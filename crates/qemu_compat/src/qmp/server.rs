//! The emulator's side of a monitor, sans-IO: bytes in, commands out, and how answers look.

use serde_json::{Map, Value, json};

/// What one command may have at most.
const COMMAND_BYTES_MAX: usize = 16 << 20;
/// What one command may nest at most; the parser behind has a bound of its own, above this.
const DEPTH_MAX: usize = 100;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub struct Refusal {
    /// `GenericError`, `CommandNotFound`, ...
    pub class: &'static str,
    /// In words.
    pub description: String,
}

impl Refusal {
    /// Of the class that most are.
    #[must_use]
    pub fn new(description: impl Into<String>) -> Self {
        Self { class: "GenericError", description: description.into() }
    }

    /// Of another class.
    #[must_use]
    pub fn of(class: &'static str, description: impl Into<String>) -> Self {
        Self { class, description: description.into() }
    }
}

/// A command as it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The client's own mark, sent back with the answer.
    pub id: Option<Value>,
    /// The command's name.
    pub command: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// The client wants it to overtake others.
    pub out_of_band: bool,
}

/// Cuts a stream of bytes into commands. Commands need no line ends between them.
#[derive(Default)]
pub struct Input {
    pending: Vec<u8>,
    depth: usize,
    quote: Option<u8>,
    escaped: bool,
    /// A text that cannot be a command is skipped up to its line's end.
    skipping: bool,
}

/// Something between the bytes.
pub type Incoming = Result<Request, (Option<Value>, Refusal)>;

impl Input {
    /// Takes bytes and gives what became complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        let mut found = Vec::new();
        for &byte in bytes {
            if self.skipping {
                self.skipping = byte != b'\n';
                continue;
            }
            self.pending.push(byte);
            if let Some(incoming) = self.step(byte) {
                found.push(incoming);
                self.restart();
            }
        }
        found
    }

    fn restart(&mut self) {
        let skipping = self.skipping;
        *self = Self { skipping, ..Self::default() };
    }

    fn step(&mut self, byte: u8) -> Option<Incoming> {
        let refuse = |text: &str| Some(Err((None, Refusal::new(text))));
        if self.pending.len() > COMMAND_BYTES_MAX || self.depth > DEPTH_MAX {
            self.skipping = byte != b'\n';
            return refuse("JSON token size limit exceeded");
        }
        if let Some(quote) = self.quote {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                _ if byte == quote => self.quote = None,
                _ => {}
            }
            return None;
        }
        match byte {
            b'"' | b'\'' if self.depth > 0 => self.quote = Some(byte),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Some(read(&self.pending));
                }
            }
            _ if byte.is_ascii_whitespace() => {
                // Between commands there is nothing to keep.
                self.pending.truncate(if self.depth == 0 { 0 } else { self.pending.len() });
            }
            _ if self.depth == 0 => {
                self.skipping = byte != b'\n';
                return refuse("JSON parse error, invalid token");
            }
            _ => {}
        }
        None
    }
}

/// Double quotes in the place of single ones, which QEMU takes too.
fn unquoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut quote = None;
    let mut escaped = false;
    for &byte in bytes {
        match (quote, byte) {
            (Some(_), _) if escaped => {
                escaped = false;
                if byte == b'\'' {
                    out.pop(); // JSON knows no such escape
                }
                out.push(byte);
            }
            (Some(_), b'\\') => {
                escaped = true;
                out.push(byte);
            }
            (Some(open), _) if byte == open => {
                quote = None;
                out.push(b'"');
            }
            (Some(b'\''), b'"') => out.extend(b"\\\""),
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                out.push(b'"');
            }
            _ => out.push(byte),
        }
    }
    out
}

fn read(bytes: &[u8]) -> Incoming {
    let text = if bytes.contains(&b'\'') { unquoted(bytes) } else { bytes.to_vec() };
    let value: Value = serde_json::from_slice(&text)
        .map_err(|error| (None, Refusal::new(format!("JSON parse error, {error}"))))?;
    let Value::Object(mut map) = value else {
        return Err((None, Refusal::new("QMP input must be a JSON object")));
    };
    let id = map.shift_remove("id");
    let refuse = |text: String| Err((id.clone(), Refusal::new(text)));
    let normal = map.shift_remove("execute");
    let urgent = map.shift_remove("exec-oob");
    let (command, out_of_band) = match (normal, urgent) {
        (Some(command), None) => (command, false),
        (None, Some(command)) => (command, true),
        (None, None) => return refuse("QMP input lacks member 'execute'".into()),
        _ => {
            return refuse("QMP input member 'exec-oob' clashes with 'execute'".into());
        }
    };
    let name = if out_of_band { "exec-oob" } else { "execute" };
    let Value::String(command) = command else {
        return refuse(format!("QMP input member '{name}' must be a string"));
    };
    let arguments = match map.shift_remove("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments,
        Some(_) => return refuse("QMP input member 'arguments' must be an object".into()),
    };
    if let Some(key) = map.keys().next() {
        return refuse(format!("QMP input member '{key}' is unexpected"));
    }
    Ok(Request { id, command, arguments, out_of_band })
}

/// The first line of a conversation.
#[must_use]
pub fn greeting(version: (u32, u32, u32), package: &str) -> Value {
    let (major, minor, micro) = version;
    json!({"QMP": {"version": {"qemu": {"micro": micro, "minor": minor, "major": major},
        "package": package}, "capabilities": ["oob"]}})
}

/// The answer to a command.
#[must_use]
pub fn answer(id: Option<Value>, result: Result<Value, Refusal>) -> Value {
    let mut line = Map::new();
    match result {
        Ok(value) => _ = line.insert("return".into(), value),
        Err(refusal) => {
            let error = json!({"class": refusal.class, "desc": refusal.description});
            line.insert("error".into(), error);
        }
    }
    if let Some(id) = id {
        line.insert("id".into(), id);
    }
    Value::Object(line)
}

/// Something happened, at a time since 1970.
#[must_use]
pub fn event(name: &str, data: Value, since_epoch: std::time::Duration) -> Value {
    let mut line = json!({"timestamp": {"seconds": since_epoch.as_secs(),
        "microseconds": since_epoch.subsec_micros()}, "event": name});
    if !data.is_null() {
        line["data"] = data;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        for piece in [1, 7, text.len().max(1)] {
            let mut input = Input::default();
            let found: Vec<String> = text
                .as_bytes()
                .chunks(piece)
                .flat_map(|bytes| input.push(bytes))
                .map(|incoming| match incoming {
                    Ok(request) => {
                        format!("{} {}", request.command, Value::Object(request.arguments))
                    }
                    Err((_, refusal)) => refusal.description,
                })
                .collect();
            assert_eq!(found, expected, "{text} by {piece}");
        }
    }

    #[test]
    fn commands_are_cut_wherever_bytes_end() {
        check(
            r#" {"execute":"a"}{"execute":"b","arguments":{"x":"}\""}}"#,
            &["a {}", r#"b {"x":"}\""}"#],
        );
        check(r#"{'execute':'it','arguments':{'a':'say \'"'}}"#, &[r#"it {"a":"say '\""}"#]);
    }

    #[test]
    fn what_is_no_command_is_refused_and_forgotten() {
        check("nonsense\n{\"execute\":\"a\"}", &["JSON parse error, invalid token", "a {}"]);
        check("{}", &["QMP input lacks member 'execute'"]);
        check("[1]", &["QMP input must be a JSON object"]);
        check(r#"{"execute":1}"#, &["QMP input member 'execute' must be a string"]);
        check(r#"{"execute":"a","x":1}"#, &["QMP input member 'x' is unexpected"]);
        let deep = "[".repeat(1000) + "\n";
        check(&deep, &["JSON token size limit exceeded"]);
    }

    #[test]
    fn answers_carry_the_clients_mark() {
        let line = answer(Some(json!(7)), Err(Refusal::of("DeviceNotFound", "no")));
        let expected = json!({"error": {"class": "DeviceNotFound", "desc": "no"}, "id": 7});
        assert_eq!(line, expected);
    }
}
