//! Serial ports. Virtio 1.3, 5.3.
//!
//! `-device virtio-serial-pci -chardev socket,id=c0,path=agent.sock,server=on,wait=off
//! -device virtserialport,chardev=c0,name=org.qemu.guest_agent.0`

mod port;
mod spec;
#[cfg(test)]
mod tests;

use device::{Fields, StateError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub use port::{Port, PortConfig};

use super::Queue;
use super::device::{Driver, Kind, VirtioDevice};

/// The most ports of a controller.
pub const PORTS_MAX: u32 = 31;
const QUEUE_SIZE: u16 = 128;
const CONTROL_QUEUE_SIZE: u16 = 32;
/// Orders that wait for a driver that does not take them. What comes then is lost.
const ORDERS_MAX: usize = 1024;

/// Why a port cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Beyond the last.
    #[error("Port {number} is beyond the last port of the controller, which is {last}")]
    TooLarge {
        /// What was asked for.
        number: u32,
        /// What there is.
        last: u32,
    },
    /// Somebody has it.
    #[error("Port {number} is in use")]
    InUse {
        /// What was asked for.
        number: u32,
    },
    /// None is left.
    #[error("The controller has no free port")]
    Full,
    /// Old drivers take the first port for a console.
    #[error("Port 0 is reserved for a console")]
    Reserved,
}

/// A controller with ports.
///
/// Lock order: `state` is a leaf but for queues; ports are called without it.
pub struct Console {
    ports_max: u32,
    myself: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ports: BTreeMap<u32, Arc<Port>>,
    driver: Option<Driver>,
    /// The driver takes orders.
    ready: bool,
    orders: VecDeque<Vec<u8>>,
    paused: bool,
}

impl Console {
    /// A controller for so many ports.
    #[must_use]
    pub fn new(ports_max: u32) -> Arc<Self> {
        let ports_max = ports_max.clamp(1, PORTS_MAX);
        Arc::new_cyclic(|myself| Self {
            ports_max,
            myself: Weak::clone(myself),
            state: Mutex::default(),
        })
    }

    /// Adds a port.
    pub fn add(&self, config: PortConfig) -> Result<Arc<Port>, PortError> {
        let mut state = self.state.lock();
        let last = self.ports_max - 1;
        let number = match config.number {
            Some(number) if number > last => return Err(PortError::TooLarge { number, last }),
            Some(0) if !config.is_console => return Err(PortError::Reserved),
            Some(number) => number,
            None => {
                let first = u32::from(!config.is_console || state.ports.contains_key(&0));
                let free = (first..=last).find(|number| !state.ports.contains_key(number));
                free.ok_or(PortError::Full)?
            }
        };
        if state.ports.contains_key(&number) {
            return Err(PortError::InUse { number });
        }
        let port = Port::new(config, number, Weak::clone(&self.myself), state.paused);
        state.ports.insert(number, Arc::clone(&port));
        if let Some(driver) = &state.driver {
            let (input, output) = spec::port_queues(number);
            port.start(driver.queue(input).cloned(), driver.queue(output).cloned());
        }
        if state.ready {
            state.order(number, spec::DEVICE_ADD, 1, &[]);
        }
        drop(state);
        // Not before: the stream may call at once.
        port.attach();
        Ok(port)
    }

    /// Takes a port away.
    pub fn remove(&self, number: u32) {
        let mut state = self.state.lock();
        let Some(port) = state.ports.remove(&number) else { return };
        if state.ready {
            state.order(number, spec::DEVICE_REMOVE, 1, &[]);
        }
        drop(state);
        port.stop();
    }

    /// Whether driver and device speak of ports by orders.
    fn has_orders(&self) -> bool {
        self.state.lock().driver.as_ref().is_some_and(|driver| driver.has(spec::F_MULTIPORT))
    }

    fn host_end_changed(&self, port: &Port) {
        let mut state = self.state.lock();
        if state.ready {
            state.order(port.number, spec::PORT_OPEN, u16::from(port.host_open()), &[]);
        }
    }

    fn ports(&self) -> Vec<Arc<Port>> {
        self.state.lock().ports.values().cloned().collect()
    }

    fn port(&self, number: u32) -> Option<Arc<Port>> {
        self.state.lock().ports.get(&number).cloned()
    }

    /// Follows the driver's orders.
    fn take_orders(&self) {
        let queue = {
            let state = self.state.lock();
            let driver = state.driver.as_ref().filter(|driver| driver.has(spec::F_MULTIPORT));
            driver.and_then(|driver| driver.queue(spec::CONTROL_FROM_DRIVER).cloned())
        };
        let Some(queue) = queue else { return };
        while let Some(chain) = queue.pop() {
            let order = chain.reader().array::<{ spec::CONTROL_BYTES }>();
            queue.push(chain, 0);
            if let Some(order) = order {
                let order = u64::from_le_bytes(order);
                self.follow(order as u32, (order >> 32) as u16, (order >> 48) as u16);
            }
        }
    }

    fn follow(&self, number: u32, event: u16, value: u16) {
        match event {
            spec::DEVICE_READY => {
                let mut state = self.state.lock();
                state.ready = value == 1;
                let numbers: Vec<u32> = state.ports.keys().copied().collect();
                for number in numbers.into_iter().filter(|_| value == 1) {
                    state.order(number, spec::DEVICE_ADD, 1, &[]);
                }
            }
            spec::PORT_READY if value == 1 => {
                let Some(port) = self.port(number) else { return };
                let open = port.host_open();
                let mut state = self.state.lock();
                if port.config.is_console {
                    state.order(number, spec::CONSOLE_PORT, 1, &[]);
                }
                if !port.config.name.is_empty() {
                    let name = [port.config.name.as_bytes(), &[0]].concat();
                    state.order(number, spec::PORT_NAME, 1, &name);
                }
                if open {
                    state.order(number, spec::PORT_OPEN, 1, &[]);
                }
            }
            spec::PORT_OPEN => {
                if let Some(port) = self.port(number) {
                    port.set_guest_open(value == 1);
                }
            }
            _ => {} // an order of a later time
        }
    }
}

impl State {
    fn order(&mut self, port: u32, event: u16, value: u16, more: &[u8]) {
        if self.orders.len() < ORDERS_MAX {
            let mut order = port.to_le_bytes().to_vec();
            order.extend(event.to_le_bytes());
            order.extend(value.to_le_bytes());
            order.extend(more);
            self.orders.push_back(order);
        }
        self.give_orders();
    }

    fn orders_queue(&self) -> Option<Arc<Queue>> {
        self.driver.as_ref()?.queue(spec::CONTROL_TO_DRIVER).cloned()
    }

    /// Hands over as many orders as the driver has buffers for.
    fn give_orders(&mut self) {
        let Some(queue) = self.orders_queue() else { return };
        while !self.orders.is_empty() && !self.paused {
            let Some(chain) = queue.pop() else { return };
            let order = self.orders.pop_front().unwrap_or_default();
            let written = chain.writer().write(&order);
            queue.push(chain, written as u64);
        }
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> Kind {
        Kind::Console
    }

    fn features(&self) -> u64 {
        spec::F_MULTIPORT | spec::F_EMERGENCY_WRITE
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![QUEUE_SIZE; 2 + 2 * self.ports_max as usize];
        sizes[usize::from(spec::CONTROL_TO_DRIVER)] = CONTROL_QUEUE_SIZE;
        sizes[usize::from(spec::CONTROL_FROM_DRIVER)] = CONTROL_QUEUE_SIZE;
        sizes
    }

    fn config(&self) -> Vec<u8> {
        // The size of a terminal is not known; then the ports, and the emergency byte.
        let mut config = vec![0; 4];
        config.extend(self.ports_max.to_le_bytes());
        config.extend([0; 4]);
        config
    }

    fn write_config(&self, offset: usize, bytes: &[u8]) {
        if offset == spec::CONFIG_EMERGENCY
            && let Some(port) = self.port(0)
        {
            // One byte, whatever the width; nobody waits in an emergency.
            _ = port.config.stream.write(&bytes[..1]);
        }
    }

    fn activate(&self, driver: Driver) {
        let orders = driver.has(spec::F_MULTIPORT);
        self.state.lock().driver = Some(driver.clone());
        for port in self.ports() {
            if port.number == 0 || orders {
                let (input, output) = spec::port_queues(port.number);
                port.start(driver.queue(input).cloned(), driver.queue(output).cloned());
                port.offer_room();
                port.send();
            }
        }
        self.take_orders();
    }

    fn reset(&self) {
        {
            let mut state = self.state.lock();
            (state.driver, state.ready) = (None, false);
            state.orders.clear();
        }
        self.ports().iter().for_each(|port| port.stop());
    }

    fn notify(&self, queue: u16) {
        match queue {
            spec::CONTROL_TO_DRIVER => self.state.lock().give_orders(),
            spec::CONTROL_FROM_DRIVER => self.take_orders(),
            _ => {
                let (number, output) = spec::queue_port(queue);
                let Some(port) = self.port(number) else { return };
                if output {
                    port.send();
                } else {
                    port.offer_room();
                }
            }
        }
    }

    fn set_running(&self, running: bool) {
        self.state.lock().paused = !running;
        self.ports().iter().for_each(|port| port.set_paused(!running));
        if running {
            self.state.lock().give_orders();
        }
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let State { ready, orders, .. } = &mut *state;
        fields.item("ready", ready)?;
        fields.item("orders", orders)?;
        fields.check(orders.len() <= ORDERS_MAX, "orders")?;
        drop(state);
        for port in self.ports() {
            port.transfer(fields)?;
        }
        Ok(())
    }
}
