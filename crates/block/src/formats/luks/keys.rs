//! What users say about keys: options of new images, changes of keyslots, and what `info` shows.

use serde_json::{Map, Value, json};

use super::cipher::{SECTOR_BYTES, Scheme};
use super::header::{Hash, Header, Wanted};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::options::{CreateOptions, OptionKind, OptionSpec};
use crate::secrets;

/// What the passphrase's derivation takes unless told otherwise.
const ITERATION_MS: u64 = 2000;

/// What `amend` understands.
pub const AMEND_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "state",
        OptionKind::Text,
        "Select new state of affected keyslots (active/inactive)",
    ),
    OptionSpec::new("keyslot", OptionKind::Number, "Select a single keyslot to modify explicitly"),
    OptionSpec::new("old-secret", OptionKind::Text, "Select all keyslots that match this password"),
    OptionSpec::new(
        "new-secret",
        OptionKind::Text,
        "New secret to set in the matching keyslots. Empty string to erase",
    ),
    OptionSpec::new("iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
];

/// The header of a new image.
pub struct NewKeys {
    wanted: Wanted,
    passphrase: Vec<u8>,
    iteration_ms: u64,
}

impl NewKeys {
    /// Takes the options whose names begin with `prefix`.
    pub fn take(options: &CreateOptions, prefix: &str) -> Result<Self> {
        let text = |name: &str| options.text(&format!("{prefix}{name}"));
        let secret = text("key-secret").ok_or_else(|| {
            Error::invalid(format!("Parameter '{prefix}key-secret' is required for cipher"))
        })?;
        let passphrase = secrets::get(secret)?;
        let wanted = Self::wanted(options, prefix)?;
        let iteration_ms = options.number(&format!("{prefix}iter-time"))?.unwrap_or(ITERATION_MS);
        Ok(Self { wanted, passphrase, iteration_ms })
    }

    fn wanted(options: &CreateOptions, prefix: &str) -> Result<Wanted> {
        let text = |name: &str| options.text(&format!("{prefix}{name}"));
        let unsupported = |what: &str, name: &str| {
            Error::unsupported(format!("{what} '{name}' is not supported"))
        };
        let bits = match text("cipher-alg").unwrap_or("aes-256") {
            "aes-128" => 128,
            "aes-192" => 192,
            "aes-256" => 256,
            other => return Err(unsupported("Cipher algorithm", other)),
        };
        let mode = text("cipher-mode").unwrap_or("xts");
        let mut vectors = text("ivgen-alg").unwrap_or("plain64").to_owned();
        if vectors == "essiv" {
            vectors = format!("essiv:{}", text("ivgen-hash-alg").unwrap_or("sha256"));
        } else if text("ivgen-hash-alg").is_some() {
            return Err(Error::unsupported(format!("ivgen-hash-alg has no meaning for {vectors}")));
        }
        let scheme = Scheme::parse(&format!("{mode}-{vectors}"))
            .ok_or_else(|| unsupported("Cipher mode", &format!("{mode}-{vectors}")))?;
        let hash_name = text("hash-alg").unwrap_or("sha256");
        let hash =
            Hash::parse(hash_name).ok_or_else(|| unsupported("Hash algorithm", hash_name))?;
        Ok(Wanted { scheme, key_bytes: scheme.key_bytes(bits), hash })
    }

    /// The bytes of the header and all its slots for these options.
    pub fn bytes(options: &CreateOptions, prefix: &str) -> Result<u64> {
        Ok(Header::plan(0, &Self::wanted(options, prefix)?)?.bytes())
    }

    /// Writes the header at `base` and answers its bytes.
    pub fn create(&self, file: &dyn Node, base: u64) -> Result<u64> {
        let mut header = Header::plan(base, &self.wanted)?;
        header.create(file, &self.passphrase, self.iteration_ms)?;
        Ok(header.bytes())
    }
}

/// A change of keyslots.
pub struct Change {
    active: bool,
    slot: Option<usize>,
    old: Option<String>,
    new: Option<String>,
    iteration_ms: Option<u64>,
}

impl Change {
    /// Takes the options whose names begin with `prefix`.
    pub fn take(options: &CreateOptions, prefix: &str) -> Result<Self> {
        let text = |name: &str| options.text(&format!("{prefix}{name}")).map(str::to_owned);
        let number = |name: &str| options.number(&format!("{prefix}{name}"));
        let active = match text("state").as_deref() {
            Some("active") => true,
            Some("inactive") => false,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "Invalid parameter '{other}'\nAccepted values are 'active', 'inactive'"
                )));
            }
            None => return Err(Error::invalid(format!("Parameter '{prefix}state' is missing"))),
        };
        Ok(Self {
            active,
            slot: number("keyslot")?.map(|slot| usize::try_from(slot).unwrap_or(usize::MAX)),
            old: text("old-secret"),
            new: text("new-secret"),
            iteration_ms: number("iter-time")?,
        })
    }

    /// Carries it out. `secret` names what opened the image.
    pub fn apply(
        &self,
        header: &mut Header,
        file: &dyn Node,
        secret: Option<&str>,
        force: bool,
    ) -> Result<()> {
        if let Some(slot) = self.slot
            && slot >= header.slots.len()
        {
            return Err(Error::invalid(format!(
                "Invalid keyslot {} specified, must be between 0 and {}",
                slot as i64,
                header.slots.len() - 1
            )));
        }
        if self.active {
            self.add(header, file, secret, force)
        } else {
            self.erase(header, file, force)
        }
    }

    fn add(
        &self,
        header: &mut Header,
        file: &dyn Node,
        secret: Option<&str>,
        force: bool,
    ) -> Result<()> {
        let Some(new) = &self.new else {
            return Err(Error::invalid("'new-secret' is required to activate a keyslot"));
        };
        if self.old.is_some() {
            return Err(Error::invalid("'old-secret' must not be given when activating keyslots"));
        }
        let slot =
            match self.slot {
                Some(slot) if header.slots[slot].active && !force => {
                    return Err(Error::invalid(format!(
                        "Refusing to overwrite active keyslot {slot} - please erase it first"
                    )));
                }
                Some(slot) => slot,
                None => header.slots.iter().position(|slot| !slot.active).ok_or_else(|| {
                    Error::invalid("Can't add a keyslot - all keyslots are in use")
                })?,
            };
        let secret = secret
            .ok_or_else(|| Error::invalid("Parameter 'key-secret' is required for cipher"))?;
        let key = header.unlock(file, &secrets::get(secret)?)?;
        let time = self.iteration_ms.unwrap_or(ITERATION_MS);
        header.store_key(file, slot, &key, &secrets::get(new)?, time)
    }

    fn erase(&self, header: &mut Header, file: &dyn Node, force: bool) -> Result<()> {
        for (given, name) in
            [(self.new.is_some(), "new-secret"), (self.iteration_ms.is_some(), "iter-time")]
        {
            if given {
                return Err(Error::invalid(format!(
                    "'{name}' must not be given when erasing keyslots"
                )));
            }
        }
        let old = self.old.as_deref().map(secrets::get).transpose()?;
        let active = header.slots.iter().filter(|slot| slot.active).count();
        if let Some(slot) = self.slot {
            if let Some(old) = &old
                && header.unlock_slot(file, slot, old)?.is_none()
            {
                return Err(Error::invalid(format!(
                    "Given keyslot {slot} doesn't contain the given (old) password for erase operation"
                )));
            }
            if !force && !header.slots[slot].active {
                return Err(Error::invalid(format!(
                    "Given keyslot {slot} is already erased (inactive) "
                )));
            }
            if !force && active == 1 {
                return Err(Error::invalid(format!(
                    "Attempt to erase the only active keyslot {slot} which will erase all the data in the image irreversibly - refusing operation"
                )));
            }
            return header.erase_slot(file, slot);
        }
        let Some(old) = old else {
            return Err(Error::invalid(
                "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given",
            ));
        };
        let mut chosen = Vec::new();
        for slot in 0..header.slots.len() {
            if header.unlock_slot(file, slot, &old)?.is_some() {
                chosen.push(slot);
            }
        }
        if chosen.is_empty() {
            return Err(Error::invalid(
                "No keyslots match given (old) password for erase operation",
            ));
        }
        if !force && chosen.len() == active {
            return Err(Error::invalid(
                "All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation",
            ));
        }
        chosen.into_iter().try_for_each(|slot| header.erase_slot(file, slot))
    }
}

/// What `info` shows of a header; the payload only where there is one.
pub fn describe(header: &Header, payload: bool) -> Map<String, Value> {
    let slots = header.slots.iter().map(|slot| {
        let offset = u64::from(slot.offset_sectors) * SECTOR_BYTES as u64;
        if slot.active {
            json!({"active": true, "iters": slot.iterations, "key-offset": offset, "stripes": slot.stripes})
        } else {
            json!({"active": false, "key-offset": offset})
        }
    });
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| _ = data.insert(name.to_owned(), value);
    put("ivgen-alg", header.scheme.vectors_name().into());
    if header.scheme.vectors_name() == "essiv" {
        put("ivgen-hash-alg", "sha256".into());
    }
    put("detached-header", false.into());
    put("hash-alg", header.hash.name().into());
    put("cipher-alg", header.scheme.algorithm(header.key_bytes).into());
    put("uuid", header.uuid.clone().into());
    if !payload {
        put("format", "luks".into());
    }
    put("cipher-mode", header.scheme.mode_name().into());
    put("slots", Value::Array(slots.collect()));
    put("payload-offset", header.bytes().into());
    put("master-key-iters", header.digest_iterations.into());
    data
}
