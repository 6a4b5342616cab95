//! The controller on its bus, the codecs on it, and the time that makes streams flow.

use std::sync::{Arc, OnceLock, Weak};

use device::pci::{BarKind, Connection, Identity, Layout, PciFunction};
use device::{
    Clock, DefaultValue, Device, Expired, Fields, Io, Property, PropertyKind, Silence, Sound,
    StateError, Timer, Voice,
};
use memory::Owner;
use parking_lot::Mutex;

use super::chip::{Chip, Effect, RECORDING, STREAMS};
use super::codec::{Codec, Kind};
use super::format::Format;
use crate::catalog::{
    BuildError, Built, BusKind, Category, Child, Model, OfferedBus, PciPlace, Request, declare,
};
use crate::pci::{INTEL, SUBSYSTEM};

const REGISTERS_BYTES: u64 = 0x4000;
/// How often streams go on.
const STEP_NS: u64 = 4_000_000;
/// A machine that was held up for longer has lost what should have been played meanwhile.
const BEHIND_NS_MAX: u64 = 200_000_000;
/// Addresses on the link.
const CODECS: usize = 15;

/// The controller's registers and what is on the link.
///
/// Lock order: `state`, then a codec's; a codec's `voice` is taken with neither.
struct Shared {
    state: Mutex<State>,
    connection: OnceLock<Arc<Connection>>,
    clock: Arc<dyn Clock>,
    timer: OnceLock<Timer>,
}

#[derive(Default)]
struct State {
    chip: Chip,
    codecs: [Option<Arc<Plugged>>; CODECS],
    /// Until when each stream has gone on; none for one that stands.
    since_ns: [Option<u64>; STREAMS],
    paused: bool,
}

/// What a codec is to play.
struct Sounding {
    codec: Arc<Plugged>,
    rate_hz: u32,
    frames: Vec<[i16; 2]>,
}

impl State {
    fn present(&mut self) {
        let bits = self.codecs.iter().enumerate().filter(|(_, codec)| codec.is_some());
        let bits = bits.fold(0, |bits, (number, _)| bits | 1 << number);
        self.chip.present(bits);
    }

    /// What a codec answers to an order; none without one.
    fn order(&self, order: u32) -> Option<u32> {
        let codec = self.codecs.get((order >> 28) as usize)?.as_ref()?;
        Some(codec.registers.lock().answer(order))
    }

    /// Lets the streams go on until now; what is to be heard of it.
    fn go_on(&mut self, now_ns: u64, connection: &Connection) -> Vec<Sounding> {
        let mut sounding = Vec::new();
        let memory = connection.dma().filter(|_| !self.paused);
        for number in 0..STREAMS {
            let stream = &self.chip.streams[number];
            let (true, Some(memory)) = (stream.runs(), &memory) else {
                self.since_ns[number] = None;
                continue;
            };
            let (format, tag) = (stream.format(), stream.tag());
            let since = self.since_ns[number].unwrap_or(now_ns);
            let since = since.max(now_ns.saturating_sub(BEHIND_NS_MAX));
            let bytes = format.bytes_in(now_ns.saturating_sub(since));
            let (played, gone) = self.chip.go(memory, number, bytes);
            // What makes no whole frame stays for the next time, unless nothing can flow at all.
            let per_second = u64::from(format.rate_hz) * format.frame_bytes() as u64;
            self.since_ns[number] = Some(match gone == bytes {
                true => since + bytes * 1_000_000_000 / per_second,
                false => now_ns,
            });
            if number >= RECORDING {
                self.hear(tag, format, &played, &mut sounding);
            }
        }
        sounding
    }

    /// Hands a stream's frames to the codecs that listen to it.
    fn hear(&self, tag: u8, format: Format, bytes: &[u8], sounding: &mut Vec<Sounding>) {
        for codec in self.codecs.iter().flatten() {
            let registers = codec.registers.lock();
            let stream = registers.player().stream;
            if tag == 0 || stream >> 4 != tag {
                continue;
            }
            let mut frames = format.stereo(bytes, usize::from(stream & 15));
            registers.amplify(&mut frames);
            let codec = Arc::clone(codec);
            sounding.push(Sounding { codec, rate_hz: format.rate_hz, frames });
        }
    }
}

impl Shared {
    /// Does something with the state, and what follows from the time that has gone by.
    fn access<T>(&self, change: impl FnOnce(&mut State, Option<&Connection>) -> T) -> T {
        let connection = self.connection.get().map(Arc::as_ref);
        let mut state = self.state.lock();
        let result = change(&mut state, connection);
        if let Some(connection) = connection {
            connection.interrupt(state.chip.irq());
        }
        result
    }

    /// Lets streams flow, and comes back as long as there are any.
    fn flow(&self) {
        let (now_ns, sounding, silent, goes_on) = self.access(|state, connection| {
            // Not before: who came in between would have gone further already.
            let now_ns = self.clock.now_ns();
            let sounding =
                connection.map_or(Vec::new(), |connection| state.go_on(now_ns, connection));
            let sounds = |codec: &Arc<Plugged>| {
                sounding.iter().any(|sounding| Arc::ptr_eq(&sounding.codec, codec))
            };
            let silent: Vec<_> =
                state.codecs.iter().flatten().filter(|codec| !sounds(codec)).cloned().collect();
            (now_ns, sounding, silent, state.chip.any_runs() && !state.paused)
        });
        for Sounding { codec, rate_hz, frames } in sounding {
            codec.play(rate_hz, &frames);
        }
        silent.iter().for_each(|codec| *codec.voice.lock() = None);
        if let Some(timer) = self.timer.get() {
            timer.arm(goes_on.then_some(now_ns + STEP_NS));
        }
    }

    fn write_word(&self, at: u64, value: u32, mask: u32) {
        let effect = self.access(|state, connection| {
            let effect = state.chip.write(at, value, mask);
            if effect.reset {
                let codecs = state.codecs.iter().flatten();
                codecs.for_each(|codec| codec.registers.lock().reset());
                state.present();
            }
            if let Some(order) = effect.immediate {
                let answer = state.order(order);
                state.chip.answer_immediate(answer);
            }
            let memory = connection.filter(|_| effect.orders).and_then(Connection::dma);
            if let Some(memory) = memory {
                // A full ring is all that one write can have waiting.
                for _ in 0..256 {
                    let Some(order) = state.chip.next_order(&memory) else { break };
                    let answer = state.order(order).unwrap_or(0);
                    state.chip.answer(&memory, (order >> 28) as u8, answer);
                }
            }
            effect
        });
        if effect != (Effect { orders: effect.orders, ..Effect::default() }) {
            self.flow();
        }
    }
}

impl Expired for Shared {
    fn expired(&self, _token: u32) {
        self.flow();
    }
}

/// The registers in memory.
struct Registers(Arc<Shared>);

impl Io for Registers {
    fn read(&self, offset: u64, size: u8) -> u64 {
        let now_ns = self.0.clock.now_ns();
        let state = self.0.state.lock();
        let word = |at: u64| u64::from(state.chip.read(at, now_ns));
        let low = word(offset & !3) >> (8 * (offset & 3));
        match size {
            8 => low | word((offset & !3) + 4) << 32,
            _ => low,
        }
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        let shift = 8 * (offset & 3) as u32;
        let mask = match size {
            1 => 0xff_u32,
            2 => 0xffff,
            _ => u32::MAX,
        };
        self.0.write_word(offset & !3, (value as u32) << shift, mask << shift);
        if size == 8 {
            self.0.write_word((offset & !3) + 4, (value >> 32) as u32, u32::MAX);
        }
    }
}

/// The controller as a PCI function.
struct Controller {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Device for Controller {
    fn reset(&self) {
        self.shared.access(|state, _| state.chip.reset());
        self.shared.flow();
        self.connection.reset();
    }

    fn set_running(&self, running: bool) {
        self.shared.state.lock().paused = !running;
        self.shared.flow();
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.item("chip", &mut self.shared.state.lock().chip)
    }
}

impl PciFunction for Controller {
    fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// A codec at its address.
struct Plugged {
    registers: Mutex<Codec>,
    sound: Arc<dyn Sound>,
    voice: Mutex<Option<(u32, Box<dyn Voice>)>>,
    link: Weak<Shared>,
}

impl Plugged {
    fn play(&self, rate_hz: u32, frames: &[[i16; 2]]) {
        let mut voice = self.voice.lock();
        if voice.as_ref().is_none_or(|(rate, _)| *rate != rate_hz) {
            *voice = Some((rate_hz, self.sound.voice(rate_hz)));
        }
        if let Some((_, voice)) = &mut *voice {
            voice.play(frames);
        }
    }
}

impl Device for Plugged {
    fn reset(&self) {
        self.registers.lock().reset();
        *self.voice.lock() = None;
    }

    fn transfer(&self, fields: &mut Fields<'_>) -> Result<(), StateError> {
        fields.locked("registers", &self.registers)
    }
}

impl Child for Plugged {
    fn unplug(&self) {
        if let Some(link) = self.link.upgrade() {
            for place in &mut link.state.lock().codecs {
                if place.as_ref().is_some_and(|codec| std::ptr::eq(&**codec, self)) {
                    *place = None;
                }
            }
        }
        *self.voice.lock() = None;
    }
}

fn build(request: &Request<'_>, device: u16, revision: u8) -> Result<Built, BuildError> {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        connection: OnceLock::new(),
        clock: Arc::clone(&request.surroundings.clock),
        timer: OnceLock::new(),
    });
    let weak: Weak<Shared> = Arc::downgrade(&shared);
    _ = shared.timer.set(request.surroundings.timers.timer(weak, 0));
    let identity =
        Identity { vendor: INTEL, device, revision, class: 0x04_0300, subsystem: SUBSYSTEM };
    let mut layout = Layout::new(identity);
    layout.interrupt_pin(1);
    layout.config().set(0x40, &[1]); // the link is this one, not the older kind
    let registers = Owner::Io(Arc::new(Registers(Arc::clone(&shared))));
    layout.bar(0, BarKind::Memory32, REGISTERS_BYTES, registers);
    if request.properties.auto("msi") != Some(false) {
        layout.msi(0x60, 1, false);
    }
    if request.pci_place == PciPlace::ExpressPort {
        layout.express(device::pci::ExpressKind::Endpoint);
    }
    let connection = layout.build();
    _ = shared.connection.set(Arc::clone(&connection));
    let link = Arc::clone(&shared);
    let controller = Arc::new(Controller { shared, connection });
    let bus = OfferedBus::new(BusKind::Hda, String::new(), link);
    Ok(Built::pci(&controller).with_bus(bus))
}

fn build_codec(request: &Request<'_>, kind: Kind) -> Result<Built, BuildError> {
    let link = request.parent::<Shared>()?;
    let sounds = &request.surroundings.backends.sounds;
    let sound = sounds.share(request.properties, "audiodev")?;
    let mut state = link.state.lock();
    let free = state.codecs.iter().position(Option::is_none);
    let address = match request.properties.unsigned("cad") {
        Some(address) => {
            let free = |codecs: &[Option<_>; CODECS]| {
                usize::try_from(address)
                    .ok()
                    .filter(|place| codecs.get(*place).is_some_and(Option::is_none))
            };
            free(&state.codecs)
                .ok_or_else(|| request.bad_value("cad", "it is a free address from 0 to 14"))?
        }
        None => {
            free.ok_or_else(|| BuildError::Other("No address on the link is free".to_owned()))?
        }
    };
    let codec = Arc::new(Plugged {
        registers: Mutex::new(Codec::new(kind, request.properties.bool("mixer"))),
        sound: sound.unwrap_or_else(|| Arc::new(Silence)),
        voice: Mutex::default(),
        link: Arc::downgrade(&link),
    });
    state.codecs[address] = Some(Arc::clone(&codec));
    // A link that runs tells the driver of the newcomer.
    state.chip.present(1 << address);
    drop(state);
    Ok(Built::child(&codec))
}

const CONTROLLER: &[Property] = &[declare("msi", PropertyKind::Auto, None)];
const CODEC: &[Property] = &[
    declare("audiodev", PropertyKind::Text, None),
    declare("cad", PropertyKind::Unsigned(32), None),
    declare("mixer", PropertyKind::Bool, Some(DefaultValue::Bool(true))),
];

const fn model(
    name: &'static str,
    description: &'static str,
    bus: BusKind,
    build: fn(&Request<'_>) -> Result<Built, BuildError>,
) -> Model {
    let is_controller = matches!(bus, BusKind::Pci);
    Model {
        name,
        description,
        category: Category::Sound,
        bus,
        offers: if is_controller { Some(BusKind::Hda) } else { None },
        properties: if is_controller { &[CONTROLLER] } else { &[CODEC] },
        state_version: 1,
        build,
    }
}

/// The rows.
pub const MODELS: &[Model] = &[
    model("intel-hda", "Intel HD Audio Controller (ich6)", BusKind::Pci, |request| {
        build(request, 0x2668, 1)
    }),
    model("ich9-intel-hda", "Intel HD Audio Controller (ich9)", BusKind::Pci, |request| {
        build(request, 0x293e, 3)
    }),
    model("hda-output", "HDA Audio Codec, output-only (line-out)", BusKind::Hda, |request| {
        build_codec(request, Kind::Output)
    }),
    model("hda-duplex", "HDA Audio Codec, duplex (line-out, line-in)", BusKind::Hda, |request| {
        build_codec(request, Kind::Duplex)
    }),
    model("hda-micro", "HDA Audio Codec, duplex (speaker, microphone)", BusKind::Hda, |request| {
        build_codec(request, Kind::Micro)
    }),
];
