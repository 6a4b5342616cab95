//! Screens and the VNC server.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use display::server::Server;
use machine::Picture;
use qemu_compat::qmp::server::Refusal;
use serde_json::{Map, Value, json};

use super::{Answer, Arguments, Command, plain, refusal, text};
use crate::emulator::Emulator;
use crate::picture::{self, Format};
use crate::screens::{auth_name, end, find_screen};

pub const COMMANDS: &[Command] = &[
    plain("query-vnc", "{}", "VncInfo", query),
    plain("query-vnc-servers", "{}", "[VncInfo2]", query_all),
    plain(
        "set_password",
        "{ protocol: DisplayProtocol, password: str, connected?: SetPasswordAction, \
         display?: str }",
        "",
        set_password,
    ),
    plain(
        "expire_password",
        "{ protocol: DisplayProtocol, time: str, display?: str }",
        "",
        expire_password,
    ),
    plain("change-vnc-password", "{ password: str }", "", change_password),
    plain("display-reload", "{ type: DisplayReloadType, tls-certs?: bool }", "", reload),
    plain(
        "screendump",
        "{ filename: str, device?: str, head?: int, format?: ImageFormat }",
        "",
        dump,
    ),
];

fn clients(server: &Server) -> Value {
    let entry = |client: &display::server::ClientInfo| end(&client.peer, client.websocket);
    server.clients().iter().map(entry).collect()
}

fn auth(server: &Server) -> &'static str {
    auth_name(server.settings().password, server.is_secure())
}

/// The same in two parts.
fn primary(server: &Server) -> (&'static str, Option<&'static str>) {
    match auth(server) {
        "vencrypt+x509+none" => ("vencrypt", Some("x509-none")),
        "vencrypt+x509+vnc" => ("vencrypt", Some("x509-vnc")),
        plain => (plain, None),
    }
}

/// `display-reload`: clients that come from now on see other certificates.
fn reload(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    if arguments.get("tls-certs").and_then(Value::as_bool) != Some(true) {
        return Ok(json!({}));
    }
    for named in emulator.vnc.all() {
        let Some(id) = &named.credentials else {
            return Err(Refusal::new("vnc tls is not enabled"));
        };
        let credentials = crate::credentials::reload(id).map_err(Refusal::new)?;
        named.server.set_credentials(credentials);
    }
    Ok(json!({}))
}

fn query(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let Some(server) = emulator.vnc.find(None) else { return Ok(json!({"enabled": false})) };
    let mut info = json!({"enabled": true, "auth": auth(server), "clients": clients(server)});
    if let Some((address, _)) = server.addresses().first() {
        info["host"] = address.host.as_str().into();
        info["service"] = address.service.as_str().into();
        info["family"] = address.family.into();
    }
    Ok(info)
}

fn query_all(emulator: &Arc<Emulator>, _: &Arguments) -> Answer {
    let entry = |named: &crate::screens::Named| {
        let (auth, within) = primary(&named.server);
        let server = named.server.addresses().iter().map(|(address, websocket)| {
            let mut server = end(address, *websocket);
            server["auth"] = auth.into();
            if let Some(within) = within {
                server["vencrypt"] = within.into();
            }
            server
        });
        let mut info = json!({"id": named.id, "server": server.collect::<Vec<Value>>(),
            "clients": clients(&named.server), "auth": auth});
        if let Some(within) = within {
            info["vencrypt"] = within.into();
        }
        info
    };
    Ok(emulator.vnc.all().iter().map(entry).collect())
}

/// The server that a command is about, with a password.
fn locked<'a>(
    emulator: &'a Emulator,
    arguments: &Arguments,
    what: &str,
) -> Result<&'a Server, Refusal> {
    if text(arguments, "protocol") == "spice" {
        return Err(Refusal::new("SPICE is not built in Hostel"));
    }
    let id = arguments.get("display").and_then(Value::as_str);
    let server = emulator.vnc.find(id).filter(|server| server.settings().password);
    server.ok_or_else(|| Refusal::new(format!("Could not set {what}")))
}

fn set_password(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let server = locked(emulator, arguments, "password")?;
    if !matches!(text(arguments, "connected"), "" | "keep") {
        let error = "parameter 'connected' must be 'keep' when 'protocol' is 'vnc'";
        return Err(Refusal::new(error));
    }
    server.set_password(Some(text(arguments, "password")));
    Ok(json!({}))
}

fn change_password(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    locked(emulator, arguments, "password")?.set_password(Some(text(arguments, "password")));
    Ok(json!({}))
}

fn expire_password(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let server = locked(emulator, arguments, "password expire time")?;
    let time = text(arguments, "time");
    let seconds = |digits: &str| {
        let number = digits.parse::<u32>();
        number
            .map(|number| Duration::from_secs(number.into()))
            .map_err(|_| Refusal::new(format!("Parameter 'time' doesn't take value '{time}'")))
    };
    server.set_expiry(match time {
        "never" => None,
        "now" => Some(SystemTime::now()),
        _ => Some(match time.strip_prefix('+') {
            Some(digits) => SystemTime::now() + seconds(digits)?,
            None => UNIX_EPOCH + seconds(time)?,
        }),
    });
    Ok(json!({}))
}

fn dump(emulator: &Arc<Emulator>, arguments: &Arguments) -> Answer {
    let device = arguments.get("device").and_then(Value::as_str);
    let head = arguments.get("head").and_then(Value::as_i64).unwrap_or(0);
    let screen = find_screen(&emulator.machine.screens(), device);
    let screen = match (screen, device) {
        (Some(_), Some(device)) if head != 0 => {
            let error = format!("Device '{device}' (head {head}) is not bound to a QemuConsole");
            return Err(Refusal::new(error));
        }
        (Some(screen), _) => screen,
        (None, Some(device)) => {
            return Err(Refusal::new(format!("Device '{device}' not found")));
        }
        (None, None) => return Err(Refusal::new("There is no console to take a screendump from")),
    };
    let mut picture = Picture::default();
    screen.refresh(&mut picture, true);
    let format = if text(arguments, "format") == "png" { Format::Png } else { Format::Ppm };
    let path = text(arguments, "filename");
    let failed = |error| refusal(format!("failed to open file '{path}': {error}"));
    picture::save(&picture, format, path).map_err(failed)?;
    Ok(json!({}))
}

/// `screendump FILE [-f FORMAT] [DEVICE [HEAD]]`.
pub fn dump_line(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let mut arguments = Map::new();
    let mut words = line.split_whitespace();
    let mut names = ["filename", "device", "head"].into_iter();
    while let Some(word) = words.next() {
        match (word, names.clone().next()) {
            ("-f", _) => match words.next() {
                Some(format @ ("ppm" | "png")) => {
                    _ = arguments.insert("format".into(), format.into());
                }
                format => return Err(format!("invalid format '{}'", format.unwrap_or_default())),
            },
            (_, Some("head")) => {
                let head: i64 = word.parse().map_err(|_| format!("invalid head '{word}'"))?;
                arguments.insert("head".into(), head.into());
                names.next();
            }
            (_, Some(name)) => {
                arguments.insert(name.into(), word.into());
                names.next();
            }
            (_, None) => return Err("extraneous characters at the end of line".to_owned()),
        }
    }
    if !arguments.contains_key("filename") {
        return Err("filename is missing".to_owned());
    }
    dump(emulator, &arguments).map(|_| String::new()).map_err(|refusal| refusal.description)
}

/// `change vnc password PASSWORD`.
pub fn change(emulator: &Arc<Emulator>, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["vnc", "passwd" | "password", password] => {
            let mut arguments = Map::new();
            arguments.insert("password".into(), (*password).into());
            let changed = change_password(emulator, &arguments);
            changed.map(|_| String::new()).map_err(|refusal| refusal.description)
        }
        ["vnc", "passwd" | "password"] => {
            Err("the password has to stand on the line: asking for it is not built".to_owned())
        }
        ["vnc", ..] => Err("Expected 'password' after 'vnc'".to_owned()),
        [device, file, rest @ ..] if rest.len() <= 1 => {
            let mut arguments = Map::new();
            arguments.insert("id".into(), (*device).into());
            arguments.insert("filename".into(), file.trim_matches('"').into());
            arguments.extend(rest.first().map(|format| ("format".into(), (*format).into())));
            let changed = super::blocks::change_medium(emulator, &arguments);
            changed.map(|_| String::new()).map_err(|refusal| refusal.description)
        }
        _ => Err("Usage: change device filename [format]".to_owned()),
    }
}

pub fn info_vnc(emulator: &Arc<Emulator>, _: &str) -> Result<String, String> {
    if emulator.vnc.all().is_empty() {
        return Ok("None\n".to_owned());
    }
    let mut lines = String::new();
    let place = |address: &display::server::Address| match address.family {
        "unix" => format!("{} (unix)", address.service),
        family => format!("{}:{} ({family})", address.host, address.service),
    };
    for named in emulator.vnc.all() {
        let auth = auth(&named.server);
        _ = writeln!(lines, "{}:", named.id);
        for (address, websocket) in named.server.addresses() {
            let web = if *websocket { " (Websocket)" } else { "" };
            _ = writeln!(lines, "  Server: {}{web}\n    Auth: {auth} (Sub: none)", place(address));
        }
        for client in named.server.clients() {
            _ = writeln!(lines, "  Client: {}", place(&client.peer));
        }
    }
    Ok(lines)
}
