//! Network back ends by name: `-netdev`, `-nic`, `netdev_add`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use machine::surroundings::Backends;
use net::dump::Dump;
use net::hub::Hub;
use net::user::{
    Config, ForwardTarget, GuestForward, HostEnd, HostForward, Ipv4Config, Ipv6Config, UserNet,
};
use parking_lot::Mutex;
use qemu_compat::system::values;
use serde_json::{Map, Value};

use crate::character::{Characters, Descriptors};
use crate::passt::{self, Passt};
use crate::smb::{self, SmbFolder};
use crate::tap_helpers::DownScript;
use crate::wires;

/// All of them.
pub struct Networks {
    backends: Arc<Backends>,
    users: Mutex<BTreeMap<String, User>>,
    hubs: Mutex<BTreeMap<i64, Arc<Hub>>>,
    descriptors: Arc<dyn Descriptors>,
    characters: Arc<Characters>,
    /// In front of each, where its frames can be seen.
    dumps: Mutex<BTreeMap<String, Arc<Dump>>>,
    down_scripts: Mutex<BTreeMap<String, DownScript>>,
    passts: Mutex<BTreeMap<String, Passt>>,
}

/// A user-mode network, and the guest that forwardings lead to unless they name one.
#[derive(Clone)]
pub struct User {
    pub network: Arc<UserNet>,
    pub guest: Option<Ipv4Addr>,
    /// Keeps the folder of its server for shared files.
    _smb: Option<Arc<SmbFolder>>,
}

type Result<T> = std::result::Result<T, String>;

impl Networks {
    pub fn new(
        backends: &Arc<Backends>,
        descriptors: Arc<dyn Descriptors>,
        characters: &Arc<Characters>,
    ) -> Self {
        let (backends, characters) = (Arc::clone(backends), Arc::clone(characters));
        let (users, hubs) = (Mutex::default(), Mutex::default());
        let (dumps, down_scripts, passts) = Default::default();
        Self { backends, users, hubs, descriptors, characters, dumps, down_scripts, passts }
    }

    /// A port of a hub, which is made with its first port. Another back end may join through it.
    fn hub_port(&self, members: &mut Members) -> Result<Arc<dyn net::Backend>> {
        let number = members.needed("hubid")?;
        let number = number.parse().map_err(|_| "Parameter 'hubid' expects a number")?;
        let mut hubs = self.hubs.lock();
        let hub = match hubs.entry(number) {
            Entry::Occupied(hub) => hub.into_mut(),
            Entry::Vacant(place) => place.insert(Hub::new().map_err(|error| full(&error))?),
        };
        if let Some(name) = members.text("netdev") {
            let joined = self.backends.networks.get(&name);
            hub.join(&joined.ok_or_else(|| format!("netdev '{name}' not found"))?);
        }
        Ok(hub.port())
    }

    /// Makes one from its members.
    pub fn add(&self, members: &Map<String, Value>) -> Result<()> {
        let mut members = Members(members.clone());
        let kind = members.needed("type")?;
        let id = members.needed("id")?;
        crate::parts::check_id(&id)?;
        if self.backends.networks.get(&id).is_some() {
            return Err(format!("Duplicate ID '{id}' for netdev"));
        }
        let backend: Arc<dyn net::Backend> = match kind.as_str() {
            "user" => {
                let (config, forwards, smb) = user(&mut members)?;
                members.finish()?;
                let guest = config.first_guest();
                let network = UserNet::new(config, &forwards).map_err(|error| full(&error))?;
                let smb = smb.map(Arc::new);
                let user = User { network: Arc::clone(&network), guest, _smb: smb };
                self.users.lock().insert(id.clone(), user);
                network
            }
            "tap" | "bridge" => {
                let (tap, down) = wires::tap(&kind, &mut members, &*self.descriptors)?;
                members.finish()?;
                self.down_scripts.lock().extend(down.map(|down| (id.clone(), down)));
                tap
            }
            "stream" => {
                let stream = wires::stream(&mut members, &*self.descriptors)?;
                members.finish()?;
                stream
            }
            "dgram" => {
                let dgram = wires::dgram(&mut members, &*self.descriptors)?;
                members.finish()?;
                dgram
            }
            "socket" => {
                let socket = wires::socket(&mut members, &*self.descriptors)?;
                members.finish()?;
                socket
            }
            "hubport" => {
                let port = self.hub_port(&mut members)?;
                members.finish()?;
                port
            }
            "vhost-user" => {
                let network = wires::vhost_user(&mut members, &self.characters)?;
                members.finish()?;
                network
            }
            "passt" => {
                let (network, passt) = passt::start(&id, members)?;
                self.passts.lock().insert(id.clone(), passt);
                network
            }
            "vhost-vdpa" | "vde" | "l2tpv3" | "af-xdp" => {
                return Err(format!("network backend '{kind}' is not built in Hostel"));
            }
            other => return Err(format!("Parameter 'type' does not accept value '{other}'")),
        };
        let dump = Dump::new(backend);
        self.backends.networks.insert(&id, Arc::clone(&dump) as _);
        self.dumps.lock().insert(id, dump);
        Ok(())
    }

    /// The place in front of a back end where its frames can be seen.
    pub fn dump(&self, id: &str) -> Option<Arc<Dump>> {
        self.dumps.lock().get(id).cloned()
    }

    /// Whether there is a capture of this name.
    pub fn has_capture(&self, name: &str) -> bool {
        self.dumps.lock().values().any(|dump| dump.has(name))
    }

    /// Ends a capture, whichever back end it is at. False when there is none of this name.
    pub fn end_capture(&self, name: &str) -> bool {
        self.dumps.lock().values().any(|dump| dump.remove(name))
    }

    /// Takes one away that no card uses.
    pub fn remove(&self, id: &str) -> Result<()> {
        if self.backends.networks.get(id).is_none() {
            return Err(format!("Device '{id}' not found"));
        }
        if let Some(card) = self.backends.networks.user(id) {
            return Err(format!("Device '{id}' is used by '{card}'"));
        }
        self.backends.networks.remove(id);
        self.users.lock().remove(id);
        self.dumps.lock().remove(id);
        drop(self.down_scripts.lock().remove(id));
        drop(self.passts.lock().remove(id));
        Ok(())
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.backends.networks.names()
    }

    /// What a back end says of itself.
    pub fn info(&self, id: &str) -> Option<String> {
        Some(self.backends.networks.get(id)?.info())
    }

    /// The user-mode network of this name, or the only one.
    pub fn user(&self, id: Option<&str>) -> Option<(String, User)> {
        let users = self.users.lock();
        let found = match id {
            Some(id) => users.get_key_value(id),
            None => users.iter().next(),
        };
        found.map(|(id, user)| (id.clone(), user.clone()))
    }
}

/// An error with what is behind it.
pub fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// What was asked for, each to be used once.
pub struct Members(pub Map<String, Value>);

impl Members {
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.0.shift_remove(name)? {
            Value::String(text) => Some(text),
            Value::Bool(true) => Some("on".to_owned()),
            Value::Bool(false) => Some("off".to_owned()),
            other => Some(other.to_string()),
        }
    }

    pub fn needed(&mut self, name: &str) -> Result<String> {
        self.text(name).ok_or_else(|| format!("Parameter '{name}' is missing"))
    }

    pub fn switch(&mut self, name: &str, default: bool) -> Result<bool> {
        let text = self.text(name);
        text.map_or(Ok(default), |text| values::switch(name, &text))
            .map_err(|error| error.to_string())
    }

    /// A text, several, or several with `{"str": ...}` around each.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let one = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Object(mut map) => map.remove("str")?.as_str().map(str::to_owned),
            _ => None,
        };
        match self.0.shift_remove(name) {
            Some(Value::Array(list)) => list.into_iter().filter_map(one).collect(),
            Some(value) => one(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, what: &str) -> Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("Parameter '{name}' expects {what}"))
    }

    /// The members of a nested object.
    pub fn below(&mut self, name: &str) -> Option<Self> {
        match self.0.shift_remove(name)? {
            Value::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    pub fn finish(self) -> Result<()> {
        match self.0.keys().next() {
            Some(name) => Err(format!("Invalid parameter '{name}'")),
            None => Ok(()),
        }
    }
}

fn user(members: &mut Members) -> Result<(Config, Vec<HostForward>, Option<SmbFolder>)> {
    let mut config = Config::customary();
    if let Some(net) = members.text("net") {
        config.ipv4 = Some(ipv4_network(&net)?);
    }
    let address = "an IPv4 address";
    if let Some(v4) = &mut config.ipv4 {
        v4.host = members.parsed("host", address)?.unwrap_or(v4.host);
        v4.dns = members.parsed("dns", address)?.unwrap_or(v4.dns);
        v4.dhcp_start = members.parsed("dhcpstart", address)?.unwrap_or(v4.dhcp_start);
    }
    let six = "an IPv6 address";
    let prefix: Option<Ipv6Addr> = members.parsed("ipv6-prefix", six)?;
    let length: Option<u8> = members.parsed("ipv6-prefixlen", "a number")?;
    if prefix.is_some() || length.is_some() {
        let prefix = prefix.unwrap_or(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0));
        config.ipv6 = Some(Ipv6Config::in_network(prefix, length.unwrap_or(64)));
    }
    if let Some(v6) = &mut config.ipv6 {
        v6.host = members.parsed("ipv6-host", six)?.unwrap_or(v6.host);
        v6.dns = members.parsed("ipv6-dns", six)?.unwrap_or(v6.dns);
    }
    if !members.switch("ipv4", true)? {
        config.ipv4 = None;
    }
    if !members.switch("ipv6", true)? {
        config.ipv6 = None;
    }
    config.restrict = members.switch("restrict", false)?;
    config.host_name = members.text("hostname");
    config.domain = members.text("domainname");
    config.search = members.list("dnssearch");
    config.boot_file = members.text("bootfile");
    config.tftp_root = members.text("tftp").map(Into::into);
    config.tftp_name = members.text("tftp-server-name");
    let smb_address = members.parsed("smbserver", address)?;
    let smb = members.text("smb").map(|folder| smb::share(&mut config, &folder, smb_address));
    let smb = smb.transpose()?;
    let guest = config.first_guest();
    let forwards = members.list("hostfwd");
    let forwards: Result<Vec<_>> = forwards.iter().map(|rule| host_forward(rule, guest)).collect();
    for rule in members.list("guestfwd") {
        config.guest_forwards.push(guest_forward(&rule)?);
    }
    Ok((config, forwards?, smb))
}

/// `10.0.2.0/24`, or with a mask, or without either.
fn ipv4_network(text: &str) -> Result<Ipv4Config> {
    let wrong = || format!("Parameter 'net' expects an IPv4 network, not '{text}'");
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let prefix = match (prefix, prefix.parse::<Ipv4Addr>()) {
        ("", _) => 24,
        (_, Ok(mask)) => mask.to_bits().leading_ones() as u8,
        (bits, _) => bits.parse().ok().filter(|bits| *bits < 32).ok_or_else(wrong)?,
    };
    Ok(Ipv4Config::in_network(address, prefix))
}

/// `[tcp|udp]:[ADDRESS]:PORT-[GUEST]:PORT`.
pub fn host_forward(rule: &str, guest: Option<Ipv4Addr>) -> Result<HostForward> {
    let wrong = |what: &str| format!("Invalid host forwarding rule '{rule}' ({what})");
    let (from, to) = rule.split_once('-').ok_or_else(|| wrong("No '-' between both ends"))?;
    let guest = match to.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse().map_err(|_| wrong("Bad guest port"))?;
            let host: IpAddr = match host.trim_matches(['[', ']']) {
                "" => guest.ok_or_else(|| wrong("Bad guest address"))?.into(),
                host => host.parse().map_err(|_| wrong("Bad guest address"))?,
            };
            SocketAddr::new(host, port)
        }
        None => return Err(wrong("Bad guest address")),
    };
    if let Some(path) = from.strip_prefix("unix:") {
        return Ok(HostForward { from: HostEnd::Unix(path.into()), guest });
    }
    let end = host_end(from).ok_or_else(|| wrong("Bad host port or address"))?;
    Ok(HostForward { from: end, guest })
}

/// The host's end of a rule: `[tcp|udp]:[ADDRESS]:PORT`.
pub fn host_end(text: &str) -> Option<HostEnd> {
    let (protocol, rest) = text.split_once(':')?;
    let (host, port) = rest.rsplit_once(':')?;
    let host: IpAddr = match host.trim_matches(['[', ']']) {
        "" => Ipv4Addr::UNSPECIFIED.into(),
        host => host.parse().ok()?,
    };
    let address = SocketAddr::new(host, port.parse().ok()?);
    match protocol {
        "tcp" | "" => Some(HostEnd::Tcp(address)),
        "udp" => Some(HostEnd::Udp(address)),
        _ => None,
    }
}

/// `tcp:ADDRESS:PORT-TARGET`, where a target is `cmd:PROGRAM`, `tcp:...` or `unix:...`.
fn guest_forward(rule: &str) -> Result<GuestForward> {
    let wrong = || format!("Invalid guest forwarding rule '{rule}'");
    let (at, to) = rule.split_once('-').ok_or_else(wrong)?;
    let at = at.strip_prefix("tcp:").unwrap_or(at).parse().map_err(|_| wrong())?;
    let to = match to.split_once(':') {
        Some(("cmd", command)) => ForwardTarget::Command(command.into()),
        Some(("tcp", address)) => ForwardTarget::Tcp(address.parse().map_err(|_| wrong())?),
        Some(("unix", path)) => ForwardTarget::Unix(path.into()),
        _ => return Err(wrong()),
    };
    Ok(GuestForward { at, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_rules() {
        let guest = Some(Ipv4Addr::new(10, 0, 2, 15));
        let parsed = |rule| {
            host_forward(rule, guest)
                .map(|forward| (forward.from.to_string(), forward.guest.to_string()))
        };
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(parsed("tcp::8080-:80"), pair("tcp 0.0.0.0:8080", "10.0.2.15:80"));
        assert_eq!(parsed("udp:127.0.0.1:53-10.0.2.9:53"), pair("udp 127.0.0.1:53", "10.0.2.9:53"));
        assert_eq!(parsed("tcp:[::1]:1-:2"), pair("tcp [::1]:1", "10.0.2.15:2"));
        for rule in ["", "tcp:80", "tcp::x-:1", "tcp::1-:x", "icmp::1-:1"] {
            assert!(
                parsed(rule).unwrap_err().starts_with("Invalid host forwarding rule"),
                "{rule}"
            );
        }
    }

    #[test]
    fn networks() {
        let network = ipv4_network("192.168.7.0/24").unwrap();
        assert_eq!(network.host, Ipv4Addr::new(192, 168, 7, 2));
        assert_eq!(ipv4_network("10.1.0.0/255.255.0.0").unwrap().prefix, 16);
        assert!(ipv4_network("x").is_err() && ipv4_network("10.0.0.0/99").is_err());
    }
}
