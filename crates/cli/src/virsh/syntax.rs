//! Command lines of virsh's commands, read by the synopsis that its help shows:
//! `<domain> [--flag] [--option <value>] [<more>]`.

use std::collections::BTreeMap;

/// A command line that does not fit, in virsh's words.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError(pub String);

/// What was given.
#[derive(Debug, Default)]
pub struct Given {
    texts: BTreeMap<&'static str, String>,
    flags: Vec<&'static str>,
    /// What `<...>` has taken.
    rest: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    /// Only by its name.
    Option,
    /// By its place, too.
    Place {
        is_needed: bool,
    },
    /// All that is left.
    Rest {
        is_needed: bool,
    },
}

/// The parts of a synopsis. `[--name <x>]` is an option, `[<name>]` and `<name>` are places.
fn parts(syntax: &'static str) -> impl Iterator<Item = (&'static str, Kind)> {
    let mut rest = syntax.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = match rest.starts_with('[') {
            true => rest.find(']')? + 1,
            false => rest.find(' ').unwrap_or(rest.len()),
        };
        let part = &rest[..end];
        rest = rest[end..].trim_start();
        let inner = part.trim_start_matches('[').trim_end_matches(']');
        Some(match inner.strip_prefix("--") {
            Some(option) => match option.split_once(' ') {
                Some((name, _)) => (name, Kind::Option),
                None => (option, Kind::Flag),
            },
            None if inner.ends_with("...") => {
                let is_needed = !part.starts_with('[');
                (inner.trim_start_matches('<').trim_end_matches(">..."), Kind::Rest { is_needed })
            }
            None => {
                let is_needed = !part.starts_with('[');
                (inner.trim_start_matches('<').trim_end_matches('>'), Kind::Place { is_needed })
            }
        })
    })
}

impl Given {
    /// Reads a command's words.
    pub fn parse(
        command: &str,
        syntax: &'static str,
        words: &[String],
    ) -> Result<Self, SyntaxError> {
        let parts: Vec<_> = parts(syntax).collect();
        let mut given = Self::default();
        let mut words = words.iter();
        let mut is_data = false;
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--").filter(|_| !is_data) else {
                given.place(&parts, word)?;
                continue;
            };
            if option.is_empty() {
                is_data = true;
                continue;
            }
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (option, None),
            };
            let found = parts.iter().find(|(known, _)| *known == name).ok_or_else(|| {
                SyntaxError(format!("command '{command}' doesn't support option --{name}"))
            })?;
            match found {
                (name, Kind::Flag) if value.is_some() => {
                    return Err(SyntaxError(format!("invalid '=' after option --{name}")));
                }
                (name, Kind::Flag) => given.flags.push(name),
                (name, _) => {
                    let value = value.or_else(|| words.next().cloned()).ok_or_else(|| {
                        SyntaxError(format!("expected syntax: --{name} <string>"))
                    })?;
                    match found.1 {
                        Kind::Rest { .. } => given.rest.push(value),
                        _ => _ = given.texts.insert(name, value),
                    }
                }
            }
        }
        let missing = parts.iter().find(|(name, kind)| match kind {
            Kind::Place { is_needed } => *is_needed && !given.texts.contains_key(name),
            Kind::Rest { is_needed } => *is_needed && given.rest.is_empty(),
            Kind::Flag | Kind::Option => false,
        });
        match missing {
            Some((name, _)) => {
                Err(SyntaxError(format!("command '{command}' requires <{name}> option")))
            }
            None => Ok(given),
        }
    }

    fn place(&mut self, parts: &[(&'static str, Kind)], word: &str) -> Result<(), SyntaxError> {
        let free = parts.iter().find(|(name, kind)| {
            matches!(kind, Kind::Place { .. }) && !self.texts.contains_key(name)
        });
        match free {
            Some((name, _)) => {
                self.texts.insert(name, word.to_owned());
                Ok(())
            }
            None if parts.iter().any(|(_, kind)| matches!(kind, Kind::Rest { .. })) => {
                self.rest.push(word.to_owned());
                Ok(())
            }
            None => Err(SyntaxError(format!("unexpected data '{word}'"))),
        }
    }

    /// An option's or argument's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// What stands behind all else.
    pub fn rest(&self) -> &[String] {
        &self.rest
    }

    /// Whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }

    /// Whether a flag or an option was given.
    fn is_given(&self, name: &str) -> bool {
        self.has(name) || self.texts.contains_key(name)
    }

    /// Of each pair only one may be given.
    pub fn exclusive(&self, pairs: &[(&str, &str)]) -> Result<(), SyntaxError> {
        match pairs.iter().find(|(one, other)| self.is_given(one) && self.is_given(other)) {
            Some((one, other)) => {
                let text = format!("Options --{one} and --{other} are mutually exclusive");
                Err(SyntaxError(text))
            }
            None => Ok(()),
        }
    }

    /// An option's number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, SyntaxError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().map_err(|_| {
            SyntaxError(format!(
                "Numeric value '{text}' for <{name}> option is malformed or out of range"
            ))
        })?;
        Ok(Some(number))
    }

    /// An option's size in pieces of `unit` bytes, unless it brings a unit of its own: in bytes.
    /// `called` is what a message calls it.
    pub fn scaled(&self, name: &str, called: &str, unit: u64) -> Result<Option<u64>, SyntaxError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = match text.parse::<u64>() {
            Ok(number) => number.checked_mul(unit),
            Err(_) => crate::arguments::bytes(text).ok(),
        };
        let wrong = || {
            SyntaxError(format!(
                "Scaled numeric value '{text}' for <{called}> option is malformed or out of range"
            ))
        };
        number.map(Some).ok_or_else(wrong)
    }

    /// The bits of the flags that were given.
    pub fn bits(&self, table: &[(&str, u32)]) -> u32 {
        table.iter().filter(|(name, _)| self.has(name)).fold(0, |bits, (_, bit)| bits | bit)
    }

    #[cfg(test)]
    pub fn is_sound(syntax: &'static str) -> bool {
        let good =
            |name: &str| name.chars().all(|sign| sign.is_ascii_lowercase() || "-2".contains(sign));
        let mut count = 0;
        let sound = parts(syntax).inspect(|_| count += 1).all(|(name, _)| good(name));
        sound && (count > 0 || syntax.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNTAX: &str = "<domain> [<file>] [--mode <string>] [--live]";

    fn parse(line: &str) -> Result<Given, SyntaxError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Given::parse("do", SYNTAX, &words)
    }

    #[test]
    fn places_options_and_flags_are_told_apart() {
        let given = parse("--live web --mode=acpi x.xml").unwrap();
        assert_eq!((given.text("domain"), given.text("file")), (Some("web"), Some("x.xml")));
        assert_eq!(given.text("mode"), Some("acpi"));
        assert!(given.has("live"));
        assert_eq!(parse("--file f --domain d").unwrap().text("domain"), Some("d"));
        let wrong = |line: &str| parse(line).unwrap_err().0;
        assert_eq!(wrong(""), "command 'do' requires <domain> option");
        assert_eq!(wrong("a b c"), "unexpected data 'c'");
        assert_eq!(wrong("a --x"), "command 'do' doesn't support option --x");
    }

    #[test]
    fn what_is_left_can_be_needed_and_named() {
        let parse = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Given::parse("do", "<domain> [--hold <number>] <key>...", &words)
        };
        assert_eq!(parse("d 1 --key 2 3").unwrap().rest(), ["1", "2", "3"]);
        assert_eq!(parse("d").unwrap_err().0, "command 'do' requires <key> option");
        let number = parse("d 1 --hold x").unwrap().number::<u32>("hold").unwrap_err().0;
        assert_eq!(number, "Numeric value 'x' for <hold> option is malformed or out of range");
        let both = parse("d 1 --hold 4").unwrap();
        assert!(both.exclusive(&[("hold", "domain")]).is_err());
        assert_eq!(both.scaled("hold", "hold", 1024).unwrap(), Some(4096));
    }
}
