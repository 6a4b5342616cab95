//! `-smbios`: what the tables of the system's parts say, by QEMU's names.

use std::fs;

use machine::{OnboardDevice, PortConnector, Smbios, SmbiosBoard};
use serde_json::{Map, Value};

use crate::boards;
use crate::options::{Asked, Options};

/// What QEMU says where nobody says anything.
fn defaults(options: &Options) -> Smbios {
    const MAKER: &str = "QEMU";
    let name = options.board.name;
    let mut smbios = Smbios::default();
    smbios.system.manufacturer = MAKER.to_owned();
    smbios.system.product = boards::description(name).to_owned();
    smbios.system.version = name.to_owned();
    smbios.chassis.manufacturer = MAKER.to_owned();
    smbios.chassis.version = name.to_owned();
    smbios.processor.manufacturer = MAKER.to_owned();
    smbios.processor.version = name.to_owned();
    smbios.memory.manufacturer = MAKER.to_owned();
    smbios
}

/// A structure's fields, each taken once.
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, name: &str, into: &mut String) {
        if let Some(Value::String(text)) = self.0.shift_remove(name) {
            *into = text;
        }
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str, into: &mut T) -> Result<(), String> {
        let Some(Value::String(text)) = self.0.shift_remove(name) else { return Ok(()) };
        let digits = text.strip_prefix("0x");
        let parsed =
            digits.map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok());
        let number = parsed.and_then(|number| T::try_from(number).ok());
        *into = number.ok_or_else(|| format!("Parameter '{name}' expects a number"))?;
        Ok(())
    }
}

/// What the tables say, and the machine's UUID if they do.
pub type Said = (Smbios, Option<[u8; 16]>);

/// All `-smbios` options over the defaults, and the machine's UUID if one of them says it.
pub fn resolve(options: &Options) -> Result<Said, (Asked, String)> {
    let (mut smbios, mut uuid) = (defaults(options), None);
    for asked in &options.smbios {
        take(&mut smbios, &mut uuid, asked).map_err(|error| (asked.clone(), error))?;
    }
    Ok((smbios, uuid))
}

fn take(smbios: &mut Smbios, uuid: &mut Option<[u8; 16]>, asked: &Asked) -> Result<(), String> {
    let mut fields = Fields(asked.members.clone());
    let mut path = String::new();
    fields.text("file", &mut path);
    if !path.is_empty() {
        if let Some(other) = fields.0.keys().next() {
            return Err(format!("Invalid parameter '{other}'"));
        }
        return file(smbios, &path);
    }
    let mut kind = String::new();
    fields.text("type", &mut kind);
    if kind.is_empty() {
        return Err("Must specify type= or file=".to_owned());
    }
    match kind.as_str() {
        "0" => bios(smbios, &mut fields)?,
        "1" => system(smbios, uuid, &mut fields)?,
        "2" => board(smbios, &mut fields),
        "3" => chassis(smbios, &mut fields),
        "4" => processor(smbios, &mut fields)?,
        "8" => {
            let mut port = PortConnector::default();
            fields.text("internal_reference", &mut port.internal);
            fields.text("external_reference", &mut port.external);
            fields.number("connector_type", &mut port.connector)?;
            fields.number("port_type", &mut port.port)?;
            smbios.ports.push(port);
        }
        "11" => strings(smbios, &mut fields)?,
        "17" => memory(smbios, &mut fields)?,
        "41" => onboard(smbios, &mut fields)?,
        "9" => return Err("structures of type 9 are not built in Hostel".to_owned()),
        other => return Err(format!("Don't know how to build fields for SMBIOS type {other}")),
    }
    match fields.0.keys().next() {
        Some(other) => Err(format!("Invalid parameter '{other}'")),
        None => Ok(()),
    }
}

fn bios(smbios: &mut Smbios, fields: &mut Fields) -> Result<(), String> {
    let bios = &mut smbios.bios;
    fields.text("vendor", &mut bios.vendor);
    fields.text("version", &mut bios.version);
    fields.text("date", &mut bios.date);
    let (mut release, mut uefi) = (String::new(), String::new());
    fields.text("release", &mut release);
    fields.text("uefi", &mut uefi);
    if !release.is_empty() {
        let parts = release
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        bios.release = Some(parts.ok_or("Invalid release")?);
    }
    bios.uefi |= uefi == "on";
    Ok(())
}

fn system(
    smbios: &mut Smbios,
    uuid: &mut Option<[u8; 16]>,
    fields: &mut Fields,
) -> Result<(), String> {
    let system = &mut smbios.system;
    fields.text("manufacturer", &mut system.manufacturer);
    fields.text("product", &mut system.product);
    fields.text("version", &mut system.version);
    fields.text("serial", &mut system.serial);
    fields.text("sku", &mut system.sku);
    fields.text("family", &mut system.family);
    let mut text = String::new();
    fields.text("uuid", &mut text);
    if !text.is_empty() {
        *uuid = Some(crate::options::uuid(&text).ok_or("Invalid UUID")?);
    }
    Ok(())
}

fn board(smbios: &mut Smbios, fields: &mut Fields) {
    let default = || SmbiosBoard {
        manufacturer: smbios.system.manufacturer.clone(),
        product: smbios.system.product.clone(),
        version: smbios.system.version.clone(),
        ..SmbiosBoard::default()
    };
    let mut board = smbios.board.take().unwrap_or_else(default);
    fields.text("manufacturer", &mut board.manufacturer);
    fields.text("product", &mut board.product);
    fields.text("version", &mut board.version);
    fields.text("serial", &mut board.serial);
    fields.text("asset", &mut board.asset);
    fields.text("location", &mut board.location);
    smbios.board = Some(board);
}

fn chassis(smbios: &mut Smbios, fields: &mut Fields) {
    let chassis = &mut smbios.chassis;
    fields.text("manufacturer", &mut chassis.manufacturer);
    fields.text("version", &mut chassis.version);
    fields.text("serial", &mut chassis.serial);
    fields.text("asset", &mut chassis.asset);
    fields.text("sku", &mut chassis.sku);
}

fn processor(smbios: &mut Smbios, fields: &mut Fields) -> Result<(), String> {
    let processor = &mut smbios.processor;
    fields.text("sock_pfx", &mut processor.socket_prefix);
    fields.text("manufacturer", &mut processor.manufacturer);
    fields.text("version", &mut processor.version);
    fields.text("serial", &mut processor.serial);
    fields.text("asset", &mut processor.asset);
    fields.text("part", &mut processor.part);
    fields.number("max-speed", &mut processor.max_speed)?;
    fields.number("current-speed", &mut processor.current_speed)
}

fn strings(smbios: &mut Smbios, fields: &mut Fields) -> Result<(), String> {
    match fields.0.shift_remove("value") {
        Some(Value::String(text)) => smbios.oem_strings.push(text),
        Some(Value::Array(list)) => {
            let texts = list.into_iter().filter_map(|value| Some(value.as_str()?.to_owned()));
            smbios.oem_strings.extend(texts);
        }
        _ => {}
    }
    let mut path = String::new();
    fields.text("path", &mut path);
    if !path.is_empty() {
        let text = fs::read_to_string(&path);
        smbios.oem_strings.push(text.map_err(|_| format!("Unable to open {path}"))?);
    }
    Ok(())
}

fn memory(smbios: &mut Smbios, fields: &mut Fields) -> Result<(), String> {
    let memory = &mut smbios.memory;
    fields.text("loc_pfx", &mut memory.locator_prefix);
    fields.text("bank", &mut memory.bank);
    fields.text("manufacturer", &mut memory.manufacturer);
    fields.text("serial", &mut memory.serial);
    fields.text("asset", &mut memory.asset);
    fields.text("part", &mut memory.part);
    fields.number("speed", &mut memory.speed)
}

/// By the numbers of their kinds.
const ONBOARD: [&str; 10] =
    ["other", "unknown", "video", "scsi", "ethernet", "tokenring", "sound", "pata", "sata", "sas"];
const ENABLED: u8 = 0x80;

fn onboard(smbios: &mut Smbios, fields: &mut Fields) -> Result<(), String> {
    let mut device = OnboardDevice::default();
    let mut kind = String::from("other");
    fields.text("designation", &mut device.designation);
    fields.text("kind", &mut kind);
    fields.number("instance", &mut device.instance)?;
    let known = ONBOARD.iter().position(|name| *name == kind);
    let known = known.ok_or_else(|| format!("Parameter 'kind' does not accept value '{kind}'"))?;
    device.kind = ENABLED | (known as u8 + 1);
    smbios.onboard.push(device);
    Ok(())
}

/// A structure as bytes, with its strings.
fn file(smbios: &mut Smbios, path: &str) -> Result<(), String> {
    const HEADER_BYTES: usize = 4;
    const STRUCTURE_BYTES_MAX: usize = 64 << 10;
    let bytes = fs::read(path).map_err(|_| format!("Cannot read SMBIOS file {path}"))?;
    let length = bytes.get(1).copied().map_or(0, usize::from);
    let ends = bytes.len() >= length + 2 && bytes.ends_with(&[0, 0]);
    if length < HEADER_BYTES || !ends || bytes.len() > STRUCTURE_BYTES_MAX {
        return Err(format!("Cannot read SMBIOS file {path}: it is not one structure"));
    }
    smbios.raw.push(bytes);
    Ok(())
}
