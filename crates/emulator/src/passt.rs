//! `-netdev passt`: a network by passt, which is started here and goes with its machine.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use net::socket::{StreamEnd, StreamNet};
use net::vhost_user::VhostUserNet;

use crate::character::reason;
use crate::networks::{Members, full};

type Result<T> = std::result::Result<T, String>;

/// What is looked for where no path is given.
const PROGRAM: &str = "passt";

/// Our words and the program's, of those that take a value.
const VALUES: &[(&str, &str)] = &[
    ("mtu", "--mtu"),
    ("address", "--address"),
    ("netmask", "--netmask"),
    ("mac", "--mac-addr"),
    ("gateway", "--gateway"),
    ("interface", "--interface"),
    ("outbound", "--outbound"),
    ("outbound-if4", "--outbound-if4"),
    ("outbound-if6", "--outbound-if6"),
    ("dns", "--dns"),
    ("fqdn", "--fqdn"),
    ("map-host-loopback", "--map-host-loopback"),
    ("map-guest-addr", "--map-guest-addr"),
    ("dns-forward", "--dns-forward"),
    ("dns-host", "--dns-host"),
];

/// Switches: which of both says something to the program, and what.
const SWITCHES: &[(&str, bool, &str)] = &[
    ("dhcp-dns", false, "--no-dhcp-dns"),
    ("dhcp-search", false, "--no-dhcp-search"),
    ("tcp", false, "--no-tcp"),
    ("udp", false, "--no-udp"),
    ("icmp", false, "--no-icmp"),
    ("dhcp", false, "--no-dhcp"),
    ("ndp", false, "--no-ndp"),
    ("dhcpv6", false, "--no-dhcpv6"),
    ("ra", false, "--no-ra"),
    ("freebind", true, "--freebind"),
    ("ipv4", false, "--ipv6-only"),
    ("ipv6", false, "--ipv4-only"),
];

/// Lists, which become one word with this between.
const LISTS: &[(&str, &str, &str)] = &[
    ("search", "--search", " "),
    ("tcp-ports", "--tcp-ports", ","),
    ("udp-ports", "--udp-ports", ","),
];

/// The process, which ends with this.
pub struct Passt(Child);

impl Drop for Passt {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The words after the program's name, but for those about the socket.
fn words(members: &mut Members) -> Result<Vec<String>> {
    let mut words = Vec::new();
    if members.switch("quiet", true)? {
        words.push("--quiet".to_owned());
    }
    for (name, option) in VALUES {
        if let Some(value) = members.text(name) {
            words.extend([(*option).to_owned(), value]);
        }
    }
    for (name, speaks, option) in SWITCHES {
        if members.switch(name, !speaks)? == *speaks {
            words.push((*option).to_owned());
        }
    }
    for (name, option, between) in LISTS {
        let list = members.list(name);
        if !list.is_empty() {
            words.extend([(*option).to_owned(), list.join(between)]);
        }
    }
    words.extend(members.list("param"));
    Ok(words)
}

/// Starts the program; the network, and the process that keeps it going.
pub fn start(id: &str, mut members: Members) -> Result<(Arc<dyn net::Backend>, Passt)> {
    let program = members.text("path").unwrap_or_else(|| PROGRAM.to_owned());
    let by_memory = members.switch("vhost-user", false)?;
    let words = words(&mut members)?;
    members.finish()?;
    let failed = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => ": install passt, or name it by path=",
            _ => "",
        };
        format!("failed to start '{program}': {}{hint}", reason(&error))
    };
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
    // The program finds its end by the number.
    let open = rustix::io::FdFlags::empty();
    rustix::io::fcntl_setfd(&theirs, open).map_err(|error| failed(error.into()))?;
    let mut command = Command::new(&program);
    command.arg("--foreground").args(words);
    if by_memory {
        command.arg("--vhost-user");
    }
    command.arg("--fd").arg(theirs.as_raw_fd().to_string());
    let child = command.stdin(Stdio::null()).spawn().map_err(failed)?;
    let mut passt = Passt(child);
    drop(theirs);
    if by_memory {
        let network = VhostUserNet::new(ours, id).map_err(|error| {
            // One that does not like its options has ended, and said why itself.
            match passt.0.try_wait() {
                Ok(Some(status)) => format!("'{program}' ended with {status}"),
                _ => full(&error),
            }
        })?;
        return Ok((network, passt));
    }
    let network = StreamNet::new(StreamEnd::Descriptor(ours)).map_err(|error| full(&error))?;
    Ok((network, passt))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(value: &serde_json::Value) -> Members {
        Members(value.as_object().cloned().unwrap_or_default())
    }

    #[test]
    fn options_are_the_programs() {
        let mut asked = members(&json!({
            "mtu": "1400", "address": "10.1.2.3", "icmp": "off", "tcp": "on", "ipv6": false,
            "freebind": "on", "tcp-ports": ["2222:22", {"str": "8080"}], "search": "a.example",
            "param": ["--runas", "0"],
        }));
        let words = words(&mut asked).unwrap().join("|");
        let expected = "--quiet|--mtu|1400|--address|10.1.2.3|--no-icmp|--freebind|--ipv4-only\
            |--search|a.example|--tcp-ports|2222:22,8080|--runas|0";
        assert_eq!(words, expected);
        asked.finish().unwrap();
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = start("n", members(&json!({"path": "/nowhere/passt"}))).err().unwrap();
        let text = "failed to start '/nowhere/passt': No such file or directory: install passt, \
            or name it by path=";
        assert_eq!(error, text);
        let error = start("n", members(&json!({"colour": "red"}))).err().unwrap();
        assert_eq!(error, "Invalid parameter 'colour'");
    }
}
