//! Leases in a file: a line each, the end (seconds since 1970), the hardware address, the address,
//! the host's name or `*`, the client's identity or `*`. dnsmasq writes them so, too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Shared, now};
use crate::dhcp::Lease;
use crate::packet::Mac;

/// More lines than leases can be.
const LINES_MAX: usize = 65_536;

/// Writes the leases that hold; what cannot be written is lost at the next start only.
pub fn save(shared: &Shared) {
    let (Some(server), Some(path)) = (&shared.server, &shared.leases) else { return };
    let text: String = server.leases(now()).map(line).collect();
    let new = path.with_extension("new");
    if fs::write(&new, text).and_then(|()| fs::rename(&new, path)).is_err() {
        eprintln!("warning: Cannot write the leases {}", path.display());
    }
}

/// Reads a file; what cannot be read is passed over.
pub fn load(path: &Path) -> Vec<Lease> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().take(LINES_MAX).filter_map(parse).collect()
}

fn line(lease: &Lease) -> String {
    let end = lease.expires.map_or(0, |end| end.as_secs());
    let name = lease.host_name.as_deref().unwrap_or("*");
    let client = lease.client.as_deref().map_or("*".to_owned(), hexadecimal);
    format!("{end} {} {} {name} {client}\n", lease.mac, lease.address)
}

fn hexadecimal(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

fn parse(line: &str) -> Option<Lease> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [end, mac, address, name, client] = words[..] else { return None };
    let end: u64 = end.parse().ok()?;
    Some(Lease {
        address: address.parse().ok()?,
        mac: Mac(bytes(mac)?.try_into().ok()?),
        client: if client == "*" { None } else { Some(bytes(client)?) },
        host_name: (name != "*").then(|| name.to_owned()),
        expires: (end > 0).then(|| Duration::from_secs(end)),
        taken: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_and_broken_ones_do_not() {
        for text in [
            "1700000000 52:54:00:00:00:01 192.168.122.5 web 01:52:54:00:00:00:01\n",
            "0 52:54:00:00:00:02 192.168.122.6 * *\n",
        ] {
            assert_eq!(line(&parse(text).unwrap()), text);
        }
        for text in ["", "x", "1 2 3 4 5", "1 52:54:00:00:00 1.2.3.4 * *"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
