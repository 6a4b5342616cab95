//! `virt-ssh-helper`: what `qemu+ssh://` starts on the far side. It connects standard input and
//! output to the daemon that a URI means, and starts a session's daemon that does not run yet.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::options::{self, Mode, Request};
use crate::paths::Paths;
use crate::world::Uri;
use crate::{EXIT_FAILED, EXIT_USAGE};

/// A session's daemon is there long before.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// `virt-ssh-helper [-r] URI`.
pub fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    if words.iter().any(|word| matches!(&**word, "-h" | "--help")) {
        println!("Usage: {name} [-r|--readonly] URI\n");
        println!("Connects standard input and output to the daemon behind URI.");
        return ExitCode::SUCCESS;
    }
    let readonly = words.iter().any(|word| matches!(&**word, "-r" | "--readonly"));
    let rest: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let unknown =
        words.iter().find(|word| word.starts_with('-') && !matches!(&***word, "-r" | "--readonly"));
    let ([uri], None) = (rest.as_slice(), unknown) else {
        eprintln!("error: {name} takes one URI, and -r for a read-only connection");
        return ExitCode::from(EXIT_USAGE);
    };
    match relay(uri, readonly) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: Cannot connect to the daemon for '{uri}': {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn relay(uri: &str, readonly: bool) -> io::Result<()> {
    let session = Uri::parse(uri).is_some_and(|uri| uri.path == "/session");
    let Ok(Request::Serve(mut options)) = options::parse(&[]) else {
        unreachable!("no argument is wrong")
    };
    options.mode = if session { Mode::Session } else { Mode::System };
    let folder = Paths::new(&options).sockets;
    // A session has no read-only socket; reading only is then asked for in the opening call.
    let name = if readonly && !session { "libvirt-sock-ro" } else { "libvirt-sock" };
    let socket = connect(&folder.join(name), session)?;
    let mut outgoing = socket.try_clone()?;
    thread::spawn(move || {
        _ = copy(&mut io::stdin().lock(), &mut outgoing);
        _ = outgoing.shutdown(Shutdown::Write);
    });
    let mut incoming = socket;
    copy(&mut incoming, &mut io::stdout().lock())
}

fn connect(path: &Path, may_start: bool) -> io::Result<UnixStream> {
    match UnixStream::connect(path) {
        Err(_) if may_start => {}
        result => return result,
    }
    Command::new(env::current_exe()?)
        .args(["daemon", "--session", "--timeout", "120"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match UnixStream::connect(path) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

/// Copies what is there at once: calls are small and wait for their answers.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
