//! What can go wrong when a back end is made or changed.

use core::net::SocketAddr;
use std::io;
use std::path::PathBuf;

/// The result of making or changing a back end.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a back end could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address of the configuration does not fit its network.
    #[error("The {what} address {address} is not in the guest's network {network}")]
    OutsideNetwork {
        /// What the address is for.
        what: &'static str,
        /// The address.
        address: String,
        /// The network.
        network: String,
    },
    /// A network that has no room for a gateway and a guest.
    #[error("The network {network} is too small or its prefix is not valid")]
    Network {
        /// The network.
        network: String,
    },
    /// A link that carries too little.
    #[error("The MTU {0} is too small: IPv6 needs 1280")]
    Mtu(u16),
    /// Both IP versions are switched off.
    #[error("Neither IPv4 nor IPv6 is enabled: a user-mode network needs one of them")]
    NoProtocol,
    /// The port that was to be forwarded belongs to another program.
    #[error("Cannot listen on {protocol} {address}: {source}{}", advice(source))]
    Listen {
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A unix socket that cannot be listened on or connected to.
    #[error("Cannot {action} the unix socket {}: {source}", path.display())]
    Unix {
        /// What was tried.
        action: &'static str,
        /// Which socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A connection that cannot be made.
    #[error("Cannot connect to {address}: {source}")]
    Connect {
        /// Whereto.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The same forwarding exists.
    #[error("The forwarding of {0} exists already")]
    ForwardExists(String),
    /// There is no such forwarding.
    #[error("There is no forwarding of {0}")]
    NoForward(String),
    /// A forwarding to an address that the guest cannot have.
    #[error("The guest cannot have the address {0}: it is not in its network")]
    ForwardTarget(SocketAddr),
    /// A network interface that cannot be opened.
    #[error("Cannot open the network interface {name}: {source}{}", tap_advice(source))]
    Interface {
        /// Its name.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// A file that cannot be opened or written.
    #[error("Cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The host gives no more of what a back end needs.
    #[error("Cannot {action} for a network back end: {source}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port, choose another one",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => "; this host has no such address",
        _ => "",
    }
}

fn tap_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; it needs CAP_NET_ADMIN, or an interface that was made for this user \
             (ip tuntap add dev NAME mode tap user USER)"
        }
        io::ErrorKind::ResourceBusy => "; another program has it open",
        io::ErrorKind::NotFound => "; this host has no /dev/net/tun or no such interface",
        _ => "",
    }
}
