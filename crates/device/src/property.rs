//! What can be set on a device, declared beside it in a neutral form.
//!
//! Command lines, help texts and object trees are views of these declarations; how a value is
//! written there is their business.

use std::collections::BTreeMap;

/// What values a property takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyKind {
    /// Yes or no.
    Bool,
    /// Yes, no, or as the device sees fit.
    Auto,
    /// A number of this many bits.
    Unsigned(u32),
    /// A signed number of this many bits.
    Signed(u32),
    /// A number of bytes.
    Size,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A hardware address of a network card.
    Mac,
    /// A place on a PCI bus: slot and function.
    PciAddress,
    /// The name of a node of the block graph, or of a drive.
    Drive,
    /// The name of a network back end.
    Network,
    /// The name of a byte stream.
    Stream,
    /// The name of an object of this type.
    Link(&'static str),
    /// A place in the boot order.
    BootIndex,
    /// A list of values; each is set by its own index.
    List,
}

/// A property of a device.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: PropertyKind,
    /// What it is when it is not set; `None` where that is the device's own decision.
    pub default: Option<DefaultValue>,
    /// For help texts; may be empty.
    pub help: &'static str,
}

/// A value that a declaration can carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DefaultValue {
    /// Of a [`PropertyKind::Bool`].
    Bool(bool),
    /// Of a number or a size.
    Unsigned(u64),
    /// Of a signed number.
    Signed(i64),
    /// Of texts, choices and names.
    Text(&'static str),
}

/// A value that was set.
#[derive(Clone, Debug, PartialEq)]
pub enum PropertyValue {
    /// Yes or no.
    Bool(bool),
    /// A number or a size.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// A text, a choice or a name.
    Text(String),
    /// A hardware address.
    Mac([u8; 6]),
    /// Slot and function.
    PciAddress(u8, u8),
    /// Several.
    List(Vec<PropertyValue>),
}

impl From<DefaultValue> for PropertyValue {
    fn from(value: DefaultValue) -> Self {
        match value {
            DefaultValue::Bool(on) => Self::Bool(on),
            DefaultValue::Unsigned(number) => Self::Unsigned(number),
            DefaultValue::Signed(number) => Self::Signed(number),
            DefaultValue::Text(text) => Self::Text(text.to_owned()),
        }
    }
}

/// The values of one device: what was set, and the defaults of the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    values: BTreeMap<String, PropertyValue>,
}

impl Properties {
    /// The defaults of a declaration.
    #[must_use]
    pub fn defaults<'a>(declared: impl IntoIterator<Item = &'a Property>) -> Self {
        let set = |property: &Property| {
            property.default.map(|default| (property.name.to_owned(), default.into()))
        };
        Self { values: declared.into_iter().filter_map(set).collect() }
    }

    /// Sets a value. Whoever sets it has held it against the declaration.
    pub fn set(&mut self, name: &str, value: PropertyValue) {
        self.values.insert(name.to_owned(), value);
    }

    /// What is set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PropertyValue> {
        self.values.get(name)
    }

    /// A switch; off when it is not set.
    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Some(PropertyValue::Bool(true)))
    }

    /// A switch that may be left to the device.
    #[must_use]
    pub fn auto(&self, name: &str) -> Option<bool> {
        match self.get(name) {
            Some(PropertyValue::Bool(on)) => Some(*on),
            _ => None,
        }
    }

    /// A number.
    #[must_use]
    pub fn unsigned(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(PropertyValue::Unsigned(number)) => Some(*number),
            _ => None,
        }
    }

    /// A signed number.
    #[must_use]
    pub fn signed(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(PropertyValue::Signed(number)) => Some(*number),
            _ => None,
        }
    }

    /// A text, a choice or a name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(PropertyValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A hardware address.
    #[must_use]
    pub fn mac(&self, name: &str) -> Option<[u8; 6]> {
        match self.get(name) {
            Some(PropertyValue::Mac(address)) => Some(*address),
            _ => None,
        }
    }

    /// All that is set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PropertyValue)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[Property] = &[
        Property {
            name: "queues",
            kind: PropertyKind::Unsigned(16),
            default: Some(DefaultValue::Unsigned(1)),
            help: "",
        },
        Property { name: "modern", kind: PropertyKind::Auto, default: None, help: "" },
    ];

    #[test]
    fn defaults_stand_until_set() {
        let mut properties = Properties::defaults(DECLARED);
        assert_eq!((properties.unsigned("queues"), properties.auto("modern")), (Some(1), None));
        properties.set("queues", PropertyValue::Unsigned(4));
        properties.set("modern", PropertyValue::Bool(false));
        assert_eq!(
            (properties.unsigned("queues"), properties.auto("modern")),
            (Some(4), Some(false))
        );
        assert_eq!(properties.text("queues"), None);
    }
}
