//! Character devices: `-chardev`, the short forms of `-serial` and `-monitor`, and `chardev-add`.

use serde_json::Value;
use thiserror::Error;

use super::values::{self, ValueError};
use crate::options::{OptionsError, parse_opts};

/// A character device: its name and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Character {
    /// Its name.
    pub id: String,
    /// What it is.
    pub kind: CharacterKind,
    /// Several devices share it, and Ctrl-A changes between them.
    pub mux: bool,
    /// Everything the guest says goes here too.
    pub log_file: Option<String>,
    /// The log is continued rather than begun anew.
    pub log_append: bool,
}

/// What a character device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CharacterKind {
    /// Nobody.
    Null,
    /// The terminal.
    Stdio {
        /// Ctrl-C ends the emulator rather than going to the guest.
        signal: bool,
    },
    /// A new pseudo-terminal, perhaps with a symbolic link to it.
    Pty {
        /// The link.
        path: Option<String>,
    },
    /// A file takes what the guest says.
    File {
        /// The file.
        path: String,
        /// Behind what is there already.
        append: bool,
        /// Where input comes from.
        input: Option<String>,
    },
    /// A pair of named pipes, or one.
    Pipe {
        /// Their name, without `.in` and `.out`.
        path: String,
    },
    /// A ring in memory.
    Ring {
        /// Its size, a power of two.
        bytes: usize,
    },
    /// A socket.
    Socket {
        /// Where.
        address: SocketAddress,
        /// The emulator listens.
        server: bool,
        /// It waits for the first client before the guest starts.
        wait: bool,
        /// A client that lost its server tries again after so many milliseconds.
        reconnect_ms: u64,
        /// Small writes go out at once.
        no_delay: bool,
        /// The far end speaks telnet.
        telnet: bool,
    },
    /// Datagrams.
    Udp {
        /// Where they go: host and port.
        remote: (String, u16),
        /// Where they come from; port 0 for any.
        local: (String, u16),
    },
    /// A virtual console, which only a graphical display shows.
    Console,
}

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// In the file system, or in the abstract name space.
    Unix {
        /// Its path or name.
        path: String,
        /// Not in the file system.
        is_abstract: bool,
    },
    /// TCP.
    Inet {
        /// A name or an address; empty for every address.
        host: String,
        /// A port or its name.
        port: String,
        /// Try ports up to this one.
        to: Option<u16>,
    },
    /// A descriptor that was inherited or passed.
    Descriptor {
        /// Its number or name.
        name: String,
    },
}

/// What is wrong with a character device.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum CharacterError {
    /// No such kind.
    #[error("'{name}' is not a valid char driver name")]
    Kind {
        /// What was given.
        name: String,
    },
    /// A kind that is QEMU's but not built.
    #[error("chardev: the '{name}' backend is not built in Hostel")]
    NotBuilt {
        /// The kind.
        name: String,
    },
    /// A value is wrong.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// Not even options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

type Result<T> = std::result::Result<T, CharacterError>;

/// The pairs of an option, each to be used once.
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().rposition(|(key, _)| key == name)?;
        let value = self.0.remove(at).1;
        self.0.retain(|(key, _)| key != name);
        Some(value)
    }

    fn switch(&mut self, name: &str, default: bool) -> Result<bool> {
        Ok(self.take(name).map_or(Ok(default), |text| values::switch(name, &text))?)
    }

    fn needed(&mut self, kind: &str, name: &str) -> Result<String> {
        let missing = || CharacterError::Other(format!("chardev: {kind}: no filename given"));
        self.take(name).ok_or_else(missing)
    }

    fn finish(self) -> Result<()> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(ValueError::Unknown { name }.into()),
            None => Ok(()),
        }
    }
}

/// `-chardev`'s argument.
pub fn parse(text: &str) -> Result<Character> {
    let mut pairs = Pairs(parse_opts(text, Some("backend"))?);
    let name = pairs
        .take("backend")
        .ok_or(CharacterError::Other("chardev: \"\" missing backend".to_owned()))?;
    let missing = || CharacterError::Other("Parameter 'id' is missing".to_owned());
    let id = pairs.take("id").ok_or_else(missing)?;
    let kind = kind(&name, &mut pairs)?;
    let mux = pairs.switch("mux", false)?;
    let log_file = pairs.take("logfile");
    let log_append = pairs.switch("logappend", false)?;
    pairs.finish()?;
    Ok(Character { id, kind, mux, log_file, log_append })
}

fn kind(name: &str, pairs: &mut Pairs) -> Result<CharacterKind> {
    Ok(match name {
        "null" => CharacterKind::Null,
        "stdio" => CharacterKind::Stdio { signal: pairs.switch("signal", true)? },
        "pty" => CharacterKind::Pty { path: pairs.take("path") },
        "file" => CharacterKind::File {
            path: pairs.needed("file", "path")?,
            append: pairs.switch("append", false)?,
            input: pairs.take("input-path"),
        },
        "pipe" => CharacterKind::Pipe { path: pairs.needed("pipe", "path")? },
        "ringbuf" | "memory" => ring(pairs.take("size").as_deref())?,
        "socket" => socket(pairs)?,
        "udp" => udp(pairs)?,
        "vc" => CharacterKind::Console,
        "msmouse" | "wctablet" | "braille" | "serial" | "parallel" | "spicevmc" | "spiceport"
        | "hub" | "dbus" | "qemu-vdagent" | "testdev" => {
            return Err(CharacterError::NotBuilt { name: name.to_owned() });
        }
        _ => return Err(CharacterError::Kind { name: name.to_owned() }),
    })
}

fn ring(size: Option<&str>) -> Result<CharacterKind> {
    let bytes = size.map_or(Ok(65_536), |size| values::size("size", size, 0))?;
    let text = "size of ringbuf chardev must be power of two";
    match usize::try_from(bytes) {
        // QEMU has no bound here; 1 GiB is more than anybody reads back.
        Ok(bytes) if bytes.is_power_of_two() && bytes <= 1 << 30 => {
            Ok(CharacterKind::Ring { bytes })
        }
        _ => Err(CharacterError::Other(text.to_owned())),
    }
}

fn socket(pairs: &mut Pairs) -> Result<CharacterKind> {
    let other = |text: &str| Err(CharacterError::Other(text.to_owned()));
    let telnet = pairs.switch("telnet", false)?;
    for (name, what) in [("tn3270", "tn3270"), ("websocket", "websocket")] {
        if pairs.switch(name, false)? {
            return other(&format!("chardev: socket: '{what}' is not built in Hostel"));
        }
    }
    if pairs.take("tls-creds").is_some() {
        return other("chardev: socket: 'tls-creds' is not built in Hostel");
    }
    let server = pairs.switch("server", false)?;
    let wait = pairs.switch("wait", true)? && server;
    let address = match (pairs.take("path"), pairs.take("fd"), pairs.take("host")) {
        (Some(path), None, None) => {
            let is_abstract = pairs.switch("abstract", false)?;
            _ = pairs.switch("tight", true)?; // names are always taken as they are
            SocketAddress::Unix { path, is_abstract }
        }
        (None, Some(name), None) => SocketAddress::Descriptor { name },
        (None, None, host) => {
            let Some(port) = pairs.take("port") else {
                return other("chardev: socket: no port given");
            };
            let to = pairs.take("to").map(|to| values::unsigned("to", &to)).transpose()?;
            let to = to.map(|to| to.min(65_535) as u16);
            for family in ["ipv4", "ipv6"] {
                _ = pairs.switch(family, true)?;
            }
            SocketAddress::Inet { host: host.unwrap_or_default(), port, to }
        }
        _ => return other("chardev: socket: only one of 'path', 'fd' and 'host' can be given"),
    };
    let seconds = pairs.take("reconnect").map(|time| values::unsigned("reconnect", &time));
    let millis = pairs.take("reconnect-ms").map(|time| values::unsigned("reconnect-ms", &time));
    let reconnect_ms = match (seconds.transpose()?, millis.transpose()?) {
        (None, None) => 0,
        (Some(seconds), None) => seconds.saturating_mul(1000),
        (None, Some(millis)) => millis,
        _ => return other("'reconnect' and 'reconnect-ms' are mutually exclusive"),
    };
    if server && reconnect_ms > 0 {
        return other("'reconnect' option is incompatible with socket in server listen mode");
    }
    let no_delay = pairs.switch("nodelay", false)? | !pairs.switch("delay", true)?;
    Ok(CharacterKind::Socket { address, server, wait, reconnect_ms, no_delay, telnet })
}

fn udp(pairs: &mut Pairs) -> Result<CharacterKind> {
    let port = |name: &str, text: Option<String>| match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => match text.parse() {
            Ok(port) => Ok(Some(port)),
            Err(_) => {
                let name = name.to_owned();
                Err(CharacterError::Other(format!("chardev: udp: '{name}' is no port: {text}")))
            }
        },
    };
    let other = |text: &str| CharacterError::Other(text.to_owned());
    let to = port("port", pairs.take("port"))?;
    let to = to.ok_or_else(|| other("chardev: udp: remote port not specified"))?;
    let from = port("localport", pairs.take("localport"))?;
    let host = |text: Option<String>, default: &str| {
        text.filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let remote = host(pairs.take("host"), "localhost");
    let local = host(pairs.take("localaddr"), "0.0.0.0");
    for family in ["ipv4", "ipv6"] {
        _ = pairs.switch(family, true)?;
    }
    Ok(CharacterKind::Udp { remote: (remote, to), local: (local, from.unwrap_or(0)) })
}

/// `[HOST]:PORT[@[HOST]:PORT]`: where to, and where from.
fn udp_short(text: &str) -> Result<CharacterKind> {
    let (remote, local) = text.split_once('@').unwrap_or((text, ""));
    let mut pairs = Pairs(Vec::new());
    for (place, host_name, port_name) in
        [(remote, "host", "port"), (local, "localaddr", "localport")]
    {
        let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
        pairs.0.push((host_name.to_owned(), host.to_owned()));
        pairs.0.push((port_name.to_owned(), port.to_owned()));
    }
    udp(&mut pairs)
}

/// What stands behind `-serial`, `-monitor`, `-qmp` and their like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Short {
    /// No device at all.
    None,
    /// A character device that was made by `-chardev`.
    Named(String),
    /// A new one.
    New(Character),
}

/// The short forms.
pub fn parse_short(text: &str, id: &str) -> Result<Short> {
    let new = |kind, mux| {
        let id = id.to_owned();
        Ok(Short::New(Character { id, kind, mux, log_file: None, log_append: false }))
    };
    if let Some(name) = text.strip_prefix("chardev:") {
        return Ok(Short::Named(name.to_owned()));
    }
    let (text, mux) = match text.strip_prefix("mon:") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    match name {
        "none" => Ok(Short::None),
        "null" => new(CharacterKind::Null, mux),
        "stdio" => new(CharacterKind::Stdio { signal: !mux }, mux),
        "pty" => new(CharacterKind::Pty { path: None }, mux),
        "vc" => new(CharacterKind::Console, mux),
        "ringbuf" => new(ring(None)?, mux),
        "file" => {
            let (path, append, input) = (rest.to_owned(), false, None);
            new(CharacterKind::File { path, append, input }, mux)
        }
        "pipe" => new(CharacterKind::Pipe { path: rest.to_owned() }, mux),
        "unix" => {
            let mut pairs = Pairs(parse_opts(rest, Some("path"))?);
            let kind = socket(&mut pairs)?;
            pairs.finish()?;
            new(kind, mux)
        }
        "tcp" | "telnet" => {
            let mut pairs = Pairs(parse_opts(rest, Some("address"))?);
            let address = pairs.take("address").unwrap_or_default();
            let Some((host, port)) = address.rsplit_once(':') else {
                return Err(CharacterError::Other(format!("address '{address}' has no port")));
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            pairs.0.push(("host".to_owned(), host.to_owned()));
            pairs.0.push(("port".to_owned(), port.to_owned()));
            if name == "telnet" {
                pairs.0.push(("telnet".to_owned(), "on".to_owned()));
            }
            let kind = socket(&mut pairs)?;
            pairs.finish()?;
            new(kind, mux)
        }
        "udp" => new(udp_short(rest)?, mux),
        "websocket" | "con" | "msmouse" | "braille" => {
            Err(CharacterError::NotBuilt { name: name.to_owned() })
        }
        _ => Err(CharacterError::Other(format!("'{text}' is not a valid char driver"))),
    }
}

/// The arguments of `chardev-add`.
pub fn from_json(id: &str, backend: &Value) -> Result<Character> {
    let missing = |name: &str| ValueError::Missing { name: name.to_owned() };
    let name = backend["type"].as_str().ok_or_else(|| missing("backend.type"))?;
    let data = backend.get("data").ok_or_else(|| missing("backend.data"))?;
    let mut pairs = Pairs(Vec::new());
    let mut put = |name: &str, value: &Value| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return,
        };
        pairs.0.push((name.to_owned(), text));
    };
    for (key, value) in data.as_object().into_iter().flatten() {
        match key.as_str() {
            "addr" => {
                for (key, value) in value["data"].as_object().into_iter().flatten() {
                    put(if key == "str" { "fd" } else { key }, value);
                }
            }
            "out" | "device" => put("path", value),
            "in" => put("input-path", value),
            key => put(key, value),
        }
    }
    // Over the monitor a socket serves unless told otherwise.
    if name == "socket" && data.get("server").is_none() {
        pairs.0.push(("server".to_owned(), "on".to_owned()));
    }
    let waits = data.get("wait").and_then(Value::as_bool).unwrap_or(false);
    pairs.0.retain(|(key, _)| key != "wait");
    if name == "socket" {
        pairs.0.push(("wait".to_owned(), if waits { "on" } else { "off" }.to_owned()));
    }
    let kind = kind(name, &mut pairs)?;
    let log_file = pairs.take("logfile");
    let log_append = pairs.switch("logappend", false)?;
    pairs.finish()?;
    Ok(Character { id: id.to_owned(), kind, mux: false, log_file, log_append })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn socket(address: SocketAddress, server: bool, wait: bool) -> CharacterKind {
        CharacterKind::Socket {
            address,
            server,
            wait,
            reconnect_ms: 0,
            no_delay: false,
            telnet: false,
        }
    }

    fn unix(path: &str) -> SocketAddress {
        SocketAddress::Unix { path: path.to_owned(), is_abstract: false }
    }

    #[test]
    fn long_forms() {
        let kind = |text| parse(text).map(|character| character.kind);
        assert_eq!(
            kind("socket,id=a,path=/x,server=on,wait=off"),
            Ok(socket(unix("/x"), true, false))
        );
        assert_eq!(kind("socket,id=a,path=/x,server"), Ok(socket(unix("/x"), true, true)));
        let inet = SocketAddress::Inet { host: "h".into(), port: "1".into(), to: None };
        assert_eq!(kind("socket,id=a,host=h,port=1"), Ok(socket(inet, false, false)));
        assert_eq!(kind("ringbuf,id=a,size=4k"), Ok(CharacterKind::Ring { bytes: 4096 }));
        assert!(parse("stdio,id=a,mux=on,signal=off").unwrap().mux);
        for (text, error) in [
            ("foo,id=a", "'foo' is not a valid char driver name"),
            ("null", "Parameter 'id' is missing"),
            ("null,id=a,b=c", "Invalid parameter 'b'"),
            ("braille,id=a,port=1", "chardev: the 'braille' backend is not built in Hostel"),
            ("ringbuf,id=a,size=3", "size of ringbuf chardev must be power of two"),
            ("socket,id=a,path=/x,tn3270=on", "chardev: socket: 'tn3270' is not built in Hostel"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error, "{text}");
        }
    }

    #[test]
    fn datagrams_have_two_ends() {
        let udp = |remote: (&str, u16), local: (&str, u16)| CharacterKind::Udp {
            remote: (remote.0.to_owned(), remote.1),
            local: (local.0.to_owned(), local.1),
        };
        let long = parse("udp,id=u,host=h,port=5,localaddr=l,localport=6").map(|made| made.kind);
        assert_eq!(long, Ok(udp(("h", 5), ("l", 6))));
        for (text, expected) in [
            ("udp::4555", udp(("localhost", 4555), ("0.0.0.0", 0))),
            ("udp:h:1@:2", udp(("h", 1), ("0.0.0.0", 2))),
        ] {
            let Ok(Short::New(made)) = parse_short(text, "s") else { panic!("{text}") };
            assert_eq!(made.kind, expected);
        }
        let error = parse("udp,id=u").unwrap_err().to_string();
        assert_eq!(error, "chardev: udp: remote port not specified");
    }

    #[test]
    fn short_forms() {
        let kind = |text| match parse_short(text, "serial0") {
            Ok(Short::New(character)) => character.kind,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(kind("unix:/x,server,nowait"), socket(unix("/x"), true, false));
        assert_eq!(kind("mon:stdio"), CharacterKind::Stdio { signal: false });
        let inet = SocketAddress::Inet { host: String::new(), port: "4444".into(), to: None };
        assert_eq!(kind("tcp::4444,server=on"), socket(inet, true, true));
        assert_eq!(parse_short("none", "a"), Ok(Short::None));
        assert_eq!(parse_short("chardev:c", "a"), Ok(Short::Named("c".into())));
        let error = parse_short("foo", "a").unwrap_err().to_string();
        assert_eq!(error, "'foo' is not a valid char driver");
    }

    #[test]
    fn over_the_monitor() {
        let backend = json!({"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": "/x"}}, "server": true, "wait": false}});
        assert_eq!(from_json("c", &backend).unwrap().kind, socket(unix("/x"), true, false));
        let backend = json!({"type": "file", "data": {"out": "/y", "append": true}});
        let file = CharacterKind::File { path: "/y".into(), append: true, input: None };
        assert_eq!(from_json("c", &backend).unwrap().kind, file);
        assert!(from_json("c", &json!({"type": "pty"})).is_err());
    }
}
