//! `-object tls-creds-x509`: what servers of this process prove themselves with, by name.

use std::collections::BTreeMap;
use std::path::Path;

use display::secure::Credentials;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::networks::Members;

/// The objects so far, each with where its files are.
static ALL: Mutex<BTreeMap<String, (Files, Credentials)>> = Mutex::new(BTreeMap::new());

/// Where the files are, and whether clients need certificates of their own.
#[derive(Clone)]
struct Files {
    folder: String,
    verify_peer: bool,
}

type Result<T> = std::result::Result<T, String>;

/// Why other kinds of credentials are refused.
pub fn refused(kind: &str) -> Option<String> {
    let reason = match kind {
        "tls-creds-anon" => "anonymous TLS proves nothing to anybody",
        "tls-creds-psk" => "keys that both sides know are not spoken",
        _ => return None,
    };
    Some(format!("{kind} is not built in Hostel, {reason}: use tls-creds-x509"))
}

/// Makes one.
pub fn add(members: &Map<String, Value>) -> Result<()> {
    let mut members = Members(members.clone());
    members.text("qom-type");
    let id = members.needed("id")?;
    let folder = members.text("dir").ok_or("Missing 'dir' property value")?;
    match members.text("endpoint").as_deref() {
        Some("server") => {}
        None | Some("client") => {
            return Err("'endpoint=client' is not built in Hostel: endpoint=server".to_owned());
        }
        Some(other) => {
            return Err(format!("Parameter 'endpoint' does not accept value '{other}'"));
        }
    }
    let verify_peer = members.switch("verify-peer", true)?;
    members.switch("sanity-check", true)?; // what is not sane cannot be used in any case
    for name in ["priority", "passwordid"] {
        if members.text(name).is_some() {
            return Err(format!("'{name}' is not built in Hostel"));
        }
    }
    members.finish()?;
    let files = Files { folder, verify_peer };
    let credentials = load(&files)?;
    let mut all = ALL.lock();
    if all.contains_key(&id) {
        return Err(format!("attempt to add duplicate property '{id}' to object"));
    }
    all.insert(id, (files, credentials));
    Ok(())
}

fn load(files: &Files) -> Result<Credentials> {
    let read = |name: &str| {
        let path = Path::new(&files.folder).join(name);
        std::fs::read(&path).map_err(|error| {
            let reason = crate::character::reason(&error);
            format!("Unable to access credentials {}: {reason}", path.display())
        })
    };
    let signer = read("ca-cert.pem")?;
    let revoked = read("ca-crl.pem").ok();
    let (certificate, key) = (read("server-cert.pem")?, read("server-key.pem")?);
    let clients = files.verify_peer.then_some((&signer[..], revoked.as_deref()));
    let made = Credentials::x509(&certificate, &key, clients);
    made.map_err(|error| format!("{}: {error}", files.folder))
}

/// One by its name. `is_object`: there is something else of this name.
pub fn find(id: &str, is_object: bool) -> Result<Credentials> {
    match ALL.lock().get(id) {
        Some((_, credentials)) => Ok(credentials.clone()),
        None if is_object => Err(format!("Object with id '{id}' is not TLS credentials")),
        None => Err(format!("No TLS credentials with id '{id}'")),
    }
}

/// Reads the files of one again.
pub fn reload(id: &str) -> Result<Credentials> {
    let files = ALL.lock().get(id).map(|(files, _)| files.clone());
    let files = files.ok_or_else(|| format!("No TLS credentials with id '{id}'"))?;
    let credentials = load(&files)?;
    ALL.lock().insert(id.to_owned(), (files, credentials.clone()));
    Ok(credentials)
}

/// Takes one away; servers that use it keep it. False when there is none of this name.
pub fn remove(id: &str) -> bool {
    ALL.lock().remove(id).is_some()
}
