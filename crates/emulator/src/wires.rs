//! Network back ends that lead to something on this host: taps and sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use net::socket::{Address, DgramEnds, DgramNet, StreamEnd, StreamNet};
use net::tap::{TapEnd, TapNet};
use net::vhost_user::VhostUserNet;
use qemu_compat::system::values;

use crate::character::{Characters, Descriptors};
use crate::networks::{Members, full};
use crate::tap_helpers::{self, DownScript};

type Result<T> = std::result::Result<T, String>;
type Backend = Arc<dyn net::Backend>;

/// The bridge that is meant when none is named.
const BRIDGE: &str = "br0";

fn descriptor(descriptors: &dyn Descriptors, name: &str) -> Result<std::os::fd::OwnedFd> {
    let none = || format!("File descriptor named '{name}' has not been found");
    descriptors.take(name).ok_or_else(none)
}

/// Rings that the kernel serves itself are a wish: who does not insist gets a tap without, and is
/// told so, as where the kernel has no such thing.
fn without_vhost(members: &mut Members) -> Result<()> {
    const REASON: &str = "the kernel's vhost is not built in Hostel";
    let passed = ["vhostfd", "vhostfds"].iter().find(|name| members.text(name).is_some());
    if let Some(name) = passed {
        return Err(format!("'{name}': {REASON}: leave it out, with vhost=off"));
    }
    let (asked, insists) = (members.switch("vhost", false)?, members.switch("vhostforce", false)?);
    if insists {
        return Err(format!("'vhostforce': {REASON}: use vhost=off, or vhost=on without it"));
    }
    if asked {
        eprintln!("{}: warning: tap: {REASON}: this process moves the frames", crate::PROGRAM);
    }
    Ok(())
}

/// `tap` and `bridge`. With the back end comes what is to be done when it goes.
pub fn tap(
    kind: &str,
    members: &mut Members,
    descriptors: &dyn Descriptors,
) -> Result<(Backend, Option<DownScript>)> {
    let (up, down) = (members.text("script"), members.text("downscript"));
    without_vhost(members)?;
    for name in ["fds", "queues"] {
        if members.text(name).is_some_and(|value| name == "fds" || value != "1") {
            return Err(format!(
                "'{name}' is not built in Hostel: a tap has one queue, given by fd= or ifname="
            ));
        }
    }
    let offload = members.switch("vnet_hdr", true)?;
    let helper = members.text("helper");
    let is_bridge = kind == "bridge" || helper.is_some();
    let bridge = members.text("br").or_else(|| is_bridge.then(|| BRIDGE.to_owned()));
    let made =
        |end, bridge: Option<&str>| TapNet::new(end, offload, bridge).map_err(|error| full(&error));
    let (fd, name) = (members.text("fd"), members.text("ifname"));
    if is_bridge && (fd.is_some() || (name.is_some() && helper.is_some())) {
        return Err("ifname=, fd=, and helper= are mutually exclusive".to_owned());
    }
    let by_helper = |helper: &str| {
        let bridge = bridge.as_deref().unwrap_or(BRIDGE);
        let tap = tap_helpers::from_helper(helper, bridge)?;
        Ok::<_, String>((made(TapEnd::Descriptor(tap), None)? as Backend, None))
    };
    let end = match (fd, name) {
        (Some(name), None) => {
            let tap = made(TapEnd::Descriptor(descriptor(descriptors, &name)?), None)?;
            return Ok((tap, None));
        }
        (None, _) if helper.is_some() => return by_helper(&helper.unwrap_or_default()),
        (None, name) => TapEnd::Name(name.unwrap_or_default()),
        _ => return Err("ifname= and fd= are mutually exclusive".to_owned()),
    };
    let tap = match made(end, bridge.as_deref()) {
        Ok(tap) => tap,
        // Who may not make interfaces may have a helper that may.
        Err(error) => match tap_helpers::customary_helper().filter(|_| kind == "bridge") {
            Some(helper) => return by_helper(&helper),
            None => return Err(error),
        },
    };
    if bridge.is_some() {
        return Ok((tap, None)); // joined already
    }
    let down = tap_helpers::scripts(tap.name(), up, down)?;
    Ok((tap, down))
}

/// `HOST:PORT`, where no host means every address for who listens and this host for others.
fn address(text: &str, listens: bool) -> Result<SocketAddr> {
    let wrong = || format!("address '{text}' is no HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    resolved(host.trim_matches(['[', ']']), port, listens)
}

fn resolved(host: &str, port: &str, listens: bool) -> Result<SocketAddr> {
    let port: u16 = port.parse().map_err(|_| format!("'{port}' is no port"))?;
    if host.is_empty() {
        let own = if listens { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        return Ok(SocketAddr::new(IpAddr::V4(own), port));
    }
    let mut found = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    found.next().ok_or_else(|| format!("{host} has no address"))
}

/// `stream`: QEMU's frames, each behind its length.
pub fn stream(members: &mut Members, descriptors: &dyn Descriptors) -> Result<Backend> {
    let server = members.switch("server", false)?;
    let millis = match (members.text("reconnect-ms"), members.text("reconnect")) {
        (Some(millis), None) => number("reconnect-ms", &millis)?,
        (None, Some(seconds)) => number("reconnect", &seconds)?.saturating_mul(1000),
        (None, None) => 0,
        _ => return Err("'reconnect' and 'reconnect-ms' are mutually exclusive".to_owned()),
    };
    let mut addr = members.below("addr").ok_or("Parameter 'addr' is missing")?;
    let place = match addr.needed("type")?.as_str() {
        "unix" => Address::Unix(addr.needed("path")?.into()),
        "inet" => {
            let (host, port) = (addr.needed("host")?, addr.needed("port")?);
            Address::Tcp(resolved(&host, &port, server)?)
        }
        "fd" => {
            let name = addr.needed("str")?;
            addr.finish()?;
            return made(StreamEnd::Descriptor(descriptor(descriptors, &name)?));
        }
        other => return Err(format!("Parameter 'addr.type' does not accept value '{other}'")),
    };
    addr.finish()?;
    made(match server {
        true => StreamEnd::Listen(place),
        false => StreamEnd::Connect(place, (millis > 0).then(|| Duration::from_millis(millis))),
    })
}

fn number(name: &str, text: &str) -> Result<u64> {
    values::unsigned(name, text).map_err(|error| error.to_string())
}

fn made(end: StreamEnd) -> Result<Backend> {
    Ok(StreamNet::new(end).map_err(|error| full(&error))?)
}

/// `dgram`: a frame in each datagram.
pub fn dgram(members: &mut Members, descriptors: &dyn Descriptors) -> Result<Backend> {
    let (local, remote) = (members.below("local"), members.below("remote"));
    let kind = |end: &mut Option<Members>| end.as_mut().and_then(|end| end.text("type"));
    let (mut local, mut remote) = (local, remote);
    let kinds = (kind(&mut local), kind(&mut remote));
    let inet = |end: &mut Option<Members>, name: &str, listens: bool| match end {
        Some(end) => {
            let host = end.needed("host")?;
            let port = end.text("port").unwrap_or_else(|| "0".to_owned());
            resolved(&host, &port, listens)
        }
        None => Err(format!("Parameter '{name}' is missing")),
    };
    let ends = match (kinds.0.as_deref(), kinds.1.as_deref()) {
        (Some("fd"), None) => {
            let name = local.as_mut().map_or(Ok(String::new()), |end| end.needed("str"))?;
            DgramEnds::Descriptor(descriptor(descriptors, &name)?)
        }
        (Some("inet"), Some("inet")) => DgramEnds::Udp {
            local: inet(&mut local, "local", true)?,
            remote: inet(&mut remote, "remote", false)?,
        },
        (Some("unix"), Some("unix")) => {
            let path = |end: &mut Option<Members>| match end {
                Some(end) => end.needed("path"),
                None => Ok(String::new()),
            };
            DgramEnds::Unix { local: path(&mut local)?.into(), remote: path(&mut remote)?.into() }
        }
        _ => return Err("these ends of 'dgram' are not built in Hostel".to_owned()),
    };
    [local, remote].into_iter().flatten().try_for_each(Members::finish)?;
    Ok(DgramNet::new(ends).map_err(|error| full(&error))?)
}

/// `socket`: the older name of both.
pub fn socket(members: &mut Members, descriptors: &dyn Descriptors) -> Result<Backend> {
    if let Some(name) = members.text("fd") {
        return made(StreamEnd::Descriptor(descriptor(descriptors, &name)?));
    }
    if let Some(text) = members.text("listen") {
        return made(StreamEnd::Listen(Address::Tcp(address(&text, true)?)));
    }
    if let Some(text) = members.text("connect") {
        return made(StreamEnd::Connect(Address::Tcp(address(&text, false)?), None));
    }
    if let Some(text) = members.text("udp") {
        let local = members.needed("localaddr")?;
        let (local, remote) = (address(&local, true)?, address(&text, false)?);
        let ends = DgramEnds::Udp { local, remote };
        return Ok(DgramNet::new(ends).map_err(|error| full(&error))?);
    }
    if let Some(text) = members.text("mcast") {
        let group = text.parse().map_err(|_| format!("'{text}' is no IPv4 group with a port"))?;
        let interface = members.text("localaddr").map(|text| text.parse());
        let interface = interface.transpose().map_err(|_| "localaddr= is no IPv4 address")?;
        let ends = DgramEnds::Multicast { group, interface };
        return Ok(DgramNet::new(ends).map_err(|error| full(&error))?);
    }
    Err("exactly one of listen=, connect=, mcast= or udp= is required".to_owned())
}

/// `vhost-user`: a network of another process, by shared memory.
pub fn vhost_user(members: &mut Members, characters: &Characters) -> Result<Backend> {
    let chardev = members.needed("chardev")?;
    if members.text("queues").is_some_and(|queues| queues != "1") {
        return Err("'queues' above 1 is not built in Hostel".to_owned());
    }
    // It is shared in any case.
    members.switch("vhostforce", false)?;
    let stream = characters.use_by_device(&chardev);
    let stream = stream.map_err(|_| format!("chardev \"{chardev}\" not found"))?;
    let socket = stream.take_socket().ok_or_else(|| {
        format!("chardev \"{chardev}\" is not a unix socket that is connected to a back end")
    })?;
    Ok(VhostUserNet::new(socket, &chardev).map_err(|error| full(&error))?)
}
