//! The host's resolv.conf: which servers answer, which domains are searched.

use core::net::{IpAddr, SocketAddr};

use super::PORT;

/// The C library reads no more either.
const SERVERS_MAX: usize = 3;

/// The name servers that a resolv.conf lists, the first three; without any, the local host,
/// as resolv.conf(5) says.
#[must_use]
pub fn servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next())?
    });
    // A scope (fe80::1%eth0) cannot be kept in an address; such a server is passed over.
    let addresses = lines.filter_map(|word| word.parse::<IpAddr>().ok());
    let servers: Vec<_> = addresses.take(SERVERS_MAX).map(|ip| SocketAddr::new(ip, PORT)).collect();
    if servers.is_empty() { vec![SocketAddr::from(([127, 0, 0, 1], PORT))] } else { servers }
}

/// The domains that a resolv.conf searches; the last line of its kind counts.
#[must_use]
pub fn search(text: &str) -> Vec<String> {
    let mut lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        matches!(first, "search" | "domain").then(|| words.map(str::to_owned).collect())
    });
    lines.next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_read() {
        let text = "# x\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver fe80::1%eth0\n\
                    search a b\noptions ndots:2\ndomain c\n;nameserver 9.9.9.9\n";
        let expected: [SocketAddr; 2] =
            ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(servers(text), expected);
        assert_eq!(search(text), ["c"]);
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}
