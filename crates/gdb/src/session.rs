//! A conversation with gdb.

use crate::packet::{Decoder, Input, PACKET_BYTES_MAX, encode, from_hex, to_hex};
use crate::target::{Action, Resume, Stop, Target, ThreadId, WatchKind};

const SIGINT: u8 = 2;
const SIGTRAP: u8 = 5;

/// The state of a conversation.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    /// Packets are acknowledged until gdb says that they need not be.
    acknowledges: bool,
    /// The thread that register and memory packets mean.
    current: ThreadId,
    /// Why everything stands still.
    last_stop: Stop,
    running: bool,
    /// gdb understands `swbreak`.
    tells_breakpoints: bool,
    over: bool,
}

/// An answer to a packet.
enum Answer {
    Text(String),
    Bytes(Vec<u8>),
    Ok,
    Error(u8),
    /// What a command prints.
    Console(String),
    /// Not understood, which gdb takes for "not supported".
    Empty,
    /// Nothing before something stops.
    Later,
}

impl Session {
    /// A new conversation about something that stands still, at `thread`.
    pub fn new(thread: ThreadId) -> Self {
        Self {
            decoder: Decoder::default(),
            acknowledges: true,
            current: thread,
            last_stop: Stop::Signal(thread, SIGTRAP),
            running: false,
            tells_breakpoints: false,
            over: false,
        }
    }

    /// gdb detached, or the program ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The thread that packets mean now.
    pub fn current(&self) -> ThreadId {
        self.current
    }

    /// Bytes came; gives bytes to send.
    pub fn feed(&mut self, bytes: &[u8], target: &mut dyn Target) -> Vec<u8> {
        self.decoder.feed(bytes);
        let mut out = Vec::new();
        while let Some(input) = self.decoder.next() {
            match input {
                Input::Interrupt => target.interrupt(),
                Input::Broken => out.push(b'-'),
                Input::Packet(packet) => {
                    if self.acknowledges {
                        out.push(b'+');
                    }
                    let contents = match self.answer(&packet, target) {
                        Answer::Text(text) => text.into_bytes(),
                        Answer::Bytes(bytes) => bytes,
                        Answer::Ok => b"OK".to_vec(),
                        Answer::Error(number) => format!("E{number:02x}").into_bytes(),
                        Answer::Empty => Vec::new(),
                        Answer::Console(text) => {
                            out.extend(console(&text));
                            b"OK".to_vec()
                        }
                        Answer::Later => continue,
                    };
                    out.extend(encode(&contents));
                    if packet == b"QStartNoAckMode" {
                        self.acknowledges = false;
                    }
                }
            }
        }
        out
    }

    /// Something stopped; gives bytes to send.
    pub fn stopped(&mut self, stop: Stop) -> Vec<u8> {
        if !std::mem::replace(&mut self.running, false) {
            return Vec::new();
        }
        self.last_stop = stop;
        match stop {
            Stop::Signal(thread, _)
            | Stop::Breakpoint(thread)
            | Stop::Watch(thread, ..)
            | Stop::Stepped(thread) => self.current = thread,
            Stop::Exited(_) | Stop::Killed(_) => {}
        }
        self.over |= matches!(stop, Stop::Exited(_) | Stop::Killed(_));
        encode(self.stop_text().as_bytes())
    }

    fn stop_text(&self) -> String {
        match self.last_stop {
            Stop::Signal(thread, signal) => format!("T{signal:02x}thread:{thread:x};"),
            Stop::Breakpoint(thread) if self.tells_breakpoints => {
                format!("T{SIGTRAP:02x}thread:{thread:x};swbreak:;")
            }
            Stop::Watch(thread, address, kind) => {
                let kind = match kind {
                    WatchKind::Write => "watch",
                    WatchKind::Read => "rwatch",
                    WatchKind::Access => "awatch",
                };
                format!("T{SIGTRAP:02x}thread:{thread:x};{kind}:{address:x};")
            }
            Stop::Breakpoint(thread) | Stop::Stepped(thread) => {
                format!("T{SIGTRAP:02x}thread:{thread:x};")
            }
            Stop::Exited(code) => format!("W{code:02x}"),
            Stop::Killed(signal) => format!("X{signal:02x}"),
        }
    }

    fn answer(&mut self, packet: &[u8], target: &mut dyn Target) -> Answer {
        let Some((&kind, rest)) = packet.split_first() else { return Answer::Empty };
        if kind == b'X' {
            return write_binary(rest, target);
        }
        let Ok(rest) = std::str::from_utf8(rest) else { return Answer::Empty };
        match kind {
            b'?' => Answer::Text(self.stop_text()),
            b'g' => target
                .read_registers(self.current)
                .map_or(Answer::Error(1), |r| Answer::Text(to_hex(&r))),
            b'G' => match from_hex(rest) {
                Some(values) if target.write_registers(self.current, &values) => Answer::Ok,
                _ => Answer::Error(1),
            },
            b'p' => self.read_register(rest, target),
            b'P' => self.write_register(rest, target),
            b'm' => read_memory(rest, target),
            b'M' => write_memory(rest, target),
            b'H' => self.choose_thread(rest, target),
            b'T' => match thread_id(rest) {
                Some(thread) if target.threads().contains(&thread) => Answer::Ok,
                _ => Answer::Error(1),
            },
            b'Z' | b'z' => breakpoint(rest, kind == b'Z', target),
            b'c' | b's' | b'C' | b'S' => self.old_resume(kind, rest, target),
            b'D' => {
                target.detach();
                self.over = true;
                Answer::Ok
            }
            b'k' => {
                self.over = true;
                target.kill();
                Answer::Later
            }
            b'v' => self.verbose(rest, target),
            b'q' | b'Q' => self.query(kind, rest, target),
            _ => Answer::Empty,
        }
    }

    fn read_register(&self, rest: &str, target: &mut dyn Target) -> Answer {
        let number = usize::from_str_radix(rest, 16).ok();
        let place = number.and_then(|number| target.description().place(number));
        let registers = target.read_registers(self.current);
        match (place, registers) {
            (Some((at, bytes)), Some(registers)) if at + bytes <= registers.len() => {
                Answer::Text(to_hex(&registers[at..at + bytes]))
            }
            _ => Answer::Error(1),
        }
    }

    fn write_register(&self, rest: &str, target: &mut dyn Target) -> Answer {
        let parts = rest.split_once('=').and_then(|(number, value)| {
            Some((usize::from_str_radix(number, 16).ok()?, from_hex(value)?))
        });
        let Some((number, value)) = parts else { return Answer::Error(1) };
        let place = target.description().place(number);
        let registers = target.read_registers(self.current);
        let (Some((at, bytes)), Some(mut registers)) = (place, registers) else {
            return Answer::Error(1);
        };
        if value.len() != bytes || at + bytes > registers.len() {
            return Answer::Error(1);
        }
        registers[at..at + bytes].copy_from_slice(&value);
        if target.write_registers(self.current, &registers) { Answer::Ok } else { Answer::Error(1) }
    }

    /// `Hg` and `Hc`; 0 and -1 mean any.
    fn choose_thread(&mut self, rest: &str, target: &mut dyn Target) -> Answer {
        let Some(name) = rest.get(1..) else { return Answer::Error(1) };
        match thread_id(name) {
            Some(thread) if target.threads().contains(&thread) => {
                target.choose(thread);
                self.current = thread;
                Answer::Ok
            }
            Some(_) => Answer::Error(1),
            None => Answer::Ok,
        }
    }

    fn go(&mut self, resume: Resume, target: &mut dyn Target) -> Answer {
        self.running = true;
        target.resume(resume);
        Answer::Later
    }

    /// `c`, `s`, and with a signal `C`, `S`: the current thread steps, or all go on.
    fn old_resume(&mut self, kind: u8, rest: &str, target: &mut dyn Target) -> Answer {
        let signal = match kind {
            b'C' | b'S' => rest.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        let (own, others) = match kind {
            b's' | b'S' => (Action::Step(signal), Action::Stay),
            _ => (Action::Continue(signal), Action::Continue(None)),
        };
        self.go(Resume { threads: vec![(self.current, own)], others }, target)
    }

    fn verbose(&mut self, rest: &str, target: &mut dyn Target) -> Answer {
        if rest == "Cont?" {
            return Answer::Text("vCont;c;C;s;S".into());
        }
        if rest.starts_with("Kill") {
            self.over = true;
            target.kill();
            return Answer::Ok;
        }
        let Some(actions) = rest.strip_prefix("Cont;") else { return Answer::Empty };
        let mut resume = Resume { threads: Vec::new(), others: Action::Stay };
        for action in actions.split(';') {
            let (what, thread) = match action.split_once(':') {
                Some((what, thread)) => (what, thread_id(thread)),
                None => (action, None),
            };
            let signal = what.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let action = match what.as_bytes().first() {
                Some(b'c' | b'C') => Action::Continue(signal),
                Some(b's' | b'S') => Action::Step(signal),
                _ => return Answer::Error(1),
            };
            match thread {
                Some(thread) => resume.threads.push((thread, action)),
                None => resume.others = action,
            }
        }
        self.go(resume, target)
    }

    fn query(&mut self, kind: u8, rest: &str, target: &mut dyn Target) -> Answer {
        let (name, arguments) = rest.split_once([':', ',']).unwrap_or((rest, ""));
        match (kind, name) {
            (b'Q', "StartNoAckMode") => Answer::Ok,
            (b'q', "Supported") => {
                self.tells_breakpoints = arguments.contains("swbreak+");
                let size = PACKET_BYTES_MAX / 2;
                let mut text = format!(
                    "PacketSize={size:x};QStartNoAckMode+;vContSupported+;swbreak+;\
                     qXfer:features:read+;qXfer:threads:read+"
                );
                for object in ["auxv", "exec-file"] {
                    if target.object(object).is_some() {
                        text.push_str(&format!(";qXfer:{object}:read+"));
                    }
                }
                Answer::Text(text)
            }
            // Otherwise gdb ends the program when it quits.
            (b'q', "Attached") => Answer::Text(u8::from(target.was_there()).to_string()),
            (b'q', "Rcmd") => {
                let line =
                    from_hex(arguments).map(|line| String::from_utf8_lossy(&line).into_owned());
                let printed = line.and_then(|line| target.command(line.trim_end_matches('\0')));
                printed.map_or(Answer::Empty, Answer::Console)
            }
            (b'q', "C") => Answer::Text(format!("QC{:x}", self.current)),
            (b'q', "fThreadInfo") => {
                let threads: Vec<String> =
                    target.threads().iter().map(|thread| format!("{thread:x}")).collect();
                Answer::Text(format!("m{}", threads.join(",")))
            }
            (b'q', "sThreadInfo") => Answer::Text("l".into()),
            (b'q', "ThreadExtraInfo") => {
                let name = thread_id(arguments).and_then(|thread| target.thread_name(thread));
                Answer::Text(to_hex(name.unwrap_or_default().as_bytes()))
            }
            (b'q', "Xfer") => transfer(arguments, target),
            _ => {
                let packet = format!("{}{rest}", char::from(kind));
                target.vendor(&packet).map_or(Answer::Empty, Answer::Text)
            }
        }
    }
}

/// A thread's number in a packet; `None`: any, or all.
fn thread_id(text: &str) -> Option<ThreadId> {
    u64::from_str_radix(text, 16).ok().filter(|&thread| thread != 0)
}

/// `address,length`.
fn range(text: &str) -> Option<(u64, usize)> {
    let (address, length) = text.split_once(',')?;
    let length = usize::from_str_radix(length, 16).ok()?;
    Some((u64::from_str_radix(address, 16).ok()?, length.min(PACKET_BYTES_MAX / 4)))
}

fn read_memory(rest: &str, target: &mut dyn Target) -> Answer {
    let Some((address, bytes)) = range(rest) else { return Answer::Error(1) };
    let contents = target.read_memory(address, bytes);
    let nothing = contents.is_empty() && bytes != 0;
    if nothing { Answer::Error(14) } else { Answer::Text(to_hex(&contents)) }
}

fn write_memory(rest: &str, target: &mut dyn Target) -> Answer {
    let parts = rest.split_once(':').and_then(|(head, hex)| Some((range(head)?, from_hex(hex)?)));
    match parts {
        Some(((address, bytes), contents)) if contents.len() == bytes => {
            if target.write_memory(address, &contents) { Answer::Ok } else { Answer::Error(14) }
        }
        _ => Answer::Error(1),
    }
}

/// `X`: the contents are bytes.
fn write_binary(rest: &[u8], target: &mut dyn Target) -> Answer {
    let colon = rest.iter().position(|&byte| byte == b':');
    let parts = colon.and_then(|at| {
        let head = std::str::from_utf8(&rest[..at]).ok()?;
        Some((range(head)?, &rest[at + 1..]))
    });
    match parts {
        Some(((address, bytes), contents)) if contents.len() == bytes => {
            let written = bytes == 0 || target.write_memory(address, contents);
            if written { Answer::Ok } else { Answer::Error(14) }
        }
        _ => Answer::Error(1),
    }
}

/// `Z0` and `Z1` are breakpoints, `Z2` to `Z4` watch writes, reads, and both; `z` clears.
fn breakpoint(rest: &str, set: bool, target: &mut dyn Target) -> Answer {
    let Some((kind, place)) = rest.split_once(',') else { return Answer::Empty };
    let watch = match kind {
        "0" | "1" => None,
        "2" => Some(WatchKind::Write),
        "3" => Some(WatchKind::Read),
        "4" => Some(WatchKind::Access),
        _ => return Answer::Empty,
    };
    if watch.is_some_and(|kind| !target.can_watch(kind)) {
        return Answer::Empty;
    }
    let Some((address, bytes)) = place.split(';').next().and_then(range) else {
        return Answer::Error(1);
    };
    let done = match watch {
        None => target.breakpoint(address, bytes as u64, set),
        Some(kind) => target.watch(kind, address, bytes as u64, set),
    };
    if done { Answer::Ok } else { Answer::Error(1) }
}

/// `object:read:annex:offset,length`.
fn transfer(arguments: &str, target: &mut dyn Target) -> Answer {
    let mut parts = arguments.splitn(4, ':');
    let (object, verb) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (annex, place) = (parts.next().unwrap_or_default(), parts.next().and_then(range));
    let Some((offset, bytes)) = place.filter(|_| verb == "read") else { return Answer::Empty };
    let contents = match (object, annex) {
        ("features", "target.xml") => Some(target.description().xml().into_bytes()),
        ("features", _) => return Answer::Error(0),
        ("threads", _) => Some(threads_xml(target).into_bytes()),
        _ => target.object(object),
    };
    let Some(contents) = contents else { return Answer::Empty };
    let start = contents.len().min(offset as usize);
    let end = contents.len().min(start + bytes);
    let mark = if end == contents.len() { b'l' } else { b'm' };
    Answer::Bytes([&[mark], &contents[start..end]].concat())
}

/// What a command prints, in packets for gdb's console.
fn console(text: &str) -> Vec<u8> {
    const PIECE_BYTES: usize = PACKET_BYTES_MAX / 4;
    let packet = |piece: &[u8]| encode(format!("O{}", to_hex(piece)).as_bytes());
    text.as_bytes().chunks(PIECE_BYTES).flat_map(packet).collect()
}

fn threads_xml(target: &mut dyn Target) -> String {
    let mut xml = String::from("<?xml version=\"1.0\"?>\n<threads>\n");
    for thread in target.threads() {
        let name = target.thread_name(thread).unwrap_or_default();
        let name: String = name.chars().filter(|letter| !"<>&\"".contains(*letter)).collect();
        xml.push_str(&format!("<thread id=\"{thread:x}\" name=\"{name}\"/>\n"));
    }
    xml.push_str("</threads>\n");
    xml
}

/// What a user's Ctrl-C stops with.
impl Stop {
    /// A thread was asked to stop.
    pub fn interrupted(thread: ThreadId) -> Self {
        Self::Signal(thread, SIGINT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::{Description, Feature, Register};

    /// One thread, two registers, 16 bytes of memory.
    struct Toy {
        description: Description,
        registers: Vec<u8>,
        memory: [u8; 16],
        resumed: Vec<Resume>,
        interrupts: usize,
    }

    impl Target for Toy {
        fn description(&self) -> &Description {
            &self.description
        }
        fn threads(&mut self) -> Vec<u64> {
            vec![7]
        }
        fn thread_name(&mut self, _: u64) -> Option<String> {
            Some("toy".into())
        }
        fn read_registers(&mut self, _: u64) -> Option<Vec<u8>> {
            Some(self.registers.clone())
        }
        fn write_registers(&mut self, _: u64, values: &[u8]) -> bool {
            self.registers = values.to_vec();
            true
        }
        fn read_memory(&mut self, address: u64, bytes: usize) -> Vec<u8> {
            let start = self.memory.len().min(address as usize);
            self.memory[start..self.memory.len().min(start + bytes)].to_vec()
        }
        fn write_memory(&mut self, address: u64, contents: &[u8]) -> bool {
            let place = self.memory.get_mut(address as usize..address as usize + contents.len());
            place.is_some_and(|place| {
                place.copy_from_slice(contents);
                true
            })
        }
        fn breakpoint(&mut self, address: u64, _: u64, _: bool) -> bool {
            address < 16
        }
        fn watch(&mut self, _: WatchKind, address: u64, bytes: u64, _: bool) -> bool {
            address + bytes <= 16
        }
        fn object(&mut self, name: &str) -> Option<Vec<u8>> {
            (name == "exec-file").then(|| b"/bin/toy".to_vec())
        }
        fn resume(&mut self, resume: Resume) {
            self.resumed.push(resume);
        }
        fn interrupt(&mut self) {
            self.interrupts += 1;
        }
        fn command(&mut self, line: &str) -> Option<String> {
            Some(format!("[{line}]"))
        }
        fn vendor(&mut self, packet: &str) -> Option<String> {
            (packet == "qqemu.x").then(|| "1".into())
        }
        fn detach(&mut self) {}
        fn kill(&mut self) {}
    }

    fn toy() -> Toy {
        let registers = vec![Register::number("a", 16), Register::number("pc", 32)];
        let features = vec![Feature { name: "toy", types: "", registers }];
        Toy {
            description: Description { architecture: "toy", system: None, features },
            registers: vec![1, 2, 3, 4, 5, 6],
            memory: *b"0123456789abcdef",
            resumed: Vec::new(),
            interrupts: 0,
        }
    }

    fn ask(session: &mut Session, toy: &mut Toy, packet: &str) -> String {
        let out = session.feed(&encode(packet.as_bytes()), toy);
        let text = String::from_utf8(out).expect("answers are text");
        text.trim_start_matches('+').trim_start_matches('$').split('#').next().unwrap_or("").into()
    }

    #[test]
    fn packets_are_answered() {
        let (mut session, mut toy) = (Session::new(7), toy());
        for (packet, answer) in [
            ("?", "T05thread:7;"),
            ("qC", "QC7"),
            ("qfThreadInfo", "m7"),
            ("g", "010203040506"),
            ("p1", "03040506"),
            ("P0=aabb", "OK"),
            ("g", "aabb03040506"),
            ("p2", "E01"),
            ("m2,3", "323334"),
            ("m20,3", "E0e"),
            ("Mf,1:41", "OK"),
            ("Mf,2:4141", "E0e"),
            ("X0,1:B", "OK"),
            ("m0,1", "42"),
            ("Z0,4,1", "OK"),
            ("Z0,40,1", "E01"),
            ("Z2,4,1", "OK"),
            ("Z1,4,1", "OK"),
            ("Z3,4,1", ""),
            ("qqemu.x", "1"),
            ("qqemu.y", ""),
            ("qRcmd,6869", "O5b68695d"),
            ("qXfer:exec-file:read::0,4", "m/bin"),
            ("qXfer:exec-file:read::4,ff", "l/toy"),
            ("qXfer:libraries:read::0,4", ""),
            ("vMustReplyEmpty", ""),
            ("Hg7", "OK"),
            ("Hg9", "E01"),
            ("T7", "OK"),
            ("m,", "E01"),
            ("P=", "E01"),
        ] {
            assert_eq!(ask(&mut session, &mut toy, packet), answer, "{packet}");
        }
    }

    #[test]
    fn going_on_is_answered_by_the_stop() {
        let (mut session, mut toy) = (Session::new(7), toy());
        ask(&mut session, &mut toy, "qSupported:swbreak+");
        assert_eq!(ask(&mut session, &mut toy, "vCont;s:7;c"), "");
        let resume =
            Resume { threads: vec![(7, Action::Step(None))], others: Action::Continue(None) };
        assert_eq!(toy.resumed, [resume]);
        assert_eq!(session.stopped(Stop::Breakpoint(7)), encode(b"T05thread:7;swbreak:;"));
        assert!(session.stopped(Stop::Stepped(7)).is_empty(), "only one answer");
        ask(&mut session, &mut toy, "C0b");
        assert_eq!(toy.resumed[1].action(7), Action::Continue(Some(11)));
        session.feed(b"\x03", &mut toy);
        assert_eq!(toy.interrupts, 1);
        assert_eq!(session.stopped(Stop::Exited(3)), encode(b"W03"));
        assert!(session.is_over());
    }
}
