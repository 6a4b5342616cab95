//! Free TCP ports for screens.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};

use libvirt_compat::{Code, Error, Result};
use parking_lot::Mutex;

/// Where VNC begins, and libvirt's default range ends.
const PORTS: std::ops::Range<u16> = 5900..6999;

/// Ports that were given out to machines that may not have bound them yet.
static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that nobody listens on, kept until it is given back.
pub fn take() -> Result<u16> {
    let mut taken = TAKEN.lock();
    let taken = taken.get_or_insert_default();
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let port = PORTS.into_iter().find(|port| !taken.contains(port) && free(*port));
    let port = port.ok_or_else(|| {
        Error::new(Code::InternalError, "Unable to find an unused port in range 'vnc' (5900-6998)")
    })?;
    taken.insert(port);
    Ok(port)
}

/// Gives a port back.
pub fn give_back(port: u16) {
    if let Some(taken) = &mut *TAKEN.lock() {
        taken.remove(&port);
    }
}
