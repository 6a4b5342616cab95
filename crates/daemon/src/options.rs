//! The daemon's command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::confine::{self, Range};

/// Whose machines these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The machine's: `qemu:///system`.
    System,
    /// One user's: `qemu:///session`.
    Session,
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct Serve {
    /// System or session; by default what the user id says.
    pub mode: Mode,
    /// Where the sockets go, instead of libvirt's own place.
    pub socket_dir: Option<PathBuf>,
    /// Where definitions go.
    pub state_dir: Option<PathBuf>,
    /// Where what lives until the next boot goes.
    pub runtime_dir: Option<PathBuf>,
    /// Serve the names of libvirt's modular daemons too.
    pub modular: bool,
    /// Leave after so long without a client and without a running domain.
    pub timeout: Option<Duration>,
    /// Plain TCP, for trusted networks and tests.
    pub listen: Option<String>,
    /// TLS, for clients with certificates.
    pub listen_tls: Option<String>,
    /// Where the certificates lie, instead of libvirt's places.
    pub pki_dir: Option<PathBuf>,
    /// The emulator used for definitions that name none.
    pub emulator: Option<PathBuf>,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// How machines are kept from each other; by default only a system's are.
    pub confinement: confine::Settings,
}

/// What the command line asks for.
pub enum Request {
    /// Serve clients.
    Serve(Box<Serve>),
    /// Print the help page.
    Help,
    /// Print the version.
    Version,
}

const HELP: &[(&str, &str)] = &[
    ("--system", "Serve qemu:///system (default for root)"),
    ("--session", "Serve qemu:///session (default for other users)"),
    ("--socket-dir DIR", "Make the sockets in DIR instead of libvirt's directory"),
    ("--state-dir DIR", "Keep definitions in DIR"),
    ("--runtime-dir DIR", "Keep what lives until the next boot in DIR"),
    ("--modular", "Also serve virtqemud-sock and the other modular names"),
    ("--listen ADDRESS:PORT", "Also serve plain TCP, without authentication"),
    ("--listen-tls ADDRESS:PORT", "Also serve TLS to clients with certificates"),
    ("--pki-dir DIR", "cacert.pem, servercert.pem and serverkey.pem lie in DIR"),
    ("--emulator PATH", "The emulator for definitions that name none"),
    ("--security-driver NAME", "dac confines machines (default of a system), none does not"),
    ("--vm-users FIRST-LAST", "Users by number that confined machines run as"),
    ("--expose PATH", "Confined machines may read and run PATH, too"),
    ("-t, --timeout SECONDS", "Leave after SECONDS without clients and domains"),
    ("-p, --pid-file FILE", "Write the process id to FILE"),
    ("-V, --version", "Show the version"),
    ("-h, --help", "Show this page"),
];

/// The help page.
pub fn help(name: &str) -> String {
    let mut page = format!("Usage: {name} [OPTION...]\n\nServes libvirt's protocol.\n\n");
    for (option, meaning) in HELP {
        page.push_str(&format!("  {option:<24} {meaning}\n"));
    }
    page
}

/// Understands the arguments, or says which one it does not.
pub fn parse(arguments: &[OsString]) -> Result<Request, String> {
    let root = rustix::process::geteuid().is_root();
    let mut options = Serve {
        mode: if root { Mode::System } else { Mode::Session },
        socket_dir: None,
        state_dir: None,
        runtime_dir: None,
        modular: false,
        timeout: None,
        listen: None,
        listen_tls: None,
        pki_dir: None,
        emulator: None,
        pid_file: None,
        confinement: confine::Settings::default(),
    };
    let mut driver = None;
    let mut rest = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = rest.next() {
        let (name, given) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                (name.to_owned(), Some(value.to_owned()))
            }
            _ => (argument.clone(), None),
        };
        let mut value = || {
            let value = given.clone().or_else(|| rest.next());
            value.ok_or_else(|| format!("Option '{name}' needs a value"))
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Request::Help),
            "-V" | "--version" => return Ok(Request::Version),
            "--system" => options.mode = Mode::System,
            "--session" => options.mode = Mode::Session,
            "--modular" => options.modular = true,
            "--socket-dir" => options.socket_dir = Some(value()?.into()),
            "--state-dir" => options.state_dir = Some(value()?.into()),
            "--runtime-dir" => options.runtime_dir = Some(value()?.into()),
            "--listen" => options.listen = Some(value()?),
            "--listen-tls" => options.listen_tls = Some(value()?),
            "--pki-dir" => options.pki_dir = Some(value()?.into()),
            "--emulator" => options.emulator = Some(value()?.into()),
            "--security-driver" | "--vm-users" | "--expose" => {
                driver = confine_by(&mut options.confinement, &name, &value()?)?.or(driver);
            }
            "-p" | "--pid-file" => options.pid_file = Some(value()?.into()),
            "-t" | "--timeout" => {
                let text = value()?;
                let seconds: u64 =
                    text.parse().map_err(|_| format!("'{text}' is no number of seconds"))?;
                options.timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            }
            _ => return Err(format!("Unknown option '{argument}'")),
        }
    }
    let system = options.mode == Mode::System;
    if driver == Some(true) && !(root && system) {
        return Err("Only a system's daemon, run by root, can confine machines".to_owned());
    }
    options.confinement.enabled = driver.unwrap_or(root && system);
    Ok(Request::Serve(Box::new(options)))
}

/// One of the options about confinement; answers whether it turned that on or off.
fn confine_by(
    settings: &mut confine::Settings,
    name: &str,
    value: &str,
) -> Result<Option<bool>, String> {
    match name {
        "--vm-users" => {
            let range = Range::parse(value);
            settings.users = range.ok_or_else(|| format!("'{value}' is no range of users"))?;
            Ok(None)
        }
        "--expose" => {
            let path = PathBuf::from(value).canonicalize();
            settings
                .exposed
                .push(path.map_err(|error| format!("Cannot expose '{value}': {error}"))?);
            Ok(None)
        }
        _ => match value {
            confine::MODEL => Ok(Some(true)),
            "none" => Ok(Some(false)),
            other => Err(format!("Unknown security driver '{other}'")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str]) -> Result<Serve, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        match parse(&arguments)? {
            Request::Serve(options) => Ok(*options),
            _ => Err("not serving".into()),
        }
    }

    #[test]
    fn values_stand_behind_a_blank_or_an_equals_sign() {
        for arguments in [["--session", "--timeout=120"].as_slice(), &["--session", "-t", "120"]] {
            let options = check(arguments).unwrap();
            assert_eq!(options.mode, Mode::Session);
            assert_eq!(options.timeout, Some(Duration::from_secs(120)));
        }
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(check(&["--nonsense"]).unwrap_err(), "Unknown option '--nonsense'");
        assert_eq!(check(&["--socket-dir"]).unwrap_err(), "Option '--socket-dir' needs a value");
        for (arguments, named) in [
            (["--security-driver", "selinux"], "selinux"),
            (["--vm-users", "5"], "'5' is no range"),
        ] {
            assert!(check(&arguments).unwrap_err().contains(named), "{arguments:?}");
        }
        assert_eq!(check(&["-t", "soon"]).unwrap_err(), "'soon' is no number of seconds");
    }
}
