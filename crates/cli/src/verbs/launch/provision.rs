//! What a new machine is told of itself: the user's cloud-init, keys, its own key for ssh.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use guests::seed::{HostKey, Layout, SPARK_KEYS, Seed, UserData};
use guests::{keys::KeyPair, yaml};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::arguments::{Launch, SeedLayout};
use crate::daemon::Places;
use crate::failure::{Failure, USAGE};
use crate::ssh;

/// The longest text that is taken for a configuration.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// What was asked for, read and checked before anything is made. Nothing for a machine that needs
/// no telling.
pub fn plan(
    what: &Launch,
    name: &str,
    has_cloud_init: bool,
    places: &Places,
) -> Result<Option<Seed>, Failure> {
    let user_data = what.cloud_init.as_deref().map(user_data).transpose()?;
    if what.network_config.is_some() && what.seed == Some(SeedLayout::ConfigDrive) {
        let failure = Failure::new("A config drive has no place for --network-config");
        return Err(failure.hint("'--seed nocloud' has").code(USAGE));
    }
    let network = what.network_config.as_deref().map(network).transpose()?;
    let asked = user_data.is_some()
        || network.is_some()
        || what.user.is_some()
        || !what.ssh_keys.is_empty()
        || !what.packages.is_empty()
        || what.seed.is_some();
    if !asked && !has_cloud_init {
        return Ok(None);
    }
    if !has_cloud_init {
        refuse_what_spark_lacks(what, user_data.as_ref())?;
    }
    let mut authorized_keys = vec![ssh::own_key(places)?];
    for path in &what.ssh_keys {
        authorized_keys.push(public_key(path)?);
    }
    let user = what.user.clone().or_else(|| has_cloud_init.then(default_user));
    let pair = KeyPair::new(name)?;
    Ok(Some(Seed {
        instance_id: format!("hostel-{}", random_word()),
        hostname: name.to_owned(),
        user_data,
        network,
        user,
        authorized_keys,
        packages: what.packages.clone(),
        host_key: Some(HostKey { public: pair.public, private: pair.private }),
        with_agent: has_cloud_init,
    }))
}

/// Writes the seed where its machine finds it.
pub fn write(seed: &Seed, layout: SeedLayout, path: &Path) -> Result<(), Failure> {
    let layout = match layout {
        SeedLayout::Nocloud => Layout::NoCloud,
        SeedLayout::ConfigDrive => Layout::ConfigDrive,
    };
    let failed = |error: io::Error| {
        Failure::new(format!("The seed {} cannot be written", path.display())).because(&error)
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // The guest's private key stands in it.
    ssh::write_private(path, &seed.image(layout)?).map_err(failed)
}

/// Letters and digits that nobody else has drawn.
pub fn random_word() -> String {
    let mut bytes = [0; 6];
    _ = getrandom(&mut bytes, GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn default_user() -> String {
    let name = std::env::var("USER").unwrap_or_default();
    let sound = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit());
    if sound && name != "root" { name } else { "hostel".to_owned() }
}

/// A file, standard input, or an address.
fn text(from: &str) -> Result<String, Failure> {
    let failed = |error: &dyn std::error::Error| {
        let failure = Failure::new(format!("'{from}' cannot be read")).because(error).code(USAGE);
        failure.hint("a file, an address (https://...), or - for standard input")
    };
    let mut text = String::new();
    if from == "-" {
        let read = io::stdin().take(TEXT_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| failed(&error))?;
        return Ok(text);
    }
    if from.starts_with("http://") || from.starts_with("https://") {
        let bytes = guests::fetch(from, &mut guests::Silent).map_err(|error| failed(&error))?;
        return String::from_utf8(bytes).map_err(|error| failed(&error));
    }
    let file = fs::File::open(from).map_err(|error| failed(&error))?;
    let read = file.take(TEXT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| failed(&error))?;
    Ok(text)
}

fn user_data(from: &str) -> Result<UserData, Failure> {
    let text = text(from)?;
    UserData::parse(&text).map_err(|error| {
        let what = format!("The cloud-init configuration '{from}' is wrong");
        let hint =
            "nothing was made; YAML is indented by spaces, and its first line says what it is";
        let mut failure = Failure::new(what).because(&error).hint(hint).code(USAGE);
        if let Some(line) = text.lines().nth(error.line.saturating_sub(1)) {
            failure.causes.push(format!("in: {}", line.trim_end()));
        }
        failure
    })
}

fn network(from: &str) -> Result<serde_json::Value, Failure> {
    let wrong = || {
        let failure = Failure::new(format!("The network configuration '{from}' is wrong"));
        failure.hint("netplan's form: 'version: 2' and 'ethernets:'").code(USAGE)
    };
    let value = yaml::parse(&text(from)?).map_err(|error| wrong().because(&error))?;
    // Netplan's files have one more level.
    let inner = value.get("network").unwrap_or(&value).clone();
    match inner["version"].as_u64() {
        Some(1 | 2) => Ok(inner),
        _ => Err(wrong().hint("it needs 'version: 1' or 'version: 2' at its top")),
    }
}

fn public_key(path: &str) -> Result<String, Failure> {
    let line = text(path)?.trim().to_owned();
    let is_key = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| line.starts_with(start));
    match is_key && !line.contains('\n') {
        true => Ok(line),
        false => Err(Failure::new(format!("'{path}' is no public key of ssh"))
            .hint("such as ~/.ssh/id_ed25519.pub; never the private one")
            .code(USAGE)),
    }
}

fn refuse_what_spark_lacks(what: &Launch, data: Option<&UserData>) -> Result<(), Failure> {
    let config = data.and_then(|data| data.config.as_ref());
    let unknown = config
        .and_then(|config| config.keys().find(|key| !SPARK_KEYS.contains(&key.as_str())).cloned());
    let unknown = match (&what.network_config, what.packages.is_empty()) {
        (Some(_), _) => Some("network-config".to_owned()),
        (None, false) => Some("packages".to_owned()),
        (None, true) => unknown,
    };
    match unknown {
        Some(key) => Err(Failure::new(format!("The image 'spark' cannot do '{key}'"))
            .hint(format!("it does {}; 'debian' does all of cloud-init", SPARK_KEYS.join(", ")))
            .code(USAGE)),
        None => Ok(()),
    }
}

/// Where a machine's seed lies.
pub fn path(places: &Places, stem: &str) -> PathBuf {
    places.state.join("seeds").join(format!("{stem}.iso"))
}

/// A copy of a machine's seed for another one, which thereby has its own first boot.
pub fn copy(from: &Path, to: &Path, name: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(format!("The seed {} cannot be written", to.display())).because(&error)
    };
    let bytes = fs::read(from).map_err(failed)?;
    let image = guests::seed::renamed(&bytes, name, &format!("hostel-{}", random_word()));
    ssh::write_private(to, &image?).map_err(failed)
}
