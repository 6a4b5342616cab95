//! The guest's agent: JSON lines over a channel's socket, one conversation per question.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};
use serde_json::{Value, json};

use crate::domains::Domain;

/// The channel's name, by which guest and host find each other.
pub const CHANNEL: &str = "org.qemu.guest_agent.0";
/// libvirt waits so long for an agent that should be there.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
/// Freezing file systems takes its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What a guest may send as one answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// "QEMU guest agent is not configured".
pub fn not_configured() -> Error {
    Error::new(Code::ArgumentUnsupported, "QEMU guest agent is not configured")
}

fn unresponsive(text: &str) -> Error {
    Error::new(Code::AgentUnresponsive, text)
}

/// The socket of a running domain's agent that the guest has opened.
fn socket(domain: &Domain) -> Result<String> {
    domain.machine()?;
    let document = domain.document()?;
    let devices = document.child("devices");
    let mut channels = devices.into_iter().flat_map(|devices| devices.all("channel"));
    let channel = channels.find(|channel| channel.attribute_at("target", "name") == Some(CHANNEL));
    let channel = channel.ok_or_else(not_configured)?;
    if channel.attribute_at("target", "state") != Some("connected") {
        return Err(unresponsive("QEMU guest agent is not connected"));
    }
    let path = channel.attribute_at("source", "path").map(str::to_owned);
    path.ok_or_else(not_configured)
}

/// Whether an agent is there to be asked.
pub fn is_connected(domain: &Domain) -> bool {
    socket(domain).is_ok()
}

/// Notes in a live document that the guest opened or closed a channel; true for the agent's.
pub fn note_channel(document: &mut Element, alias: &str, open: bool) -> bool {
    let devices = document.ensure("devices");
    let mut channels = devices.all_mut("channel");
    let Some(channel) = channels.find(|c| c.attribute_at("alias", "name") == Some(alias)) else {
        return false;
    };
    let target = channel.ensure("target");
    target.set("state", if open { "connected" } else { "disconnected" });
    target.is("name", CHANNEL)
}

/// Asks an agent; the answer is what it returned.
pub fn ask(domain: &Domain, name: &str, arguments: Option<Value>) -> Result<Value> {
    let mut command = json!({"execute": name});
    if let Some(arguments) = arguments {
        command["arguments"] = arguments;
    }
    let answer = converse(&socket(domain)?, &command.to_string(), ANSWER_TIMEOUT)?;
    if let Some(description) = answer["error"]["desc"].as_str() {
        let text = format!("unable to execute QEMU agent command '{name}': {description}");
        return Err(Error::new(Code::InternalError, text));
    }
    Ok(answer["return"].clone())
}

/// Passes a command of a user on; `timeout` as in `virDomainQemuAgentCommand`.
pub fn pass(domain: &Domain, command: &str, timeout: i32) -> Result<String> {
    let path = socket(domain)?;
    let timeout = match timeout {
        1.. => Duration::from_secs(timeout as u64),
        -1 => SYNC_TIMEOUT,
        _ => ANSWER_TIMEOUT,
    };
    Ok(converse(&path, command, timeout)?.to_string())
}

fn converse(path: &str, command: &str, timeout: Duration) -> Result<Value> {
    let lost = |_| unresponsive("Guest agent disappeared while executing command");
    let mut stream =
        UnixStream::connect(path).map_err(|_| unresponsive("Guest agent not available for now"))?;
    // An answer to an earlier question may still be on its way; this number tells ours.
    let number = u32::from_le_bytes(crate::random::bytes()[..4].try_into().expect("four bytes"));
    let sync = json!({"execute": "guest-sync", "arguments": {"id": number}});
    stream.write_all(format!("{sync}\n").as_bytes()).map_err(lost)?;
    let mut lines = Lines { stream, pending: Vec::new() };
    let deadline = Instant::now() + SYNC_TIMEOUT;
    while lines.next(deadline)?["return"] != number {}
    lines.stream.write_all(format!("{}\n", command.trim()).as_bytes()).map_err(lost)?;
    lines.next(Instant::now() + timeout)
}

struct Lines {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Lines {
    fn next(&mut self, deadline: Instant) -> Result<Value> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                // The guest chooses what it sends; what is no JSON is no answer.
                match serde_json::from_slice(line.trim_ascii()) {
                    Ok(value) => return Ok(value),
                    Err(_) => continue,
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.pending.len() > ANSWER_BYTES_MAX {
                return Err(unresponsive("Guest agent not available for now"));
            }
            _ = self.stream.set_read_timeout(Some(left));
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(count @ 1..) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return Err(unresponsive("Guest agent disappeared while executing command")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_agent_that_talks_nonsense_first_is_understood() {
        let path = std::env::temp_dir().join(format!("hostel-agent-{}", std::process::id()));
        _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let guest = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let sync: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            let id = &sync["arguments"]["id"];
            let reply = format!("\u{ff}garbage\n{{\"return\":7}}\n{{\"return\":{id}}}\n");
            (&stream).write_all(reply.as_bytes()).unwrap();
            assert!(lines.next().unwrap().unwrap().contains("guest-ping"));
            (&stream).write_all(b"{\"return\":{}}\n").unwrap();
        });
        let path_text = path.to_str().unwrap();
        let answer = converse(path_text, "{\"execute\":\"guest-ping\"}", SYNC_TIMEOUT);
        assert_eq!(answer, Ok(json!({"return": {}})));
        guest.join().unwrap();
        let gone = converse(path_text, "{}", SYNC_TIMEOUT).unwrap_err();
        assert_eq!(gone.code, Code::AgentUnresponsive);
        std::fs::remove_file(&path).unwrap();
    }
}
