//! What goes through to the emulator, or to the agent in the guest.

use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, doing};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "domfsfreeze",
        syntax: "<domain> [<mountpoint>...]",
        summary: "Freeze domain's mounted filesystems.",
        run: |shell, given| freeze(shell, given, true),
    },
    Command {
        name: "domfsinfo",
        syntax: "<domain>",
        summary: "Get information of domain's mounted filesystems.",
        run: file_systems,
    },
    Command {
        name: "domfsthaw",
        syntax: "<domain> [<mountpoint>...]",
        summary: "Thaw domain's mounted filesystems.",
        run: |shell, given| freeze(shell, given, false),
    },
    Command {
        name: "domfstrim",
        syntax: "<domain> [<minimum>] [<mountpoint>]",
        summary: "Invoke fstrim on domain's mounted filesystems.",
        run: trim,
    },
    Command {
        name: "domhostname",
        syntax: "<domain> [<source>]",
        summary: "print the domain's hostname",
        run: hostname,
    },
    Command {
        name: "domtime",
        syntax: "<domain> [--now] [--pretty] [--sync] [--time <number>]",
        summary: "domain time",
        run: time,
    },
    Command {
        name: "qemu-agent-command",
        syntax: "<domain> [--timeout <number>] [--async] [--block] [--pretty] <cmd>...",
        summary: "QEMU Guest Agent Command",
        run: agent,
    },
    Command {
        name: "qemu-monitor-command",
        syntax: "<domain> [--hmp] [--pretty] [--return-value] <cmd>...",
        summary: "QEMU Monitor Command",
        run: monitor,
    },
    Command {
        name: "set-user-password",
        syntax: "<domain> <user> <password> [--encrypted]",
        summary: "set the user password inside the domain",
        run: password,
    },
];

/// JSON over several lines, as libvirt breaks it.
fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn agent(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_QEMU_AGENT_COMMAND_...`.
    const DEFAULT: i32 = -1;
    const BLOCK: i32 = -2;
    const NO_WAIT: i32 = 0;
    let domain = shell.domain(given)?;
    let mut chosen = Vec::new();
    if let Some(seconds) = given.number::<i32>("timeout")? {
        if seconds < 1 {
            return Err(Trouble::new("timeout must be positive"));
        }
        chosen.push(seconds);
    }
    for (flag, timeout) in [("async", NO_WAIT), ("block", BLOCK)] {
        if given.has(flag) {
            chosen.push(timeout);
        }
    }
    if chosen.len() > 1 {
        return Err(Trouble::new("timeout, async and block options are exclusive"));
    }
    let timeout = chosen.first().copied().unwrap_or(DEFAULT);
    let command = given.rest().join(" ");
    let client = &mut shell.connection.client;
    let said = client.qemu_domain_agent_command(domain, command, timeout, 0)?;
    let said = said.unwrap_or_default();
    if given.has("pretty")
        && let Ok(value) = serde_json::from_str::<serde_json::Value>(&said)
    {
        return Ok(pretty(&value));
    }
    Ok(format!("{said}\n"))
}

fn monitor(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[("hmp", "pretty"), ("hmp", "return-value")])?;
    let domain = shell.domain(given)?;
    let flags = given.bits(&[("hmp", 1)]);
    let mut command = given.rest().join(" ");
    if flags == 0 && !command.trim_start().starts_with('{') {
        command = serde_json::json!({"execute": command}).to_string();
    }
    let said = shell.connection.client.qemu_domain_monitor_command(domain, command, flags)?;
    if !given.has("pretty") && !given.has("return-value") {
        return Ok(format!("{said}\n"));
    }
    let Ok(mut value) = serde_json::from_str::<serde_json::Value>(&said) else {
        return Ok(format!("{said}\n"));
    };
    if given.has("return-value") {
        let part = value.get_mut("return").map(serde_json::Value::take);
        value = part.ok_or_else(|| Trouble::new("'return' member missing"))?;
    }
    Ok(match given.has("pretty") {
        // The last line end is the shell's.
        true => pretty(&value).trim_end().to_owned(),
        false => value.to_string(),
    })
}

fn freeze(shell: &mut Shell, given: &Given, freezes: bool) -> Outcome {
    let domain = shell.domain(given)?;
    let places = given.rest().to_vec();
    let client = &mut shell.connection.client;
    let (verb, done, count) = match freezes {
        true => ("freeze", "Froze", client.domain_fsfreeze(domain, places, 0)),
        false => ("thaw", "Thawed", client.domain_fsthaw(domain, places, 0)),
    };
    let count = doing(format!("Unable to {verb} filesystems"), count)?;
    shell.extra(format!("{done} {count} filesystem(s)\n"))
}

fn trim(shell: &mut Shell, given: &Given) -> Outcome {
    let minimum = given.scaled("minimum", "minimum", 1)?.unwrap_or(0);
    let domain = shell.domain(given)?;
    let place = given.text("mountpoint").map(str::to_owned);
    let done = shell.connection.client.domain_fstrim(domain, place, minimum, 0);
    doing("Unable to invoke fstrim", done)?;
    Ok(String::new())
}

fn file_systems(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let listed = shell.connection.client.domain_get_fsinfo(domain, 0);
    let (listed, _) = doing("Unable to get filesystem information", listed)?;
    if listed.is_empty() {
        return Err(Trouble::new("No filesystems are mounted in the domain"));
    }
    let rows: Vec<Vec<String>> = listed
        .into_iter()
        .map(|one| vec![one.mountpoint, one.name, one.fstype, one.dev_aliases.join(",")])
        .collect();
    let headings = &["Mountpoint", "Name", "Type", "Target"];
    Ok(super::table::draw(headings, &rows, shell.is_quiet))
}

fn hostname(shell: &mut Shell, given: &Given) -> Outcome {
    // VIR_DOMAIN_GET_HOSTNAME_...
    let flags = match given.text("source") {
        None => 0,
        Some("lease") => 1,
        Some("agent") => 2,
        Some(other) => return Err(Trouble::new(format!("Unknown data source '{other}'"))),
    };
    let domain = shell.domain(given)?;
    let name = shell.connection.client.domain_get_hostname(domain, flags);
    Ok(format!("{}\n", doing("failed to get hostname", name)?))
}

fn time(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_TIME_SYNC`.
    const SYNC: u32 = 1;
    given.exclusive(&[("time", "now"), ("time", "sync"), ("now", "sync")])?;
    let domain = shell.domain(given)?;
    let wanted: Option<i64> = given.number("time")?;
    let client = &mut shell.connection.client;
    if wanted.is_some() || given.has("now") || given.has("sync") {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(0);
        let seconds = if given.has("now") { now } else { wanted.unwrap_or(0) };
        client.domain_set_time(domain, seconds, 0, if given.has("sync") { SYNC } else { 0 })?;
        return Ok(String::new());
    }
    let (seconds, _) = client.domain_get_time(domain, 0)?;
    Ok(match given.has("pretty") {
        true => format!("Time: {}\n", super::moments::date(seconds).trim_end_matches(" +0000")),
        false => format!("Time: {seconds}\n"),
    })
}

fn password(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let flags = given.bits(&[("encrypted", 1)]);
    let text = |name: &str| given.text(name).map(str::to_owned);
    let (user, new) = (text("user"), text("password"));
    let name = user.clone().unwrap_or_default();
    let called = domain.name.clone();
    shell.connection.client.domain_set_user_password(domain, user, new, flags)?;
    shell.extra(format!("Password set successfully for {name} in {called}"))
}
