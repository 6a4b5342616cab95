//! Pings: the gateway answers itself, others are pinged by the host where it permits that.

use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Engine;
use super::arena::{Arena, Id};
use super::outside::Outside;
use super::timers::{Alarm, Key};
use crate::packet::icmp::Echo;
use crate::packet::ip::{self, Packet};

/// Pinging programs at once.
const ECHOES_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest payload that is echoed: what fits a datagram.
const PAYLOAD_MAX: usize = 65_000;

/// Pinging programs of the guest: address and identifier.
pub struct Echoes {
    all: Arena<Pinger>,
    by_guest: HashMap<(IpAddr, u16), Id>,
}

struct Pinger {
    guest: IpAddr,
    identifier: u16,
    /// Whom the guest pings, as the guest sees it and as the host does.
    target: (IpAddr, IpAddr),
    used: Instant,
    alarm: Alarm,
}

impl Echoes {
    /// Nobody pings.
    pub fn new() -> Self {
        Self { all: Arena::new(ECHOES_MAX), by_guest: HashMap::new() }
    }
}

impl Engine {
    pub(super) fn icmp_input(
        &mut self,
        packet: &Packet<'_>,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        let Some(echo) = Echo::read(packet) else { return };
        self.echo_input(packet, &echo, outside, now);
    }

    /// Somebody is pinged.
    pub(super) fn echo_input(
        &mut self,
        packet: &Packet<'_>,
        echo: &Echo<'_>,
        outside: &mut dyn Outside,
        now: Instant,
    ) {
        if echo.is_reply || echo.payload.len() > PAYLOAD_MAX {
            return;
        }
        let to = packet.destination;
        if self.config.is_gateway(to) || self.config.is_dns(to) {
            let reply = Echo { is_reply: true, ..*echo }.bytes(to, packet.source);
            self.send_packet(to, packet.source, protocol(to), &reply, now);
            return;
        }
        let Some(host) = self.config.host_address(SocketAddr::new(to, 0)) else { return };
        let key = (packet.source, echo.identifier);
        let id = match self.echoes.by_guest.get(&key) {
            Some(id) => *id,
            None => {
                if self.echoes.all.is_full() {
                    let idlest = self.echoes.all.iter().min_by_key(|(_, pinger)| pinger.used);
                    if let Some((idlest, _)) = idlest {
                        self.echo_forget(idlest, outside);
                    }
                }
                let pinger = Pinger {
                    guest: packet.source,
                    identifier: echo.identifier,
                    target: (to, host.ip()),
                    used: now,
                    alarm: Alarm::default(),
                };
                let Some(id) = self.echoes.all.insert(pinger) else { return };
                if !outside.ping_open(id, to.is_ipv4()) {
                    self.echoes.all.remove(id);
                    return;
                }
                self.echoes.by_guest.insert(key, id);
                id
            }
        };
        let Some(pinger) = self.echoes.all.get_mut(id) else { return };
        pinger.target = (to, host.ip());
        pinger.used = now;
        self.timers.set(Key::Ping(id), &mut pinger.alarm, Some(now + PATIENCE));
        outside.ping_send(id, host, &echo.bytes(packet.source, to));
    }

    /// An answer has come to the host: a message from its ICMP header on.
    pub fn ping_received(&mut self, id: Id, from: SocketAddr, message: &[u8], now: Instant) {
        let Some(pinger) = self.echoes.all.get(id) else { return };
        let (shown, host) = pinger.target;
        if from.ip() != host || message.len() < 8 {
            return;
        }
        // The host has put an identifier of its own in, and checked the sum.
        let echo = Echo {
            is_reply: true,
            identifier: pinger.identifier,
            sequence: u16::from_be_bytes([message[6], message[7]]),
            payload: &message[8..],
        };
        let guest = pinger.guest;
        self.send_packet(shown, guest, protocol(shown), &echo.bytes(shown, guest), now);
    }

    pub(super) fn echo_alarm(&mut self, id: Id, outside: &mut dyn Outside, now: Instant) {
        let Some(pinger) = self.echoes.all.get_mut(id) else { return };
        if self.timers.rings(Key::Ping(id), &mut pinger.alarm, now) {
            self.echo_forget(id, outside);
        }
    }

    fn echo_forget(&mut self, id: Id, outside: &mut dyn Outside) {
        let Some(mut pinger) = self.echoes.all.remove(id) else { return };
        self.timers.cancel(Key::Ping(id), &mut pinger.alarm);
        self.echoes.by_guest.remove(&(pinger.guest, pinger.identifier));
        outside.ping_close(id);
    }
}

fn protocol(address: IpAddr) -> u8 {
    if address.is_ipv4() { ip::ICMP } else { ip::ICMPV6 }
}

#[cfg(test)]
impl Engine {
    /// The pinging program that is known longest.
    pub(super) fn echoes_first(&self) -> Id {
        self.echoes.all.iter().next().expect("somebody pings").0
    }
}
