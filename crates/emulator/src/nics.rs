//! The short forms: `-nic`, a card and its back end in one, and `-net`, whose cards and back ends
//! all meet at a hub.

use serde_json::{Map, Value};

use crate::networks::Networks;
use crate::options::Asked;

/// The card where no model is named.
const MODEL: &str = "virtio-net-pci";
/// The hub of `-net`.
const HUB: &str = "0";

type Members = Map<String, Value>;

fn text(members: &mut Members, name: &str) -> Option<String> {
    match members.shift_remove(name)? {
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

fn object(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Members {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Makes the back ends of these options, and says which cards they ask for.
pub fn cards(networks: &Networks, options: &[Asked]) -> Result<Vec<Asked>, (Asked, String)> {
    let mut cards = Vec::new();
    let mut ports = 0;
    for (number, asked) in options.iter().enumerate() {
        let is_net = asked.typed.starts_with("-net ");
        let made = match is_net {
            true => old(networks, asked, number, &mut ports),
            false => nic(networks, asked, number).map(|card| card.into_iter().collect()),
        };
        let made: Vec<Members> = made.map_err(|error| (asked.clone(), error))?;
        let typed = &asked.typed;
        cards.extend(made.into_iter().map(|members| Asked { typed: typed.clone(), members }));
    }
    Ok(cards)
}

fn kind(members: &mut Members) -> Result<String, String> {
    text(members, "type").ok_or_else(|| "Parameter 'type' is missing".to_owned())
}

/// The card of an option, plugged into a back end.
fn card(members: &mut Members, netdev: String) -> Members {
    let model = text(members, "model").unwrap_or_else(|| MODEL.to_owned());
    let mac = text(members, "mac").or_else(|| text(members, "macaddr"));
    let mut card = object([("driver", model), ("netdev", netdev)]);
    card.extend(object(mac.map(|mac| ("mac", mac))));
    for name in ["addr", "vectors"] {
        card.extend(text(members, name).map(|value| (name.to_owned(), value.into())));
    }
    card
}

/// `-nic`.
fn nic(networks: &Networks, asked: &Asked, number: usize) -> Result<Option<Members>, String> {
    let mut members = asked.members.clone();
    let kind = kind(&mut members)?;
    if kind == "none" {
        return Ok(None);
    }
    let id = text(&mut members, "id").unwrap_or_else(|| format!("nic{number}"));
    let card = card(&mut members, id.clone());
    members.extend(object([("type", kind), ("id", id)]));
    networks.add(&members)?;
    Ok(Some(card))
}

/// `-net`: a card at the hub or at a back end of its own, or a back end at the hub.
fn old(
    networks: &Networks,
    asked: &Asked,
    number: usize,
    ports: &mut usize,
) -> Result<Vec<Members>, String> {
    let mut members = asked.members.clone();
    let kind = kind(&mut members)?;
    if kind == "none" {
        return Ok(Vec::new());
    }
    let name = text(&mut members, "name").or_else(|| text(&mut members, "id"));
    let mut port = |netdev: Option<String>| {
        let id = format!("hub{HUB}port{ports}");
        *ports += 1;
        let fixed = [("type", "hubport"), ("hubid", HUB), ("id", &id)];
        let mut port = object(fixed.map(|(name, value)| (name, value.to_owned())));
        port.extend(object(netdev.map(|netdev| ("netdev", netdev))));
        networks.add(&port).map(|()| id)
    };
    if kind != "nic" {
        let id = name.unwrap_or_else(|| format!("net{number}"));
        members.extend(object([("type", kind), ("id", id.clone())]));
        networks.add(&members)?;
        port(Some(id))?;
        return Ok(Vec::new());
    }
    let netdev = match text(&mut members, "netdev") {
        Some(netdev) if networks.info(&netdev).is_none() => {
            return Err(format!("netdev '{netdev}' not found"));
        }
        Some(netdev) => netdev,
        None => port(None)?,
    };
    let mut card = card(&mut members, netdev);
    card.extend(object(name.map(|name| ("id", name))));
    match members.keys().next() {
        Some(other) => Err(format!("Invalid parameter '{other}'")),
        None => Ok(vec![card]),
    }
}
