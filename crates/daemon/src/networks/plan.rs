//! From a network's document to what is to be made: a bridge, addresses, filter rules, services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use linux::netlink::filter::{Action, Hook, Match, Rule, Table};
use linux::netlink::route::Bridge;
use net::bridge::{Forward, NameSettings, Settings};
use net::dhcp;
use net::dns::message::{self, Record};
use net::dns::name;
use net::packet::Mac;

/// Seconds that an address is given for where the document says nothing, as dnsmasq does.
const LEASE: Duration = Duration::from_secs(3600);

/// How packets leave the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// They do not.
    Isolated,
    /// With the host's address.
    Nat,
    /// As they are, in both directions.
    Route,
    /// As they are; whoever runs the host's firewall decides.
    Open,
    /// By a bridge that somebody else made.
    Bridge,
}

/// An address of the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    pub address: IpAddr,
    pub prefix: u8,
}

/// What is to be made.
#[derive(Debug)]
pub struct Plan {
    pub mode: Mode,
    pub bridge: Bridge,
    pub addresses: Vec<Address>,
    pub routes: Vec<((IpAddr, u8), IpAddr, Option<u32>)>,
    pub table: Option<Table>,
    pub service: Settings,
}

fn problem(text: impl Into<String>) -> Error {
    Error::new(Code::XmlError, text).from(Origin::Network)
}

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(Code::ConfigUnsupported, text).from(Origin::Network)
}

/// Elements of a network that nobody here obeys.
const UNKNOWN: [&str; 4] = ["bandwidth", "vlan", "virtualport", "portgroup"];

/// The mode that a document asks for.
pub fn mode(document: &Element) -> Result<Mode> {
    let forward = document.child("forward");
    match forward.map(|forward| forward.attribute("mode").unwrap_or("nat")) {
        None => Ok(Mode::Isolated),
        Some("nat") => Ok(Mode::Nat),
        Some("route") => Ok(Mode::Route),
        Some("open") => Ok(Mode::Open),
        Some("bridge") if document.attribute_at("bridge", "name").is_some() => Ok(Mode::Bridge),
        Some(other) => {
            let name = document.text_at("name").unwrap_or_default();
            Err(unsupported(format!("network '{name}': forward mode '{other}' is not supported")))
        }
    }
}

/// Makes the plan; `leases` is where they are kept.
pub fn plan(document: &Element, leases: &Path) -> Result<Plan> {
    let mode = mode(document)?;
    let network = document.text_at("name").unwrap_or_default();
    if let Some(name) = UNKNOWN.iter().find(|name| document.child(name).is_some()) {
        return Err(unsupported(format!("network '{network}': element <{name}> is not supported")));
    }
    if document.attribute_at("bridge", "zone").is_some() {
        return Err(unsupported(format!("network '{network}': zones need firewalld")));
    }
    let bridge = bridge(document)?;
    let addresses: Vec<Address> = document
        .all("ip")
        .map(address)
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let routes = document.all("route").map(route).collect::<Result<_>>()?;
    let table = table(document, mode, &bridge.name, &addresses)?;
    let service = service(document, mode, &bridge.name, &addresses, leases)?;
    Ok(Plan { mode, bridge, addresses, routes, table, service })
}

fn number<T: std::str::FromStr>(element: &Element, name: &str) -> Result<Option<T>> {
    let Some(text) = element.attribute(name) else { return Ok(None) };
    let parsed = text.parse().map_err(|_| {
        let element = &element.name;
        problem(format!("Invalid value for attribute '{name}' in element '{element}': '{text}'."))
    });
    parsed.map(Some)
}

fn bridge(document: &Element) -> Result<Bridge> {
    let element = document.child("bridge").cloned().unwrap_or_default();
    let name = element.attribute("name").unwrap_or_default().to_owned();
    let mac = document.attribute_at("mac", "address").map(mac).transpose()?;
    let mtu = document.child("mtu").map(|mtu| number(mtu, "size")).transpose()?.flatten();
    Ok(Bridge {
        name,
        mac: mac.map(|mac| mac.0),
        stp: !element.is("stp", "off"),
        forward_delay_s: number(&element, "delay")?.unwrap_or(0),
        mtu,
    })
}

fn mac(text: &str) -> Result<Mac> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(Mac).ok_or_else(|| problem(format!("unable to parse mac address '{text}'")))
}

fn ip<T: std::str::FromStr>(text: &str, network: &str) -> Result<T> {
    text.parse().map_err(|_| problem(format!("Invalid address '{text}' in network '{network}'")))
}

/// An `<ip>` without an address configures nothing.
pub fn address(element: &Element) -> Result<Option<Address>> {
    let Some(text) = element.attribute("address") else { return Ok(None) };
    let address: IpAddr = ip(text, "ip")?;
    let of_family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let family = element.attribute("family").unwrap_or("ipv4");
    if family != of_family {
        return Err(problem(format!("family '{family}' does not fit the address '{text}'")));
    }
    Ok(Some(Address { address, prefix: prefix(element, address)? }))
}

fn prefix(element: &Element, address: IpAddr) -> Result<u8> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if let Some(prefix) = number::<u8>(element, "prefix")? {
        if prefix > bits {
            return Err(problem(format!("invalid prefix {prefix} of address '{address}'")));
        }
        return Ok(prefix);
    }
    match (element.attribute("netmask"), address) {
        (Some(mask), IpAddr::V4(_)) => {
            let bits = u32::from(ip::<Ipv4Addr>(mask, "netmask")?);
            if bits.leading_ones() != bits.count_ones() {
                return Err(problem(format!("invalid netmask '{mask}'")));
            }
            Ok(bits.count_ones() as u8)
        }
        (None, IpAddr::V4(address)) => Ok(match address.octets()[0] {
            ..128 => 8,
            128..192 => 16,
            _ => 24,
        }),
        _ => Ok(64),
    }
}

fn route(element: &Element) -> Result<((IpAddr, u8), IpAddr, Option<u32>)> {
    let network: IpAddr = ip(element.attribute("address").unwrap_or_default(), "route")?;
    let gateway: IpAddr = ip(element.attribute("gateway").unwrap_or_default(), "route")?;
    Ok(((network, prefix(element, network)?), gateway, number(element, "metric")?))
}

/// The first address of an address's network.
fn network_of(own: &Address) -> IpAddr {
    match own.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(own.prefix)).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(own.prefix)).unwrap_or(0);
            Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}

/// The name of a bridge's table.
pub fn table_name(bridge: &str) -> String {
    format!("hostel_{bridge}")
}

fn table(
    document: &Element,
    mode: Mode,
    bridge: &str,
    addresses: &[Address],
) -> Result<Option<Table>> {
    if matches!(mode, Mode::Open | Mode::Bridge) {
        return Ok(None);
    }
    let forward = document.child("forward").cloned().unwrap_or_default();
    let outside = forward.attribute("dev").map(str::to_owned).or_else(|| {
        forward.child("interface").and_then(|link| link.attribute("dev")).map(str::to_owned)
    });
    let (from, to) = (Match::From(bridge.to_owned()), Match::To(bridge.to_owned()));
    let mut rules: Vec<Rule> = vec![(vec![from.clone(), to.clone()], Action::Accept)];
    let mut translations = Vec::new();
    let nat_v6 = forward.child("nat").is_some_and(|nat| nat.is("ipv6", "yes"));
    for own in addresses.iter().filter(|_| mode != Mode::Isolated) {
        let (network, prefix) = (network_of(own), own.prefix);
        let translated = mode == Mode::Nat && (network.is_ipv4() || nat_v6);
        let mut inward = vec![to.clone(), Match::Destination(network, prefix)];
        let mut outward = vec![from.clone(), Match::Source(network, prefix)];
        if let Some(link) = &outside {
            inward.push(Match::From(link.clone()));
            outward.push(Match::To(link.clone()));
        }
        if translated {
            inward.push(Match::Established);
            translations.extend(translation(&forward, network, prefix, outside.as_deref())?);
        }
        rules.push((inward, Action::Accept));
        rules.push((outward, Action::Accept));
    }
    rules.push((vec![from], Action::Reject));
    rules.push((vec![to], Action::Reject));
    let mut chains = vec![(Hook::Forward, rules)];
    if !translations.is_empty() {
        chains.push((Hook::SourceNat, translations));
    }
    Ok(Some(Table { name: table_name(bridge), chains }))
}

/// What leaves the network gets the host's address; groups and broadcasts stay as they are.
fn translation(
    forward: &Element,
    network: IpAddr,
    prefix: u8,
    outside: Option<&str>,
) -> Result<Vec<Rule>> {
    let source = Match::Source(network, prefix);
    let stays: [(IpAddr, u8); 2] = match network {
        IpAddr::V4(_) => {
            [(Ipv4Addr::new(224, 0, 0, 0).into(), 24), (Ipv4Addr::BROADCAST.into(), 32)]
        }
        IpAddr::V6(_) => [
            (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
            (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
        ],
    };
    let mut rules: Vec<Rule> = stays
        .into_iter()
        .map(|(address, bits)| {
            (vec![source.clone(), Match::Destination(address, bits)], Action::Return)
        })
        .collect();
    let nat = forward.child("nat");
    let range = |name: &str| nat.and_then(|nat| nat.child(name));
    let ports = match range("port") {
        Some(port) => {
            Some((number(port, "start")?.unwrap_or(1024), number(port, "end")?.unwrap_or(65535)))
        }
        None => None,
    };
    let addresses: Option<(Ipv4Addr, Ipv4Addr)> = match range("address") {
        Some(range) if network.is_ipv4() => {
            let part = |name: &str| ip(range.attribute(name).unwrap_or_default(), "nat");
            Some((part("start")?, part("end")?))
        }
        _ => None,
    };
    let action = |ports| match addresses {
        Some(range) => Action::Source(range, ports),
        None => Action::Masquerade(ports),
    };
    let mut leaving = vec![source, Match::DestinationNot(network, prefix)];
    leaving.extend(outside.map(|link| Match::To(link.to_owned())));
    if let Some(ports) = ports {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        for protocol in [TCP, UDP] {
            let mut own = leaving.clone();
            own.push(Match::Protocol(protocol));
            rules.push((own, action(Some(ports))));
        }
    }
    rules.push((leaving, action(None)));
    Ok(rules)
}

fn service(
    document: &Element,
    mode: Mode,
    bridge: &str,
    addresses: &[Address],
    leases: &Path,
) -> Result<Settings> {
    let routed = !matches!(mode, Mode::Isolated);
    let dns = !document.child("dns").is_some_and(|dns| dns.is("enable", "no"));
    let dhcp = dhcp_settings(document, routed, dns)?;
    let six: Vec<(Ipv6Addr, u8)> = addresses
        .iter()
        .filter_map(|own| match own.address {
            IpAddr::V6(address) => Some((address, own.prefix)),
            IpAddr::V4(_) => None,
        })
        .collect();
    let listen: Vec<IpAddr> = addresses.iter().map(|own| own.address).collect();
    let wanted = mode != Mode::Bridge && !listen.is_empty();
    Ok(Settings {
        link: bridge.to_owned(),
        dhcp: dhcp.filter(|_| wanted),
        leases: Some(leases.to_owned()),
        names: if wanted && dns { Some((names(document, mode)?, listen)) } else { None },
        advertise: (wanted && !six.is_empty()).then_some((six, routed)),
    })
}

fn dhcp_settings(document: &Element, routed: bool, dns: bool) -> Result<Option<dhcp::Settings>> {
    for ip in document.all("ip") {
        if ip.child("tftp").is_some() {
            return Err(unsupported("element <tftp> is not supported"));
        }
        let Some(dhcp) = ip.child("dhcp") else { continue };
        let Some(Address { address: IpAddr::V4(server), prefix }) = address(ip)? else {
            return Err(unsupported(
                "<dhcp> with IPv6 is not supported: guests make addresses \
                                    from router advertisements",
            ));
        };
        let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0));
        let mut settings = dhcp::Settings {
            server,
            mask,
            range: None,
            lease: Some(LEASE),
            router: routed.then_some(server),
            dns: if dns { vec![server] } else { Vec::new() },
            host_name: None,
            domain: document.attribute_at("domain", "name").map(str::to_owned),
            search: Vec::new(),
            mtu: document.child("mtu").map(|mtu| number(mtu, "size")).transpose()?.flatten(),
            boot_file: dhcp.attribute_at("bootp", "file").map(str::to_owned),
            next_server: None,
            tftp_name: None,
            hosts: Vec::new(),
        };
        if settings.boot_file.is_some() {
            let server_text = dhcp.attribute_at("bootp", "server");
            settings.next_server = Some(server_text.map(ip_of).transpose()?.unwrap_or(server));
        }
        if let Some(range) = dhcp.child("range") {
            let part = |name: &str| ip_of(range.attribute(name).unwrap_or_default());
            let (first, last) = (part("start")?, part("end")?);
            let inside = |own: Ipv4Addr| {
                u32::from(own) & u32::from(mask) == u32::from(server) & u32::from(mask)
            };
            if first > last || !inside(first) || !inside(last) {
                return Err(problem(format!(
                    "range {first} - {last} is not entirely within network {server}/{prefix}"
                )));
            }
            settings.range = Some((first, last));
            let lease = range.child("lease");
            if let Some(lease) = lease {
                settings.lease = lease_time(lease)?;
            }
        }
        for host in dhcp.all("host") {
            let Some(text) = host.attribute("mac") else { continue };
            settings.hosts.push(dhcp::StaticHost {
                mac: mac(text)?,
                address: host.attribute("ip").map(ip_of).transpose()?,
                name: host.attribute("name").map(str::to_owned),
            });
        }
        return Ok(Some(settings));
    }
    Ok(None)
}

fn ip_of(text: &str) -> Result<Ipv4Addr> {
    ip(text, "dhcp")
}

/// `<lease expiry='2' unit='hours'/>`; 0 is for ever.
fn lease_time(lease: &Element) -> Result<Option<Duration>> {
    let expiry: u64 = number(lease, "expiry")?.unwrap_or(0);
    let unit = match lease.attribute("unit").unwrap_or("minutes") {
        "seconds" => 1,
        "minutes" => 60,
        "hours" => 3600,
        other => return Err(problem(format!("Invalid unit '{other}' of a lease"))),
    };
    Ok((expiry > 0).then(|| Duration::from_secs(expiry.saturating_mul(unit))))
}

fn names(document: &Element, mode: Mode) -> Result<NameSettings> {
    let domain = document.attribute_at("domain", "name").map(str::to_ascii_lowercase);
    let mut settings = NameSettings {
        records: Vec::new(),
        hosts: Vec::new(),
        domain_is_ours: document.attribute_at("domain", "localOnly") == Some("yes"),
        domain,
        forward_plain: true,
        forward: if mode == Mode::Isolated { Forward::No } else { Forward::Host },
        domains: Vec::new(),
    };
    for host in document.all("ip").filter_map(|ip| ip.child("dhcp")).flat_map(|d| d.all("host")) {
        if let (Some(name), Some(address)) = (host.attribute("name"), host.attribute("ip"))
            && let Ok(address) = address.parse()
        {
            settings.hosts.push((name.to_ascii_lowercase(), address));
        }
    }
    let Some(dns) = document.child("dns") else { return Ok(settings) };
    settings.forward_plain = !dns.is("forwardPlainNames", "no");
    let mut servers = Vec::new();
    for forwarder in dns.all("forwarder") {
        let address =
            forwarder.attribute("addr").map(|text| ip::<IpAddr>(text, "dns")).transpose()?;
        let server = address.map(|address| SocketAddr::new(address, net::dns::PORT));
        match forwarder.attribute("domain") {
            Some(domain) => {
                settings.domains.push((domain.to_ascii_lowercase(), server.into_iter().collect()));
            }
            None => servers.extend(server),
        }
    }
    if !servers.is_empty() {
        settings.forward = Forward::Servers(servers);
    }
    records(dns, settings.domain.clone().as_deref(), &mut settings.records)?;
    Ok(settings)
}

fn records(dns: &Element, domain: Option<&str>, records: &mut Vec<Record>) -> Result<()> {
    for host in dns.all("host") {
        let address: IpAddr = ip(host.attribute("ip").unwrap_or_default(), "dns")?;
        for hostname in host.all("hostname") {
            let name = hostname.text().trim().to_ascii_lowercase();
            records.push(Record::address(&name, address, 0));
            if let Some(domain) = domain.filter(|_| !name.contains('.')) {
                records.push(Record::address(&format!("{name}.{domain}"), address, 0));
            }
        }
    }
    for text in dns.all("txt") {
        let name = text.attribute("name").unwrap_or_default().to_ascii_lowercase();
        let value = text.attribute("value").unwrap_or_default().as_bytes();
        let mut data = Vec::new();
        for piece in value.chunks(255) {
            data.push(piece.len() as u8);
            data.extend(piece);
        }
        records.push(Record { name, kind: message::TXT, lifetime: 0, data });
    }
    for service in dns.all("srv") {
        let own = |name: &str| service.attribute(name).unwrap_or_default().to_ascii_lowercase();
        let place =
            if own("domain").is_empty() { domain.map(str::to_owned) } else { Some(own("domain")) };
        let name = format!("_{}._{}", own("service"), own("protocol"));
        let name = place.map_or(name.clone(), |place| format!("{name}.{place}"));
        let mut data = Vec::new();
        for (part, usual) in [("priority", 0), ("weight", 0), ("port", 1)] {
            data.extend(number::<u16>(service, part)?.unwrap_or(usual).to_be_bytes());
        }
        let target = name::encode(&own("target"));
        data.extend(target.ok_or_else(|| problem("invalid target of a DNS service"))?);
        records.push(Record { name, kind: message::SRV, lifetime: 0, data });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libvirt_compat::xml::parse;

    fn of(inside: &str) -> Result<Plan> {
        let text = format!("<network><name>n</name><bridge name='br9'/>{inside}</network>");
        plan(&parse(&text, "t").unwrap(), Path::new("/x"))
    }

    const FOUR: &str = "<ip address='10.1.2.1' netmask='255.255.255.0'><dhcp>\
        <range start='10.1.2.2' end='10.1.2.9'><lease expiry='2' unit='hours'/></range>\
        <host mac='52:54:00:00:00:01' name='Web' ip='10.1.2.50'/></dhcp></ip>";

    #[test]
    fn modes_decide_on_rules() {
        for (forward, mode, forwards, translates) in [
            ("", Mode::Isolated, Some(3), 0),
            ("<forward/>", Mode::Nat, Some(5), 3),
            ("<forward mode='route'/>", Mode::Route, Some(5), 0),
            ("<forward mode='open'/>", Mode::Open, None, 0),
            (
                "<forward mode='nat'><nat><port start='2000' end='3000'/></nat></forward>",
                Mode::Nat,
                Some(5),
                5,
            ),
        ] {
            let plan = of(&format!("{forward}{FOUR}")).unwrap();
            assert_eq!(plan.mode, mode, "{forward}");
            let chains = plan.table.map(|table| table.chains);
            assert_eq!(chains.as_ref().map(|c| c[0].1.len()), forwards, "{forward}");
            let rules = chains.and_then(|c| c.get(1).map(|chain| chain.1.len()));
            assert_eq!(rules.unwrap_or(0), translates, "{forward}");
        }
    }

    #[test]
    fn services_get_what_the_document_says() {
        let plan = of(&format!("<forward/><domain name='lan'/>{FOUR}")).unwrap();
        let dhcp = plan.service.dhcp.unwrap();
        assert_eq!(dhcp.lease, Some(Duration::from_secs(7200)));
        assert_eq!(dhcp.hosts[0].address, Some(Ipv4Addr::new(10, 1, 2, 50)));
        let (names, listen) = plan.service.names.unwrap();
        assert_eq!(names.hosts, [("web".to_owned(), Ipv4Addr::new(10, 1, 2, 50))]);
        assert_eq!(listen, ["10.1.2.1".parse::<IpAddr>().unwrap()]);
        assert!(plan.service.advertise.is_none());
        let six = of("<forward mode='route'/><ip family='ipv6' address='fd00::1' prefix='64'/>");
        assert!(six.unwrap().service.advertise.is_some());
    }

    #[test]
    fn what_nobody_obeys_is_refused_by_name() {
        for (inside, word) in [
            ("<bandwidth/>", "bandwidth"),
            ("<forward mode='vepa'/>", "vepa"),
            ("<ip address='10.1.2.300'/>", "10.1.2.300"),
            ("<ip family='ipv6' address='fd00::1' prefix='64'><dhcp/></ip>", "IPv6"),
            (
                "<ip address='10.1.2.1' prefix='24'><dhcp><range start='10.1.2.9' end='10.1.2.2'/></dhcp></ip>",
                "within",
            ),
            ("<ip address='10.1.2.1' prefix='24'><tftp root='/x'/></ip>", "tftp"),
        ] {
            let error = of(inside).unwrap_err().message();
            assert!(error.contains(word), "{inside}: {error}");
        }
    }
}
