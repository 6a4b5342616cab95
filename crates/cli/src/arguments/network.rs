//! What `--network` takes.

/// What a card of a machine is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The host's connections, with no privilege
    User,
    /// Nothing
    None,
    /// The one that a setting names
    Bridged { mac: Option<String> },
    /// One of the daemon's, or a bridge of the host
    Named { name: String, mac: Option<String> },
}

/// Reads `NAME[,mac=...]`, or Multipass's `name=NAME,mac=...,mode=auto`.
pub fn network(text: &str) -> Result<Network, String> {
    let (mut name, mut mac) = (None, None);
    for (place, part) in text.split(',').enumerate() {
        match part.split_once('=') {
            Some(("name", value)) => name = Some(value),
            Some(("mac", value)) => {
                let bytes: Vec<&str> = value.split(':').collect();
                let is_byte = |byte: &&str| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok();
                if bytes.len() != 6 || !bytes.iter().all(is_byte) {
                    return Err(format!("'{value}' is no MAC address (like 52:54:00:12:34:56)"));
                }
                mac = Some(value.to_owned());
            }
            // What sets addresses up is the guest's own affair, or --network-config's.
            Some(("mode", "auto")) => {}
            Some(("mode", other)) => {
                return Err(format!("mode={other} is not there; --network-config says it all"));
            }
            None if place == 0 && !part.is_empty() => name = Some(part),
            _ => return Err(format!("'{part}' is neither name=, mac= nor mode=auto")),
        }
    }
    match name.ok_or("a network has a name")? {
        "user" | "none" if mac.is_some() => Err("mac= goes with a named network".to_owned()),
        "user" => Ok(Network::User),
        "none" => Ok(Network::None),
        "bridged" => Ok(Network::Bridged { mac }),
        name => Ok(Network::Named { name: name.to_owned(), mac }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_as_multipass_writes_them_too() {
        let named = |name: &str, mac: Option<&str>| Network::Named {
            name: name.to_owned(),
            mac: mac.map(str::to_owned),
        };
        let mac = "52:54:00:12:34:56";
        for (text, network) in [
            ("user", Network::User),
            ("none", Network::None),
            ("bridged", Network::Bridged { mac: None }),
            ("br0", named("br0", None)),
            ("name=br0,mode=auto", named("br0", None)),
            ("br0,mac=52:54:00:12:34:56", named("br0", Some(mac))),
        ] {
            assert_eq!(super::network(text), Ok(network), "{text}");
        }
        for text in
            ["", ",", "br0,frob", "br0,mac=1", "br0,mode=manual", "user,mac=52:54:00:12:34:56"]
        {
            assert!(super::network(text).is_err(), "{text}");
        }
    }
}
