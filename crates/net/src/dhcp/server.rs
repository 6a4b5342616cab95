//! Who gets which address: a `DHCPv4` server without sockets (RFC 2131 section 4.3).

use core::net::Ipv4Addr;
use std::collections::BTreeMap;
use std::time::Duration;

use super::message::{Kind, Message, kind_number};
use super::options;
use crate::packet::Mac;

/// An offer is kept this long for the client to take it.
const OFFER: Duration = Duration::from_secs(60);
/// An address that a client found in use is left alone this long.
const DECLINED: Duration = Duration::from_secs(600);
/// Leases at once, however large the range: clients can invent themselves.
const LEASES_MAX: usize = 65_536;
/// The longest client identity that is kept.
const IDENTITY_BYTES_MAX: usize = 64;
/// The longest host name that is kept.
const HOST_NAME_BYTES_MAX: usize = 255;

/// What the server hands out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's own address.
    pub server: Ipv4Addr,
    /// The network's mask.
    pub mask: Ipv4Addr,
    /// The first and the last address to hand out.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// How long a lease lasts; `None`: for ever.
    pub lease: Option<Duration>,
    /// The way out; `None` on an isolated network.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The name given to clients that have no static one.
    pub host_name: Option<String>,
    /// The domain of the clients.
    pub domain: Option<String>,
    /// Domains that the clients search.
    pub search: Vec<String>,
    /// The link's MTU.
    pub mtu: Option<u16>,
    /// The boot file; a URL for UEFI's HTTP boot.
    pub boot_file: Option<String>,
    /// Where the boot file is.
    pub next_server: Option<Ipv4Addr>,
    /// The TFTP server's name.
    pub tftp_name: Option<String>,
    /// Clients that always get the same.
    pub hosts: Vec<StaticHost>,
}

/// A client that always gets the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticHost {
    /// Which client, by its hardware address.
    pub mac: Mac,
    /// Its address; `None`: any, but with this name.
    pub address: Option<Ipv4Addr>,
    /// Its name.
    pub name: Option<String>,
}

/// An address that a client has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The client's hardware address.
    pub mac: Mac,
    /// The client's identity (option 61), when it sent one.
    pub client: Option<Vec<u8>>,
    /// The name that the client calls itself, or that it was given.
    pub host_name: Option<String>,
    /// When it ends, in the caller's time; `None`: never.
    pub expires: Option<Duration>,
    /// Taken, not only offered.
    pub taken: bool,
}

/// The server. Times are measured from any moment, always the same.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    leases: BTreeMap<Ipv4Addr, Lease>,
}

impl Server {
    /// A server with leases of an earlier run.
    #[must_use]
    pub fn new(settings: Settings, leases: impl IntoIterator<Item = Lease>) -> Self {
        let leases = leases.into_iter().map(|lease| (lease.address, lease)).collect();
        Self { settings, leases }
    }

    /// What it hands out.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes what is handed out from now on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Addresses that clients have at `now`.
    pub fn leases(&self, now: Duration) -> impl Iterator<Item = &Lease> {
        self.leases.values().filter(move |lease| lease.taken && !is_over(lease, now))
    }

    /// The answer to a client's message, if it gets one.
    pub fn answer(&mut self, message: &Message, now: Duration) -> Option<Message> {
        if message.is_reply || message.mac.is_group() {
            return None;
        }
        match message.kind() {
            Some(Kind::Discover) => {
                let address = self.reserve(message, now, false)?;
                Some(self.reply(message, Some(Kind::Offer), address))
            }
            Some(Kind::Request) => self.answer_request(message, now),
            Some(Kind::Inform) => {
                let mut reply = self.reply(message, Some(Kind::Ack), Ipv4Addr::UNSPECIFIED);
                let timed = [options::LEASE_TIME, options::RENEWAL_TIME, options::REBINDING_TIME];
                reply.options.retain(|(number, _)| !timed.contains(number));
                Some(reply)
            }
            Some(Kind::Release) => {
                if self.leases.get(&message.client).is_some_and(|lease| is_of(lease, message)) {
                    self.leases.remove(&message.client);
                }
                None
            }
            Some(Kind::Decline) => {
                self.decline(message, now);
                None
            }
            Some(Kind::Offer | Kind::Ack | Kind::Nak) => None,
            None if message.option(options::KIND).is_some() => None,
            // Plain BOOTP: the address is given without being asked for again.
            None => {
                let address = self.reserve(message, now, true)?;
                Some(self.reply(message, None, address))
            }
        }
    }

    fn answer_request(&mut self, message: &Message, now: Duration) -> Option<Message> {
        let chosen = message.address_option(options::SERVER);
        if chosen.is_some_and(|server| server != self.settings.server) {
            // The client took another server's offer: ours is free again.
            self.leases.retain(|_, lease| lease.taken || !is_of(lease, message));
            return None;
        }
        let asked = message.address_option(options::REQUESTED).unwrap_or(message.client);
        let own = self.reserve(message, now, false);
        if own == Some(asked) {
            let address = self.reserve(message, now, true)?;
            return Some(self.reply(message, Some(Kind::Ack), address));
        }
        let mut refusal = self.reply(message, Some(Kind::Nak), Ipv4Addr::UNSPECIFIED);
        refusal.client = Ipv4Addr::UNSPECIFIED;
        refusal.next_server = Ipv4Addr::UNSPECIFIED;
        refusal.file.clear();
        refusal.options.retain(|(number, _)| [options::KIND, options::SERVER].contains(number));
        refusal.options.push((options::REASON, b"the address is not for this client".to_vec()));
        refusal.broadcast = true;
        Some(refusal)
    }

    fn decline(&mut self, message: &Message, now: Duration) {
        let Some(address) = message.address_option(options::REQUESTED) else { return };
        let Some(lease) = self.leases.get_mut(&address) else { return };
        if is_of(lease, message) {
            // Nobody's, until somebody may try again.
            lease.mac = Mac::default();
            lease.client = None;
            lease.taken = false;
            lease.expires = now.checked_add(DECLINED);
        }
    }

    /// The client's address: its static one, the one it has, the one it wants, or a free one.
    fn reserve(&mut self, message: &Message, now: Duration, take: bool) -> Option<Ipv4Addr> {
        let address = self.choose(message, now)?;
        let lifetime = if take { self.settings.lease } else { Some(OFFER) };
        let expires = lifetime.and_then(|lifetime| now.checked_add(lifetime));
        if let Some(lease) = self.leases.get_mut(&address).filter(|lease| is_of(lease, message)) {
            if take || !lease.taken {
                lease.expires = expires;
                lease.taken |= take;
            }
            return Some(address);
        }
        // Whoever had it before has lost it, and the client has one address only.
        self.leases.retain(|_, lease| !is_of(lease, message));
        if self.leases.len() >= LEASES_MAX && !self.leases.contains_key(&address) {
            self.leases.retain(|_, lease| !is_over(lease, now));
            if self.leases.len() >= LEASES_MAX {
                return None;
            }
        }
        let lease = Lease {
            address,
            mac: message.mac,
            client: identity(message),
            host_name: self.name_of(message),
            expires,
            taken: take,
        };
        self.leases.insert(address, lease);
        Some(address)
    }

    fn choose(&self, message: &Message, now: Duration) -> Option<Ipv4Addr> {
        let fixed = self.static_host(message.mac).and_then(|host| host.address);
        if fixed.is_some() {
            return fixed;
        }
        let (first, last) = self.settings.range?;
        let usable = |address: Ipv4Addr| {
            let reserved = address == self.settings.server
                || Some(address) == self.settings.router
                || self.settings.dns.contains(&address)
                || self.settings.hosts.iter().any(|host| host.address == Some(address));
            (first..=last).contains(&address) && !reserved
        };
        let free = |address: Ipv4Addr| {
            usable(address)
                && self
                    .leases
                    .get(&address)
                    .is_none_or(|lease| is_over(lease, now) || is_of(lease, message))
        };
        let owned = self.leases.values().find(|lease| is_of(lease, message));
        let owned = owned.map(|lease| lease.address).filter(|address| usable(*address));
        let asked = message.address_option(options::REQUESTED).unwrap_or(message.client);
        owned.or_else(|| free(asked).then_some(asked)).or_else(|| {
            let mut all = (first.to_bits()..=last.to_bits()).map(Ipv4Addr::from_bits);
            // Never used ones first, so that a client that comes back finds its own.
            let fresh =
                all.clone().find(|address| usable(*address) && !self.leases.contains_key(address));
            fresh.or_else(|| all.find(|address| free(*address)))
        })
    }

    fn static_host(&self, mac: Mac) -> Option<&StaticHost> {
        self.settings.hosts.iter().find(|host| host.mac == mac)
    }

    fn name_of(&self, message: &Message) -> Option<String> {
        let fixed = self.static_host(message.mac).and_then(|host| host.name.clone());
        let said = message.option(options::HOST_NAME).filter(|n| n.len() <= HOST_NAME_BYTES_MAX);
        let said = said.and_then(|name| core::str::from_utf8(name).ok());
        let said = said.map(|name| name.trim_end_matches('\0').to_owned());
        let printable = |name: &String| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        fixed.or(said.filter(printable))
    }

    fn reply(&self, message: &Message, kind: Option<Kind>, yours: Ipv4Addr) -> Message {
        let settings = &self.settings;
        let mut list: Vec<(u8, Vec<u8>)> = Vec::new();
        if let Some(kind) = kind {
            list.push((options::KIND, vec![kind_number(kind)]));
            list.push((options::SERVER, settings.server.octets().to_vec()));
            let seconds = settings.lease.map_or(u64::from(u32::MAX), |lease| lease.as_secs());
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            list.push((options::LEASE_TIME, seconds.to_be_bytes().to_vec()));
            if seconds != u32::MAX {
                let (half, most) = (seconds / 2, seconds / 8 * 7);
                list.push((options::RENEWAL_TIME, half.to_be_bytes().to_vec()));
                list.push((options::REBINDING_TIME, most.to_be_bytes().to_vec()));
            }
        }
        list.push((options::MASK, settings.mask.octets().to_vec()));
        list.extend(settings.router.map(|router| (options::ROUTER, router.octets().to_vec())));
        if !settings.dns.is_empty() {
            let servers = settings.dns.iter().flat_map(Ipv4Addr::octets).collect();
            list.push((options::DNS, servers));
        }
        let fixed = self.static_host(message.mac).and_then(|host| host.name.as_ref());
        let texts = [
            (options::HOST_NAME, fixed.or(settings.host_name.as_ref())),
            (options::DOMAIN, settings.domain.as_ref()),
            (options::TFTP_NAME, settings.tftp_name.as_ref()),
            (options::BOOT_FILE, settings.boot_file.as_ref()),
        ];
        for (number, text) in texts {
            list.extend(text.map(|text| (number, text.clone().into_bytes())));
        }
        if !settings.search.is_empty() {
            list.push((options::SEARCH, options::search_list(&settings.search)));
        }
        list.extend(settings.mtu.map(|mtu| (options::MTU, mtu.to_be_bytes().to_vec())));
        let class = message.option(options::VENDOR_CLASS).unwrap_or_default();
        if class.starts_with(b"HTTPClient") && settings.boot_file.is_some() {
            // UEFI 24.7.3: the client takes a URL only from a server that says this.
            list.push((options::VENDOR_CLASS, b"HTTPClient".to_vec()));
        }
        Message {
            is_reply: true,
            exchange: message.exchange,
            broadcast: message.broadcast,
            client: message.client,
            yours,
            next_server: settings.next_server.unwrap_or(Ipv4Addr::UNSPECIFIED),
            relay: message.relay,
            mac: message.mac,
            file: settings.boot_file.clone().unwrap_or_default().into_bytes(),
            options: list,
        }
    }
}

fn identity(message: &Message) -> Option<Vec<u8>> {
    let identity = message.option(options::CLIENT)?;
    (identity.len() <= IDENTITY_BYTES_MAX).then(|| identity.to_vec())
}

/// A client is told by its identity when both sides have one, else by its hardware address.
fn is_of(lease: &Lease, message: &Message) -> bool {
    match (&lease.client, identity(message)) {
        (Some(lease), Some(message)) => *lease == message,
        _ => lease.mac == message.mac,
    }
}

fn is_over(lease: &Lease, now: Duration) -> bool {
    lease.expires.is_some_and(|expires| expires <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    const fn guest(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, last)
    }

    fn settings() -> Settings {
        Settings {
            server: SERVER,
            mask: Ipv4Addr::new(255, 255, 255, 0),
            range: Some((guest(15), guest(17))),
            lease: Some(Duration::from_secs(3600)),
            router: Some(SERVER),
            dns: vec![guest(3)],
            host_name: None,
            domain: Some("example.org".into()),
            search: vec!["a.example".into(), "b.example".into()],
            mtu: None,
            boot_file: Some("http://boot/x.efi".into()),
            next_server: Some(SERVER),
            tftp_name: None,
            hosts: vec![StaticHost {
                mac: Mac([2, 0, 0, 0, 0, 99]),
                address: Some(guest(16)),
                name: Some("fixed".into()),
            }],
        }
    }

    fn ask(client: u8, kind: Kind, extra: &[(u8, Vec<u8>)]) -> Message {
        let mut list = vec![(options::KIND, vec![kind_number(kind)])];
        list.extend_from_slice(extra);
        Message {
            is_reply: false,
            exchange: 1,
            broadcast: false,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::UNSPECIFIED,
            next_server: Ipv4Addr::UNSPECIFIED,
            relay: Ipv4Addr::UNSPECIFIED,
            mac: Mac([2, 0, 0, 0, 0, client]),
            file: Vec::new(),
            options: list,
        }
    }

    fn wants(address: Ipv4Addr) -> Vec<(u8, Vec<u8>)> {
        vec![(options::REQUESTED, address.octets().to_vec())]
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn outcome(server: &mut Server, message: &Message, now: u64) -> Option<(Kind, Ipv4Addr)> {
        let reply = server.answer(message, at(now))?;
        Some((reply.kind().unwrap(), reply.yours))
    }

    #[test]
    fn clients_get_addresses_keep_them_and_lose_them() {
        let mut server = Server::new(settings(), []);
        let discover = |client| ask(client, Kind::Discover, &[]);
        let request = |client, last| ask(client, Kind::Request, &wants(guest(last)));
        for (step, message, now, expected) in [
            ("the first", discover(1), 0, Some((Kind::Offer, guest(15)))),
            ("is offered the same again", discover(1), 1, Some((Kind::Offer, guest(15)))),
            ("and takes it", request(1, 15), 2, Some((Kind::Ack, guest(15)))),
            ("static", discover(99), 3, Some((Kind::Offer, guest(16)))),
            ("another's", request(2, 15), 4, Some((Kind::Nak, Ipv4Addr::UNSPECIFIED))),
            ("the last", discover(3), 70, Some((Kind::Offer, guest(17)))),
            ("none is left", discover(4), 71, None),
            ("an offer ends", discover(4), 140, Some((Kind::Offer, guest(17)))),
            ("a lease is renewed", request(1, 15), 3000, Some((Kind::Ack, guest(15)))),
            ("and holds", request(5, 15), 3700, Some((Kind::Nak, Ipv4Addr::UNSPECIFIED))),
        ] {
            assert_eq!(outcome(&mut server, &message, now), expected, "{step}");
        }
        let leases: Vec<_> = server.leases(at(3700)).map(|lease| lease.address).collect();
        assert_eq!(leases, [guest(15)]);
        assert_eq!(server.leases(at(99_999)).count(), 0);
    }

    #[test]
    fn released_and_declined_addresses() {
        let mut server = Server::new(settings(), []);
        server.answer(&ask(1, Kind::Request, &wants(guest(15))), at(0)).unwrap();
        let mut release = ask(2, Kind::Release, &[]);
        release.client = guest(15);
        server.answer(&release, at(1));
        assert_eq!(server.leases(at(1)).count(), 1, "another's release frees nothing");
        server.answer(&ask(1, Kind::Decline, &wants(guest(15))), at(2));
        let offer = outcome(&mut server, &ask(1, Kind::Discover, &[]), 3);
        assert_eq!(offer, Some((Kind::Offer, guest(17))), "15 is in use by somebody");
    }

    #[test]
    fn options_and_uefi_boot() {
        let mut server = Server::new(settings(), []);
        let class = (options::VENDOR_CLASS, b"HTTPClient:Arch:00016".to_vec());
        let offer = server.answer(&ask(99, Kind::Discover, &[class]), at(0)).unwrap();
        let option = |number| offer.option(number);
        assert_eq!(option(options::VENDOR_CLASS), Some(&b"HTTPClient"[..]));
        assert_eq!(option(options::HOST_NAME), Some(&b"fixed"[..]));
        assert_eq!(option(options::SEARCH), Some(&b"\x01a\x07example\0\x01b\x07example\0"[..]));
        assert_eq!(option(options::LEASE_TIME), Some(&3600_u32.to_be_bytes()[..]));
        assert_eq!(option(options::ROUTER), Some(&[10, 0, 2, 2][..]));
        assert_eq!((&offer.file[..], offer.next_server), (&b"http://boot/x.efi"[..], SERVER));
        let inform = server.answer(&ask(7, Kind::Inform, &[]), at(0)).unwrap();
        assert_eq!(inform.option(options::LEASE_TIME), None);
        assert_eq!(inform.yours, Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn bootp_without_a_kind_gets_an_address() {
        let mut server = Server::new(settings(), []);
        let mut message = ask(1, Kind::Discover, &[]);
        message.options.clear();
        let reply = server.answer(&message, at(0)).unwrap();
        assert_eq!((reply.yours, reply.kind()), (guest(15), None));
    }
}
