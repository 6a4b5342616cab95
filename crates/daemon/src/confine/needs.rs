//! The host's files that a machine needs, from its document.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libvirt_compat::Result;
use libvirt_compat::xml::Element;

use crate::storage;

/// Something of the host's that a machine uses by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Need {
    /// A file or a device that is there.
    File { path: PathBuf, writable: bool },
    /// A socket that the machine makes.
    Listens { path: PathBuf },
}

impl Need {
    /// The name on the host.
    pub fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Listens { path } => path,
        }
    }
}

/// All that a machine needs, every file once.
pub fn of_document(document: &Element) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for (path, writable) in [
        ("os/kernel", false),
        ("os/initrd", false),
        ("os/dtb", false),
        ("os/loader", false),
        ("os/nvram", true),
    ] {
        if let Some(text) = document.text_at(path).filter(|text| text.trim().starts_with('/')) {
            needs.push(Need::File { path: text.trim().into(), writable });
        }
    }
    let devices = document.child("devices");
    for device in devices.into_iter().flat_map(Element::elements) {
        needs.extend(of_device(device)?);
    }
    Ok(merged(needs))
}

/// A file that is named twice is writable when one of its users writes.
fn merged(needs: Vec<Need>) -> Vec<Need> {
    let mut files: BTreeMap<PathBuf, bool> = BTreeMap::new();
    let mut rest = Vec::new();
    for need in needs {
        match need {
            Need::File { path, writable } => *files.entry(path).or_default() |= writable,
            other => rest.push(other),
        }
    }
    let files = files.into_iter().map(|(path, writable)| Need::File { path, writable });
    files.chain(rest).collect()
}

/// What one device needs.
pub fn of_device(device: &Element) -> Result<Vec<Need>> {
    match device.name.as_str() {
        "disk" => disk(device),
        "serial" | "parallel" | "console" | "channel" => Ok(character(device)),
        "rng" => {
            let file = device.text_at("backend").filter(|text| text.trim().starts_with('/'));
            let need = |file: String| Need::File { path: file.trim().into(), writable: false };
            Ok(file.map(need).into_iter().collect())
        }
        "graphics" => {
            let listen = device.child("listen").filter(|listen| listen.is("type", "socket"));
            let socket = listen.and_then(|listen| listen.attribute("socket"));
            let socket = socket.or_else(|| device.attribute("socket"));
            Ok(socket.map(|path| Need::Listens { path: path.into() }).into_iter().collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn disk(disk: &Element) -> Result<Vec<Need>> {
    let Some(path) = crate::drivers::disk_path(disk).filter(|path| path.exists()) else {
        return Ok(Vec::new()); // one that may be missing
    };
    let read_only = disk.child("readonly").is_some() || disk.is("device", "cdrom");
    let is_raw = matches!(disk.attribute_at("driver", "type"), None | Some("raw"));
    let below = if is_raw { Vec::new() } else { storage::chain(&path)? };
    let mut needs = vec![Need::File { path, writable: !read_only }];
    needs.extend(below.into_iter().map(|(path, _)| Need::File { path, writable: false }));
    Ok(needs)
}

fn character(device: &Element) -> Vec<Need> {
    let Some(path) = device.attribute_at("source", "path").map(PathBuf::from) else {
        return Vec::new();
    };
    match device.attribute("type") {
        Some("unix") if device.attribute_at("source", "mode") != Some("connect") => {
            vec![Need::Listens { path }]
        }
        Some("unix" | "file" | "dev" | "pipe") => vec![Need::File { path, writable: true }],
        _ => Vec::new(),
    }
}

/// Makes the files that a machine writes its characters into: it cannot make any itself.
pub fn make_files(device: &Element) -> std::io::Result<()> {
    if device.is("type", "file")
        && let Some(path) = device.attribute_at("source", "path")
    {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(Path::new(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use libvirt_compat::xml;

    use super::*;

    #[test]
    fn files_of_a_document_are_found_once() {
        let own = std::env::current_exe().unwrap().display().to_string();
        let text = format!(
            "<domain><os><kernel>/boot/k</kernel><nvram>/var/n.fd</nvram></os><devices>\
             <disk device='disk'><source file='{own}'/></disk>\
             <disk device='cdrom'><source file='{own}'/></disk>\
             <disk device='disk'><source file='/no/such/file'/></disk>\
             <serial type='file'><source path='/tmp/out'/></serial>\
             <channel type='unix'><source mode='bind' path='/tmp/socket'/></channel>\
             <serial type='pty'><source path='/dev/pts/3'/></serial></devices></domain>"
        );
        let document = xml::parse(&text, "domain_definition").unwrap();
        let file = |path: &str, writable| Need::File { path: path.into(), writable };
        let mut expected = vec![
            file("/boot/k", false),
            file("/tmp/out", true),
            file("/var/n.fd", true),
            file(&own, true),
            Need::Listens { path: "/tmp/socket".into() },
        ];
        let mut found = of_document(&document).unwrap();
        let key = |need: &Need| format!("{need:?}");
        expected.sort_by_key(key);
        found.sort_by_key(key);
        assert_eq!(found, expected);
    }
}
