//! Splitting command lines as the C library's `getopt_long` does: options and operands in any
//! order, long names may be cut short, `--` ends options.

use std::fmt;

/// An option: its long name is its identity, other spellings lead to it.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The letter, if it has one.
    pub short: Option<char>,
    /// The name. Handlers match on it.
    pub long: &'static str,
    /// Whether a value follows.
    pub value: bool,
}

/// An option without a value.
pub const fn flag(short: char, long: &'static str) -> Flag {
    Flag { short: if short == '\0' { None } else { Some(short) }, long, value: false }
}

/// An option with a value.
pub const fn with_value(short: char, long: &'static str) -> Flag {
    Flag { short: if short == '\0' { None } else { Some(short) }, long, value: true }
}

/// What was typed, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// Options by long name, with their values.
    pub options: Vec<(&'static str, String)>,
    /// Everything else.
    pub operands: Vec<String>,
}

impl Typed {
    /// Whether an option was given.
    pub fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// An option's last value.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_str())
    }

    /// All values of an option.
    pub fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_str())
    }
}

/// Why a command line cannot be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No option has this letter.
    UnknownLetter(char),
    /// No option has this name.
    UnknownName(String),
    /// More than one option begins like this.
    Ambiguous(String),
    /// The letter's option takes a value.
    LetterWithoutValue(char),
    /// The name's option takes a value.
    NameWithoutValue(String),
    /// The name's option takes no value.
    UnwantedValue(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLetter(letter) => write!(f, "invalid option -- '{letter}'"),
            Self::UnknownName(name) => write!(f, "unrecognized option '--{name}'"),
            Self::Ambiguous(name) => write!(f, "option '--{name}' is ambiguous"),
            Self::LetterWithoutValue(letter) => {
                write!(f, "option requires an argument -- '{letter}'")
            }
            Self::NameWithoutValue(name) => write!(f, "option '--{name}' requires an argument"),
            Self::UnwantedValue(name) => write!(f, "option '--{name}' doesn't allow an argument"),
        }
    }
}

/// Splits a command line. `stop_at_operand` leaves everything behind the first operand alone.
pub fn split(
    flags: &[Flag],
    arguments: &[String],
    stop_at_operand: bool,
) -> Result<Typed, Refusal> {
    let mut typed = Typed::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            typed.operands.extend(rest.cloned());
            break;
        }
        if let Some(long) = argument.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (long, None),
            };
            let flag = by_name(flags, name)?;
            let value = match (flag.value, value) {
                (true, Some(value)) => value,
                (true, None) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| Refusal::NameWithoutValue(flag.long.into()))?,
                (false, None) => String::new(),
                (false, Some(_)) => return Err(Refusal::UnwantedValue(flag.long.into())),
            };
            typed.options.push((flag.long, value));
        } else if argument.len() > 1 && argument.starts_with('-') {
            split_letters(flags, &argument[1..], &mut rest, &mut typed)?;
        } else if stop_at_operand {
            typed.operands.push(argument.clone());
            typed.operands.extend(rest.cloned());
            break;
        } else {
            typed.operands.push(argument.clone());
        }
    }
    Ok(typed)
}

fn split_letters(
    flags: &[Flag],
    letters: &str,
    rest: &mut std::slice::Iter<'_, String>,
    typed: &mut Typed,
) -> Result<(), Refusal> {
    for (at, letter) in letters.char_indices() {
        let flag = flags.iter().find(|flag| flag.short == Some(letter));
        let flag = flag.ok_or(Refusal::UnknownLetter(letter))?;
        if !flag.value {
            typed.options.push((flag.long, String::new()));
            continue;
        }
        let behind = &letters[at + letter.len_utf8()..];
        let value = if behind.is_empty() {
            rest.next().cloned().ok_or(Refusal::LetterWithoutValue(letter))?
        } else {
            behind.to_string()
        };
        typed.options.push((flag.long, value));
        break;
    }
    Ok(())
}

fn by_name<'a>(flags: &'a [Flag], name: &str) -> Result<&'a Flag, Refusal> {
    if let Some(flag) = flags.iter().find(|flag| flag.long == name) {
        return Ok(flag);
    }
    let mut near = flags.iter().filter(|flag| flag.long.starts_with(name));
    match (near.next(), near.next()) {
        (Some(flag), None) => Ok(flag),
        (Some(_), Some(_)) => Err(Refusal::Ambiguous(name.into())),
        (None, _) => Err(Refusal::UnknownName(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[flag('q', "quiet"), with_value('f', "format"), flag('\0', "quick")];

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn options_and_operands_mix() {
        let typed = split(FLAGS, &words("a -qf raw b --format=x -- -q"), false).unwrap();
        assert_eq!(typed.operands, ["a", "b", "-q"]);
        assert_eq!(typed.value("format"), Some("x"));
        assert!(typed.has("quiet"));
    }

    #[test]
    fn what_cannot_be_split_is_named() {
        for (line, refusal) in [
            ("-Z", Refusal::UnknownLetter('Z')),
            ("-f", Refusal::LetterWithoutValue('f')),
            ("--qui", Refusal::Ambiguous("qui".into())),
            ("--nope", Refusal::UnknownName("nope".into())),
            ("--quiet=1", Refusal::UnwantedValue("quiet".into())),
        ] {
            assert_eq!(split(FLAGS, &words(line), false), Err(refusal), "{line}");
        }
    }
}
