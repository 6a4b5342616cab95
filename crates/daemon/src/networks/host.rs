//! Making a network on this host: a bridge with addresses, one transaction of filter rules, and
//! the services on it. All of it is undone when the network stops or a step fails.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use libvirt_compat::xml::Element;
use libvirt_compat::{Code, Error, Origin, Result};
use linux::netlink::filter;
use linux::netlink::route::Route;
use net::bridge::{Service, Watcher};
use net::dhcp::Lease;

use super::plan::{self, Address, Mode, Plan};
use crate::files;

/// A network that is up.
pub struct Running {
    /// `None` on a bridge that somebody else made.
    service: Option<Service>,
    leases: PathBuf,
    bridge: String,
    table: Option<String>,
    /// Whether the bridge goes with the network.
    owned: bool,
}

/// Whether this process may make links: `CAP_NET_ADMIN`.
pub fn is_permitted() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .is_some_and(|set| set & NET_ADMIN != 0)
}

fn failed(doing: String) -> impl FnOnce(io::Error) -> Error {
    move |error| files::system(doing, &error).from(Origin::Network)
}

impl Running {
    /// Makes everything. With `again` the bridge is there already, left by an earlier daemon.
    pub fn start(document: &Element, leases: PathBuf, again: bool) -> Result<Self> {
        let plan = plan::plan(document, &leases)?;
        let mut running = Self {
            service: None,
            leases,
            bridge: plan.bridge.name.clone(),
            table: None,
            owned: false,
        };
        if plan.mode == Mode::Bridge {
            let route = Route::new().map_err(failed("cannot open netlink".to_owned()))?;
            let doing = format!("Cannot get interface index of '{}'", plan.bridge.name);
            route.index(&plan.bridge.name).map_err(failed(doing))?;
            return Ok(running);
        }
        match running.make(plan, again) {
            Ok(()) => Ok(running),
            Err(error) => {
                if !again {
                    running.stop();
                }
                Err(error)
            }
        }
    }

    fn make(&mut self, plan: Plan, again: bool) -> Result<()> {
        let name = plan.bridge.name.clone();
        let route = Route::new().map_err(failed("cannot open netlink".to_owned()))?;
        if !again {
            check_overlap(&route, &name, &plan.addresses)?;
            let doing = format!("error creating bridge interface {name}");
            route.add_bridge(&plan.bridge).map_err(failed(doing))?;
        }
        self.owned = true;
        let six = plan.addresses.iter().any(|own| own.address.is_ipv6());
        set(&format!("ipv6/conf/{name}/disable_ipv6"), if six { "0" } else { "1" });
        set(&format!("ipv6/conf/{name}/accept_ra"), "0");
        for Address { address, prefix } in &plan.addresses {
            let doing = format!("failed to add address {address}/{prefix} to '{name}'");
            route.add_address(&name, *address, *prefix).map_err(failed(doing))?;
        }
        route.set_up(&name, true).map_err(failed(format!("cannot bring '{name}' up")))?;
        for (network, gateway, metric) in &plan.routes {
            let result = route.add_route(&name, *network, *gateway, *metric);
            let known = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
            if result.as_ref().err().is_none_or(|error| !known(error)) {
                let (to, bits) = network;
                result.map_err(failed(format!("failed to add route {to}/{bits} to '{name}'")))?;
            }
        }
        if plan.mode != Mode::Isolated {
            forward(plan.addresses.iter().any(|own| own.address.is_ipv4()), six)?;
        }
        let mut watcher: Option<Watcher> = None;
        if let Some(table) = plan.table {
            let doing = format!("Failed to apply firewall rules of table '{}'", table.name);
            filter::replace(&table).map_err(failed(doing))?;
            self.table = Some(table.name.clone());
            // Somebody who flushes all rules does not mean ours.
            watcher = Some(Box::new(move || {
                if filter::exists(&table.name).is_ok_and(|exists| !exists)
                    && let Err(error) = filter::replace(&table)
                {
                    eprintln!("warning: Cannot restore the table '{}': {error}", table.name);
                }
            }));
        }
        let service = Service::start(plan.service, watcher);
        let doing = format!("Cannot serve DHCP and DNS on '{name}'");
        self.service = Some(service.map_err(failed(doing))?);
        Ok(())
    }

    /// Takes everything down.
    pub fn stop(&mut self) {
        // First the watcher, which would restore the rules.
        self.service = None;
        if let Some(table) = self.table.take()
            && let Err(error) = filter::remove(&table)
        {
            eprintln!("warning: Cannot remove the table '{table}': {error}");
        }
        if self.owned
            && let Err(error) = Route::new().and_then(|route| route.remove(&self.bridge))
        {
            eprintln!("warning: Cannot remove the bridge '{}': {error}", self.bridge);
        }
        self.owned = false;
    }

    /// The bridge that guests are plugged into.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Who has which address.
    pub fn leases(&self) -> Vec<Lease> {
        self.service.as_ref().map(Service::leases).unwrap_or_default()
    }

    /// Obeys a changed document, as far as services are concerned.
    pub fn change(&self, document: &Element) -> Result<()> {
        let plan = plan::plan(document, &self.leases)?;
        if let Some(service) = &self.service {
            service.change(plan.service.dhcp, plan.service.names.map(|(names, _)| names));
        }
        Ok(())
    }
}

/// A network that the host reaches elsewhere would be cut off.
fn check_overlap(route: &Route, bridge: &str, addresses: &[Address]) -> Result<()> {
    let known = route.addresses().map_err(failed("cannot list addresses".to_owned()))?;
    for own in addresses {
        for (index, other, prefix) in &known {
            let bits = own.prefix.min(*prefix);
            if same_network(own.address, *other, bits) && bits > 0 {
                let link = link_name(*index).unwrap_or_default();
                if link == bridge || link == "lo" {
                    continue;
                }
                let text = format!("Network is already in use by interface {link}");
                return Err(Error::new(Code::InternalError, text).from(Origin::Network));
            }
        }
    }
    Ok(())
}

fn same_network(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(one) & mask == u32::from(other) & mask
        }
        (IpAddr::V6(one), IpAddr::V6(other)) if !one.is_unicast_link_local() => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(one) & mask == u128::from(other) & mask
        }
        _ => false,
    }
}

fn link_name(index: u32) -> Option<String> {
    let entries = fs::read_dir("/sys/class/net").ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path())).find_map(|path| {
        let own = fs::read_to_string(path.join("ifindex")).ok()?;
        (own.trim().parse() == Ok(index)).then(|| path.file_name()?.to_str().map(str::to_owned))?
    })
}

/// A switch of the kernel's that may be missing.
fn set(name: &str, value: &str) {
    _ = fs::write(Path::new("/proc/sys/net").join(name), value);
}

/// Lets the kernel pass packets on between links.
fn forward(four: bool, six: bool) -> Result<()> {
    let switches = [(four, "ipv4/ip_forward"), (six, "ipv6/conf/all/forwarding")];
    for (_, name) in switches.into_iter().filter(|(wanted, _)| *wanted) {
        let path = Path::new("/proc/sys/net").join(name);
        let known = fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1");
        if !known && let Err(error) = fs::write(&path, "1") {
            return Err(files::system("failed to enable IP forwarding", &error));
        }
    }
    Ok(())
}
