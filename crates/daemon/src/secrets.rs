//! Secrets: values that disks and pools refer to by UUID or by use.

use std::collections::BTreeMap;
use std::sync::Arc;

use libvirt_compat::event::Event;
use libvirt_compat::rpc::types;
use libvirt_compat::xml::{self, Element};
use libvirt_compat::{Code, Error, Origin, Result, Uuid};
use parking_lot::RwLock;

use crate::random;
use crate::world::World;

/// A secret.
#[derive(Clone)]
pub struct Secret {
    pub uuid: Uuid,
    pub usage_type: i32,
    pub usage_id: String,
    pub ephemeral: bool,
    pub private: bool,
    pub document: Element,
    pub value: Option<Vec<u8>>,
}

/// Names of `virSecretUsageType`, with the element that holds the id.
const USAGES: [(&str, &str); 6] = [
    ("none", ""),
    ("volume", "volume"),
    ("ceph", "name"),
    ("iscsi", "target"),
    ("tls", "name"),
    ("vtpm", "name"),
];

/// Secrets in one world, as many as a list may hold.
const SECRETS_MAX: usize = 16_384;

/// The table of secrets. Values never leave the daemon's memory.
#[derive(Default)]
pub struct Secrets {
    table: RwLock<BTreeMap<Uuid, Secret>>,
}

impl Secret {
    /// How clients refer to it.
    pub fn reference(&self) -> types::Secret {
        types::Secret {
            uuid: self.uuid,
            usage_type: self.usage_type,
            usage_id: self.usage_id.clone(),
        }
    }
}

impl Secrets {
    pub fn all(&self) -> Vec<Secret> {
        self.table.read().values().cloned().collect()
    }

    pub fn by_uuid(&self, uuid: Uuid) -> Result<Secret> {
        self.table.read().get(&uuid).cloned().ok_or_else(|| {
            let text = format!("no secret with matching uuid '{uuid}'");
            Error::new(Code::NoSecret, text).from(Origin::Secret)
        })
    }

    pub fn by_usage(&self, usage_type: i32, usage_id: &str) -> Result<Secret> {
        let table = self.table.read();
        let found = table.values().find(|s| s.usage_type == usage_type && s.usage_id == usage_id);
        found.cloned().ok_or_else(|| {
            let text = format!("no secret with matching usage '{usage_id}'");
            Error::new(Code::NoSecret, text).from(Origin::Secret)
        })
    }

    pub fn define(&self, world: &World, text: &str) -> Result<Secret> {
        let mut secret = parse(text)?;
        let mut table = self.table.write();
        if table.len() >= SECRETS_MAX {
            return Err(Error::new(Code::OperationFailed, "too many secrets"));
        }
        let clash = table.values().find(|other| {
            other.uuid != secret.uuid
                && secret.usage_type != 0
                && other.usage_type == secret.usage_type
                && other.usage_id == secret.usage_id
        });
        if let Some(other) = clash {
            let text = format!(
                "a secret with UUID {} already defined for use with {}",
                other.uuid, other.usage_id
            );
            return Err(Error::new(Code::InternalError, text));
        }
        secret.value = table.get(&secret.uuid).and_then(|old| old.value.clone());
        table.insert(secret.uuid, secret.clone());
        drop(table);
        world.events.emit(&Event::Secret(secret.reference(), 0, 0));
        Ok(secret)
    }

    pub fn undefine(&self, world: &World, uuid: Uuid) -> Result<()> {
        let secret = self.by_uuid(uuid)?;
        self.table.write().remove(&uuid);
        world.events.emit(&Event::Secret(secret.reference(), 1, 0));
        Ok(())
    }

    pub fn set_value(&self, world: &World, uuid: Uuid, value: Vec<u8>) -> Result<()> {
        let secret = self.by_uuid(uuid)?;
        if let Some(kept) = self.table.write().get_mut(&uuid) {
            kept.value = Some(value);
        }
        world.events.emit(&Event::SecretValue(secret.reference()));
        Ok(())
    }
}

fn parse(text: &str) -> Result<Secret> {
    let mut document = xml::parse(text, "secret_definition")?;
    if document.name != "secret" {
        let text = format!("unexpected root element <{}>, expecting <secret>", document.name);
        return Err(Error::new(Code::XmlError, text));
    }
    let uuid = match document.text_at("uuid") {
        None => random::uuid(),
        Some(text) => Uuid::parse(&text)
            .ok_or_else(|| Error::new(Code::XmlError, "malformed uuid element"))?,
    };
    let usage = document.attribute_at("usage", "type").unwrap_or("none");
    let usage_type = USAGES
        .iter()
        .position(|(name, _)| *name == usage)
        .ok_or_else(|| Error::new(Code::XmlError, format!("unknown secret usage type {usage}")))?;
    let usage_id = document.text_at(&format!("usage/{}", USAGES[usage_type].1));
    if usage_type != 0 && usage_id.is_none() {
        let text = format!("{usage} usage specified, but {} is missing", USAGES[usage_type].1);
        return Err(Error::new(Code::XmlError, text));
    }
    let ephemeral = document.is("ephemeral", "yes");
    let private = document.is("private", "yes");
    document.set("ephemeral", if ephemeral { "yes" } else { "no" });
    document.set("private", if private { "yes" } else { "no" });
    document.attributes.sort();
    document.ensure("uuid").set_text(uuid);
    let order = ["uuid", "description", "usage"];
    document.children.sort_by_key(|node| match node {
        xml::Node::Element(element) => order.iter().position(|name| *name == element.name),
        xml::Node::Text(_) => None,
    });
    Ok(Secret {
        uuid,
        usage_type: usage_type as i32,
        usage_id: usage_id.unwrap_or_default(),
        ephemeral,
        private,
        document,
        value: None,
    })
}

/// Checks that a world in use is the one that holds the secret.
pub fn find(world: &Arc<World>, reference: &types::Secret) -> Result<Secret> {
    world.secrets.by_uuid(reference.uuid)
}
