//! Orders of the driver: what it wants to receive, and how.

use net::Capabilities;

use super::filter::{Address, TABLE_ENTRIES_MAX};
use super::{Filter, Net, State, header, spec};
use crate::virtio::queue::Cursor;
use device::DeviceEvent;

impl Net {
    pub(super) fn control(&self) {
        let Some(queue) = self.state.lock().control.clone() else { return };
        while let Some(chain) = queue.pop() {
            let mut reader = chain.reader();
            let head = reader.array::<2>();
            if head.is_none() || chain.writable_bytes() == 0 {
                return queue.break_device();
            }
            let [class, order] = head.unwrap_or_default();
            let done = self.order(class, order, &mut reader).is_some();
            chain.writer().write(&[if done { spec::ACK_OK } else { spec::ACK_ERR }]);
            queue.push(chain, 1);
        }
    }

    /// Follows an order; none when that is not possible.
    fn order(&self, class: u8, order: u8, data: &mut Cursor<'_>) -> Option<()> {
        let mut state = self.state.lock();
        let before = state.filter.clone();
        match (class, order) {
            (spec::CTRL_RX, _) => {
                let [on] = data.array::<1>()?;
                state.filter.set_mode(order, on != 0).then_some(())?;
            }
            (spec::CTRL_MAC, 0) => {
                state.filter.unicast = table(data)?;
                state.filter.multicast = table(data)?;
            }
            (spec::CTRL_MAC, 1) => state.filter.address = data.array()?,
            (spec::CTRL_VLAN, 0 | 1) => {
                let vlan = u16::from_le_bytes(data.array()?);
                state.filter.set_vlan(vlan, order == 0).then_some(())?;
            }
            (spec::CTRL_MQ, 0) if state.features & spec::F_MQ != 0 => {
                let pairs = u16::from_le_bytes(data.array()?);
                (1..=self.pairs_max()).contains(&pairs).then_some(())?;
                state.pairs = pairs;
            }
            (spec::CTRL_GUEST_OFFLOADS, 0) => {
                let wanted = u64::from_le_bytes(data.array()?);
                let granted = regrant(&state, wanted)?;
                state.granted = granted;
                drop(state);
                self.config.backend.set_guest_offload(granted);
                return Some(());
            }
            _ => return None,
        }
        self.tell(&mut state, &before);
        Some(())
    }

    /// Somebody outside may want to know what the guest lets in: told once until it is asked.
    fn tell(&self, state: &mut State, before: &Filter) {
        if state.filter != *before && !std::mem::replace(&mut state.filter_told, true) {
            self.config.events.event(&self.config.id, DeviceEvent::ReceiveFilterChanged);
        }
    }
}

/// What is granted when the driver wants to take only this.
fn regrant(state: &State, wanted: u64) -> Option<Capabilities> {
    let known = spec::F_GUEST_CSUM | spec::F_GUEST_TSO4 | spec::F_GUEST_TSO6;
    let agreed = state.features & known;
    let allowed = state.features & spec::F_CTRL_GUEST_OFFLOADS != 0;
    if !allowed || wanted & !agreed != 0 {
        return None;
    }
    Some(header::granted(state.features & !known | wanted))
}

/// A table of addresses; `Some(None)` when it is too long to be kept.
fn table(data: &mut Cursor<'_>) -> Option<Option<Vec<Address>>> {
    let entries = u64::from(u32::from_le_bytes(data.array()?));
    if data.left() < entries * 6 {
        return None;
    }
    if entries > TABLE_ENTRIES_MAX as u64 {
        data.skip(entries * 6);
        return Some(None);
    }
    Some(Some((0..entries).map_while(|_| data.array()).collect()))
}
