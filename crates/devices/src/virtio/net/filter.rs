//! Which frames the guest wants to see. Pure.

/// More addresses than this count as "all of them".
pub const TABLE_ENTRIES_MAX: usize = 64;

/// An Ethernet address.
pub type Address = [u8; 6];

/// What the driver has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The card's own address.
    pub address: Address,
    /// Everything.
    pub promiscuous: bool,
    /// All groups.
    pub all_multicast: bool,
    /// All single addresses.
    pub all_unicast: bool,
    /// No groups.
    pub no_multicast: bool,
    /// No single addresses.
    pub no_unicast: bool,
    /// No broadcasts.
    pub no_broadcast: bool,
    /// Further single addresses; none: too many to keep, so all.
    pub unicast: Option<Vec<Address>>,
    /// Groups; none: too many to keep, so all.
    pub multicast: Option<Vec<Address>>,
    /// VLANs, a bit each; none while the driver does not care.
    pub vlans: Option<Box<[u64; 64]>>,
}

device::saved!(Filter {
    address,
    promiscuous,
    all_multicast,
    all_unicast,
    no_multicast,
    no_unicast,
    no_broadcast,
    unicast,
    multicast,
});

impl Filter {
    /// After power-on everything comes in: a driver that cares says so.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Some(Vec::new()),
            multicast: Some(Vec::new()),
            vlans: None,
        }
    }

    /// Whether the guest wants this frame.
    pub fn admits(&self, frame: &[u8]) -> bool {
        let Some(to) = frame.first_chunk::<6>() else { return false };
        if self.promiscuous {
            return true;
        }
        if let (Some(vlans), Some(&[0x81, 0, high, low])) = (&self.vlans, frame.get(12..16)) {
            let vlan = usize::from(u16::from_be_bytes([high, low]) & 0xfff);
            if vlans[vlan / 64] & 1 << (vlan % 64) == 0 {
                return false;
            }
        }
        let among =
            |table: &Option<Vec<Address>>| table.as_ref().is_none_or(|table| table.contains(to));
        if *to == [0xff; 6] {
            !self.no_broadcast
        } else if to[0] & 1 != 0 {
            !self.no_multicast && (self.all_multicast || among(&self.multicast))
        } else {
            let wanted = self.all_unicast || *to == self.address || among(&self.unicast);
            !self.no_unicast && wanted
        }
    }

    /// An order of the class "receive": true when there is such an order.
    pub fn set_mode(&mut self, order: u8, on: bool) -> bool {
        let mode = match order {
            0 => &mut self.promiscuous,
            1 => &mut self.all_multicast,
            2 => &mut self.all_unicast,
            3 => &mut self.no_multicast,
            4 => &mut self.no_unicast,
            5 => &mut self.no_broadcast,
            _ => return false,
        };
        *mode = on;
        true
    }

    /// Lets a VLAN in, or no more.
    pub fn set_vlan(&mut self, vlan: u16, on: bool) -> bool {
        let Some(word) = self.vlans.as_mut().and_then(|all| all.get_mut(usize::from(vlan / 64)))
        else {
            return false;
        };
        let bit = 1 << (vlan % 64);
        *word = if on { *word | bit } else { *word & !bit };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_decide() {
        let own = [2, 0, 0, 0, 0, 1];
        let strict = Filter { promiscuous: false, ..Filter::new(own) };
        let listed =
            Filter { unicast: Some(vec![[2; 6]]), multicast: Some(vec![[1; 6]]), ..strict.clone() };
        let (own, other, group, all): (Address, _, _, _) = (own, [2; 6], [1; 6], [0xff; 6]);
        for (name, filter, admitted) in [
            ("new", Filter::new(own), [true; 4]),
            ("strict", strict.clone(), [true, false, false, true]),
            ("listed", listed.clone(), [true; 4]),
            ("too many", Filter { unicast: None, ..strict.clone() }, [true, true, false, true]),
            ("groups", Filter { all_multicast: true, ..strict.clone() }, [true, false, true, true]),
            (
                "no groups",
                Filter { no_multicast: true, ..listed.clone() },
                [true, true, false, true],
            ),
            (
                "no singles",
                Filter { no_unicast: true, ..listed.clone() },
                [false, false, true, true],
            ),
            ("no broadcasts", Filter { no_broadcast: true, ..listed }, [true, true, true, false]),
        ] {
            let seen =
                [own, other, group, all].map(|to| filter.admits(&[&to[..], &[0; 8]].concat()));
            assert_eq!(seen, admitted, "{name}");
        }
        assert!(!strict.admits(&[0; 5]));
    }

    #[test]
    fn only_chosen_vlans_come_in() {
        let mut filter = Filter { promiscuous: false, ..Filter::new([2; 6]) };
        filter.vlans = Some(Box::new([0; 64]));
        let frame = [&[2; 12][..], &[0x81, 0, 0x20, 5, 8, 0]].concat();
        assert!(!filter.admits(&frame));
        assert!(filter.set_vlan(5, true) && filter.admits(&frame));
        assert!(filter.set_vlan(5, false) && !filter.admits(&frame));
        assert!(!filter.set_vlan(4096, true));
        assert!(filter.admits(&[2; 14]), "a frame without a tag");
    }
}
