//! What only the guest's agent knows or can do.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use libvirt_compat::rpc::types::{Domain, DomainInterface, FilesystemInfo, IpAddress};
use libvirt_compat::{Code, Error, Result};
use serde_json::{Value, json};

use super::Call;
use crate::agent::ask;

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

pub fn domain_get_time(call: &Call, dom: Domain, _flags: u32) -> Result<(i64, u32)> {
    let (_, domain) = call.domain(&dom)?;
    let ns = ask(&domain, "guest-get-time", None)?.as_i64().unwrap_or(0);
    Ok((ns / 1_000_000_000, (ns % 1_000_000_000) as u32))
}

/// `VIR_DOMAIN_TIME_SYNC`: from the guest's own hardware clock.
const TIME_SYNC: u32 = 1;

pub fn domain_set_time(call: &Call, dom: Domain, seconds: i64, ns: u32, flags: u32) -> Result<()> {
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let time = seconds.checked_mul(1_000_000_000).and_then(|time| time.checked_add(ns.into()));
    let time = time.ok_or_else(|| {
        Error::new(Code::InvalidArg, format!("Time '{seconds}' is too big for guest agent"))
    })?;
    let arguments = (flags & TIME_SYNC == 0).then(|| json!({"time": time}));
    ask(&domain, "guest-set-time", arguments).map(|_| ())
}

pub fn domain_get_hostname(call: &Call, dom: Domain, _flags: u32) -> Result<String> {
    let (_, domain) = call.domain(&dom)?;
    Ok(text(&ask(&domain, "guest-get-host-name", None)?, "host-name"))
}

pub fn domain_fsfreeze(
    call: &Call,
    dom: Domain,
    mountpoints: Vec<String>,
    _flags: u32,
) -> Result<i32> {
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    let answer = match mountpoints.is_empty() {
        true => ask(&domain, "guest-fsfreeze-freeze", None)?,
        false => {
            let arguments = json!({"mountpoints": mountpoints});
            ask(&domain, "guest-fsfreeze-freeze-list", Some(arguments))?
        }
    };
    Ok(answer.as_i64().unwrap_or(0) as i32)
}

/// The agent thaws everything; a list of mount points is libvirt's to refuse.
pub fn domain_fsthaw(
    call: &Call,
    dom: Domain,
    mountpoints: Vec<String>,
    _flags: u32,
) -> Result<i32> {
    if !mountpoints.is_empty() {
        let text = "specifying mountpoints is not supported";
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    Ok(ask(&domain, "guest-fsfreeze-thaw", None)?.as_i64().unwrap_or(0) as i32)
}

pub fn domain_fstrim(
    call: &Call,
    dom: Domain,
    mountpoint: Option<String>,
    minimum: u64,
    _flags: u32,
) -> Result<()> {
    if mountpoint.is_some() {
        let text = "Specifying mount point is not supported for now";
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    ask(&domain, "guest-fstrim", Some(json!({"minimum": minimum}))).map(|_| ())
}

pub fn domain_get_fsinfo(
    call: &Call,
    dom: Domain,
    _flags: u32,
) -> Result<(Vec<FilesystemInfo>, u32)> {
    let (_, domain) = call.domain(&dom)?;
    let answer = ask(&domain, "guest-get-fsinfo", None)?;
    let list: Vec<FilesystemInfo> = answer
        .as_array()
        .into_iter()
        .flatten()
        .map(|system| FilesystemInfo {
            mountpoint: text(system, "mountpoint"),
            name: text(system, "name"),
            fstype: text(system, "type"),
            dev_aliases: Vec::new(),
        })
        .collect();
    let count = list.len() as u32;
    Ok((list, count))
}

/// Interfaces and addresses as the guest sees them.
pub(super) fn interfaces(domain: &crate::domains::Domain) -> Result<Vec<DomainInterface>> {
    let answer = ask(domain, "guest-network-get-interfaces", None)?;
    let address = |entry: &Value| IpAddress {
        kind: i32::from(entry["ip-address-type"] == "ipv6"),
        addr: text(entry, "ip-address"),
        prefix: entry["prefix"].as_u64().unwrap_or(0) as u32,
    };
    let list = answer.as_array().into_iter().flatten().map(|interface| DomainInterface {
        name: text(interface, "name"),
        hwaddr: interface["hardware-address"].as_str().map(str::to_owned),
        addrs: interface["ip-addresses"].as_array().into_iter().flatten().map(address).collect(),
    });
    Ok(list.collect())
}

pub fn domain_set_user_password(
    call: &Call,
    dom: Domain,
    user: Option<String>,
    password: Option<String>,
    flags: u32,
) -> Result<()> {
    let (_, domain) = call.domain(&dom)?;
    let _job = domain.begin()?;
    // `VIR_DOMAIN_PASSWORD_ENCRYPTED`.
    let arguments = json!({
        "username": user.unwrap_or_default(),
        "password": BASE64.encode(password.unwrap_or_default()),
        "crypted": flags & 1 != 0
    });
    ask(&domain, "guest-set-user-password", Some(arguments)).map(|_| ())
}
