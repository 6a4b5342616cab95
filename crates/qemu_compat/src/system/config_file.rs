//! `-readconfig`: options in groups, as an INI file.

use super::options::Typed;

/// Groups of the file, and the options that they stand for.
const GROUPS: &[(&str, &str)] = &[
    ("accel", "accel"),
    ("action", "action"),
    ("add-fd", "add-fd"),
    ("boot-opts", "boot"),
    ("chardev", "chardev"),
    ("device", "device"),
    ("drive", "drive"),
    ("fsdev", "fsdev"),
    ("fw_cfg", "fw_cfg"),
    ("global", "global"),
    ("icount", "icount"),
    ("machine", "machine"),
    ("memory", "m"),
    ("mon", "mon"),
    ("msg", "msg"),
    ("name", "name"),
    ("netdev", "netdev"),
    ("nic", "nic"),
    ("object", "object"),
    ("overcommit", "overcommit"),
    ("rtc", "rtc"),
    ("sandbox", "sandbox"),
    ("smbios", "smbios"),
    ("smp-opts", "smp"),
    ("tpmdev", "tpmdev"),
    ("trace", "trace"),
    ("vnc", "vnc"),
];

/// The values that an option's first word has without its key.
const FIRST: &[(&str, &str)] = &[
    ("chardev", "backend"),
    ("device", "driver"),
    ("object", "qom-type"),
    ("netdev", "type"),
    ("nic", "type"),
    ("machine", "type"),
    ("vnc", "vnc"),
];

/// What is wrong with a file. The texts are QEMU's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFileError {
    /// A line that is none.
    #[error("{file}:{line}: parse error")]
    Line {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
    },
    /// A value before any group.
    #[error("{file}:{line}: no group defined")]
    NoGroup {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
    },
    /// A group that is none.
    #[error("There is no option group '{0}'")]
    Unknown(String),
}

/// The options of a file's text, in its order.
pub fn parse(file: &str, text: &str) -> Result<Vec<Typed>, ConfigFileError> {
    let mut typed: Vec<(&'static str, Vec<(String, String)>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (file, at) = (file.to_owned(), number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(head) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let (group, id) = match head.split_once('"') {
                Some((group, id)) => (group.trim(), id.strip_suffix('"')),
                None => (head.trim(), Some("")),
            };
            let id = id.ok_or(ConfigFileError::Line { file, line: at })?;
            let known = GROUPS.iter().find(|(name, _)| *name == group);
            let (_, option) = known.ok_or_else(|| ConfigFileError::Unknown(group.to_owned()))?;
            let id = (!id.is_empty()).then(|| ("id".to_owned(), id.to_owned()));
            typed.push((option, id.into_iter().collect()));
            continue;
        }
        let pair = line.split_once('=').and_then(|(key, value)| {
            let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
            Some((key.trim().to_owned(), value.to_owned()))
        });
        let pair = pair.ok_or(ConfigFileError::Line { file: file.clone(), line: at })?;
        let group = typed.last_mut();
        group.ok_or(ConfigFileError::NoGroup { file, line: at })?.1.push(pair);
    }
    Ok(typed.into_iter().map(|(name, pairs)| Typed { name, value: join(name, pairs) }).collect())
}

/// One text with commas between, as the option takes it.
fn join(option: &str, mut pairs: Vec<(String, String)>) -> String {
    let implied = FIRST.iter().find(|(name, _)| *name == option);
    let mut parts = Vec::new();
    if let Some((_, key)) = implied
        && let Some(at) = pairs.iter().position(|(name, _)| name == key)
    {
        parts.push(pairs.remove(at).1.replace(',', ",,"));
    }
    let rest = pairs.iter().map(|(key, value)| format!("{key}={}", value.replace(',', ",,")));
    parts.extend(rest);
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_become_options() {
        let text = "# a comment\n[machine]\n  type = \"q35\"\n\n[drive \"d0\"]\n file = \"a,b\"\n \
            if = \"none\"\n[device \"x\"]\n  driver = \"virtio-blk-pci\"\n  drive = \"d0\"\n\
            [memory]\n  size = \"1G\"\n";
        let typed = parse("f", text).unwrap();
        let typed: Vec<(&str, &str)> =
            typed.iter().map(|typed| (typed.name, typed.value.as_str())).collect();
        let expected = [
            ("machine", "q35"),
            ("drive", "id=d0,file=a,,b,if=none"),
            ("device", "virtio-blk-pci,id=x,drive=d0"),
            ("m", "size=1G"),
        ];
        assert_eq!(typed, expected);
        for (text, error) in [
            ("x", "f:1: parse error"),
            ("a = \"b\"", "f:1: no group defined"),
            ("[foo]", "There is no option group 'foo'"),
            ("[device \"x]", "f:1: parse error"),
        ] {
            assert_eq!(parse("f", text).unwrap_err().to_string(), error);
        }
    }
}
