//! `virsh`: the daily commands, with its texts and exit codes, over our own client.
//!
//! A command is a row: its name, what it takes in the form its help shows it, and a function.

mod checkpoint;
mod console;
mod devices;
mod domain;
mod guest;
mod host;
mod interactive;
mod jobs;
mod moments;
mod network;
mod processors;
mod snapshot;
mod statistics;
mod storage;
mod syntax;
mod table;
mod text;
pub(crate) mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use libvirt_compat::Uuid;
use libvirt_compat::rpc::types::Domain;

use crate::daemon::Connection;
use crate::failure::Failure;
use syntax::{Given, SyntaxError};

/// What a command prints, and how it ends.
type Outcome = Result<String, Trouble>;

/// Why a command failed, as virsh says it: what it was doing, and what libvirt said.
struct Trouble(Vec<String>);

impl Trouble {
    fn new(text: impl Into<String>) -> Self {
        Self(vec![text.into()])
    }
}

impl From<SyntaxError> for Trouble {
    fn from(SyntaxError(text): SyntaxError) -> Self {
        Self::new(text)
    }
}

/// A file on this side.
fn read(path: &str) -> Result<String, Trouble> {
    std::fs::read_to_string(path).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        Trouble::new(format!("Failed to open file '{path}': {text}"))
    })
}

/// What the daemon would say of a call that it does not serve, and which is not made.
fn unserved(function: &str) -> Trouble {
    let text = format!("this function is not supported by the connection driver: {function}");
    Trouble::new(text)
}

impl From<libvirt_compat::Error> for Trouble {
    fn from(error: libvirt_compat::Error) -> Self {
        Self(vec![error.to_string()])
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        let mut lines = vec![failure.what];
        lines.extend(failure.causes);
        Self(lines)
    }
}

/// Says in front what was being done.
fn doing<T>(what: impl Into<String>, result: libvirt_compat::Result<T>) -> Result<T, Trouble> {
    result.map_err(|error| Trouble(vec![what.into(), error.to_string()]))
}

/// A command.
struct Command {
    name: &'static str,
    /// As the help shows it; options and arguments are read from it.
    syntax: &'static str,
    summary: &'static str,
    run: fn(&mut Shell, &Given) -> Outcome,
}

/// The families, in the order of the help.
const FAMILIES: &[(&str, &[Command])] = &[
    ("Domain Management", domain::COMMANDS),
    ("Domain Devices", devices::COMMANDS),
    ("Domain Processors", processors::COMMANDS),
    ("Domain Block Jobs", jobs::COMMANDS),
    ("Domain Screen and Console", console::COMMANDS),
    ("Domain Guest", guest::COMMANDS),
    ("Domain Texts", text::COMMANDS),
    ("Domain Monitoring", statistics::COMMANDS),
    ("Host and Hypervisor", host::COMMANDS),
    ("Checkpoint and Backup", checkpoint::COMMANDS),
    ("Networking", network::COMMANDS),
    ("Snapshot", snapshot::COMMANDS),
    ("Storage", storage::COMMANDS),
    ("Virsh itself", interactive::COMMANDS),
];

type Client = libvirt_compat::rpc::client::Client<crate::daemon::Socket>;

/// Something with a name that commands act on, and how messages call it.
trait Thing: Sized {
    const KIND: &'static str;
    /// What stands around its name.
    const QUOTE: &'static str;
    /// How a message begins that its autostart could not be set.
    const FAILED: &'static str;

    /// The one that a command names.
    fn find(shell: &mut Shell, given: &Given) -> Result<Self, Trouble>;

    fn name(&self) -> &str;

    fn set_autostart(self, client: &mut Client, on: i32) -> libvirt_compat::Result<()>;

    /// In a sentence: `domain 'web'`.
    fn called(&self) -> String {
        let (kind, quote) = (Self::KIND.to_lowercase(), Self::QUOTE);
        format!("{kind} {quote}{}{quote}", self.name())
    }

    /// In front of one.
    fn called_first(&self) -> String {
        format!("{} {quote}{}{quote}", Self::KIND, self.name(), quote = Self::QUOTE)
    }
}

impl Thing for Domain {
    const KIND: &'static str = "Domain";
    const QUOTE: &'static str = "'";
    const FAILED: &'static str = "Failed";

    fn find(shell: &mut Shell, given: &Given) -> Result<Self, Trouble> {
        shell.domain(given)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn set_autostart(self, client: &mut Client, on: i32) -> libvirt_compat::Result<()> {
        client.domain_set_autostart(self, on)
    }
}

/// A connection and how to print.
struct Shell {
    connection: Connection,
    uri: String,
    /// The URI that was asked for.
    asked: Option<String>,
    is_quiet: bool,
    /// It was told to quit.
    quits: bool,
}

impl Shell {
    /// A message that scripts do not want.
    fn extra(&self, text: String) -> Outcome {
        Ok(if self.is_quiet { String::new() } else { text })
    }

    /// Something that is done to what the command names, and said.
    fn act<T: Thing>(
        &mut self,
        given: &Given,
        verb: &str,
        done: &str,
        act: impl FnOnce(&mut Client, T) -> libvirt_compat::Result<()>,
    ) -> Outcome {
        let thing = T::find(self, given)?;
        let (called, first) = (thing.called(), thing.called_first());
        doing(format!("Failed to {verb} {called}"), act(&mut self.connection.client, thing))?;
        self.extra(format!("{first} {done}\n"))
    }

    /// A domain by its name, UUID or number.
    fn domain(&mut self, given: &Given) -> Result<Domain, Trouble> {
        self.domain_called(given.text("domain").unwrap_or_default())
    }

    fn domain_called(&mut self, word: &str) -> Result<Domain, Trouble> {
        let word = word.to_owned();
        let client = &mut self.connection.client;
        if let Ok(id) = word.parse::<i32>()
            && let Ok(domain) = client.domain_lookup_by_id(id)
        {
            return Ok(domain);
        }
        if let Some(uuid) = Uuid::parse(&word)
            && let Ok(domain) = client.domain_lookup_by_uuid(uuid)
        {
            return Ok(domain);
        }
        let found = client.domain_lookup_by_name(word.clone());
        found.map_err(|_| Trouble::new(format!("failed to get domain '{word}'")))
    }
}

/// The commands that set autostart, or clear it.
fn autostart<T: Thing>(shell: &mut Shell, given: &Given) -> Outcome {
    let thing = T::find(shell, given)?;
    let (called, first) = (thing.called(), thing.called_first());
    let on = !given.has("disable");
    let (verb, done) = if on { ("mark", "marked") } else { ("unmark", "unmarked") };
    let set = thing.set_autostart(&mut shell.connection.client, i32::from(on));
    doing(format!("{} to {verb} {called} as autostarted", T::FAILED), set)?;
    shell.extra(format!("{first} {done} as autostarted\n"))
}

/// What stands in front of a command.
#[derive(Default)]
struct Options {
    uri: Option<String>,
    is_quiet: bool,
}

/// Runs the applet.
pub fn run(_name: &str, arguments: &[OsString]) -> ExitCode {
    let words: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match perform(&words) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn perform(words: &[String]) -> Result<ExitCode, String> {
    let mut options = Options {
        uri: std::env::var("LIBVIRT_DEFAULT_URI").ok().filter(|uri| !uri.is_empty()),
        ..Options::default()
    };
    let mut rest = words;
    while let Some((word, after)) = rest.split_first().filter(|(word, _)| word.starts_with('-')) {
        rest = after;
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        match name {
            "-c" | "--connect" => {
                let value = match value {
                    Some(value) => value,
                    None => {
                        let taken = rest.split_first();
                        let (value, after) = taken.ok_or("option -c requires an argument")?;
                        rest = after;
                        value.clone()
                    }
                };
                options.uri = Some(value);
            }
            "-q" | "--quiet" => options.is_quiet = true,
            // All that is shown of a read-only connection can be seen with a full one.
            "-v" | "-V" | "--version" => {
                println!("{}", host::LIBRARY_VERSION);
                return Ok(ExitCode::SUCCESS);
            }
            "-h" | "--help" => {
                print!("{}", help());
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("unsupported option '{other}'. See --help.")),
        }
    }
    match rest {
        [] => interactive::run(&options),
        // One word may be a whole line.
        [line] => {
            let commands = words::commands(line)?;
            let commands = commands.iter().map(|words| parse(words)).collect::<Result<_, _>>()?;
            run_all(&options, commands)
        }
        words => run_all(&options, vec![parse(words)?]),
    }
}

/// A command with what it was given.
type Call = (&'static Command, Given);

fn parse(words: &[String]) -> Result<Call, String> {
    let Some((name, rest)) = words.split_first() else { return Err("no command".to_owned()) };
    // Help is asked for in two ways.
    if rest.iter().any(|word| word == "--help") && find(name).is_some() {
        return parse(&["help".to_owned(), name.clone()]);
    }
    let command = find(name).ok_or_else(|| format!("unknown command: '{name}'"))?;
    let given =
        Given::parse(command.name, command.syntax, rest).map_err(|SyntaxError(message)| message)?;
    Ok((command, given))
}

/// Runs one after the other; how the last one ends is how all end.
fn run_all(options: &Options, calls: Vec<Call>) -> Result<ExitCode, String> {
    // What needs no daemon must not start one.
    if let [(Command { name: "help", .. }, given)] = calls.as_slice() {
        print!("{}", help_of(given.text("command"))?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut shell = connect(options)?;
    let mut is_good = true;
    for (command, given) in calls {
        let outcome = (command.run)(&mut shell, &given);
        is_good = report(outcome, shell.is_quiet || command.name == "echo");
        if shell.quits {
            break;
        }
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a line of the interactive shell.
fn run_line(shell: &mut Shell, line: &str) -> Result<(), String> {
    let commands = words::commands(line)?;
    let calls: Vec<Call> = commands.iter().map(|words| parse(words)).collect::<Result<_, _>>()?;
    for (command, given) in calls {
        let outcome = (command.run)(shell, &given);
        if shell.quits {
            break;
        }
        // One that fails does not keep the next one from its turn.
        report(outcome, shell.is_quiet || command.name == "echo");
    }
    Ok(())
}

fn connect(options: &Options) -> Result<Shell, String> {
    let connection = Connection::of_uri(options.uri.as_deref()).map_err(|failure| {
        let mut text = "failed to connect to the hypervisor".to_owned();
        text.push_str(&format!("\nerror: {}", failure.what));
        failure.causes.iter().for_each(|cause| text.push_str(&format!("\nerror: {cause}")));
        text
    })?;
    let (uri, asked) = (options.uri.clone().unwrap_or_default(), options.uri.clone());
    Ok(Shell { connection, uri, asked, is_quiet: options.is_quiet, quits: false })
}

/// Every command ends with an empty line, unless that is not wanted.
fn report(outcome: Outcome, is_quiet: bool) -> bool {
    let end = if is_quiet { "" } else { "\n" };
    match outcome {
        Ok(text) => {
            use std::io::Write;
            write!(std::io::stdout(), "{text}{end}").is_ok()
        }
        Err(Trouble(lines)) => {
            for line in lines {
                eprintln!("error: {line}");
            }
            print!("{end}");
            false
        }
    }
}

fn find(name: &str) -> Option<&'static Command> {
    FAMILIES.iter().flat_map(|(_, commands)| *commands).find(|command| command.name == name)
}

fn help() -> String {
    let mut text =
        "\nvirsh [options]... [<command_string>]\nvirsh [options]... <command> [args...]\n\n  \
         options:\n    -c | --connect=URI      hypervisor connection URI\n    \
         -h | --help             this help\n    -q | --quiet            quiet mode\n    \
         -v                      short version\n\n  commands (non interactive mode):\n"
            .to_owned();
    for (family, commands) in FAMILIES {
        text.push_str(&format!("\n {family}:\n"));
        for command in *commands {
            text.push_str(&format!("    {:<30} {}\n", command.name, command.summary));
        }
    }
    text + "\n"
}

fn help_of(name: Option<&str>) -> Result<String, String> {
    let Some(name) = name else { return Ok(help()) };
    let command =
        find(name).ok_or_else(|| format!("command or command group '{name}' doesn't exist"))?;
    let (summary, syntax) = (command.summary, command.syntax);
    let line = format!("    {name} {syntax}");
    Ok(format!("  NAME\n    {name} - {summary}\n\n  SYNOPSIS\n{}\n\n", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sound() {
        let mut names: Vec<&str> =
            FAMILIES.iter().flat_map(|(_, commands)| *commands).map(|row| row.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for (_, commands) in FAMILIES {
            for command in *commands {
                assert!(Given::is_sound(command.syntax), "{}: {}", command.name, command.syntax);
            }
        }
    }
}
