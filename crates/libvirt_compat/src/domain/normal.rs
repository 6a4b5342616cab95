//! What libvirt makes explicit when it parses: attributes that have a default, numbers that have
//! one way to be written, attributes that only a client of another time understands.

use crate::xml::Element;
use crate::{Code, Error, Origin, Result};

/// Attributes with a default, by the place of their element in the domain document.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("features/hyperv", "mode", "custom"),
    ("devices/filesystem", "type", "mount"),
    ("devices/filesystem", "accessmode", "passthrough"),
    ("devices/video/model", "heads", "1"),
];

/// Attributes that libvirt does not know or no longer shows.
const DROPPED: &[(&str, &[&str])] =
    &[("devices/graphics", &["display", "xauth", "fullscreen", "connected"])];

/// Parts of an address that are zero when nothing is said.
const ADDRESS_ZEROES: &[(&str, &[&str])] = &[
    ("drive", &["controller", "bus", "target", "unit"]),
    ("virtio-serial", &["controller", "bus"]),
];

/// Video memory in KiB where nothing is said, by model.
const VIDEO_MEMORY: &[(&str, &str, u64)] = &[
    ("cirrus", "vram", 16_384),
    ("vga", "vram", 16_384),
    ("vmvga", "vram", 16_384),
    ("bochs", "vram", 16_384),
    ("xen", "vram", 4096),
    ("qxl", "ram", 65_536),
    ("qxl", "vram", 65_536),
    ("qxl", "vgamem", 16_384),
];

/// Makes explicit what a completed document leaves open.
pub fn normalize(domain: &mut Element) -> Result<()> {
    check_words(domain)?;
    if domain.child("bootloader").is_some()
        && let Some(os) = domain.child_mut("os")
    {
        os.remove(|element| matches!(element.name.as_str(), "boot" | "bootmenu"));
    }
    for name in ["memory", "currentMemory"] {
        let mut seen = false;
        domain.remove(|element| element.name == name && std::mem::replace(&mut seen, true));
    }
    for (path, attribute, value) in DEFAULTS {
        visit(domain, path, &mut |element| element.set_default(attribute, value));
    }
    for (path, attributes) in DROPPED {
        visit(domain, path, &mut |element| {
            let shown = element.attribute("passwd").is_some();
            let dropped =
                |name: &str| attributes.contains(&name) && !(shown && name == "connected");
            element.attributes.retain(|(name, _)| !dropped(name));
        });
    }
    if let Some(loader) = domain.child_mut("os").and_then(|os| os.child_mut("loader"))
        && !loader.text().trim().is_empty()
    {
        loader.set_default("type", "rom");
    }
    if let Some(vcpu) = domain.child_mut("vcpu")
        && let Some(set) = vcpu.attribute("cpuset").and_then(ranges)
    {
        vcpu.set("cpuset", set);
    }
    processor(domain);
    iothreads(domain);
    for label in domain.all_mut("seclabel") {
        if matches!(label.attribute("type"), Some("dynamic") | None) {
            label.set_default("type", "dynamic");
            label.set_default("relabel", "yes");
        }
    }
    if let Some(devices) = domain.child_mut("devices") {
        devices.elements_mut().for_each(device);
        let first = devices.child_mut("video").and_then(|video| video.child_mut("model"));
        if let Some(model) = first.filter(|model| !model.is("type", "none")) {
            model.set_default("primary", "yes");
        }
    }
    Ok(())
}

/// Words that a hypervisor cannot make sense of, whichever it is.
fn check_words(domain: &Element) -> Result<()> {
    if let Some(mode) = domain.attribute_at("cpu", "mode")
        && !matches!(mode, "custom" | "host-model" | "host-passthrough" | "maximum")
    {
        let text = format!("Invalid mode attribute '{mode}'");
        return Err(Error::new(Code::ConfigUnsupported, text).from(Origin::Cpu));
    }
    for label in domain.all("seclabel") {
        if let Some(kind) = label.attribute("type")
            && !matches!(kind, "none" | "dynamic" | "static")
        {
            let text =
                format!("Invalid value for attribute 'type' in element 'seclabel': '{kind}'.");
            return Err(Error::new(Code::XmlError, text).from(Origin::Domain));
        }
    }
    Ok(())
}

fn visit(element: &mut Element, path: &str, change: &mut dyn FnMut(&mut Element)) {
    let (name, rest) = path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)));
    for child in element.elements_mut().filter(|child| child.name == name) {
        match rest {
            Some(rest) => visit(child, rest, change),
            None => change(child),
        }
    }
}

fn processor(domain: &mut Element) {
    let Some(cpu) = domain.child_mut("cpu") else { return };
    let has_model = cpu.child("model").is_some();
    if has_model && cpu.attribute("mode").is_none() {
        cpu.set("mode", "custom");
        cpu.set_default("match", "exact");
    }
    let custom = cpu.is("mode", "custom");
    if let Some(model) = cpu.child_mut("model").filter(|_| custom) {
        model.set_default("fallback", "allow");
    }
}

/// Threads that are counted but not named get the lowest free numbers.
fn iothreads(domain: &mut Element) {
    let count = domain.text_at("iothreads").and_then(|text| text.trim().parse::<usize>().ok());
    let (Some(count), Some(ids)) = (count, domain.child_mut("iothreadids")) else { return };
    const THREADS_MAX: usize = 1024;
    let taken = |ids: &Element, id: usize| {
        ids.all("iothread").any(|thread| thread.is("id", &id.to_string()))
    };
    let mut next = 1;
    while ids.all("iothread").count() < count.min(THREADS_MAX) {
        if !taken(ids, next) {
            ids.push(Element::new("iothread").with("id", next));
        }
        next += 1;
    }
}

fn device(device: &mut Element) {
    if let Some(address) = device.child_mut("address") {
        normal_address(address);
    }
    match device.name.as_str() {
        "video" => device.elements_mut().filter(|child| child.name == "model").for_each(video),
        "redirfilter" => {
            for filter in device.all_mut("usbdev") {
                filter.attributes.retain(|(_, value)| value != "-1");
            }
        }
        "rng" => {
            if let Some(backend) = device.child_mut("backend").filter(|own| own.is("type", "tcp")) {
                backend.ensure("protocol").set_default("type", "raw");
            }
        }
        "vsock" => {
            if let Some(cid) = device.child_mut("cid") {
                let auto = if cid.attribute("address").is_some() { "no" } else { "yes" };
                cid.set_default("auto", auto);
            }
        }
        "hostdev" => {
            let source = device.child_mut("source");
            if let Some(address) = source.and_then(|source| source.child_mut("address"))
                && address.attribute("slot").is_some()
            {
                address.set_default("domain", "0x0000");
            }
        }
        _ => {}
    }
}

fn normal_address(address: &mut Element) {
    let kind = address.attribute("type").unwrap_or_default().to_owned();
    for (_, parts) in ADDRESS_ZEROES.iter().filter(|(name, _)| *name == kind) {
        parts.iter().for_each(|part| address.set_default(part, 0));
    }
    if kind == "spapr-vio"
        && let Some(digits) = address.attribute("reg").and_then(|reg| reg.strip_prefix("0x"))
        && let Ok(register) = u64::from_str_radix(digits, 16)
    {
        address.set("reg", format!("0x{register:08x}"));
    }
}

fn video(model: &mut Element) {
    let kind = model.attribute("type").unwrap_or_default().to_owned();
    for (_, part, kib) in VIDEO_MEMORY.iter().filter(|(name, ..)| *name == kind) {
        let given = model.attribute(part).and_then(|text| text.parse::<u64>().ok());
        let size = given.unwrap_or(*kib);
        // A video card's memory is a power of two.
        model.set(part, size.checked_next_power_of_two().unwrap_or(size));
    }
}

/// A list of CPUs as libvirt writes it: ascending, neighbours joined.
fn ranges(text: &str) -> Option<String> {
    const CPUS_MAX: usize = 16_384;
    let mut cpus = std::collections::BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if let Some(removed) = part.strip_prefix('^') {
            cpus.remove(&removed.trim().parse::<usize>().ok()?);
            continue;
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let words =
        runs.iter().map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        );
    Some(words.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn what_is_left_open_becomes_explicit() {
        for (given, path, attribute, value) in [
            ("<vcpu cpuset='3,1,2,^2'>1</vcpu>", "vcpu", "cpuset", Some("1,3")),
            ("<vcpu cpuset='1,2,5-6,7'>1</vcpu>", "vcpu", "cpuset", Some("1-2,5-7")),
            ("<vcpu cpuset='0-99999999'>1</vcpu>", "vcpu", "cpuset", Some("0-99999999")),
            ("<cpu><model>core2duo</model></cpu>", "cpu", "match", Some("exact")),
            ("<os><loader>/x</loader></os>", "os/loader", "type", Some("rom")),
            (
                "<devices><video><model type='cirrus' vram='10240'/></video></devices>",
                "devices/video/model",
                "vram",
                Some("16384"),
            ),
            (
                "<devices><graphics type='vnc' display=':1'/></devices>",
                "devices/graphics",
                "display",
                None,
            ),
            (
                "<devices><disk><address type='drive' controller='9'/></disk></devices>",
                "devices/disk/address",
                "unit",
                Some("0"),
            ),
        ] {
            let mut domain = parse(&format!("<domain>{given}</domain>"), "t").unwrap();
            normalize(&mut domain).unwrap();
            assert_eq!(domain.attribute_at(path, attribute), value, "{given}");
        }
    }
}
