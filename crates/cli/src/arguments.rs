//! The command lines.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The words that the executable hands over.
pub const VERBS: &[(&str, &str)] = &[
    ("launch", "Make and start a virtual machine"),
    ("shell", "Open a shell in a machine, which is made if need be"),
    ("exec", "Run a program in a machine"),
    ("list", "List machines"),
    ("info", "Show how machines are"),
    ("start", "Start machines"),
    ("stop", "Stop machines"),
    ("restart", "Restart machines"),
    ("suspend", "Hold machines where they are"),
    ("resume", "Let held machines go on"),
    ("delete", "Delete machines, so that they can be recovered"),
    ("recover", "Bring deleted machines back"),
    ("purge", "Forget deleted machines for good"),
    ("rename", "Give a machine another name"),
    ("wait", "Wait until a machine has come so far"),
    ("transfer", "Copy files into a machine or out of it"),
    ("port", "Forward ports of this host to a machine"),
    ("logs", "Show what a machine has printed"),
    ("images", "List the images that can be launched"),
];

#[derive(Parser)]
#[command(name = "hostel", disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Make and start a virtual machine
    #[command(after_help = "Examples:\n  hostel launch\n  hostel launch --name web --cpus 2 \
        --memory 1G --port 8080:80\n  hostel launch && hostel shell")]
    Launch(Launch),
    /// Open a shell in a machine; without a name in 'primary', which is made if need be
    #[command(after_help = "Examples:\n  hostel shell\n  hostel shell web")]
    Shell(Shell),
    /// Run a program in a machine: its streams, its terminal and its exit code are yours
    #[command(after_help = "Examples:\n  hostel exec web -- uname -a\n  \
        tar c folder | hostel exec web -- tar x -C /root")]
    Exec(Exec),
    /// List machines
    #[command(alias = "ls", after_help = "Examples:\n  hostel list\n  hostel list --format json")]
    List(List),
    /// Show how machines are
    #[command(after_help = "Examples:\n  hostel info web\n  hostel info --format json")]
    Info(Info),
    /// Start machines
    Start(Names),
    /// Stop machines
    Stop(Stop),
    /// Restart machines
    Restart(Names),
    /// Hold machines where they are
    Suspend(Names),
    /// Let held machines go on
    Resume(Names),
    /// Delete machines, so that they can be recovered
    #[command(
        alias = "rm",
        after_help = "Examples:\n  hostel delete web\n  hostel delete --purge web"
    )]
    Delete(Delete),
    /// Bring deleted machines back
    Recover(Names),
    /// Forget deleted machines for good
    Purge,
    /// Give a machine another name
    Rename(Rename),
    /// Wait until a machine has come so far
    #[command(
        after_help = "Examples:\n  hostel wait web\n  hostel wait web provisioned --timeout 60"
    )]
    Wait(Wait),
    /// Copy files into a machine or out of it
    #[command(after_help = "Examples:\n  hostel transfer file.txt web:/root/\n  \
        hostel transfer --recursive web:/var/log .")]
    Transfer(Transfer),
    /// Forward ports of this host to a machine
    #[command(after_help = "Examples:\n  hostel port web 8080:80\n  hostel port web\n  \
        hostel port web --remove 8080:80")]
    Port(Port),
    /// Show what a machine has printed
    Logs(Logs),
    /// List the images that can be launched
    #[command(alias = "find")]
    Images(Images),
}

#[derive(Args)]
pub struct Launch {
    /// The image: 'spark', or the file of a disk image
    #[arg(default_value = "spark")]
    pub image: String,
    /// The machine's name [default: one is made up]
    #[arg(short, long)]
    pub name: Option<String>,
    /// Processors
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=254))]
    pub cpus: Option<u32>,
    /// Memory, such as 512M or 2G
    #[arg(short, long, value_parser = bytes)]
    pub memory: Option<u64>,
    /// The disk's size, such as 5G
    #[arg(short, long, value_parser = bytes)]
    pub disk: Option<u64>,
    /// A port of this host that leads to one of the machine: HOST:GUEST; may be repeated
    #[arg(short, long = "port", value_name = "HOST:GUEST", value_parser = ports)]
    pub ports: Vec<(u16, u16)>,
    /// What runs the machine [default: KVM where it works at speed, else the translator]
    #[arg(long, value_enum)]
    pub accel: Option<Accel>,
    /// Return as soon as the machine runs, without waiting until it can be used
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, in seconds
    #[arg(long, default_value = "300", value_parser = seconds)]
    pub timeout: Duration,
    /// Fetch nothing; use what is there
    #[arg(long)]
    pub offline: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Shell {
    /// The machine
    #[arg(default_value = "primary")]
    pub name: String,
}

#[derive(Args)]
pub struct Exec {
    /// The machine
    pub name: String,
    /// Where the program starts
    #[arg(short = 'd', long)]
    pub working_directory: Option<String>,
    /// Who runs it
    #[arg(short, long)]
    pub user: Option<String>,
    /// Set a variable of its environment: NAME=VALUE; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub environment: Vec<String>,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Args)]
pub struct List {
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Info {
    /// Machines [default: all]
    pub names: Vec<String>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Names {
    /// Machines
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
}

#[derive(Args)]
pub struct Stop {
    /// Machines
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Pull the plug
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Delete {
    /// Machines
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// For good
    #[arg(short, long)]
    pub purge: bool,
}

#[derive(Args)]
pub struct Rename {
    /// The machine
    pub name: String,
    /// Its new name
    pub new_name: String,
}

#[derive(Args)]
pub struct Wait {
    /// The machine
    pub name: String,
    /// How far
    #[arg(value_enum, default_value = "booted")]
    pub level: Level,
    /// How long, in seconds
    #[arg(long, default_value = "300", value_parser = seconds)]
    pub timeout: Duration,
}

/// How far a machine has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Its agent answers
    Booted,
    /// It has an address
    Reachable,
    /// What was to be set up is set up
    Provisioned,
}

impl Level {
    /// As agents call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Booted => "booted",
            Self::Reachable => "reachable",
            Self::Provisioned => "provisioned",
        }
    }
}

#[derive(Args)]
pub struct Transfer {
    /// Whole folders
    #[arg(short, long)]
    pub recursive: bool,
    /// Make the folders above the destination
    #[arg(short, long)]
    pub parents: bool,
    /// What to copy, and where to: paths of this host, or NAME:PATH
    #[arg(required = true, num_args = 2.., value_name = "SOURCE... DESTINATION")]
    pub paths: Vec<String>,
}

#[derive(Args)]
pub struct Port {
    /// The machine
    pub name: String,
    /// HOST:GUEST; without any, what is forwarded is listed
    #[arg(value_parser = ports, value_name = "HOST:GUEST")]
    pub ports: Vec<(u16, u16)>,
    /// End the forwarding
    #[arg(short, long)]
    pub remove: bool,
}

#[derive(Args)]
pub struct Logs {
    /// The machine
    pub name: String,
}

#[derive(Args)]
pub struct Images {
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// How to print.
/// What runs a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// The host's processor
    Kvm,
    /// The translator
    Jit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// For configuration files
    Yaml,
    /// For spreadsheets
    Csv,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is expected".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let expected = || "HOST:GUEST is expected, such as 8080:80".to_owned();
    let (host, guest) = text.split_once(':').ok_or_else(expected)?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    Ok((port(host).ok_or_else(expected)?, port(guest).ok_or_else(expected)?))
}

/// A number of bytes with a binary suffix.
pub fn bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' is no size, such as 512M or 2G");
    let text = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: f64 = digits.trim().parse().map_err(|_| expected())?;
    let bytes = number * (1_u64 << shift) as f64;
    if number > 0.0 && bytes < (1_u64 << 60) as f64 { Ok(bytes as u64) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_verb_is_in_the_table_and_the_definitions_are_sound() {
        let command = Arguments::command();
        command.clone().debug_assert();
        let defined: Vec<&str> = command.get_subcommands().map(|verb| verb.get_name()).collect();
        let listed: Vec<&str> = VERBS.iter().map(|(name, _)| *name).collect();
        assert_eq!(defined, listed);
    }

    #[test]
    fn sizes_and_ports() {
        assert_eq!(
            (bytes("512M"), bytes("1.5GiB"), bytes("4096")),
            (Ok(512 << 20), Ok(3 << 29), Ok(4096))
        );
        assert!(bytes("x").is_err() && bytes("-1G").is_err() && bytes("0").is_err());
        assert_eq!(ports("8080:80"), Ok((8080, 80)));
        assert!(ports("80").is_err() && ports("0:1").is_err() && ports("1:99999").is_err());
    }
}
