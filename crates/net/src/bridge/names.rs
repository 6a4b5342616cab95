//! Names on a network: what its definition says, who has a lease, and for the rest other servers.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::HashMap;
use std::fs;
use std::net::UdpSocket;
use std::time::Instant;

use crate::dhcp::Lease;
use crate::dns::forwarder::{Forwarder, Step};
use crate::dns::message::{self, Message, Record};
use crate::dns::{name, resolv};

/// Seconds that an answer of ours may be kept.
const LIFETIME: u32 = 0;
/// Without an extension, answers by UDP are at most this long.
const ANSWER_BYTES_MAX: usize = 512;
/// Questions under way, each with a number of its own.
const PENDING_MAX: usize = 1024;

/// Where questions go that we cannot answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Nowhere.
    No,
    /// To the host's own servers.
    Host,
    /// To these.
    Servers(Vec<SocketAddr>),
}

/// What is known of names.
#[derive(Clone, Debug)]
pub struct NameSettings {
    /// Records of the definition, their names in lower case.
    pub records: Vec<Record>,
    /// Addresses by name, of hosts that always get the same.
    pub hosts: Vec<(String, Ipv4Addr)>,
    /// What is added to the names of hosts.
    pub domain: Option<String>,
    /// Whether names in the domain are answered by us alone.
    pub domain_is_ours: bool,
    /// Whether names without a dot are asked elsewhere.
    pub forward_plain: bool,
    /// Where the rest is asked.
    pub forward: Forward,
    /// Servers of single domains.
    pub domains: Vec<(String, Vec<SocketAddr>)>,
}

/// Who asked: which of our sockets, and from where.
type Client = (usize, SocketAddr);

/// Answers questions.
pub struct Names {
    settings: NameSettings,
    forwarder: Forwarder<Client>,
    /// Our numbers of questions that are under way, and whose they are.
    asked: HashMap<u16, (Client, u16)>,
}

impl Names {
    pub fn new(settings: NameSettings) -> Self {
        let forwarder = Forwarder::new(servers(&settings));
        Self { settings, forwarder, asked: HashMap::new() }
    }

    pub fn change(&mut self, settings: NameSettings) {
        self.forwarder.set_servers(servers(&settings));
        self.settings = settings;
    }

    /// When a silent server is to be given up.
    pub fn deadline(&self) -> Option<Instant> {
        self.forwarder.deadline()
    }

    /// Reads all that has come, and answers it.
    pub fn serve(
        &mut self,
        listeners: &[UdpSocket],
        upstream: &[UdpSocket],
        leases: &[Lease],
        buffer: &mut [u8],
    ) {
        let now = Instant::now();
        let mut steps = Vec::new();
        for (place, socket) in listeners.iter().enumerate() {
            while let Ok((length, from)) = socket.recv_from(buffer) {
                steps.extend(self.question((place, from), &buffer[..length], leases, now));
            }
        }
        for socket in upstream {
            while let Ok((length, from)) = socket.recv_from(buffer) {
                steps.extend(self.reply(from, &mut buffer[..length], now));
            }
        }
        steps.extend(self.forwarder.tick(now));
        for step in steps {
            match step {
                Step::Answer((place, to), bytes) => {
                    if let Some(socket) = listeners.get(place) {
                        _ = socket.send_to(&bytes, to);
                    }
                }
                Step::Ask(client, server, bytes) => self.ask(client, server, bytes, upstream),
            }
        }
    }

    fn ask(&mut self, client: Client, server: SocketAddr, mut bytes: Vec<u8>, own: &[UdpSocket]) {
        let Some(number) = bytes.first_chunk().map(|number| u16::from_be_bytes(*number)) else {
            return;
        };
        if self.asked.len() >= PENDING_MAX {
            self.asked.clear(); // those clients ask again
        }
        // Clients of different addresses may use the same number, and an outsider must not guess it.
        let mut random = [0; 2];
        if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).is_err() {
            return;
        }
        self.asked.insert(u16::from_be_bytes(random), (client, number));
        bytes[..2].copy_from_slice(&random);
        for socket in own {
            let fits = socket.local_addr().is_ok_and(|own| own.is_ipv4() == server.is_ipv4());
            if fits {
                _ = socket.send_to(&bytes, server);
            }
        }
    }

    fn reply(&mut self, from: SocketAddr, bytes: &mut [u8], now: Instant) -> Option<Step<Client>> {
        let number = u16::from_be_bytes(*bytes.first_chunk()?);
        let (client, original) = *self.asked.get(&number)?;
        bytes[..2].copy_from_slice(&original.to_be_bytes());
        let step = self.forwarder.reply(client, from, bytes, now)?;
        self.asked.remove(&number);
        Some(step)
    }

    fn question(
        &mut self,
        client: Client,
        bytes: &[u8],
        leases: &[Lease],
        now: Instant,
    ) -> Option<Step<Client>> {
        let query = Message::read(bytes).filter(|query| !query.is_response && query.is_query)?;
        let question = query.question.clone()?;
        let known = self.known(&question.name, leases);
        let records: Vec<Record> =
            known.iter().filter(|record| record.kind == question.kind).cloned().collect();
        let answer =
            |code| Some(Step::Answer(client, query.answer(code, &records, ANSWER_BYTES_MAX)));
        if !known.is_empty() {
            return answer(message::NO_ERROR);
        }
        if self.is_ours_alone(&question.name) {
            return answer(message::NO_SUCH_NAME);
        }
        if let Some((_, own)) = self.settings.domains.iter().find(|(domain, _)| {
            let inside = question.name.strip_suffix(domain.as_str());
            inside.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }) {
            let usual = self.forwarder.servers().to_vec();
            self.forwarder.set_servers(own.clone());
            let step = self.forwarder.question(client, bytes, now);
            self.forwarder.set_servers(usual);
            return step;
        }
        if self.forwarder.servers().is_empty() {
            return answer(message::REFUSED);
        }
        self.forwarder.question(client, bytes, now)
    }

    /// Names that nobody else is asked about.
    fn is_ours_alone(&self, name: &str) -> bool {
        let NameSettings { domain, domain_is_ours, forward_plain, .. } = &self.settings;
        let in_domain = domain.as_ref().is_some_and(|domain| name.ends_with(&format!(".{domain}")));
        (*domain_is_ours && in_domain) || (!forward_plain && !name.contains('.'))
    }

    /// All records of a name.
    fn known(&self, name: &str, leases: &[Lease]) -> Vec<Record> {
        let settings = &self.settings;
        let mut records: Vec<Record> =
            settings.records.iter().filter(|record| record.name == name).cloned().collect();
        let leased = leases.iter().filter_map(|lease| {
            Some((lease.host_name.clone()?.to_ascii_lowercase(), lease.address))
        });
        let mut hosts: Vec<(String, Ipv4Addr)> = settings.hosts.clone();
        hosts.extend(leased);
        for (host, address) in &hosts {
            let full = settings.domain.as_ref().map(|domain| format!("{host}.{domain}"));
            if host == name || full.as_deref() == Some(name) {
                let record = Record::address(name, IpAddr::V4(*address), LIFETIME);
                if !records.contains(&record) {
                    records.push(record);
                }
            }
            if reverse(*address) == name
                && let Some(data) = name::encode(full.as_deref().unwrap_or(host))
            {
                let name = name.to_owned();
                records.push(Record { name, kind: message::PTR, lifetime: LIFETIME, data });
            }
        }
        records
    }
}

fn servers(settings: &NameSettings) -> Vec<SocketAddr> {
    match &settings.forward {
        Forward::No => Vec::new(),
        Forward::Servers(servers) => servers.clone(),
        Forward::Host => {
            resolv::servers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
        }
    }
}

/// The name under which an address is asked for.
fn reverse(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Mac;

    fn names() -> Names {
        Names::new(NameSettings {
            records: vec![Record::address("db.lan", "10.0.0.9".parse().unwrap(), 0)],
            hosts: vec![("fixed".into(), Ipv4Addr::new(10, 0, 0, 5))],
            domain: Some("lan".into()),
            domain_is_ours: true,
            forward_plain: false,
            forward: Forward::Servers(vec!["192.0.2.1:53".parse().unwrap()]),
            domains: vec![("corp".into(), vec!["192.0.2.2:53".parse().unwrap()])],
        })
    }

    #[test]
    fn known_names_are_answered_and_others_asked_for() {
        let client = (0, "10.0.0.7:4000".parse().unwrap());
        let leases = [Lease {
            address: Ipv4Addr::new(10, 0, 0, 7),
            mac: Mac([2; 6]),
            client: None,
            host_name: Some("Guest".into()),
            expires: None,
            taken: true,
        }];
        let mut names = names();
        for (name, kind, expected) in [
            ("db.lan", message::A, Some(&[10, 0, 0, 9][..])),
            ("fixed.lan", message::A, Some(&[10, 0, 0, 5])),
            ("guest", message::A, Some(&[10, 0, 0, 7])),
            ("7.0.0.10.in-addr.arpa", message::PTR, Some(b"\x05guest\x03lan\0")),
            ("guest", message::AAAA, None),
        ] {
            let query = message::query(1, name, kind).unwrap();
            let step = names.question(client, &query, &leases, Instant::now());
            let Some(Step::Answer(_, bytes)) = step else { panic!("{name}: {step:?}") };
            assert_eq!(Message::read(&bytes).unwrap().code, message::NO_ERROR, "{name}");
            match expected {
                Some(data) => assert!(bytes.ends_with(data), "{name}: {bytes:?}"),
                None => assert_eq!(bytes[6..8], [0, 0], "no record of this kind"),
            }
        }
        for (name, expected) in [
            ("nobody.lan", Err(message::NO_SUCH_NAME)),
            ("plain", Err(message::NO_SUCH_NAME)),
            ("www.example.org", Ok("192.0.2.1:53")),
            ("host.corp", Ok("192.0.2.2:53")),
        ] {
            let query = message::query(2, name, message::A).unwrap();
            let step = names.question(client, &query, &leases, Instant::now()).unwrap();
            match (step, expected) {
                (Step::Answer(_, bytes), Err(code)) => {
                    assert_eq!(Message::read(&bytes).unwrap().code, code, "{name}");
                }
                (Step::Ask(_, server, _), Ok(wanted)) => {
                    assert_eq!(server, wanted.parse().unwrap(), "{name}");
                }
                (step, _) => panic!("{name}: {step:?}"),
            }
        }
    }
}
