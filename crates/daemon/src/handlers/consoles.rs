//! Consoles, channels, screens, keys.

use libvirt_compat::rpc::types::Domain;
use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Result};
use rustix::fs::FlockOperation;

use super::Call;
use crate::domains;
use crate::streams::StreamBody;

pub fn domain_open_console(
    call: &Call,
    dom: Domain,
    name: Option<String>,
    flags: u32,
) -> Result<()> {
    let kinds = &["console", "serial", "parallel"];
    open(call, &dom, name.as_deref(), (kinds, "character device"), flags & CONSOLE_FORCE != 0)
}

pub fn domain_open_channel(
    call: &Call,
    dom: Domain,
    name: Option<String>,
    flags: u32,
) -> Result<()> {
    open(call, &dom, name.as_deref(), (&["channel"], "channel"), flags & CONSOLE_FORCE != 0)
}

/// `VIR_DOMAIN_CONSOLE_FORCE`, and `VIR_DOMAIN_CHANNEL_FORCE`.
const CONSOLE_FORCE: u32 = 1;

fn open(
    call: &Call,
    dom: &Domain,
    name: Option<&str>,
    (kinds, what): (&[&str], &str),
    force: bool,
) -> Result<()> {
    let (_, domain) = call.domain(dom)?;
    let machine = domain.machine()?;
    let matches = |device: &Element| {
        kinds.contains(&device.name.as_str())
            && name.is_none_or(|name| {
                device.attribute_at("alias", "name") == Some(name)
                    || device.attribute_at("target", "name") == Some(name)
            })
    };
    let device = domains::live_device(&domain, matches)?.ok_or_else(|| {
        let text = format!("cannot find {what} {}", name.unwrap_or("(null)"));
        Error::new(Code::InternalError, text)
    })?;
    let descriptor = machine.open_character_device(&device)?;
    // The bytes of a terminal go to whoever reads first: two readers get half each.
    let locked = rustix::fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive);
    if locked == Err(rustix::io::Errno::WOULDBLOCK) && !force {
        let text = "Active console session exists for this domain";
        return Err(Error::new(Code::OperationFailed, text));
    }
    call.open_stream(StreamBody::Terminal(descriptor));
    Ok(())
}

pub fn domain_screenshot(
    call: &Call,
    dom: Domain,
    screen: u32,
    _flags: u32,
) -> Result<Option<String>> {
    let (_, domain) = call.domain(&dom)?;
    let machine = domain.machine()?;
    let document = domain.document()?;
    let (mime, file) = machine.screenshot(&document, screen)?;
    call.open_stream(StreamBody::Download(Box::new(file)));
    Ok(Some(mime))
}

/// `VIR_KEYCODE_SET_LINUX` and `VIR_KEYCODE_SET_QNUM`.
mod codeset {
    pub const LINUX: u32 = 0;
    pub const QNUM: u32 = 9;
}

/// libvirt's limit.
const KEYS_MAX: usize = 16;

pub fn domain_send_key(
    call: &Call,
    dom: Domain,
    set: u32,
    hold_ms: u32,
    codes: Vec<u32>,
    _flags: u32,
) -> Result<()> {
    let (_, domain) = call.domain(&dom)?;
    if codes.len() > KEYS_MAX {
        let text =
            format!("nkeycodes in virDomainSendKey must be less than or equal to {KEYS_MAX}");
        return Err(Error::new(Code::InvalidArg, text));
    }
    if !matches!(set, codeset::LINUX | codeset::QNUM) {
        let text = format!("key codes of set {set} are not supported");
        return Err(Error::new(Code::ArgumentUnsupported, text));
    }
    let codes: Vec<u32> = match set {
        codeset::LINUX => codes.into_iter().map(translated).collect::<Result<_>>()?,
        _ => codes,
    };
    domain.machine()?.send_keys(&codes, hold_ms)
}

/// Emulators number keys in their own way.
fn translated(code: u32) -> Result<u32> {
    libvirt_compat::keys::from_linux(code).ok_or_else(|| {
        let text = format!("cannot translate keycode {code} of linux codeset to qnum keycode");
        Error::new(Code::InternalError, text)
    })
}

pub fn domain_open_graphics_fd(call: &Call, dom: Domain, index: u32, _flags: u32) -> Result<()> {
    let (_, domain) = call.domain(&dom)?;
    let descriptor = domain.machine()?.open_graphics(index)?;
    call.pass(descriptor);
    Ok(())
}

/// `VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH`.
const SKIP_AUTH: u32 = 1;

pub fn domain_open_graphics(call: &Call, dom: Domain, index: u32, flags: u32) -> Result<()> {
    let (_, domain) = call.domain(&dom)?;
    let machine = domain.machine()?;
    let Some(socket) = call.take_passed().pop() else {
        return Err(Error::new(Code::InternalError, "no file descriptor came with the call"));
    };
    machine.add_graphics_client(index, socket, flags & SKIP_AUTH != 0)
}
