//! Snapshots.

use libvirt_compat::rpc::types::Snapshot;
use libvirt_compat::xml::{Element, parse};

use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, table};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "snapshot-create-as",
        syntax: "<domain> [<name>] [<description>] [--print-xml] [--no-metadata] [--halt] [--disk-only] [--atomic] [--live]",
        summary: "Create a snapshot from a set of args",
        run: create_as,
    },
    Command {
        name: "snapshot-current",
        syntax: "<domain> [--name]",
        summary: "Get or set the current snapshot",
        run: current,
    },
    Command {
        name: "snapshot-delete",
        syntax: "<domain> [<snapshotname>] [--current] [--children] [--children-only] [--metadata]",
        summary: "Delete a domain snapshot",
        run: delete,
    },
    Command {
        name: "snapshot-dumpxml",
        syntax: "<domain> <snapshotname>",
        summary: "Dump XML for a domain snapshot",
        run: |shell, given| {
            let snapshot = find(shell, given)?;
            Ok(shell.connection.client.domain_snapshot_get_xml_desc(snapshot, 0)?)
        },
    },
    Command {
        name: "snapshot-list",
        syntax: "<domain> [--name] [--parent]",
        summary: "List snapshots for a domain",
        run: list,
    },
    Command {
        name: "snapshot-parent",
        syntax: "<domain> [<snapshotname>] [--current]",
        summary: "Get the name of the parent of a snapshot",
        run: |shell, given| {
            let snapshot = find(shell, given)?;
            Ok(format!(
                "{}\n",
                shell.connection.client.domain_snapshot_get_parent(snapshot, 0)?.name
            ))
        },
    },
    Command {
        name: "snapshot-revert",
        syntax: "<domain> [<snapshotname>] [--current] [--running] [--paused] [--force]",
        summary: "Revert a domain to a snapshot",
        run: revert,
    },
];

fn find(shell: &mut Shell, given: &Given) -> Result<Snapshot, Trouble> {
    let domain = shell.domain(given)?;
    let client = &mut shell.connection.client;
    if given.has("current") {
        return Ok(client.domain_snapshot_current(domain, 0)?);
    }
    let name = given
        .text("snapshotname")
        .ok_or_else(|| Trouble::new("--snapshotname or --current is required"))?;
    Ok(client.domain_snapshot_lookup_by_name(domain, name.to_owned(), 0)?)
}

fn create_as(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let mut document = Element::new("domainsnapshot");
    for name in ["name", "description"] {
        if let Some(text) = given.text(name) {
            document.push(Element::with_text(name, text));
        }
    }
    if given.has("print-xml") {
        return Ok(document.to_xml());
    }
    let flags = given.bits(&[
        ("no-metadata", 4),
        ("halt", 8),
        ("disk-only", 16),
        ("atomic", 128),
        ("live", 256),
    ]);
    let client = &mut shell.connection.client;
    let made = client.domain_snapshot_create_xml(domain, document.to_xml(), flags)?;
    Ok(format!("Domain snapshot {} created\n", made.name))
}

fn current(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let client = &mut shell.connection.client;
    if client.domain_has_current_snapshot(domain.clone(), 0)? == 0 {
        return Err(Trouble::new(format!("domain '{}' has no current snapshot", domain.name)));
    }
    let snapshot = client.domain_snapshot_current(domain, 0)?;
    Ok(match given.has("name") {
        true => format!("{}\n", snapshot.name),
        false => client.domain_snapshot_get_xml_desc(snapshot, 0)?,
    })
}

fn delete(shell: &mut Shell, given: &Given) -> Outcome {
    let snapshot = find(shell, given)?;
    let flags = given.bits(&[("children", 1), ("metadata", 2), ("children-only", 4)]);
    let name = snapshot.name.clone();
    shell.connection.client.domain_snapshot_delete(snapshot, flags)?;
    Ok(match given.has("children-only") {
        true => format!("Domain snapshot {name} children deleted\n"),
        false => format!("Domain snapshot {name} deleted\n"),
    })
}

fn revert(shell: &mut Shell, given: &Given) -> Outcome {
    let snapshot = find(shell, given)?;
    let flags = given.bits(&[("running", 1), ("paused", 2), ("force", 4)]);
    let name = snapshot.name.clone();
    shell.connection.client.domain_revert_to_snapshot(snapshot, flags)?;
    Ok(format!("Domain snapshot {name} reverted\n"))
}

fn list(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let client = &mut shell.connection.client;
    let (mut snapshots, _) = client.domain_list_all_snapshots(domain, 1, 0)?;
    snapshots.sort_by(|a, b| a.name.cmp(&b.name));
    if given.has("name") {
        return Ok(snapshots.iter().map(|snapshot| snapshot.name.clone() + "\n").collect());
    }
    let mut rows = Vec::new();
    for snapshot in snapshots {
        let name = snapshot.name.clone();
        let text = client.domain_snapshot_get_xml_desc(snapshot, 0)?;
        let document = parse(&text, "(domain_snapshot)")?;
        let seconds = document.text_at("creationTime").and_then(|text| text.parse().ok());
        let mut row =
            vec![name, moment(seconds.unwrap_or(0)), document.text_at("state").unwrap_or_default()];
        if given.has("parent") {
            row.push(document.text_at("parent/name").unwrap_or_default());
        }
        rows.push(row);
    }
    let headings = match given.has("parent") {
        true => &["Name", "Creation Time", "State", "Parent"][..],
        false => &["Name", "Creation Time", "State"],
    };
    Ok(table::draw(headings, &rows, shell.is_quiet))
}

/// Seconds since 1970 as a date, in universal time.
fn moment(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March have their odd day at the end.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} +0000",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 +0000"),
            (951_782_399, "2000-02-28 23:59:59 +0000"),
            (951_782_400, "2000-02-29 00:00:00 +0000"),
            (1_795_284_377, "2026-11-21 18:06:17 +0000"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }
}
