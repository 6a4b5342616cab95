//! Running programs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use agent::{Exec, Exit, FrameKind, Size, read_frame};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use vsock::VsockStream;

use crate::init::Started;
use crate::session::{Failed, Host};

/// What a shell exits with for a program that is not there, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
const PIECE_BYTES: usize = 64 << 10;
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user as the password file has it.
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

impl User {
    fn find(name: &str) -> Option<Self> {
        let table = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            match fields.as_slice() {
                [user, _, uid, gid, _, home, shell] if *user == name => Some(Self {
                    name: name.to_owned(),
                    uid: uid.parse().ok()?,
                    gid: gid.parse().ok()?,
                    home: (*home).to_owned(),
                    shell: (*shell).to_owned(),
                }),
                _ => None,
            }
        });
        let root = || Self {
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
            home: "/root".to_owned(),
            shell: "/bin/sh".to_owned(),
        };
        found.or_else(|| (name == "root").then(root))
    }
}

/// Runs a program, carries its streams, and says how it ended.
pub fn run(what: &Exec, host: &Host, from: &mut VsockStream) -> Result<(), Failed> {
    let name = what.user.as_deref().unwrap_or("root");
    let none = || Failed { reason: format!("There is no user '{name}'"), code: 1 };
    let user = User::find(name).ok_or_else(none)?;
    match what.terminal {
        Some(size) => on_terminal(what, &user, size, host, from),
        None => on_pipes(what, &user, host, from),
    }
}

fn command(what: &Exec, user: &User, terminal: bool) -> Command {
    let login = what.words.is_empty();
    let shell = [user.shell.clone()];
    let words: &[String] = if login { &shell } else { &what.words };
    let mut command = match terminal {
        // The child needs a session of its own, with the terminal as its controlling one.
        true => {
            let mut command = Command::new("setsid");
            command.arg("-c").args(words);
            command
        }
        false => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).process_group(0);
            command
        }
    };
    if login {
        command.arg("-l");
    }
    command.env_clear();
    command.env("PATH", PATH).env("HOME", &user.home).env("SHELL", &user.shell);
    command.env("USER", &user.name).env("LOGNAME", &user.name);
    command.envs(&what.environment);
    let wanted = what.folder.as_deref().unwrap_or(&user.home);
    let folder = [wanted, &user.home, "/"].into_iter().find(|folder| Path::new(folder).is_dir());
    command.current_dir(folder.unwrap_or("/"));
    if user.uid != 0 {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

fn spawned(mut command: Command, what: &Exec) -> Result<Started, Failed> {
    Started::new(&mut command).map_err(|error| {
        let name = what.words.first().map_or("shell", String::as_str);
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
        Failed { reason: format!("{name}: {error}"), code }
    })
}

fn on_pipes(what: &Exec, user: &User, host: &Host, from: &mut VsockStream) -> Result<(), Failed> {
    let mut command = command(what, user, false);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawned(command, what)?;
    let streams = &mut child.0;
    let (input, output, error) =
        (streams.stdin.take(), streams.stdout.take(), streams.stderr.take());
    let group = Pid::from_child(&child.0);
    let from = from.try_clone()?;
    // This thread ends with the connection, which the caller closes.
    thread::Builder::new().name("input".to_owned()).spawn(move || {
        carry_input(from, input, |signal| _ = kill_process_group(group, signal), |_| {});
    })?;
    let status = thread::scope(|scope| {
        scope.spawn(|| carry_output(output, FrameKind::Output, host));
        scope.spawn(|| carry_output(error, FrameKind::Error, host));
        child.wait()
    })?;
    finish(status, host);
    Ok(())
}

fn on_terminal(
    what: &Exec,
    user: &User,
    size: Size,
    host: &Host,
    from: &mut VsockStream,
) -> Result<(), Failed> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = openpt(flags)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    resize(&controller, size);
    let name = ptsname(&controller, Vec::new())?.to_string_lossy().into_owned();
    let terminal = OpenOptions::new().read(true).write(true).open(name)?;
    let mut command = command(what, user, true);
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    let mut child = spawned(command, what)?;
    let controller = Arc::new(controller);
    let (writer, sizes) = (File::from(controller.try_clone()?), Arc::clone(&controller));
    let process = Pid::from_child(&child.0);
    let from = from.try_clone()?;
    thread::Builder::new().name("input".to_owned()).spawn(move || {
        let signal = |signal| _ = kill_process(process, signal);
        carry_input(from, Some(writer), signal, |size| resize(&sizes, size));
    })?;
    let output = File::from(controller.try_clone()?);
    let status = thread::scope(|scope| {
        // The terminal hangs up when the last program on it ends; a background job of the guest
        // must not hold the session, so that nobody waits for this thread's natural end.
        let reader = scope.spawn(|| carry_output(Some(output), FrameKind::Output, host));
        let status = child.wait();
        _ = reader.join();
        status
    })?;
    finish(status, host);
    Ok(())
}

fn finish(status: ExitStatus, host: &Host) {
    let killed = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(killed).unwrap_or(1);
    host.answer(FrameKind::Exit, &Exit { code: u8::try_from(code).unwrap_or(255) });
}

fn resize(controller: &OwnedFd, size: Size) {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    _ = tcsetwinsize(controller, size);
}

/// Carries what the host sends, until it goes: then the program hears a hang-up.
fn carry_input<W: Write>(
    mut from: VsockStream,
    mut input: Option<W>,
    signal: impl Fn(Signal),
    resize: impl Fn(Size),
) {
    while let Ok(Some(frame)) = read_frame(&mut from) {
        match frame.kind {
            FrameKind::Input if frame.payload.is_empty() => input = None,
            FrameKind::Input => {
                let written = input.as_mut().map(|input| input.write_all(&frame.payload));
                if matches!(written, Some(Err(_))) {
                    input = None;
                }
            }
            FrameKind::Signal => {
                let number = frame.payload.first().map(|number| i32::from(*number));
                if let Some(number) = number.and_then(Signal::from_named_raw) {
                    signal(number);
                }
            }
            FrameKind::Resize => {
                if let Ok(size) = serde_json::from_slice(&frame.payload) {
                    resize(size);
                }
            }
            _ => {}
        }
    }
    signal(Signal::HUP);
}

fn carry_output(from: Option<impl Read>, kind: FrameKind, host: &Host) {
    let Some(mut from) = from else { return };
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                if host.send(kind, &bytes[..count]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return, // a terminal that has hung up
        }
    }
}
