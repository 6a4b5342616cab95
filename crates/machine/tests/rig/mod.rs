//! A machine in a test, whose debug console is watched.

use std::fs;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use device::{Stream, StreamPeer};
use machine::surroundings::{Backends, Firmware};
use machine::{
    BoardKind, Boot, Config, End, Machine, NoEvents, Part, Properties, PropertyValue, Request,
    Smbios, TranslatorOptions,
};
use parking_lot::{Condvar, Mutex};

/// Generous for an unoptimised build on a busy machine; a hang is what it is for.
const RUN_MAX: Duration = Duration::from_secs(20);

/// Bytes of the guest, as they come.
#[derive(Default)]
pub struct Log {
    text: Mutex<Vec<u8>>,
    grown: Condvar,
}

impl Stream for Log {
    fn write(&self, bytes: &[u8]) -> usize {
        self.text.lock().extend(bytes);
        self.grown.notify_all();
        bytes.len()
    }

    fn attach(&self, _peer: Weak<dyn StreamPeer>) {}
}

impl machine::SerialOutput for Log {
    fn send(&self, byte: u8) {
        self.write(&[byte]);
    }
}

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock()).into_owned()
    }

    /// Waits for a text. False when it has not come in time.
    pub fn wait_for(&self, wanted: &str) -> bool {
        let end = Instant::now() + RUN_MAX;
        let mut text = self.text.lock();
        while !String::from_utf8_lossy(&text).contains(wanted) {
            if self.grown.wait_until(&mut text, end).timed_out() {
                return false;
            }
        }
        true
    }
}

/// Firmware images of Debian's packages.
struct Installed;

impl Firmware for Installed {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        firmware(&format!("seabios/{name}")).or_else(|| firmware(&format!("qemu/{name}")))
    }
}

/// A file of the packages' data folder.
pub fn firmware(name: &str) -> Option<Vec<u8>> {
    fs::read(tests::asset(&format!("qemu-system-10/usr/share/{name}"))?).ok()
}

/// A machine to be.
pub struct Rig {
    pub config: Config,
    pub debug: Arc<Log>,
    pub serial: Arc<Log>,
}

/// A part by its model and what is set on it.
pub fn part(model: &str, properties: &[(&str, PropertyValue)]) -> Part {
    let mut set = Properties::default();
    for (name, value) in properties {
        set.set(name, value.clone());
    }
    Part { model: model.to_owned(), id: None, bus: None, properties: set }
}

pub fn text(value: &str) -> PropertyValue {
    PropertyValue::Text(value.to_owned())
}

impl Rig {
    /// A machine with this system ROM and a debug console.
    pub fn new(board: BoardKind, rom: Vec<u8>) -> Self {
        let (debug, serial) = (Arc::new(Log::default()), Arc::new(Log::default()));
        let backends = Arc::new(Backends::default());
        backends.streams.insert("debug", Arc::clone(&debug) as Arc<dyn Stream>);
        let port = ("iobase", PropertyValue::Unsigned(0x402));
        let config = Config {
            board,
            ram_bytes: 256 << 20,
            processors: 1,
            boot: Boot { rom: Some(rom), ..Boot::default() },
            parts: vec![part("isa-debugcon", &[port, ("chardev", text("debug"))])],
            backends,
            firmware_files: Arc::new(Installed),
            events: Arc::new(NoEvents),
            serial: Some(Arc::clone(&serial) as Arc<dyn machine::SerialOutput>),
            i8042: false,
            hpet: false,
            uuid: [7; 16],
            smbios: Smbios::default(),
            fw_cfg: Vec::new(),
            clock_offset_s: 0,
            reset_ends: false,
            translator: TranslatorOptions { cache_bytes: 32 << 20, ..TranslatorOptions::detect() },
        };
        Self { config, debug, serial }
    }

    /// Runs until the debug console shows a text: all of it.
    pub fn run_until(self, wanted: &str) -> String {
        let (debug, shown) = (Arc::clone(&self.debug), wanted.to_owned());
        self.run(move |_| debug.wait_for(&shown)).0
    }

    /// Runs until `done` returns: the debug console, the serial one, and the end.
    pub fn run(self, done: impl FnOnce(&Machine) -> bool) -> (String, String, End) {
        let machine = Machine::new(self.config).expect("the machine can be built");
        let requests = machine.requests();
        let machine = Arc::new(machine);
        let running = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || machine.run())
        };
        let in_time = done(&machine);
        requests.put(Request::Quit);
        let end = running.join().expect("the machine ends without a panic");
        let (debug, serial) = (self.debug.text(), self.serial.text());
        assert!(in_time, "not in time; debug console:\n{debug}\nserial:\n{serial}");
        (debug, serial, end)
    }
}
