//! `top`: what machines are using, seen from this host.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, json};

use crate::arguments::{Format, Top};
use crate::daemon::Connection;
use crate::failure::Failure;
use crate::guest;
use crate::machine::State;
use crate::output::List;

const PATIENCE: Duration = Duration::from_millis(300);

/// `hostel top`.
pub fn run(what: &Top) -> Result<u8, Failure> {
    let on_terminal = io::stdout().is_terminal() && what.format == Format::Table;
    let count = what.count.unwrap_or(if on_terminal { u32::MAX } else { 1 });
    let mut connection = Connection::open()?;
    let mut before: HashMap<String, (u64, Instant)> = HashMap::new();
    // Processor time is known only between two looks.
    sample(&mut connection, &mut before)?;
    for round in 0..count {
        let pause = if round == 0 { Duration::from_millis(500) } else { what.interval };
        thread::sleep(pause.min(what.interval.max(Duration::from_millis(100))));
        let rows = sample(&mut connection, &mut before)?;
        if on_terminal {
            print!("\x1b[H\x1b[2J");
        }
        let list = List {
            name: "machines",
            columns: &[
                ("Name", "name"),
                ("CPU %", "cpu_percent"),
                ("Memory here", "resident"),
                ("Memory inside", "inside"),
                ("Load", "load"),
                ("Up", "uptime"),
            ],
            rows,
            empty: "No machine runs.",
        };
        list.print(what.format)?;
    }
    Ok(0)
}

fn sample(
    connection: &mut Connection,
    before: &mut HashMap<String, (u64, Instant)>,
) -> Result<Vec<Map<String, serde_json::Value>>, Failure> {
    let mut rows = Vec::new();
    for machine in connection.machines()? {
        if machine.state != State::Running {
            continue;
        }
        let (_, _, _, _, cpu_ns) = connection.client.domain_get_info(machine.domain.clone())?;
        let now = Instant::now();
        let known = before.insert(machine.name().to_owned(), (cpu_ns, now));
        let percent = known.map(|(earlier_ns, then)| {
            let used = cpu_ns.saturating_sub(earlier_ns) as f64;
            (used / now.duration_since(then).as_nanos().max(1) as f64 * 1000.0).round() / 10.0
        });
        const RSS: i32 = 7;
        let statistics = connection.client.domain_memory_stats(machine.domain.clone(), 20, 0);
        let resident = statistics
            .unwrap_or_default()
            .into_iter()
            .find(|statistic| statistic.tag == RSS)
            .map(|statistic| statistic.value);
        let info = guest::quick_info(&machine.socket(connection), PATIENCE);
        let mut row = Map::new();
        row.insert("name".into(), machine.name().into());
        row.insert("cpu_percent".into(), json!(percent));
        let mebibytes = |kibibytes: u64| format!("{} MiB", kibibytes >> 10);
        row.insert("resident".into(), json!(resident.map(mebibytes)));
        if let Some(info) = info {
            let used = info.memory.total.saturating_sub(info.memory.available);
            row.insert("inside".into(), mebibytes(used >> 10).into());
            row.insert("load".into(), json!(info.load[0]));
            row.insert("uptime".into(), format!("{} s", info.uptime_seconds as u64).into());
        }
        rows.push(row);
    }
    Ok(rows)
}
