//! Files of /proc that would show the emulator instead of the program.

use crate::guest::Guest;
use crate::thread::Process;

/// What stands for a file of /proc.
pub enum Entry {
    /// These bytes.
    Contents(Vec<u8>),
    /// The program's own file.
    Executable,
}

/// What stands for a path, if it is one of those files.
pub fn entry<G: Guest>(process: &Process<G>, path: &[u8]) -> Option<Entry> {
    let path = std::str::from_utf8(path).ok()?.strip_prefix("/proc/")?;
    if path == "cpuinfo" {
        return G::MACHINE.cpu_info.map(|text| Entry::Contents(processors(text)));
    }
    let contents = match own(path)? {
        "exe" => return Some(Entry::Executable),
        "maps" => process.space.listing(&process.places).into_bytes(),
        "auxv" => process.auxiliary.clone(),
        "cmdline" => {
            process.arguments.iter().flat_map(|word| [word, &b"\0"[..]].concat()).collect()
        }
        "stat" => stat(process.places.stack)?.into_bytes(),
        _ => return None,
    };
    Some(Entry::Contents(contents))
}

/// The name of an entry of this process: below self, its number, thread-self, or a thread of it.
fn own(path: &str) -> Option<&str> {
    let (process, name) = path.split_once('/')?;
    let is_own = |text: &str| text == "self" || text.parse() == Ok(std::process::id());
    if process != "thread-self" && !is_own(process) {
        return None;
    }
    match name.strip_prefix("task/").and_then(|rest| rest.split_once('/')) {
        Some((_, name)) => Some(name),
        None => Some(name),
    }
}

fn processors(text: &str) -> Vec<u8> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (0..count).flat_map(|number| text.replace("{}", &number.to_string()).into_bytes()).collect()
}

/// The host's line with the program's stack.
fn stat(stack: u64) -> Option<String> {
    /// Fields from behind the name to the start of the stack.
    const START_STACK: usize = 25;
    let line = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (head, rest) = line.rsplit_once(") ")?;
    let mut fields: Vec<String> = rest.trim_end().split(' ').map(String::from).collect();
    *fields.get_mut(START_STACK)? = stack.to_string();
    Some(format!("{head}) {}\n", fields.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_entries_are_known_by_all_their_names() {
        let pid = std::process::id();
        for path in ["self/maps", "thread-self/maps", &format!("{pid}/task/{pid}/maps")] {
            assert_eq!(own(path), Some("maps"), "{path}");
        }
        for path in ["1/maps", "version", "sys/kernel"] {
            assert_eq!(own(path), None, "{path}");
        }
    }

    #[test]
    fn the_line_of_stat_keeps_its_fields() {
        let line = stat(4711).expect("Linux has the file");
        assert!(line.contains(" 4711 "));
        let host = std::fs::read_to_string("/proc/self/stat").expect("it has");
        assert_eq!(line.split(' ').count(), host.split(' ').count());
    }
}
