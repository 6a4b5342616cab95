//! `-vnc`, `-display`, `-vga`, `-k`.

use display::server::Sharing;
use qemu_compat::system::values;

use super::{Options, Refusal, pairs, parsed};

/// The port of display 0.
const PORT_BASE: u16 = 5900;
/// The port of display 0 for browsers.
const WEB_PORT_BASE: u16 = 5700;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the first port of these that is free.
    Tcp { host: String, port: u16, last: u16 },
    /// On a socket of this path.
    Unix(String),
}

/// A `-vnc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VncOption {
    /// As it was typed.
    pub typed: String,
    pub id: Option<String>,
    /// None for `-vnc none`.
    pub place: Option<Place>,
    pub web: Option<Place>,
    pub password: bool,
    /// The name of the secret that is the password.
    pub password_secret: Option<String>,
    /// The name of what proves the server.
    pub credentials: Option<String>,
    pub sharing: Sharing,
    /// Photographs may lose detail.
    pub lossy: bool,
    /// The device whose screen it shows.
    pub screen: Option<String>,
    /// The back end whose sound clients may hear.
    pub audio: Option<String>,
}

/// The card that nobody plugs in by `-device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// One if nothing says otherwise.
    Default,
    /// None.
    None,
    /// This model.
    Model(&'static str),
}

impl Options {
    pub(super) fn screen(&mut self, option: &str, value: &str) -> Result<(), Refusal> {
        match option {
            "vnc" => self.vnc.push(vnc(value)?),
            "display" => match value.split_once('=') {
                None if value == "none" => self.has_no_display = true,
                Some(("vnc", value)) => self.vnc.push(vnc(value)?),
                _ => {
                    let kind = value.split([',', '=']).next().unwrap_or_default();
                    return Err(format!("display '{kind}' is not built in Hostel: use -vnc"));
                }
            },
            "vga" => {
                self.card = match value {
                    "none" => Card::None,
                    "std" => Card::Model("VGA"),
                    "virtio" => Card::Model("virtio-vga"),
                    "cirrus" | "vmware" | "qxl" | "xenfb" | "tcx" | "cg3" => {
                        return Err("this card is not built in Hostel: use std or virtio".into());
                    }
                    _ => return Err(format!("unknown vga type: {value}")),
                }
            }
            _ if value == "en-us" => {}
            _ => {
                return Err(format!("the keyboard layout '{value}' is not built in Hostel"));
            }
        }
        Ok(())
    }
}

fn vnc(value: &str) -> Result<VncOption, Refusal> {
    let mut option = VncOption {
        typed: format!("-vnc {value}"),
        id: None,
        place: None,
        web: None,
        password: false,
        password_secret: None,
        credentials: None,
        lossy: false,
        sharing: Sharing::AllowExclusive,
        screen: None,
        audio: None,
    };
    let pairs = pairs(value, "vnc")?;
    let (mut to, mut websocket) = (0, None);
    let mut place = None;
    for (key, value) in &pairs {
        match (key.as_str(), value.as_str()) {
            ("vnc", value) => place = Some(value.to_owned()),
            ("id", value) => option.id = Some(value.to_owned()),
            ("to", value) => to = number("to", value)?,
            ("password", value) => option.password = parsed(values::switch(key, value))?,
            ("password-secret", value) => {
                option.password = true;
                option.password_secret = Some(value.to_owned());
            }
            ("tls-creds", value) => option.credentials = Some(value.to_owned()),
            ("sasl", "on") => {
                return Err("sasl=on is not built in Hostel: use password=on and tls-creds".into());
            }
            ("websocket", value) => websocket = Some(value.to_owned()),
            ("share", "allow-exclusive") => option.sharing = Sharing::AllowExclusive,
            ("share", "force-shared") => option.sharing = Sharing::ForceShared,
            ("share", "ignore") => option.sharing = Sharing::Ignore,
            ("share", _) => return Err("unknown vnc share= option".to_owned()),
            ("display", value) => option.screen = Some(value.to_owned()),
            ("head", "0") => {}
            ("audiodev", value) => option.audio = Some(value.to_owned()),
            // Pixels are never changed on their way, and encodings do not change by themselves.
            ("lossy", value) => option.lossy = parsed(values::switch(key, value))?,
            ("sasl" | "reverse" | "power-control" | "tls", "off") => {}
            ("non-adaptive" | "ipv4", "on" | "off") => {}
            (
                "head" | "sasl" | "reverse" | "power-control" | "tls-authz" | "sasl-authz"
                | "key-delay-ms" | "ipv6" | "tls",
                value,
            ) => return Err(format!("{key}={value} is not built in Hostel")),
            _ => return Err(format!("Invalid parameter '{key}'")),
        }
    }
    let place = place.ok_or("vnc requires a display")?;
    let mut display = None;
    option.place = match place.strip_prefix("unix:") {
        _ if place == "none" => return Ok(option),
        Some(path) => Some(Place::Unix(path.to_owned())),
        None => {
            let (host, number) = place.rsplit_once(':').ok_or("no vnc port specified")?;
            let number = number.parse::<u16>().ok().filter(|number| *number <= 59_635);
            let number =
                number.ok_or_else(|| format!("error converting port '{place}' to a number"))?;
            display = Some(number);
            let port = PORT_BASE + number;
            let last = PORT_BASE.saturating_add(to).max(port);
            Some(Place::Tcp { host: bare(host), port, last })
        }
    };
    option.web = web(websocket.as_deref(), &option.place, display)?;
    Ok(option)
}

/// Where browsers come in: at a port, at a place of its own, or beside the display.
fn web(
    value: Option<&str>,
    main: &Option<Place>,
    display: Option<u16>,
) -> Result<Option<Place>, Refusal> {
    Ok(match value {
        None | Some("off") => None,
        Some("on" | "") => {
            let number = display.ok_or("websocket=on needs a display number")?;
            Some(web_place(main, WEB_PORT_BASE + number))
        }
        Some(port) => match (port.strip_prefix("unix:"), port.rsplit_once(':')) {
            (Some(path), _) => Some(Place::Unix(path.to_owned())),
            (None, Some((host, port))) => {
                let port = number("websocket", port)?;
                Some(Place::Tcp { host: bare(host), port, last: port })
            }
            (None, None) => Some(web_place(main, number("websocket", port)?)),
        },
    })
}

fn number(name: &str, value: &str) -> Result<u16, Refusal> {
    let number = parsed(values::unsigned(name, value))?;
    u16::try_from(number).map_err(|_| format!("Parameter '{name}' is out of range"))
}

fn web_place(main: &Option<Place>, port: u16) -> Place {
    let host = match main {
        Some(Place::Tcp { host, .. }) => host.clone(),
        _ => String::new(),
    };
    Place::Tcp { host, port, last: port }
}

/// An address without the brackets of IPv6.
fn bare(host: &str) -> String {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_understood() {
        let tcp = |host: &str, port, last| Some(Place::Tcp { host: host.to_owned(), port, last });
        let option = vnc("127.0.0.1:3,to=9,password=on,websocket,share=ignore").unwrap();
        assert_eq!(option.place, tcp("127.0.0.1", 5903, 5909));
        assert_eq!(option.web, tcp("127.0.0.1", 5703, 5703));
        assert!(option.password && option.sharing == Sharing::Ignore);
        assert_eq!(vnc("[::1]:0").unwrap().place, tcp("::1", 5900, 5900));
        assert_eq!(vnc(":1,websocket=6000").unwrap().web, tcp("", 6000, 6000));
        assert_eq!(vnc("unix:/tmp/x").unwrap().place, Some(Place::Unix("/tmp/x".to_owned())));
        assert_eq!(vnc("none").unwrap().place, None);
        for (value, error) in [
            ("5", "no vnc port specified"),
            (":x", "error converting port ':x' to a number"),
            (":1,sasl=on", "sasl=on is not built in Hostel: use password=on and tls-creds"),
            (":1,share=all", "unknown vnc share= option"),
            (":1,foo=1", "Invalid parameter 'foo'"),
            (":60000", "error converting port ':60000' to a number"),
        ] {
            assert_eq!(vnc(value).unwrap_err(), error);
        }
    }
}
