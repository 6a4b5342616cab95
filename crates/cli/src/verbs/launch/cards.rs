//! The network cards of a new machine.

use std::path::Path;

use libvirt_compat::xml::Element;

use crate::arguments::{Launch, Network};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::nearest::nearest;
use crate::settings;

/// What says which network 'bridged' is.
const BRIDGED: &str = "local.bridged-network";

/// The cards, and whether one of them takes forwarded ports.
pub struct Cards {
    pub elements: Vec<Element>,
    pub has_user: bool,
}

/// What was asked for; without a word, the host's own connections.
pub fn cards(connection: &mut Connection, what: &Launch) -> Result<Cards, Failure> {
    let mut wanted = what.networks.clone();
    // As with Multipass, named networks come beside the one that always works.
    if !wanted.iter().any(|network| matches!(network, Network::User | Network::None)) {
        wanted.insert(0, Network::User);
    }
    if what.bridged {
        wanted.push(Network::Bridged { mac: None });
    }
    if wanted.contains(&Network::None) && wanted.len() > 1 {
        let failure = Failure::new("A machine has no network or some, not both");
        return Err(failure.hint("leave '--network none' away").code(USAGE));
    }
    let mut elements = Vec::new();
    for network in &wanted {
        let (name, mac) = match network {
            Network::None => continue,
            Network::User => {
                elements.push(card("user", None, None));
                continue;
            }
            Network::Bridged { mac } => (bridged()?, mac),
            Network::Named { name, mac } => (name.clone(), mac),
        };
        let kind = kind(connection, &name)?;
        elements.push(card(kind, Some(&name), mac.as_deref()));
    }
    Ok(Cards { elements, has_user: wanted.contains(&Network::User) })
}

fn card(kind: &str, name: Option<&str>, mac: Option<&str>) -> Element {
    let mut card = Element::new("interface").with("type", kind);
    if let Some(mac) = mac {
        card.push(Element::new("mac").with("address", mac));
    }
    if let Some(name) = name {
        card.push(Element::new("source").with(kind, name));
    }
    card.with_child(Element::new("model").with("type", "virtio"))
}

fn bridged() -> Result<String, Failure> {
    settings::get(BRIDGED).ok_or_else(|| {
        let failure = Failure::new("Nobody has said which network 'bridged' is").code(USAGE);
        failure.hint(format!("'hostel set {BRIDGED}=NETWORK' does; 'hostel networks' lists them"))
    })
}

/// libvirt's word for what has this name.
fn kind(connection: &mut Connection, name: &str) -> Result<&'static str, Failure> {
    let (networks, _) = connection.client.connect_list_all_networks(1, 0)?;
    if let Some(network) = networks.iter().find(|network| network.name == name) {
        if connection.client.network_is_active(network.clone())? != 0 {
            return Ok("network");
        }
        let failure = Failure::new(format!("The network '{name}' is not active"));
        return Err(failure.hint(format!("'hostel virsh net-start {name}' starts it (root)")));
    }
    if name.contains('/') || !Path::new("/sys/class/net").join(name).join("bridge").is_dir() {
        let is_there = Path::new("/sys/class/net").join(name).exists() && !name.contains('/');
        let text = match is_there {
            true => format!("'{name}' of this host is no bridge"),
            false => format!("There is no network '{name}'"),
        };
        let names = networks.iter().map(|network| network.name.as_str());
        let failure = Failure::new(text).code(USAGE);
        return Err(match nearest(name, names.chain(["user", "none", "bridged"])) {
            Some(near) if !is_there => failure.hint(format!("did you mean '{near}'?")),
            _ => failure.hint("'hostel networks' lists those that are"),
        });
    }
    if !rustix::process::geteuid().is_root() {
        let failure = Failure::new(format!("Only root may put a machine on the bridge '{name}'"));
        return Err(failure.hint("'--network user' with '--port' needs no privilege"));
    }
    Ok("bridge")
}
