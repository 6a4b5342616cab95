//! Seeds: the small disk from which a guest learns on its first boot who it is. Written for
//! cloud-init (NoCloud or a config drive) and read by our own agent in `spark`.

mod iso;
mod vendor;

use serde_json::{Map, Value, json};

pub use iso::{Iso, IsoError};

use crate::yaml::{self, YamlError};
use crate::{AGENT, GuestError, Result};

/// What an instance is told.
#[derive(Clone, Debug, Default)]
pub struct Seed {
    /// Another one makes another first boot.
    pub instance_id: String,
    /// The host's name.
    pub hostname: String,
    /// The user's own words; nothing if there are none.
    pub user_data: Option<UserData>,
    /// Network configuration, version 1 or 2, as the user gave it. A config drive has no place for
    /// it: its own form says less.
    pub network: Option<Value>,
    /// Who can log in besides the image's own default user.
    pub user: Option<String>,
    /// Public keys that let the user in.
    pub authorized_keys: Vec<String>,
    /// Packages to install on the first boot.
    pub packages: Vec<String>,
    /// The guest's own key for ssh, so that nobody has to trust it unseen.
    pub host_key: Option<HostKey>,
    /// Put our agent in.
    pub with_agent: bool,
}

/// A guest's own key.
#[derive(Clone, Debug)]
pub struct HostKey {
    /// As a line of `ssh_host_ed25519_key.pub`.
    pub public: String,
    /// The file.
    pub private: String,
}

/// User data as it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct UserData {
    /// The text.
    pub text: String,
    /// Its values, for a cloud-config.
    pub config: Option<Map<String, Value>>,
}

/// How the disk is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// cloud-init's own, labelled `cidata`.
    NoCloud,
    /// OpenStack's, labelled `config-2`.
    ConfigDrive,
}

impl Layout {
    /// The label by which guests find it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCloud => "cidata",
            Self::ConfigDrive => "config-2",
        }
    }
}

/// The words by which cloud-init knows a part that is no cloud-config.
const OTHER_KINDS: &[&str] = &[
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "#upstart-job",
    "## template:",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
    "Content-Type: multipart/",
    "MIME-Version:",
];

impl UserData {
    /// Looks at user data: a cloud-config is read through, so that mistakes come to light here and
    /// not in the guest.
    pub fn parse(text: &str) -> std::result::Result<Self, YamlError> {
        let wrong =
            |line: usize, reason: &str| YamlError { line, column: 1, reason: reason.into() };
        if OTHER_KINDS.iter().any(|kind| text.starts_with(kind)) {
            return Ok(Self { text: text.to_owned(), config: None });
        }
        if text.lines().next().is_none_or(|line| line.trim_end() != "#cloud-config") {
            let reason = "the first line must be '#cloud-config', or '#!' and a program";
            return Err(wrong(1, reason));
        }
        let config = match yaml::parse(text)? {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            _ => return Err(wrong(2, "a cloud-config is a mapping of keys and values")),
        };
        Ok(Self { text: text.to_owned(), config: Some(config) })
    }
}

impl Seed {
    /// The disk's image.
    pub fn image(&self, layout: Layout) -> Result<Vec<u8>> {
        let mut iso = Iso::default();
        for (path, data) in self.files(layout) {
            iso.file(&path, data).map_err(|error| GuestError::Format {
                what: "The seed".to_owned(),
                reason: error.to_string(),
            })?;
        }
        Ok(iso.image(layout.label()))
    }

    fn files(&self, layout: Layout) -> Vec<(String, Vec<u8>)> {
        let text = |value: &Value| format!("{value:#}\n").into_bytes();
        let mut files = vec![("hostel.json".to_owned(), text(&self.plan()))];
        let user_data = self.user_data.as_ref().map_or("#cloud-config\n{}\n", |data| &data.text);
        let vendor = vendor::data(self);
        match layout {
            Layout::NoCloud => {
                // JSON is YAML.
                let meta = json!({"instance-id": self.instance_id,
                    "local-hostname": self.hostname});
                files.push(("meta-data".to_owned(), text(&meta)));
                files.push(("user-data".to_owned(), user_data.into()));
                files.push(("vendor-data".to_owned(), vendor.into()));
                if let Some(network) = &self.network {
                    files.push(("network-config".to_owned(), text(network)));
                }
            }
            Layout::ConfigDrive => {
                let keys: Map<String, Value> = self
                    .authorized_keys
                    .iter()
                    .enumerate()
                    .map(|(number, key)| (format!("key{number}"), key.as_str().into()))
                    .collect();
                let meta = json!({"uuid": self.instance_id, "hostname": self.hostname,
                    "name": self.hostname, "public_keys": keys, "dsmode": "local"});
                let below = |name: &str| format!("openstack/latest/{name}");
                files.push((below("meta_data.json"), text(&meta)));
                files.push((below("user_data"), user_data.into()));
                files.push((below("vendor_data.json"), text(&json!({"cloud-init": vendor}))));
            }
        }
        if self.with_agent {
            files.push(("hostel-agent".to_owned(), AGENT.to_vec()));
        }
        files
    }

    /// What our own agent does in an image without cloud-init: the user's configuration with ours
    /// below it.
    fn plan(&self) -> Value {
        let mut config = match &self.user_data {
            Some(UserData { config: Some(config), .. }) => config.clone(),
            _ => Map::new(),
        };
        config.entry("hostname").or_insert_with(|| self.hostname.as_str().into());
        let mut plan = json!({"instance-id": self.instance_id, "user": self.user,
            "authorized-keys": self.authorized_keys, "config": config});
        if let Some(UserData { text, config: None }) = &self.user_data {
            plan["script"] = text.as_str().into();
        }
        plan
    }
}

/// The image of another machine's seed with another name and another identity.
pub fn renamed(image: &[u8], hostname: &str, instance_id: &str) -> Result<Vec<u8>> {
    let files = iso::files(image).ok_or_else(|| GuestError::Format {
        what: "The seed".to_owned(),
        reason: "it is not one of ours".to_owned(),
    })?;
    let label = match files.iter().any(|(path, _)| path == "meta-data") {
        true => Layout::NoCloud,
        false => Layout::ConfigDrive,
    };
    let mut new = Iso::default();
    for (path, data) in files {
        let data = match path.as_str() {
            "meta-data" | "openstack/latest/meta_data.json" | "hostel.json" => {
                changed(&data, hostname, instance_id)
            }
            _ => data,
        };
        new.file(&path, data).map_err(|error| GuestError::Format {
            what: "The seed".to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(new.image(label.label()))
}

fn changed(data: &[u8], hostname: &str, instance_id: &str) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(data).unwrap_or_default();
    for (keys, text) in
        [(["instance-id", "uuid"], instance_id), (["local-hostname", "hostname"], hostname)]
    {
        for key in keys {
            if let Some(old) = value.get_mut(key) {
                *old = text.into();
            }
        }
    }
    if let Some(config) = value.get_mut("config") {
        config["hostname"] = hostname.into();
    }
    format!("{value:#}\n").into_bytes()
}

/// What `spark` does of a cloud-config; the rest needs a distribution.
pub const SPARK_KEYS: &[&str] = &[
    "bootcmd",
    "chpasswd",
    "final_message",
    "fqdn",
    "groups",
    "hostname",
    "manage_etc_hosts",
    "password",
    "preserve_hostname",
    "runcmd",
    "ssh_authorized_keys",
    "timezone",
    "users",
    "write_files",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed {
            instance_id: "i-1".into(),
            hostname: "web".into(),
            user_data: Some(UserData::parse("#cloud-config\nruncmd: [[touch, /x]]\n").unwrap()),
            authorized_keys: vec!["ssh-ed25519 AAAA me".into()],
            ..Seed::default()
        }
    }

    #[test]
    fn both_layouts_hold_the_users_words_as_they_are() {
        for (layout, path) in
            [(Layout::NoCloud, "user-data"), (Layout::ConfigDrive, "openstack/latest/user_data")]
        {
            let files = seed().files(layout);
            let (_, data) = files.iter().find(|(name, _)| name == path).unwrap();
            assert_eq!(data, b"#cloud-config\nruncmd: [[touch, /x]]\n");
            assert!(seed().image(layout).unwrap().len() < 512 << 10);
        }
    }

    #[test]
    fn a_copy_has_another_name_and_the_same_words() {
        for layout in [Layout::NoCloud, Layout::ConfigDrive] {
            let image = renamed(&seed().image(layout).unwrap(), "other", "i-2").unwrap();
            let expected = Seed { hostname: "other".into(), instance_id: "i-2".into(), ..seed() };
            let mut files = iso::files(&image).unwrap();
            let mut expected = expected.files(layout);
            files.sort();
            expected.sort();
            files.retain(|(path, _)| !path.ends_with("meta_data.json"));
            expected.retain(|(path, _)| !path.ends_with("meta_data.json"));
            assert_eq!(files, expected);
        }
        assert!(renamed(b"none", "x", "y").is_err());
    }

    #[test]
    fn user_data_is_looked_at() {
        assert!(UserData::parse("#!/bin/sh\necho\n").unwrap().config.is_none());
        assert_eq!(UserData::parse("users: []\n").unwrap_err().line, 1);
        let error = UserData::parse("#cloud-config\nusers:\n  - name: x\n   y: 1\n").unwrap_err();
        assert_eq!(error.line, 4, "{error}");
        assert!(UserData::parse("#cloud-config\n- a\n").is_err());
        assert_eq!(UserData::parse("#cloud-config\n").unwrap().config, Some(Map::new()));
    }
}
