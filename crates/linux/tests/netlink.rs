//! Bridges and packet filters in a network namespace of the test's own.

use std::process::Command;
use std::thread;

use linux::netlink::filter::{self, Action, Hook, Match, Table};
use linux::netlink::route::{Bridge, Route};
use nix::sched::{CloneFlags, unshare};

/// Runs in a fresh network namespace; false when that is not permitted.
fn in_namespace(work: impl FnOnce() + Send + 'static) -> bool {
    let thread = thread::spawn(move || {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return false;
        }
        work();
        true
    });
    thread.join().expect("the test has passed in its namespace")
}

#[test]
fn a_bridge_is_made_and_removed() {
    let ran = in_namespace(|| {
        let route = Route::new().unwrap();
        let bridge = Bridge {
            name: "hbr0".into(),
            mac: Some([0x52, 0x54, 0, 1, 2, 3]),
            stp: true,
            forward_delay_s: 2,
            mtu: Some(1400),
        };
        route.add_bridge(&bridge).unwrap();
        let again = route.add_bridge(&bridge).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        let address = "10.9.8.1".parse().unwrap();
        route.add_address("hbr0", address, 24).unwrap();
        route.add_address("hbr0", address, 24).unwrap();
        route.add_address("hbr0", "fd00:9::1".parse().unwrap(), 64).unwrap();
        route.set_up("hbr0", true).unwrap();
        let network = ("10.7.0.0".parse().unwrap(), 16);
        route.add_route("hbr0", network, "10.9.8.2".parse().unwrap(), Some(5)).unwrap();
        let index = route.index("hbr0").unwrap();
        assert!(route.addresses().unwrap().contains(&(index, address, 24)));
        let shown = Command::new("ip").args(["-d", "address", "show", "hbr0"]).output();
        if let Ok(shown) = shown {
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            for part in ["52:54:00:01:02:03", "mtu 1400", "stp_state 1", "10.9.8.255", "fd00:9::1"]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        route.remove("hbr0").unwrap();
        assert!(route.index("hbr0").is_err());
    });
    if !ran {
        tests::skip!("there is no right to make a network namespace");
    }
}

#[test]
fn a_table_is_replaced_whole_and_watched() {
    let ran = in_namespace(|| {
        let watch = filter::Watch::new().unwrap();
        let network = "10.9.8.0".parse().unwrap();
        let range = ("10.0.0.5".parse().unwrap(), "10.0.0.6".parse().unwrap());
        let table = Table {
            name: "hostel_hbr0".into(),
            chains: vec![
                (
                    Hook::Forward,
                    vec![
                        (
                            vec![Match::From("hbr0".into()), Match::To("hbr0".into())],
                            Action::Accept,
                        ),
                        (
                            vec![
                                Match::To("hbr0".into()),
                                Match::Destination(network, 24),
                                Match::Established,
                            ],
                            Action::Accept,
                        ),
                        (vec![Match::From("hbr0".into())], Action::Reject),
                        (vec![Match::Source("fd00::".parse().unwrap(), 64)], Action::Accept),
                    ],
                ),
                (
                    Hook::SourceNat,
                    vec![
                        (
                            vec![
                                Match::Source(network, 24),
                                Match::DestinationNot(network, 24),
                                Match::Protocol(6),
                            ],
                            Action::Masquerade(Some((1024, 65535))),
                        ),
                        (vec![Match::Source(network, 24)], Action::Masquerade(None)),
                        (
                            vec![Match::Source(network, 24)],
                            Action::Source(range, Some((2000, 3000))),
                        ),
                        (vec![Match::Source(network, 24)], Action::Return),
                    ],
                ),
            ],
        };
        assert!(!filter::exists(&table.name).unwrap());
        filter::replace(&table).unwrap();
        filter::replace(&table).unwrap();
        assert!(filter::exists(&table.name).unwrap());
        let mut ready = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
        let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut ready, Some(&none)).unwrap(), 1);
        watch.drain();
        filter::remove(&table.name).unwrap();
        filter::remove(&table.name).unwrap();
        assert!(!filter::exists(&table.name).unwrap());
    });
    if !ran {
        tests::skip!("there is no right to make a network namespace");
    }
}
