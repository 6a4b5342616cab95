//! From `-device` to a part of the machine: the model, and values for its properties.

use device::{Properties, Property, PropertyKind, PropertyValue};
use machine::Part;
use machine::catalog::{self, Model};
use qemu_compat::system::values;
use serde_json::{Map, Value};

use crate::options::Asked;

/// Names of models that are the same as others.
const ALIASES: &[(&str, &str)] = &[
    ("virtio-blk", "virtio-blk-pci"),
    ("virtio-net", "virtio-net-pci"),
    ("virtio-serial", "virtio-serial-pci"),
    ("virtio-rng", "virtio-rng-pci"),
    ("virtio-balloon", "virtio-balloon-pci"),
    ("virtio-scsi", "virtio-scsi-pci"),
    ("virtio-gpu", "virtio-gpu-pci"),
    ("virtio-keyboard", "virtio-keyboard-pci"),
    ("virtio-mouse", "virtio-mouse-pci"),
    ("virtio-tablet", "virtio-tablet-pci"),
    ("virtio-9p", "virtio-9p-pci"),
    ("qemu-xhci", "xhci"),
    ("nec-usb-xhci", "xhci"),
    ("ahci", "ich9-ahci"),
    ("e1000-82540em", "e1000"),
];

/// Finds a model by the name that people type.
pub fn model(name: &str) -> Option<&'static Model> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    catalog::model(name).or_else(|| catalog::model(alias?.1))
}

/// A model's name as lists show it.
pub fn shown_name(name: &'static str) -> &'static str {
    if name == "xhci" { "qemu-xhci" } else { name }
}

/// Another name of a model, where the list of models tells it.
pub fn alias_of(name: &str) -> Option<&'static str> {
    let has_bus = name.ends_with("-pci") || matches!(name, "e1000" | "ich9-ahci");
    let alias = ALIASES.iter().find(|(_, target)| has_bus && *target == name);
    alias.map(|(alias, _)| *alias)
}

/// Reads a device's members. `globals` are defaults by model and property.
pub fn resolve(asked: &Asked, globals: &[(String, String, String)]) -> Result<Part, String> {
    let members = &asked.members;
    let driver = text(members, "driver").ok_or("Parameter 'driver' is missing")?;
    let model =
        model(&driver).ok_or_else(|| format!("'{driver}' is not a valid device model name"))?;
    let mut properties = Properties::default();
    for (_, name, value) in globals.iter().filter(|(target, ..)| target == model.name) {
        set(&mut properties, model, name, &Value::String(value.clone()))?;
    }
    let id = text(members, "id");
    if let Some(id) = &id {
        check_id(id)?;
    }
    for (name, value) in members {
        if !matches!(name.as_str(), "driver" | "id" | "bus") {
            set(&mut properties, model, name, value)?;
        }
    }
    Ok(Part { model: model.name.to_owned(), id, bus: text(members, "bus"), properties })
}

/// Sets what depends on the parts that are there already.
pub fn settle(part: &mut Part, others: &[Part]) -> Result<(), String> {
    let alike = || others.iter().filter(|other| other.model == part.model);
    match part.model.as_str() {
        // The first that is free.
        "isa-serial" if part.properties.unsigned("index").is_none() => {
            let taken = |index: &u64| {
                alike().any(|other| other.properties.unsigned("index") == Some(*index))
            };
            let free = (0..).find(|index| !taken(index)).unwrap_or_default();
            part.properties.set("index", PropertyValue::Unsigned(free));
        }
        "vmgenid" if alike().next().is_some() => {
            return Err("at most one vmgenid device is permitted".to_owned());
        }
        "vmgenid" => {
            let number = part.properties.text("guid").and_then(machine::vmgenid::parse);
            if let Some(number) = number {
                let text = crate::commands::uuid_text(number);
                part.properties.set("guid", PropertyValue::Text(text));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Names are letters, digits and a few signs.
pub fn check_id(id: &str) -> Result<(), String> {
    let good = id.starts_with(|first: char| first.is_ascii_alphabetic())
        && id.chars().all(|sign| sign.is_ascii_alphanumeric() || "-._".contains(sign));
    match good {
        true => Ok(()),
        false => Err("Parameter 'id' expects an identifier\nIdentifiers consist of letters, \
             digits, '-', '.', '_', starting with a letter."
            .to_owned()),
    }
}

fn text(members: &Map<String, Value>, name: &str) -> Option<String> {
    match members.get(name)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn set(
    properties: &mut Properties,
    model: &Model,
    name: &str,
    value: &Value,
) -> Result<(), String> {
    let declared = model.declared().find(|property| property.name == name);
    let declared = declared.ok_or_else(|| format!("Property '{}.{name}' not found", model.name))?;
    if let Some(value) = read(model, declared, value)? {
        properties.set(name, value);
    }
    Ok(())
}

/// A value of the declared kind; none where `auto` leaves it to the device.
pub fn read(
    model: &Model,
    declared: &Property,
    value: &Value,
) -> Result<Option<PropertyValue>, String> {
    let name = declared.name;
    let typed = match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let not_taken = || format!("Property '{}.{name}' doesn't take value '{typed}'", model.name);
    Ok(Some(match declared.kind {
        PropertyKind::Bool => {
            PropertyValue::Bool(values::switch(name, &typed).map_err(|error| error.to_string())?)
        }
        PropertyKind::Auto if typed == "auto" => return Ok(None),
        PropertyKind::Auto => match typed.as_str() {
            "on" | "true" | "1" => PropertyValue::Bool(true),
            "off" | "false" | "0" => PropertyValue::Bool(false),
            _ => return Err(format!("Parameter '{name}' does not accept value '{typed}'")),
        },
        PropertyKind::Unsigned(_)
        | PropertyKind::Signed(_)
        | PropertyKind::Size
        | PropertyKind::BootIndex => return number(declared, &typed),
        PropertyKind::Choice(words) => {
            if !words.contains(&typed.as_str()) {
                return Err(format!("Parameter '{name}' does not accept value '{typed}'"));
            }
            PropertyValue::Text(typed)
        }
        PropertyKind::Mac => PropertyValue::Mac(values::mac(&typed).ok_or_else(not_taken)?),
        PropertyKind::PciAddress => {
            // On the command line in hexadecimal; a number in JSON is slot and function in one.
            let address = match value.as_u64() {
                Some(number) if number < 256 => Some((number as u8 >> 3, number as u8 & 7)),
                Some(_) => None,
                None => values::pci_address(&typed),
            };
            let (slot, function) = address.ok_or_else(not_taken)?;
            PropertyValue::PciAddress(slot, function)
        }
        PropertyKind::List => PropertyValue::List(
            value
                .as_array()
                .map(|list| {
                    let text = |value: &Value| value.as_str().map(str::to_owned);
                    list.iter().filter_map(text).map(PropertyValue::Text).collect()
                })
                .unwrap_or_else(|| vec![PropertyValue::Text(typed)]),
        ),
        PropertyKind::Text
        | PropertyKind::Drive
        | PropertyKind::Network
        | PropertyKind::Stream
        | PropertyKind::Link(_) => PropertyValue::Text(typed),
    }))
}

/// A number of the declared kind.
fn number(declared: &Property, typed: &str) -> Result<Option<PropertyValue>, String> {
    let name = declared.name;
    let integer = || format!("Parameter '{name}' expects integer");
    Ok(Some(match declared.kind {
        PropertyKind::Unsigned(bits) => {
            let number = values::c_number(typed).ok_or_else(integer)?;
            if bits < 64 && number >> bits != 0 {
                return Err(format!("Parameter '{name}' expects uint{bits}_t"));
            }
            PropertyValue::Unsigned(number)
        }
        PropertyKind::Size => PropertyValue::Unsigned(
            values::size(name, typed, 0).map_err(|error| error.to_string())?,
        ),
        PropertyKind::BootIndex => {
            let number = typed.parse::<i64>().map_err(|_| integer())?;
            match u64::try_from(number) {
                Ok(number) => PropertyValue::Unsigned(number),
                Err(_) if number == -1 => return Ok(None),
                Err(_) => return Err("Invalid bootindex value".to_owned()),
            }
        }
        _ => {
            let digits = typed.strip_prefix('-');
            let number = values::c_number(digits.unwrap_or(typed)).ok_or_else(integer)?;
            let number = i64::try_from(number).map_err(|_| integer())?;
            PropertyValue::Signed(if digits.is_some() { -number } else { number })
        }
    }))
}

#[cfg(test)]
mod tests {
    use device::DefaultValue;
    use machine::catalog::{BuildError, BusKind, Category};

    use super::*;

    const PROPERTIES: &[Property] = &[
        Property { name: "queues", kind: PropertyKind::Unsigned(16), default: None, help: "" },
        Property { name: "modern", kind: PropertyKind::Auto, default: None, help: "" },
        Property {
            name: "share",
            kind: PropertyKind::Bool,
            default: Some(DefaultValue::Bool(true)),
            help: "",
        },
        Property { name: "mac", kind: PropertyKind::Mac, default: None, help: "" },
        Property { name: "addr", kind: PropertyKind::PciAddress, default: None, help: "" },
        Property { name: "bootindex", kind: PropertyKind::BootIndex, default: None, help: "" },
        Property { name: "offset", kind: PropertyKind::Signed(32), default: None, help: "" },
    ];

    static MODEL: Model = Model {
        name: "thing",
        description: "",
        category: Category::Other,
        bus: BusKind::Board,
        offers: None,
        properties: &[PROPERTIES],
        state_version: 1,
        build: |_| Err(BuildError::NoBus),
    };

    fn check(name: &str, value: &str, expected: Result<Option<PropertyValue>, &str>) {
        let declared = PROPERTIES.iter().find(|property| property.name == name).unwrap();
        let read = read(&MODEL, declared, &Value::String(value.to_owned()));
        assert_eq!(read, expected.map_err(str::to_owned), "{name}={value}");
    }

    #[test]
    fn values_are_of_their_declared_kind() {
        check("queues", "0x10", Ok(Some(PropertyValue::Unsigned(16))));
        check("queues", "65536", Err("Parameter 'queues' expects uint16_t"));
        check("queues", "abc", Err("Parameter 'queues' expects integer"));
        check("modern", "auto", Ok(None));
        check("modern", "off", Ok(Some(PropertyValue::Bool(false))));
        check("share", "maybe", Err("Parameter 'share' expects 'on' or 'off'"));
        check("mac", "52:54", Err("Property 'thing.mac' doesn't take value '52:54'"));
        check("addr", "0x1f.3", Ok(Some(PropertyValue::PciAddress(31, 3))));
        check("bootindex", "-1", Ok(None));
        check("offset", "-5", Ok(Some(PropertyValue::Signed(-5))));
    }

    #[test]
    fn unknown_models_and_bad_names_are_refused() {
        let asked = |text: &str| Asked {
            typed: String::new(),
            members: serde_json::from_str(text).unwrap(),
        };
        let error = resolve(&asked(r#"{"driver":"foo"}"#), &[]).unwrap_err();
        assert_eq!(error, "'foo' is not a valid device model name");
        let error = resolve(&asked("{}"), &[]).unwrap_err();
        assert_eq!(error, "Parameter 'driver' is missing");
        assert!(check_id("a b").is_err() && check_id("1a").is_err() && check_id("a-1.b_").is_ok());
    }
}
