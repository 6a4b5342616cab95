//! Sets of CPUs as libvirt writes them: `0-3,6`.

/// More CPUs than any host has.
const CPUS_MAX: usize = 4096;

/// The CPUs that a text names; `^2` takes one away. What is no number is skipped.
pub fn parse(text: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim) {
        if let Some(excluded) = part.strip_prefix('^') {
            cpus.retain(|cpu: &usize| Ok(*cpu) != excluded.parse());
            continue;
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cpus.extend(first..=last.min(CPUS_MAX));
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// The shortest text for sorted CPUs.
pub fn to_text(cpus: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while at < cpus.len() {
        let mut end = at;
        while end + 1 < cpus.len() && cpus[end + 1] == cpus[end] + 1 {
            end += 1;
        }
        parts.push(match end - at {
            0 => cpus[at].to_string(),
            _ => format!("{}-{}", cpus[at], cpus[end]),
        });
        at = end + 1;
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back_as_they_were_written() {
        for (text, cpus) in
            [("0", vec![0]), ("0-3,6", vec![0, 1, 2, 3, 6]), ("1,3,5-6", vec![1, 3, 5, 6])]
        {
            assert_eq!(parse(text), cpus);
            assert_eq!(to_text(&cpus), text);
        }
        assert_eq!(parse("0-3,^2"), [0, 1, 3]);
        assert_eq!(parse("nonsense,-,5-1,0-99999999999").len(), 4097);
    }
}
