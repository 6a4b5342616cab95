//! `exec` and `shell`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use agent::{Exec as Program, Exit, FrameKind, Request};
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::arguments::{Arguments, BOOT_PATIENCE, Exec, Shell, Verb};
use crate::daemon::Connection;
use crate::failure::{Failure, USAGE};
use crate::guest::{self, Session};
use crate::machine::{Machine, State};
use crate::progress::Line;
use crate::settings;
use crate::terminal::{self, Raw};
use crate::verbs::{launch, lifecycle, mount};
use crate::way::{self, Way};

/// How long the agent may take to accept.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is read at once.
const PIECE_BYTES: usize = 64 << 10;

/// `hostel exec`.
pub fn run(what: &Exec) -> Result<u8, Failure> {
    let mut environment = BTreeMap::new();
    for pair in &what.environment {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("'{pair}' is no NAME=VALUE")).code(USAGE))?;
        environment.insert(name.to_owned(), value.to_owned());
    }
    let program = Program {
        words: what.words.clone(),
        environment,
        folder: what.working_directory.clone(),
        user: what.user.clone(),
        terminal: None,
    };
    let mut connection = Connection::open()?;
    let machine = connection.machine(&what.name)?;
    let mut program = program;
    if program.folder.is_none() && !what.no_map_working_directory {
        program.folder = mapped_folder(&machine);
    }
    session(&mut connection, &machine, program, BOOT_PATIENCE)
}

/// Where this process stands, if that is mounted in the machine.
fn mapped_folder(machine: &Machine) -> Option<String> {
    let shares = machine.note().unwrap_or_default().shares;
    mount::mapped(&shares, &std::env::current_dir().ok()?)
}

/// `hostel shell`.
pub fn shell(what: &Shell) -> Result<u8, Failure> {
    let mut connection = Connection::open()?;
    let primary = settings::primary();
    let name = what.name.as_deref().unwrap_or(&primary);
    let machine = match connection.machine(name) {
        Ok(machine) => machine,
        Err(_) if name == primary && connection.any_machine(name).is_err() => {
            make_primary(&mut connection, name)?
        }
        Err(failure) => return Err(failure),
    };
    let folder = mapped_folder(&machine);
    session(&mut connection, &machine, Program { folder, ..Program::default() }, what.timeout)
}

/// The machine that is there for whoever names none.
fn make_primary(connection: &mut Connection, name: &str) -> Result<Machine, Failure> {
    let Verb::Launch(what) = Arguments::parse_from(["hostel", "launch", "--name", name]).verb
    else {
        unreachable!("the words say launch");
    };
    let mut line = Line::new();
    launch::create(connection, &what, &mut line)
}

/// Whether the machine's own user is there yet: cloud-init makes it late in the first boot, and until
/// then root is who can be had.
fn has_user(connection: &Connection, machine: &Machine, user: &str) -> bool {
    let socket = machine.socket(connection);
    let info = guest::quick_info(&socket, PATIENCE);
    if info.is_some_and(|info| info.levels.iter().any(|level| level == "provisioned")) {
        return true;
    }
    let asks = Program { words: vec!["id".to_owned(), user.to_owned()], ..Program::default() };
    let Ok(mut session) = Session::open(&socket, &Request::Exec(asks), PATIENCE) else {
        return true;
    };
    while let Ok(Some(frame)) = session.read() {
        if frame.kind == FrameKind::Exit {
            let exit = serde_json::from_slice::<Exit>(&frame.payload);
            return exit.is_ok_and(|exit| exit.code == 0);
        }
    }
    true
}

fn session(
    connection: &mut Connection,
    machine: &Machine,
    mut program: Program,
    patience: Duration,
) -> Result<u8, Failure> {
    let name = machine.name();
    match machine.state {
        State::Running => {}
        State::Suspended => {
            let failure = Failure::new(format!("The machine '{name}' is suspended"));
            return Err(failure.hint(format!("'hostel resume {name}' lets it go on")));
        }
        _ => lifecycle::start_unless_running(connection, machine)?,
    }
    {
        let mut line = Line::new();
        guests::Progress::step(&mut line, "Waiting for the machine");
        let way = launch::await_way(connection, machine, patience, &mut line)?;
        if way != Way::Agent {
            drop(line);
            if terminal::is_interactive() {
                program.terminal = terminal::size();
            }
            return way::run_by_ssh(&connection.places, machine, &program);
        }
    }
    if machine.state == State::Stopped {
        lifecycle::furnish(connection, machine)?;
    }
    if program.user.is_none() {
        let user = machine.note().and_then(|note| note.user);
        program.user = user.filter(|user| has_user(connection, machine, user));
    }
    if terminal::is_interactive() {
        program.terminal = terminal::size();
        for variable in ["TERM", "LANG"] {
            if let Ok(value) = std::env::var(variable) {
                program.environment.entry(variable.to_owned()).or_insert(value);
            }
        }
    }
    let on_terminal = program.terminal.is_some();
    let socket = machine.socket(connection);
    let session = Session::open(&socket, &Request::Exec(program), PATIENCE)
        .map_err(|error| guest::unreachable(name, &error))?;
    let raw = match on_terminal {
        true => Some(
            Raw::new()
                .map_err(|error| Failure::new("The terminal cannot be used").because(&error))?,
        ),
        false => None,
    };
    let ended = carry(session, on_terminal);
    drop(raw);
    match ended {
        Ok(End::Exit(code)) => Ok(code),
        Ok(End::Refused(frame)) => Err(guest::refusal(name, &frame)),
        Err(error) => {
            let failure = Failure::new(format!("The session with '{name}' broke"));
            Err(failure.because(&error).code(255))
        }
    }
}

enum End {
    Exit(u8),
    Refused(agent::Frame),
}

/// Carries streams and signals until the program ends.
fn carry(mut session: Session, on_terminal: bool) -> io::Result<End> {
    let mut input = session.second()?;
    // The thread may sit in a read for ever; it ends with the process.
    thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut bytes = vec![0; PIECE_BYTES];
        loop {
            let count = io::stdin().read(&mut bytes).unwrap_or(0);
            if input.write(FrameKind::Input, &bytes[..count]).is_err() || count == 0 {
                return;
            }
        }
    })?;
    let mut signals = Signals::new([SIGWINCH, SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
    let mut notices = session.second()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let sent = match signal {
                SIGWINCH if on_terminal => {
                    let size = terminal::size().and_then(|size| serde_json::to_vec(&size).ok());
                    size.map_or(Ok(()), |size| notices.write(FrameKind::Resize, &size))
                }
                SIGWINCH => Ok(()),
                number => notices.write(FrameKind::Signal, &[number as u8]),
            };
            if sent.is_err() {
                return;
            }
        }
    })?;
    let (mut output, mut errors) = (io::stdout(), io::stderr());
    while let Some(frame) = session.read()? {
        // Whoever reads our output may have enough; the program then hears of it by its pipe.
        let written = match frame.kind {
            FrameKind::Output => output.write_all(&frame.payload).and_then(|()| output.flush()),
            FrameKind::Error => errors.write_all(&frame.payload),
            FrameKind::Exit => {
                let exit: Exit = serde_json::from_slice(&frame.payload)?;
                return Ok(End::Exit(exit.code));
            }
            FrameKind::Failure => return Ok(End::Refused(frame)),
            _ => Ok(()),
        };
        if let Err(error) = written {
            return if error.kind() == io::ErrorKind::BrokenPipe {
                Ok(End::Exit(141))
            } else {
                Err(error)
            };
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
