//! The command lines.

mod network;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::network::Network;
use self::network::network;
use crate::verbs::console;

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
    ("clone", "Make a copy of a machine"),
    ("snapshot", "Keep the state of a machine to go back to"),
    ("restore", "Take a machine back to a snapshot"),
    ("snapshots", "List snapshots"),
    ("wait", "Wait until a machine has come so far"),
    ("transfer", "Copy files into a machine or out of it"),
    ("mount", "Show a folder of this host in a machine"),
    ("umount", "Take folders of this host out of a machine again"),
    ("port", "Forward ports of this host to a machine"),
    ("networks", "List the networks that machines can be on"),
    ("get", "Show settings"),
    ("set", "Change settings"),
    ("alias", "Give a program in a machine a name on this host"),
    ("aliases", "List such names"),
    ("unalias", "Forget such names"),
    ("logs", "Show what a machine has printed"),
    ("console", "Type on a machine's serial console"),
    ("view", "Open a machine's screen"),
    ("top", "Show what machines are using"),
    ("events", "Show what happens to machines as it happens"),
    ("images", "List the images that can be launched"),
    ("image", "Fetch, build, import, list and remove images"),
    ("find", "Look for images in catalogues"),
    ("completion", "Print a shell's completions"),
    ("man", "Write the manual pages"),
    ("proxy", "Connect standard input and output to a port of a machine"),
    ("share-folder", "Serve a folder to a machine (started by 'mount')"),
    ("forward-ports", "Forward what listens in a machine (started by 'port')"),
];

/// Verbs that programs call rather than people.
pub const HIDDEN: &[&str] = &["proxy", "share-folder", "forward-ports"];

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
    #[command(after_help = "Examples:\n  hostel start web\n  hostel start --all")]
    Start(Boot),
    /// Stop machines
    #[command(
        after_help = "Examples:\n  hostel stop web\n  hostel stop --force web\n  hostel stop --all"
    )]
    Stop(Stop),
    /// Restart machines
    #[command(after_help = "Examples:\n  hostel restart web")]
    Restart(Boot),
    /// Hold machines where they are
    #[command(after_help = "Examples:\n  hostel suspend web\n  hostel suspend --all")]
    Suspend(Names),
    /// Let held machines go on
    #[command(after_help = "Examples:\n  hostel resume web\n  hostel resume --all")]
    Resume(Names),
    /// Delete machines, so that they can be recovered
    #[command(
        alias = "rm",
        after_help = "Examples:\n  hostel delete web\n  hostel delete --purge web"
    )]
    Delete(Delete),
    /// Bring deleted machines back
    #[command(after_help = "Examples:\n  hostel recover web\n  hostel recover --all")]
    Recover(Names),
    /// Forget deleted machines for good
    #[command(after_help = "Examples:\n  hostel purge")]
    Purge,
    /// Give a machine another name
    #[command(after_help = "Examples:\n  hostel rename web shop")]
    Rename(Rename),
    /// Make a copy of a machine that does not run: its disk, its size, its own identity
    #[command(after_help = "Examples:\n  hostel clone web\n  hostel clone web --name web-two")]
    Clone(Clone_),
    /// Keep the state of a machine, with its memory if it runs, to go back to
    #[command(after_help = "Examples:\n  hostel snapshot web\n  \
        hostel snapshot web --name clean --comment 'before the update'")]
    Snapshot(Snapshot),
    /// Take a machine back to a snapshot
    #[command(after_help = "Examples:\n  hostel restore web.clean\n  \
        hostel restore --destructive web.clean")]
    Restore(Restore),
    /// List snapshots
    #[command(after_help = "Examples:\n  hostel snapshots\n  hostel snapshots web --format json")]
    Snapshots(Snapshots),
    /// Wait until a machine has come so far
    #[command(
        after_help = "Examples:\n  hostel wait web\n  hostel wait web provisioned --timeout 60"
    )]
    Wait(Wait),
    /// Copy files into a machine or out of it
    #[command(after_help = "Examples:\n  hostel transfer file.txt web:/root/\n  \
        hostel transfer --recursive web:/var/log .")]
    Transfer(Transfer),
    /// Show a folder of this host in a machine, at once and after each start
    #[command(after_help = "Examples:\n  hostel mount ~/project web\n  \
        hostel mount ~/project web:/srv/project\n  hostel mount --read-only /usr/share web:/mnt")]
    Mount(Mount),
    /// Take folders of this host out of a machine again
    #[command(
        alias = "unmount",
        after_help = "Examples:\n  hostel umount web\n  hostel umount web:/srv/project"
    )]
    Umount(Umount),
    /// Forward ports of this host to a machine
    #[command(after_help = "Examples:\n  hostel port web 8080:80\n  hostel port web auto\n  \
        hostel port web\n  hostel port web --remove 8080:80")]
    Port(Port),
    /// List the networks that machines can be on
    #[command(after_help = "Examples:\n  hostel networks\n  hostel launch --network default")]
    Networks(List),
    /// Show settings
    #[command(after_help = "Examples:\n  hostel get --keys\n  hostel get local.web.memory")]
    Get(Get),
    /// Change settings
    #[command(after_help = "Examples:\n  hostel set local.web.cpus=2\n  \
        hostel set local.web.autostart=true\n  hostel set client.primary-name=web")]
    Set(Set),
    /// Give a program in a machine a name on this host
    #[command(after_help = "Examples:\n  hostel alias web:htop\n  hostel alias web:ls weblist")]
    Alias(Alias),
    /// List such names
    #[command(after_help = "Examples:\n  hostel aliases")]
    Aliases(List),
    /// Forget such names
    #[command(after_help = "Examples:\n  hostel unalias weblist")]
    Unalias(Unalias),
    /// Show what a machine has printed
    #[command(after_help = "Examples:\n  hostel logs web\n  hostel logs --follow web")]
    Logs(Logs),
    /// Type on a machine's serial console, also while it boots; Ctrl-] leaves it
    #[command(after_help = "Examples:\n  hostel console web\n  hostel launch --console\n  \
        hostel console --escape ^a web")]
    Console(Console),
    /// Open a machine's screen
    #[command(after_help = "Examples:\n  hostel view web\n  hostel view --address web")]
    View(View),
    /// Show what machines are using
    #[command(after_help = "Examples:\n  hostel top\n  hostel top --count 1 --format json")]
    Top(Top),
    /// Show what happens to machines as it happens
    #[command(after_help = "Examples:\n  hostel events\n  hostel events --json")]
    Events(Events),
    /// List the images that can be launched
    #[command(after_help = "Examples:\n  hostel images\n  hostel images --format json")]
    Images(Images),
    /// Fetch, build, import, list and remove images
    #[command(
        subcommand,
        after_help = "Examples:\n  hostel image pull noble\n  hostel image import disk.qcow2 --name mine\n  hostel image build debian-13\n  hostel image remove --unused 30"
    )]
    Image(Image),
    /// Look for images in catalogues
    #[command(after_help = "Examples:\n  hostel find\n  hostel find noble")]
    Find(Find),
    /// Print a shell's completions, which know the names of machines
    #[command(after_help = "Examples:\n  source <(hostel completion bash)\n  \
        hostel completion fish > ~/.config/fish/completions/hostel.fish")]
    Completion(Completion),
    /// Write the manual pages
    #[command(after_help = "Examples:\n  hostel man ~/.local/share/man/man1")]
    Man(Man),
    /// Connect standard input and output to a port of a machine, as ssh's ProxyCommand
    #[command(hide = true)]
    Proxy(Proxy),
    /// Serve a folder to a machine
    #[command(hide = true)]
    ShareFolder(ShareFolder),
    /// Forward what listens in a machine
    #[command(hide = true)]
    ForwardPorts(ForwardPorts),
}

#[derive(Args, Clone)]
pub struct Launch {
    /// The image: 'spark', one that 'hostel images' or 'hostel find' shows, a file (qcow2, raw, ISO),
    /// or the address of one
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
    /// A port of this host that leads to one of the machine: HOST:GUEST, or 'auto' for each on which
    /// somebody listens there; may be repeated
    #[arg(short, long = "port", value_name = "HOST:GUEST|auto", value_parser = forward)]
    pub ports: Vec<Forward>,
    /// A folder of this host in the machine: SOURCE[:TARGET][:ro]; may be repeated
    #[arg(long = "mount", value_name = "SOURCE[:TARGET]")]
    pub mounts: Vec<String>,
    /// Your home in the machine, at the same path, to be read only
    #[arg(long)]
    pub mount_home: bool,
    /// cloud-init's user data: a file, an address, or - for standard input
    #[arg(long, value_name = "FILE|URL|-")]
    pub cloud_init: Option<String>,
    /// cloud-init's network configuration
    #[arg(long, value_name = "FILE|-")]
    pub network_config: Option<String>,
    /// A user to make, who may become root
    #[arg(long)]
    pub user: Option<String>,
    /// A public key that lets the user in; may be repeated
    #[arg(long = "ssh-key", value_name = "FILE")]
    pub ssh_keys: Vec<String>,
    /// A package to install on the first boot; may be repeated
    #[arg(long = "package", value_name = "NAME")]
    pub packages: Vec<String>,
    /// How the machine is told all this
    #[arg(long, value_enum)]
    pub seed: Option<SeedLayout>,
    /// The processor's kind
    #[arg(long, value_enum, default_value = "amd64")]
    pub arch: Arch,
    /// What the machine is connected to: user (the host's connections, with no privilege), none, one
    /// of 'hostel networks', a bridge of the host, or bridged; may be repeated
    #[arg(long = "network", value_name = "NETWORK[,mac=MAC]", value_parser = network)]
    pub networks: Vec<Network>,
    /// Connect it, besides, to the network that 'hostel set local.bridged-network=NETWORK' has named
    #[arg(long)]
    pub bridged: bool,
    /// What runs the machine [default: KVM where it works at speed, else the translator]
    #[arg(long, value_enum)]
    pub accel: Option<Accel>,
    /// Return as soon as the machine runs, without waiting until it can be used
    #[arg(long)]
    pub no_wait: bool,
    /// Watch it boot and type on its serial console; Ctrl-] leaves it
    #[arg(long, conflicts_with = "no_wait")]
    pub console: bool,
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

/// The form of a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SeedLayout {
    /// cloud-init's own, labelled cidata
    #[default]
    Nocloud,
    /// OpenStack's, labelled config-2
    ConfigDrive,
}

/// A kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// x86-64
    #[value(aliases = ["x86_64", "x86-64"])]
    Amd64,
}

#[derive(Args)]
pub struct Shell {
    /// The machine [default: primary]
    pub name: Option<String>,
    /// How long to wait for one that starts, in seconds
    #[arg(long, default_value = BOOT_SECONDS, value_parser = seconds)]
    pub timeout: Duration,
}

#[derive(Args)]
pub struct Console {
    /// The machine
    pub name: String,
    /// The key that leaves it
    #[arg(short, long, default_value = "^]", value_parser = console::escape_key)]
    pub escape: u8,
    /// Even if somebody else types on it
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct View {
    /// The machine
    pub name: String,
    /// Only print where the screen is, for a viewer of your own
    #[arg(long)]
    pub address: bool,
}

#[derive(Args)]
pub struct Clone_ {
    /// The machine
    pub name: String,
    /// The copy's name [default: one is made up]
    #[arg(short, long = "name", value_name = "NAME")]
    pub new_name: Option<String>,
}

#[derive(Args)]
pub struct Snapshot {
    /// The machine
    pub name: String,
    /// The snapshot's name [default: snapshot and a number]
    #[arg(short = 'n', long = "name", value_name = "NAME")]
    pub snapshot: Option<String>,
    /// Why it was made
    #[arg(short = 'm', long, alias = "message", short_alias = 'c')]
    pub comment: Option<String>,
}

#[derive(Args)]
pub struct Restore {
    /// MACHINE.SNAPSHOT
    pub snapshot: String,
    /// Without keeping the present state
    #[arg(short, long)]
    pub destructive: bool,
}

#[derive(Args)]
pub struct Snapshots {
    /// Machines [default: all]
    pub names: Vec<String>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Mount {
    /// The folder of this host
    pub source: String,
    /// NAME[:PATH]; without a path it has the same one in the machine
    #[arg(required = true, value_name = "NAME[:PATH]")]
    pub targets: Vec<String>,
    /// The machine cannot change it
    #[arg(short, long)]
    pub read_only: bool,
}

#[derive(Args)]
pub struct Umount {
    /// NAME[:PATH]; without a path all of the machine's
    #[arg(required = true, value_name = "NAME[:PATH]")]
    pub targets: Vec<String>,
}

#[derive(Args)]
pub struct Get {
    /// The setting
    #[arg(required_unless_present = "keys")]
    pub key: Option<String>,
    /// List them all
    #[arg(long)]
    pub keys: bool,
    /// As a program takes it: sizes in bytes
    #[arg(long)]
    pub raw: bool,
}

#[derive(Args)]
pub struct Set {
    /// KEY=VALUE; an empty value is the default
    #[arg(value_name = "KEY=VALUE")]
    pub pair: String,
}

#[derive(Args)]
pub struct Alias {
    /// MACHINE:PROGRAM
    pub definition: String,
    /// The name on this host [default: the program's]
    pub name: Option<String>,
    /// Start the program in the machine's home rather than where you are
    #[arg(short, long)]
    pub no_map_working_directory: bool,
}

#[derive(Args)]
pub struct Unalias {
    /// Names
    #[arg(required_unless_present = "all")]
    pub names: Vec<String>,
    /// All of them
    #[arg(long)]
    pub all: bool,
}

#[derive(Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(short, long, default_value = "2", value_parser = seconds)]
    pub interval: Duration,
    /// How often [default: until Ctrl-C on a terminal, else once]
    #[arg(short = 'n', long)]
    pub count: Option<u32>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Events {
    /// How many to wait for [default: without end]
    #[arg(short = 'n', long)]
    pub count: Option<u32>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum Image {
    /// Fetch an image, so that it can be launched without a network
    #[command(after_help = "Examples:\n  hostel image pull noble\n  \
        hostel image pull https://example.org/disk.qcow2")]
    Pull(Pull),
    /// List the images that are here
    #[command(after_help = "Examples:\n  hostel image list --format json")]
    List(List),
    /// Remove images
    #[command(
        alias = "rm",
        after_help = "Examples:\n  hostel image remove mine\n  hostel image remove --unused 30"
    )]
    Remove(Remove),
    /// Assemble an image from packages
    #[command(after_help = "Examples:\n  hostel image build debian-12")]
    Build(Pull),
    /// Take a file in as an image
    #[command(after_help = "Examples:\n  hostel image import disk.qcow2 --name mine")]
    Import(Import),
    /// Fetch all images of a catalogue that fit
    #[command(after_help = "Examples:\n  hostel image sync release=noble arch=amd64")]
    Sync(Sync),
}

#[derive(Args)]
pub struct Pull {
    /// The image
    pub image: String,
    /// Fetch nothing; use what is there
    #[arg(long)]
    pub offline: bool,
}

#[derive(Args)]
pub struct Remove {
    /// Images
    #[arg(required_unless_present = "unused")]
    pub names: Vec<String>,
    /// Those that were not used for so many days, and on which no machine lies
    #[arg(long, value_name = "DAYS")]
    pub unused: Option<u64>,
}

#[derive(Args)]
pub struct Import {
    /// The file
    pub file: String,
    /// What it is to be called [default: as the file]
    #[arg(short, long)]
    pub name: Option<String>,
}

#[derive(Args)]
pub struct Sync {
    /// Which: FIELD=VALUE, FIELD!=VALUE, FIELD~PART, such as release=noble arch=amd64
    pub filters: Vec<String>,
    /// The catalogue [default: the setting local.image.mirror, or Ubuntu's]
    #[arg(long)]
    pub source: Option<String>,
    /// The keys that sign it
    #[arg(long)]
    pub keyring: Option<String>,
    /// Take it unsigned
    #[arg(long)]
    pub no_authentication: bool,
}

#[derive(Args)]
pub struct Find {
    /// What the name begins with, or another name
    pub text: Option<String>,
    /// Look only at what was fetched before
    #[arg(long)]
    pub offline: bool,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: CompletionShell,
    /// The words so far, for the script itself
    #[arg(last = true, hide = true)]
    pub words: Vec<String>,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// GNU bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// What the scripts call: candidates, one a line
    #[value(hide = true)]
    Words,
}

#[derive(Args)]
pub struct Man {
    /// The folder
    pub folder: String,
}

#[derive(Args)]
pub struct Proxy {
    /// NAME or NAME.hostel
    pub name: String,
    /// The port
    pub port: u16,
}

#[derive(Args)]
pub struct ShareFolder {
    /// The machine
    pub name: String,
    /// Where it is in the machine
    pub target: String,
}

#[derive(Args)]
pub struct ForwardPorts {
    /// The machine
    pub name: String,
}

#[derive(Args)]
pub struct Exec {
    /// The machine
    pub name: String,
    /// Where the program starts [default: where you are, if that is mounted in the machine]
    #[arg(short = 'd', long)]
    pub working_directory: Option<String>,
    /// Start in the user's home, wherever you are
    #[arg(long)]
    pub no_map_working_directory: bool,
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

/// How long a machine that was there before may take to come up.
pub const BOOT_SECONDS: &str = "120";

/// The same as a time.
pub const BOOT_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct Boot {
    /// Which
    #[command(flatten)]
    pub which: Names,
    /// How long to wait for each, in seconds
    #[arg(long, default_value = BOOT_SECONDS, value_parser = seconds)]
    pub timeout: Duration,
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
    /// HOST:GUEST, or 'auto' for each port on which somebody listens; without any, what is forwarded
    /// is listed
    #[arg(value_parser = forward, value_name = "HOST:GUEST|auto")]
    pub ports: Vec<Forward>,
    /// End the forwarding
    #[arg(short, long)]
    pub remove: bool,
    /// How to print the list
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Args)]
pub struct Logs {
    /// The machine
    pub name: String,
    /// Go on with what it prints next
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Args)]
pub struct Images {
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,
}

/// What runs a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// The host's processor
    Kvm,
    /// The translator
    Jit,
}

/// How to print.
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

/// What is to be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Whatever listens in the machine, under the same number where that is free.
    Auto,
    /// A port of the host to one of the machine.
    Pair(u16, u16),
}

impl Forward {
    /// The two ports of one that names them.
    pub fn pair(self) -> Option<(u16, u16)> {
        match self {
            Self::Auto => None,
            Self::Pair(host, guest) => Some((host, guest)),
        }
    }
}

fn forward(text: &str) -> Result<Forward, String> {
    if text == "auto" {
        return Ok(Forward::Auto);
    }
    ports(text).map(|(host, guest)| Forward::Pair(host, guest))
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

    /// The example lines of a verb's help.
    fn examples(verb: &clap::Command) -> Vec<String> {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help.lines().filter(|line| line.contains("hostel "));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn every_verb_has_examples_and_they_are_understood() {
        let command = Arguments::command();
        let groups = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let verbs = groups.flat_map(|verb| std::iter::once(verb).chain(verb.get_subcommands()));
        for verb in verbs.filter(|verb| verb.get_name() != "help") {
            let examples = examples(verb);
            assert!(!examples.is_empty(), "'{}' has no examples", verb.get_name());
            for line in examples {
                // Of a line with several programs, what is ours and stands first.
                let ours = line.split("hostel ").nth(1).unwrap_or_default();
                let ours = ours.split(['|', '>', ')', '&']).next().unwrap_or_default();
                let commands = crate::virsh::words::commands(ours).expect("quotes have two ends");
                let words = commands.into_iter().flatten();
                let words = std::iter::once("hostel".to_owned()).chain(words);
                if let Err(error) = Arguments::try_parse_from(words) {
                    panic!("{line}: {error}");
                }
            }
        }
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
