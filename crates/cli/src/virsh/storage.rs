//! Storage pools and volumes.

use std::fs;

use libvirt_compat::Uuid;
use libvirt_compat::rpc::types::{StoragePool, StorageVol};
use libvirt_compat::xml::Element;

use super::syntax::Given;
use super::{Client, Command, Outcome, Shell, Thing, Trouble, autostart, doing, table};
use crate::arguments::bytes;

pub const COMMANDS: &[Command] = &[
    Command {
        name: "pool-autostart",
        syntax: "<pool> [--disable]",
        summary: "autostart a pool",
        run: autostart::<StoragePool>,
    },
    Command {
        name: "pool-build",
        syntax: "<pool>",
        summary: "build a pool",
        run: |shell, given| {
            shell.act::<StoragePool>(given, "build", "built", |client, pool| {
                client.storage_pool_build(pool, 0)
            })
        },
    },
    Command {
        name: "pool-define",
        syntax: "<file>",
        summary: "define an inactive persistent storage pool or modify an existing persistent one from an XML file",
        run: define,
    },
    Command {
        name: "pool-destroy",
        syntax: "<pool>",
        summary: "destroy (stop) a pool",
        run: |shell, given| {
            shell.act::<StoragePool>(given, "destroy", "destroyed", |client, pool| {
                client.storage_pool_destroy(pool)
            })
        },
    },
    Command {
        name: "pool-dumpxml",
        syntax: "<pool>",
        summary: "pool information in XML",
        run: |shell, given| {
            let pool = pool(shell, given)?;
            Ok(shell.connection.client.storage_pool_get_xml_desc(pool, 0)?)
        },
    },
    Command {
        name: "pool-list",
        syntax: "[--inactive] [--all] [--name]",
        summary: "list pools",
        run: list,
    },
    Command {
        name: "pool-refresh",
        syntax: "<pool>",
        summary: "refresh a pool",
        run: |shell, given| {
            shell.act::<StoragePool>(given, "refresh", "refreshed", |client, pool| {
                client.storage_pool_refresh(pool, 0)
            })
        },
    },
    Command {
        name: "pool-start",
        syntax: "<pool>",
        summary: "start a (previously defined) inactive pool",
        run: |shell, given| {
            shell.act::<StoragePool>(given, "start", "started", |client, pool| {
                client.storage_pool_create(pool, 0)
            })
        },
    },
    Command {
        name: "pool-undefine",
        syntax: "<pool>",
        summary: "undefine an inactive pool",
        run: |shell, given| {
            shell.act::<StoragePool>(given, "undefine", "has been undefined", |client, pool| {
                client.storage_pool_undefine(pool)
            })
        },
    },
    Command {
        name: "vol-create-as",
        syntax: "<pool> <name> <capacity> [--format <string>]",
        summary: "create a volume from a set of args",
        run: create_volume,
    },
    Command {
        name: "vol-delete",
        syntax: "<vol> [--pool <string>]",
        summary: "delete a vol",
        run: delete_volume,
    },
    Command {
        name: "vol-dumpxml",
        syntax: "<vol> [--pool <string>]",
        summary: "vol information in XML",
        run: |shell, given| {
            let volume = volume(shell, given)?;
            Ok(shell.connection.client.storage_vol_get_xml_desc(volume, 0)?)
        },
    },
    Command { name: "vol-list", syntax: "<pool>", summary: "list vols", run: volumes },
    Command {
        name: "vol-path",
        syntax: "<vol> [--pool <string>]",
        summary: "returns the volume path for a given volume name or key",
        run: |shell, given| {
            let volume = volume(shell, given)?;
            Ok(format!("{}\n", shell.connection.client.storage_vol_get_path(volume)?))
        },
    },
];

impl Thing for StoragePool {
    const KIND: &'static str = "Pool";
    const QUOTE: &'static str = "";
    const FAILED: &'static str = "failed";

    fn find(shell: &mut Shell, given: &Given) -> Result<Self, Trouble> {
        pool(shell, given)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn set_autostart(self, client: &mut Client, on: i32) -> libvirt_compat::Result<()> {
        client.storage_pool_set_autostart(self, on)
    }
}

fn pool(shell: &mut Shell, given: &Given) -> Result<StoragePool, Trouble> {
    let word = given.text("pool").unwrap_or_default().to_owned();
    let client = &mut shell.connection.client;
    if let Some(uuid) = Uuid::parse(&word)
        && let Ok(pool) = client.storage_pool_lookup_by_uuid(uuid)
    {
        return Ok(pool);
    }
    let found = client.storage_pool_lookup_by_name(word.clone());
    found.map_err(|error| Trouble(vec![format!("failed to get pool '{word}'"), error.to_string()]))
}

fn volume(shell: &mut Shell, given: &Given) -> Result<StorageVol, Trouble> {
    let word = given.text("vol").unwrap_or_default().to_owned();
    if given.text("pool").is_some() {
        let pool = pool(shell, given)?;
        let found = shell.connection.client.storage_vol_lookup_by_name(pool, word.clone());
        return doing(format!("failed to get vol '{word}'"), found);
    }
    let client = &mut shell.connection.client;
    if let Ok(volume) = client.storage_vol_lookup_by_key(word.clone()) {
        return Ok(volume);
    }
    let found = client.storage_vol_lookup_by_path(word.clone());
    doing(format!("failed to get vol '{word}', specifying --pool might help"), found)
}

fn define(shell: &mut Shell, given: &Given) -> Outcome {
    let file = given.text("file").unwrap_or_default();
    let text = fs::read_to_string(file).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_owned();
        Trouble::new(format!("Failed to open file '{file}': {text}"))
    })?;
    let defined = shell.connection.client.storage_pool_define_xml(text, 0);
    let pool = doing(format!("Failed to define pool from {file}"), defined)?;
    shell.extra(format!("Pool {} defined from {file}\n", pool.name))
}

fn list(shell: &mut Shell, given: &Given) -> Outcome {
    let flags = match (given.has("inactive"), given.has("all")) {
        (_, true) => 3,
        (true, false) => 1,
        (false, false) => 2,
    };
    let client = &mut shell.connection.client;
    let (mut pools, _) = client.connect_list_all_storage_pools(1, flags)?;
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    if given.has("name") {
        return Ok(pools.iter().map(|pool| pool.name.clone() + "\n").collect());
    }
    let mut rows = Vec::new();
    for pool in pools {
        let is_active = client.storage_pool_is_active(pool.clone())? != 0;
        let autostart = client.storage_pool_get_autostart(pool.clone())? != 0;
        rows.push(vec![
            pool.name,
            if is_active { "active" } else { "inactive" }.to_owned(),
            if autostart { "yes" } else { "no" }.to_owned(),
        ]);
    }
    Ok(table::draw(&["Name", "State", "Autostart"], &rows, shell.is_quiet))
}

fn volumes(shell: &mut Shell, given: &Given) -> Outcome {
    let pool = pool(shell, given)?;
    let client = &mut shell.connection.client;
    let listed = doing("Failed to list volumes", client.storage_pool_list_all_volumes(pool, 1, 0));
    let (mut volumes, _) = listed?;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rows = Vec::new();
    for volume in volumes {
        let name = volume.name.clone();
        rows.push(vec![name, client.storage_vol_get_path(volume)?]);
    }
    Ok(table::draw(&["Name", "Path"], &rows, shell.is_quiet))
}

fn create_volume(shell: &mut Shell, given: &Given) -> Outcome {
    let pool = pool(shell, given)?;
    let name = given.text("name").unwrap_or_default();
    let text = given.text("capacity").unwrap_or_default();
    let capacity = bytes(text).map_err(|_| Trouble::new(format!("Malformed size {text}")))?;
    let mut document = Element::new("volume")
        .with_child(Element::with_text("name", name))
        .with_child(Element::with_text("capacity", capacity))
        .with_child(Element::with_text("allocation", 0));
    if let Some(format) = given.text("format") {
        let target = Element::new("target");
        document.push(target.with_child(Element::new("format").with("type", format)));
    }
    let made = shell.connection.client.storage_vol_create_xml(pool, document.to_xml(), 0);
    doing(format!("Failed to create vol {name}"), made)?;
    shell.extra(format!("Vol {name} created\n"))
}

fn delete_volume(shell: &mut Shell, given: &Given) -> Outcome {
    let volume = volume(shell, given)?;
    let name = given.text("vol").unwrap_or_default();
    let deleted = shell.connection.client.storage_vol_delete(volume, 0);
    doing(format!("Failed to delete vol {name}"), deleted)?;
    shell.extra(format!("Vol {name} deleted\n"))
}
