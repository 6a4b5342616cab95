//! What a machine shows, and what is typed into it.

use std::fs;

use libvirt_compat::keys;
use libvirt_compat::xml::Element;

use super::domain::document_of;
use super::syntax::Given;
use super::{Command, Outcome, Shell, Trouble, doing};
use crate::daemon::Connection;

pub const COMMANDS: &[Command] = &[
    Command {
        name: "console",
        syntax: "<domain> [<devname>] [--force] [--safe]",
        summary: "connect to the guest console",
        run: console,
    },
    Command {
        name: "domdisplay",
        syntax: "<domain> [--include-password] [<type>] [--all]",
        summary: "domain display connection URI",
        run: display,
    },
    Command {
        name: "inject-nmi",
        syntax: "<domain>",
        summary: "Inject NMI to the guest",
        run: |shell, given| {
            let domain = shell.domain(given)?;
            shell.connection.client.domain_inject_nmi(domain, 0)?;
            Ok(String::new())
        },
    },
    Command {
        name: "screenshot",
        syntax: "<domain> [<file>] [--screen <number>]",
        summary: "take a screenshot of a current domain console and store it into a file",
        run: screenshot,
    },
    Command {
        name: "send-key",
        syntax: "<domain> [--codeset <string>] [--holdtime <number>] <keycode>...",
        summary: "Send keycodes to the guest",
        run: send_key,
    },
    Command { name: "ttyconsole", syntax: "<domain>", summary: "tty console", run: terminal },
    Command { name: "vncdisplay", syntax: "<domain>", summary: "vnc display", run: vnc },
];

/// What is on a domain's screen and console can be read by people only.
fn console(shell: &mut Shell, given: &Given) -> Outcome {
    use crate::verbs::console::{ESCAPE, carry};
    let domain = shell.domain(given)?;
    if domain.id < 0 {
        return Err(Trouble::new("The domain is not running"));
    }
    let flags = given.bits(&[("force", 1), ("safe", 2)]);
    let device = given.text("devname").map(str::to_owned);
    // The connection is taken up by the console.
    let connection = Connection::of_uri(shell.asked.as_deref())?;
    println!("Connected to domain '{}'\nEscape character is ^] (Ctrl + ])", domain.name);
    carry(connection, domain, device, flags, ESCAPE)?;
    Ok("\n".to_owned())
}

/// The document of a domain that must run.
fn running(shell: &mut Shell, given: &Given, flags: u32) -> Result<Element, Trouble> {
    let domain = shell.domain(given)?;
    if domain.id < 0 {
        return Err(Trouble::new("Domain is not running"));
    }
    document_of(shell, domain, flags)
}

/// VNC counts its ports from here.
const VNC_PORT: u32 = 5900;

/// Screens of a kind, with the address and port that each listens on.
fn screens<'a>(document: &'a Element, kind: &'a str) -> impl Iterator<Item = &'a Element> {
    let devices = document.child("devices").into_iter();
    devices
        .flat_map(|devices| devices.all("graphics"))
        .filter(move |screen| screen.is("type", kind))
}

fn listens(screen: &Element) -> Option<&str> {
    screen.attribute_at("listen", "address").or_else(|| screen.attribute("listen"))
}

fn display(shell: &mut Shell, given: &Given) -> Outcome {
    /// `VIR_DOMAIN_XML_SECURE`.
    const SECURE: u32 = 1;
    let wanted = given.text("type");
    let flags = if given.has("include-password") { SECURE } else { 0 };
    let document = running(shell, given, flags)?;
    let mut text = String::new();
    for kind in ["vnc", "spice", "rdp"] {
        if wanted.is_some_and(|wanted| wanted != kind) {
            continue;
        }
        for screen in screens(&document, kind) {
            let password = match screen.attribute("passwd") {
                Some(password) if given.has("include-password") => format!(":{password}@"),
                _ => String::new(),
            };
            let socket = screen.attribute("socket");
            let socket = socket.or_else(|| screen.attribute_at("listen", "socket"));
            if let Some(socket) = socket {
                text.push_str(&format!("{kind}+unix://{password}{socket}\n"));
            } else {
                let port = screen.attribute("port").and_then(|port| port.parse::<u32>().ok());
                let Some(port) = port.filter(|port| *port > 0) else { continue };
                let host = match listens(screen) {
                    None | Some("0.0.0.0" | "::") => "localhost".to_owned(),
                    Some(host) if host.contains(':') => format!("[{host}]"),
                    Some(host) => host.to_owned(),
                };
                let port = if kind == "vnc" { port.saturating_sub(VNC_PORT) } else { port };
                text.push_str(&format!("{kind}://{password}{host}:{port}\n"));
            }
            if !given.has("all") {
                // The last line end is the shell's.
                return Ok(text.trim_end().to_owned());
            }
        }
    }
    match (text.is_empty(), wanted) {
        (false, _) => Ok(text),
        (true, Some(kind)) => {
            Err(Trouble::new(format!("No graphical display with type '{kind}' found")))
        }
        (true, None) => Err(Trouble::new("No graphical display found")),
    }
}

fn vnc(shell: &mut Shell, given: &Given) -> Outcome {
    let document = running(shell, given, 0)?;
    let failed = || Trouble::new("Failed to get VNC port. Is this domain using VNC?");
    let screen = screens(&document, "vnc").next().ok_or_else(failed)?;
    let port = screen.attribute("port").and_then(|port| port.parse::<u32>().ok());
    let port = port.and_then(|port| port.checked_sub(VNC_PORT)).ok_or_else(failed)?;
    Ok(match listens(screen) {
        None | Some("0.0.0.0") => format!(":{port}\n"),
        Some(host) if host.contains(':') => format!("[{host}]:{port}\n"),
        Some(host) => format!("{host}:{port}\n"),
    })
}

fn terminal(shell: &mut Shell, given: &Given) -> Outcome {
    let domain = shell.domain(given)?;
    let document = document_of(shell, domain, 0)?;
    match document.attribute_at("devices/console", "tty") {
        Some(path) => Ok(format!("{path}\n")),
        None => Err(Trouble(Vec::new())),
    }
}

fn screenshot(shell: &mut Shell, given: &Given) -> Outcome {
    /// `domain_screenshot`, of libvirt's main program.
    const SCREENSHOT: u32 = 211;
    let domain = shell.domain(given)?;
    let screen = given.number("screen")?.unwrap_or(0);
    let name = domain.name.clone();
    // The connection becomes the stream of what the call gives.
    let mut connection = Connection::of_uri(shell.asked.as_deref())?;
    let kind = connection.client.domain_screenshot(domain, screen, 0);
    let kind = doing(format!("could not take a screenshot of {name}"), kind)?;
    let kind = kind.unwrap_or_else(|| "image/x-portable-pixmap".to_owned());
    let mut receiver = connection.client.transport.into_stream();
    let sender = receiver.sender(libvirt_compat::rpc::PROGRAM_REMOTE, SCREENSHOT);
    let mut picture = Vec::new();
    while let Some(bytes) = receiver.receive()? {
        picture.extend(bytes);
    }
    drop(sender);
    let file = match given.text("file") {
        Some(file) => file.to_owned(),
        None => {
            let extension = if kind == "image/png" { "png" } else { "ppm" };
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let date =
                super::moments::date(i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(0));
            let date = date.trim_end_matches(" +0000").replace(' ', "-");
            format!("{name}-{date}.{extension}")
        }
    };
    fs::write(&file, picture).map_err(|_| Trouble::new(format!("cannot create file {file}")))?;
    Ok(format!("Screenshot saved to {file}, with type of {kind}"))
}

fn send_key(shell: &mut Shell, given: &Given) -> Outcome {
    const SETS: &[&str] =
        &["linux", "xt", "atset1", "atset2", "atset3", "os_x", "xt_kbd", "usb", "win32", "qnum"];
    /// libvirt's limit.
    const KEYS_MAX: usize = 16;
    let domain = shell.domain(given)?;
    let set = given.text("codeset").unwrap_or("linux");
    let number = match set {
        "rfb" => Some(9),
        set => SETS.iter().position(|known| *known == set),
    };
    let Some(number) = number else {
        return Err(Trouble::new(format!("unknown codeset: '{set}'")));
    };
    let hold_ms = given.number("holdtime")?.unwrap_or(0);
    let words = given.rest();
    if words.len() > KEYS_MAX {
        return Err(Trouble::new("too many keycodes"));
    }
    let code = |word: &String| {
        let code = match word.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None if set == "linux" => word.parse().ok().or_else(|| keys::by_name(word)),
            None => word.parse().ok(),
        };
        code.ok_or_else(|| Trouble::new(format!("invalid keycode: '{word}'")))
    };
    let codes = words.iter().map(code).collect::<Result<Vec<u32>, Trouble>>()?;
    let number = u32::try_from(number).unwrap_or(0);
    shell.connection.client.domain_send_key(domain, number, hold_ms, codes, 0)?;
    Ok(String::new())
}
