//! `networks`: what machines can be connected to.

use serde_json::Map;

use crate::arguments::List as Listing;
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::output::List;

/// `hostel networks`.
pub fn run(what: &Listing) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let mut rows = Vec::new();
    let mut add = |name: &str, kind: &str, description: &str| {
        let mut row = Map::new();
        row.insert("name".into(), name.into());
        row.insert("type".into(), kind.into());
        row.insert("description".into(), description.into());
        rows.push(row);
    };
    add("user", "user", "The host's connections, with no privilege; 'hostel port' leads in");
    add("none", "none", "No network; exec, shell and transfer work all the same");
    let (networks, _) = connection.client.connect_list_all_networks(1, 0)?;
    for network in networks {
        let active = connection.client.network_is_active(network.clone())? != 0;
        let state = if active { "libvirt's, active" } else { "libvirt's, inactive" };
        add(&network.name, "virtual", state);
    }
    let list = List {
        name: "networks",
        columns: &[("Name", "name"), ("Type", "type"), ("Description", "description")],
        rows,
        empty: "",
    };
    list.print(what.format)?;
    Ok(0)
}
