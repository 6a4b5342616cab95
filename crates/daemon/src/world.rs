//! What a URI opens: a hypervisor with its domains, networks, pools, secrets and devices.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use libvirt_compat::{Code, Error, Origin, Result};
use parking_lot::Mutex;

use crate::domains::Domains;
use crate::drivers::{DRIVERS, Driver};
use crate::hub::Hub;
use crate::networks::Networks;
use crate::node::Node;
use crate::options::Serve;
use crate::paths::Paths;
use crate::secrets::Secrets;
use crate::storage::Pools;

/// One hypervisor and everything a connection to it shows.
pub struct World {
    /// What `virsh uri` prints.
    pub uri: String,
    pub driver: Arc<dyn Driver>,
    pub domains: Domains,
    pub networks: Networks,
    pub pools: Pools,
    pub secrets: Secrets,
    pub node: Node,
    pub events: Hub,
    /// Where definitions are kept; a world in memory has none.
    pub place: Option<Place>,
}

/// A world's directories.
#[derive(Clone, Debug)]
pub struct Place {
    /// Definitions.
    pub state: PathBuf,
    /// What is gone after a boot.
    pub runtime: PathBuf,
}

/// A URI as clients send it, without transport and host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// `qemu`, `test`.
    pub scheme: String,
    /// `/system`, `/default`, a file.
    pub path: String,
}

impl Uri {
    /// Splits `scheme[+transport]://host/path?query`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let scheme = scheme.split('+').next()?.to_owned();
        let rest = rest.split('?').next()?;
        let path = match rest.strip_prefix("//") {
            Some(after) => after.find('/').map_or("", |slash| &after[slash..]),
            None => rest,
        };
        Some(Self { scheme, path: path.to_owned() })
    }
}

/// All worlds of the daemon.
pub struct Worlds {
    options: Serve,
    paths: Paths,
    /// By scheme and path. Held while a world is opened, so that it is opened once.
    open: Mutex<HashMap<(String, String), Arc<World>>>,
}

impl Worlds {
    /// Opens the worlds that live as long as the daemon.
    pub fn new(options: &Serve) -> Result<Arc<Self>> {
        let worlds = Arc::new(Self {
            options: options.clone(),
            paths: Paths::new(options),
            open: Mutex::default(),
        });
        for registration in DRIVERS {
            for world in (registration.start)(&worlds)? {
                let uri = Uri::parse(&world.uri).expect("a world's own URI can be parsed");
                worlds.open.lock().insert((uri.scheme, uri.path), world);
            }
        }
        Ok(worlds)
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    pub fn options(&self) -> &Serve {
        &self.options
    }

    /// The world behind a URI; an empty one means the daemon's own hypervisor.
    pub fn open(&self, uri: &str) -> Result<Arc<World>> {
        let uri = if uri.is_empty() { DRIVERS[0].default_uri(self.options.mode) } else { uri };
        let refuse = || Error::new(Code::NoConnect, uri).from(Origin::None);
        let parsed = Uri::parse(uri).ok_or_else(refuse)?;
        let registration = DRIVERS
            .iter()
            .find(|registration| registration.scheme == parsed.scheme)
            .ok_or_else(refuse)?;
        let mut open = self.open.lock();
        if let Some(world) = open.get(&(parsed.scheme.clone(), parsed.path.clone())) {
            return Ok(Arc::clone(world));
        }
        let (world, shared) = (registration.open)(self, &parsed)?;
        if shared {
            open.insert((parsed.scheme, parsed.path), Arc::clone(&world));
        }
        Ok(world)
    }

    /// Starts what is to be started with the host.
    pub fn autostart(&self) {
        let worlds: Vec<_> = self.open.lock().values().cloned().collect();
        for world in worlds {
            world.networks.autostart(&world);
            world.pools.autostart(&world);
            crate::domains::autostart(&world);
        }
    }

    /// Whether any domain runs, so that the daemon is still needed.
    pub fn any_active(&self) -> bool {
        self.open.lock().values().any(|world| {
            world.place.is_some() && world.domains.all().iter().any(|domain| domain.is_active())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_lose_transport_host_and_query() {
        for (text, scheme, path) in [
            ("qemu:///system", "qemu", "/system"),
            ("qemu+unix:///system?socket=/x/y", "qemu", "/system"),
            ("qemu+ssh://user@host:22/session", "qemu", "/session"),
            ("test:///path/to/file.xml", "test", "/path/to/file.xml"),
            ("test://host", "test", ""),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!((uri.scheme.as_str(), uri.path.as_str()), (scheme, path), "{text}");
        }
        assert_eq!(Uri::parse("nonsense"), None);
    }
}
