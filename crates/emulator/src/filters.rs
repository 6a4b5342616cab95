//! `-object filter-dump`: what passes a network back end, in a file.

use std::path::Path;
use std::sync::Arc;

use net::dump::{Capture, Direction};
use qemu_compat::system::values;
use serde_json::{Map, Value};

use crate::networks::{Members, Networks, full};

/// Bytes that are kept of a frame unless somebody says otherwise.
const FRAME_BYTES: u64 = 65536;

/// Whether an object is a filter: those are made when the networks are there.
pub fn is_filter(members: &Map<String, Value>) -> bool {
    members.get("qom-type").and_then(Value::as_str) == Some("filter-dump")
}

/// Makes one.
pub fn add(networks: &Networks, members: &Map<String, Value>) -> Result<(), String> {
    let mut members = Members(members.clone());
    members.text("qom-type");
    let id = members.needed("id")?;
    crate::parts::check_id(&id)?;
    let netdev = members.text("netdev").ok_or("Parameter 'netdev' expects a network backend id")?;
    let file = members.text("file").ok_or("dump filter needs 'file' property set!")?;
    let bytes = match members.text("maxlen") {
        Some(text) => values::unsigned("maxlen", &text).map_err(|error| error.to_string())?,
        None => FRAME_BYTES,
    };
    let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or("Property 'filter-dump.maxlen' doesn't take value '0'")?;
    // Named as the back end sees it: it receives what the card sends.
    let direction = match members.text("queue").as_deref() {
        None | Some("all") => Direction::Both,
        Some("rx") => Direction::FromCard,
        Some("tx") => Direction::ToCard,
        Some(other) => return Err(format!("Parameter 'queue' does not accept value '{other}'")),
    };
    if members.text("status").is_some_and(|status| status != "on") {
        return Err("'status=off' is not built in Hostel: add the filter when it is to work".into());
    }
    members.finish()?;
    let none = || "Parameter 'netdev' expects a network backend id".to_owned();
    let dump = networks.dump(&netdev).ok_or_else(none)?;
    if networks.has_capture(&id) {
        return Err(format!("attempt to add duplicate property '{id}' to object"));
    }
    let capture = Capture::create(Path::new(&file), bytes).map_err(|error| full(&error))?;
    dump.add(&id, direction, Arc::new(capture));
    Ok(())
}
