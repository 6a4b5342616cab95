//! Virtual processors: how many, and where they run.

use libvirt_compat::rpc::xdr::Opaque;

use super::domain::affected;
use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, table, unserved};

pub const COMMANDS: &[Command] = &[
    Command {
        name: "emulatorpin",
        syntax: "<domain> [<cpulist>] [--config] [--live] [--current]",
        summary: "control or query domain emulator affinity",
        run: emulator_pin,
    },
    Command {
        name: "setvcpus",
        syntax: "<domain> <count> [--maximum] [--config] [--live] [--current]",
        summary: "change number of virtual CPUs",
        run: set_cpus,
    },
    Command {
        name: "vcpucount",
        syntax: "<domain>",
        summary: "domain vcpu counts",
        run: cpu_count,
    },
    Command {
        name: "vcpuinfo",
        syntax: "<domain> [--pretty]",
        summary: "detailed domain vcpu information",
        run: info,
    },
    Command {
        name: "vcpupin",
        syntax: "<domain> [<vcpu>] [<cpulist>] [--config] [--live] [--current]",
        summary: "control or query domain vcpu affinity",
        run: pin,
    },
];

fn set_cpus(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let text = given.text("count").unwrap_or_default();
    let count: u32 = text.parse().map_err(|_| {
        Trouble::new(format!(
            "Numeric value '{text}' for <count> option is malformed or out of range"
        ))
    })?;
    if count == 0 {
        return Err(Trouble::new("Can't set 0 processors for a VM"));
    }
    let flags = affected(given) | given.bits(&[("maximum", 4)]);
    match flags {
        0 if !given.has("current") => shell.connection.client.domain_set_vcpus(domain, count)?,
        flags => shell.connection.client.domain_set_vcpus_flags(domain, count, flags)?,
    }
    Ok(String::new())
}

fn cpu_count(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_AFFECT_LIVE`, `..._CONFIG`, `VIR_DOMAIN_VCPU_MAXIMUM`.
    const ROWS: &[(&str, &str, u32)] = &[
        ("maximum", "config", 2 | 4),
        ("maximum", "live", 1 | 4),
        ("current", "config", 2),
        ("current", "live", 1),
    ];
    let domain = shell.domain(given)?;
    let mut text = String::new();
    for (what, place, flags) in ROWS {
        if *place == "live" && domain.id < 0 {
            continue;
        }
        let count = shell.connection.client.domain_get_vcpus_flags(domain.clone(), *flags)?;
        text.push_str(&format!("{what:<12} {place:<12} {count:>3}\n"));
    }
    Ok(text)
}

/// How many processors the host has, and how many bytes a map of them takes.
fn host(shell: &mut Shell) -> Result<(u32, i32), Trouble> {
    let (_, _, count) = shell.connection.client.node_get_cpu_map(0, 0, 0)?;
    let count = u32::try_from(count).unwrap_or(0);
    Ok((count, i32::try_from(count.div_ceil(8)).unwrap_or(0)))
}

fn has(map: &[u8], cpu: u32) -> bool {
    map.get(cpu as usize / 8).is_some_and(|byte| byte >> (cpu % 8) & 1 != 0)
}

/// `0-3,5`.
fn list(map: &[u8], count: u32) -> String {
    let mut ranges = Vec::new();
    let mut cpu = 0;
    while cpu < count {
        if !has(map, cpu) {
            cpu += 1;
            continue;
        }
        let first = cpu;
        while cpu < count && has(map, cpu) {
            cpu += 1;
        }
        ranges.push(match cpu - first {
            1 => first.to_string(),
            _ => format!("{first}-{}", cpu - 1),
        });
    }
    ranges.join(",")
}

/// `0-3,^2`, or `r` for all.
fn map(text: &str, count: u32, bytes: i32) -> Result<Vec<u8>, Trouble> {
    let wrong = || {
        let reason = format!("invalid argument: Failed to parse bitmap '{text}'");
        Trouble(vec![format!("Invalid cpulist '{text}'"), reason])
    };
    let mut map = vec![0u8; usize::try_from(bytes).unwrap_or(0)];
    let mut set = |first: u32, last: u32, on: bool| {
        for cpu in first..=last.min(count.saturating_sub(1)) {
            let bit = 1 << (cpu % 8);
            let byte = &mut map[cpu as usize / 8];
            *byte = if on { *byte | bit } else { *byte & !bit };
        }
    };
    if text == "r" {
        set(0, count.saturating_sub(1), true);
        return Ok(map);
    }
    for part in text.split(',') {
        let (part, on) = part.strip_prefix('^').map_or((part, true), |part| (part, false));
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        match part.split_once('-') {
            Some((first, last)) => set(number(first)?, number(last)?, on),
            None => set(number(part)?, number(part)?, on),
        }
    }
    Ok(map)
}

/// Bit maps of the virtual processors, as they are pinned.
fn maps(shell: &mut Shell, given: &Given) -> Result<Vec<Vec<u8>>, Trouble> {
    let domain = shell.domain(given)?;
    let (_, bytes) = host(shell)?;
    // VIR_DOMAIN_AFFECT_CONFIG shows an inactive one's.
    let flags = match affected(given) {
        0 if domain.id < 0 => 2,
        flags => flags,
    };
    let client = &mut shell.connection.client;
    let count =
        client.domain_get_vcpus_flags(domain.clone(), if flags & 2 != 0 { 2 } else { 1 })?;
    let (all, _) = client.domain_get_vcpu_pin_info(domain, count, bytes, flags)?;
    Ok(all.0.chunks(usize::try_from(bytes).unwrap_or(1).max(1)).map(<[u8]>::to_vec).collect())
}

fn pin(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[("current", "live"), ("current", "config")])?;
    let domain = shell.domain(given)?;
    let wanted: Option<u32> = given.number("vcpu")?;
    let (count, bytes) = host(shell)?;
    let Some(cpulist) = given.text("cpulist") else {
        let maps = maps(shell, given)?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted as usize >= maps.len()) {
            let place = if domain.id < 0 || given.has("config") { "persistent" } else { "live" };
            let text = format!("vcpu {wanted} is out of range of {place} cpu count {}", maps.len());
            return Err(Trouble::new(text));
        }
        let rows: Vec<Vec<String>> = maps
            .iter()
            .enumerate()
            .filter(|(place, _)| wanted.is_none_or(|wanted| wanted as usize == *place))
            .map(|(place, map)| vec![place.to_string(), list(map, count)])
            .collect();
        return Ok(table::draw(&["VCPU", "CPU Affinity"], &rows, shell.is_quiet));
    };
    let Some(vcpu) = wanted else {
        return Err(Trouble::new("vcpupin: Missing vCPU number in pin mode."));
    };
    let map = Opaque(map(cpulist, count, bytes)?);
    let client = &mut shell.connection.client;
    match affected(given) {
        0 if !given.has("current") => client.domain_pin_vcpu(domain, vcpu, map)?,
        flags => client.domain_pin_vcpu_flags(domain, vcpu, map, flags)?,
    }
    Ok(String::new())
}

fn emulator_pin(shell: &mut Shell, given: &Given) -> Outcome {
    given.exclusive(&[("current", "live"), ("current", "config")])?;
    let domain = shell.domain(given)?;
    let (count, bytes) = host(shell)?;
    if let Some(cpulist) = given.text("cpulist") {
        map(cpulist, count, bytes)?;
        return Err(unserved("virDomainPinEmulator"));
    }
    let flags = affected(given);
    let client = &mut shell.connection.client;
    let (map, _) = client.domain_get_emulator_pin_info(domain, bytes, flags)?;
    let heading = format!("emulator: CPU Affinity\n{}\n", "-".repeat(34));
    let heading = shell.extra(heading)?;
    Ok(format!("{heading}       *: {}\n", list(&map.0, count)))
}

fn info(shell: &mut Shell, given: &Given) -> Outcome {
    const STATES: &[&str] = &["offline", "running", "blocked"];
    let domain = shell.domain(given)?;
    let (count, bytes) = host(shell)?;
    let affinity = |map: &[u8]| match given.has("pretty") {
        true => format!("{:<15} {} (out of {count})\n", "CPU Affinity:", list(map, count)),
        false => {
            let signs = (0..count).map(|cpu| if has(map, cpu) { 'y' } else { '-' });
            format!("{:<15} {}\n", "CPU Affinity:", signs.collect::<String>())
        }
    };
    let mut blocks = Vec::new();
    if domain.id < 0 {
        for (place, map) in maps(shell, given)?.iter().enumerate() {
            blocks.push(format!(
                "{:<15} {place}\n{:<15} N/A\n{:<15} N/A\n{:<15} N/A\n{}",
                "VCPU:",
                "CPU:",
                "State:",
                "CPU time",
                affinity(map)
            ));
        }
        return Ok(blocks.join("\n"));
    }
    let client = &mut shell.connection.client;
    let vcpus = client.domain_get_vcpus_flags(domain.clone(), 1)?;
    let (all, map) = client.domain_get_vcpus(domain, vcpus, bytes)?;
    let width = usize::try_from(bytes).unwrap_or(1).max(1);
    for (place, vcpu) in all.iter().enumerate() {
        let state = usize::try_from(vcpu.state).ok().and_then(|state| STATES.get(state));
        let seconds = vcpu.cpu_time as f64 / 1e9;
        let map = map.0.get(place * width..).unwrap_or_default();
        blocks.push(format!(
            "{:<15} {}\n{:<15} {}\n{:<15} {}\n{:<15} {seconds:.1}s\n{}",
            "VCPU:",
            vcpu.number,
            "CPU:",
            vcpu.cpu,
            "State:",
            state.unwrap_or(&"no state"),
            "CPU time:",
            affinity(map)
        ));
    }
    Ok(blocks.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_maps_of_processors_fit() {
        for (text, said) in [("0-3,^2", "0-1,3"), ("1", "1"), ("r", "0-8"), ("0,8", "0,8")] {
            let Ok(map) = map(text, 9, 2) else { panic!("{text}") };
            assert_eq!(list(&map, 9), said);
        }
        assert!(map("frob", 9, 2).is_err());
    }
}
