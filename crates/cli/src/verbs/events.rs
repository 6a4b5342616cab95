//! `events`: what happens to machines, as the daemon tells it.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use libvirt_compat::rpc::types::Domain;
use libvirt_compat::rpc::xdr::from_bytes;
use serde_json::json;

use crate::arguments::Events;
use crate::daemon::Connection;
use crate::failure::{DAEMON, Failure};

/// `VIR_DOMAIN_EVENT_ID_LIFECYCLE`, and the message that carries it.
const LIFECYCLE: i32 = 0;
const LIFECYCLE_MESSAGE: u32 = 318;
/// What has happened, by its number.
const KINDS: &[&str] = &[
    "defined",
    "undefined",
    "started",
    "suspended",
    "resumed",
    "stopped",
    "shutting down",
    "suspended by itself",
    "crashed",
];

/// `hostel events`.
pub fn run(what: &Events) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    connection.client.connect_domain_event_callback_register_any(LIFECYCLE, None)?;
    let mut seen = 0;
    while what.count.is_none_or(|count| seen < count) {
        let frame = connection.client.transport.message().map_err(|error| {
            Failure::new("The daemon tells nothing more").because(&error).code(DAEMON)
        })?;
        if frame.header.procedure != LIFECYCLE_MESSAGE {
            continue;
        }
        type Message = (i32, Domain, i32, i32);
        let Ok((_, domain, kind, _)) = from_bytes::<Message>(&frame.payload) else { continue };
        let kind = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind).copied());
        let kind = kind.unwrap_or("changed");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = match what.json {
            true => json!({"schema": 1, "time": now.as_secs_f64(), "machine": domain.name,
                "event": kind})
            .to_string(),
            false => format!("{} {kind}", domain.name),
        };
        let mut output = io::stdout();
        if writeln!(output, "{text}").and_then(|()| output.flush()).is_err() {
            return Ok(0); // whoever reads has enough
        }
        seen += 1;
    }
    Ok(0)
}
