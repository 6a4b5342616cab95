//! The server under our own client, over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::*;
use crate::codec::{ClientMessage, encoding};
use crate::decode::tests::Numbers;
use crate::surface::{Motion, PointerInput, Rect};
use crate::viewer::{Event, Viewer, ViewerError};

/// A screen that tests paint, and everything that was typed on it.
struct Stage {
    frame: Mutex<Frame>,
    keys: Mutex<Vec<(u16, bool)>>,
    places: Mutex<Vec<PointerInput>>,
    wanted: Mutex<Option<(u32, u32)>>,
    events: Mutex<Vec<ClientEvent>>,
    looks: std::sync::atomic::AtomicUsize,
}

impl Surface for Stage {
    fn refresh(&self, frame: &mut Frame, _: bool) -> Vec<Rect> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let now = self.frame.lock();
        if *frame == *now {
            return Vec::new();
        }
        frame.clone_from(&now);
        vec![now.area()]
    }

    fn pointer(&self) -> Option<Arc<Pointer>> {
        Some(Arc::new(Pointer { width: 1, height: 1, hot: (0, 0), pixels: vec![0xff12_3456] }))
    }

    fn can_resize(&self) -> bool {
        true
    }

    fn resize(&self, width: u32, height: u32) {
        *self.wanted.lock() = Some((width, height));
        *self.frame.lock() = Frame::new(width, height);
    }
}

impl InputSink for Stage {
    fn key(&self, code: u16, down: bool) {
        self.keys.lock().push((code, down));
    }

    fn pointer(&self, input: PointerInput, _: u16) {
        self.places.lock().push(input);
    }

    fn is_absolute(&self) -> bool {
        true
    }

    fn lights(&self) -> Option<u8> {
        Some(2)
    }
}

impl Watcher for Stage {
    fn client(&self, event: ClientEvent, _: &ClientInfo) {
        self.events.lock().push(event);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    stage: Arc<Stage>,
    server: Server,
    address: String,
}

fn rig(password: bool, sharing: Sharing, websocket: bool) -> Rig {
    let stage = Arc::new(Stage {
        frame: Mutex::new(Frame::new(320, 200)),
        keys: Mutex::default(),
        places: Mutex::default(),
        wanted: Mutex::default(),
        events: Mutex::default(),
        looks: Default::default(),
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let settings = Settings { name: "stage".to_owned(), password, sharing, lossy: false };
    let server = Server::start(
        settings,
        None,
        Arc::clone(&stage) as _,
        Arc::clone(&stage) as _,
        Arc::clone(&stage) as _,
        vec![(Listener::Tcp(listener), websocket)],
    );
    Rig { stage, server: server.unwrap(), address }
}

fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Paints something new, and waits until the client sees exactly that.
fn paint_and_see(rig: &Rig, viewer: &mut Viewer, numbers: &mut Numbers, requests: bool) {
    let mut frame = rig.stage.frame.lock().clone();
    match numbers.next(3) {
        0 => {
            let area = Rect { height: frame.height - 16, ..frame.area() };
            frame.copy((0, 16), area);
        }
        1 => frame.pixels.iter_mut().for_each(|pixel| *pixel = numbers.next(1 << 24)),
        _ => {
            let (x, y) = (numbers.next(frame.width - 40), numbers.next(frame.height - 40));
            let colour = numbers.next(1 << 24);
            frame.fill(Rect { x, y, width: 40, height: 33 }, colour);
        }
    }
    rig.stage.frame.lock().clone_from(&frame);
    let deadline = Instant::now() + PATIENCE;
    if requests {
        viewer.request(true).unwrap();
    }
    while *viewer.frame() != frame {
        let events = viewer.wait(deadline).expect("an update comes");
        if requests && events.contains(&Event::Updated) && *viewer.frame() != frame {
            viewer.request(true).unwrap();
        }
    }
}

#[test]
fn the_client_sees_what_is_painted_in_every_encoding() {
    let rig = rig(false, Sharing::AllowExclusive, false);
    for number in
        [encoding::RAW, encoding::HEXTILE, encoding::ZLIB, encoding::TIGHT, encoding::ZRLE]
    {
        let mut viewer = Viewer::connect(&rig.address, None).unwrap();
        viewer.encodings(&[number, encoding::COPY_RECT]).unwrap();
        assert_eq!(*viewer.look(PATIENCE).unwrap(), *rig.stage.frame.lock());
        let mut numbers = Numbers(77 + number as u64);
        for _ in 0..12 {
            paint_and_see(&rig, &mut viewer, &mut numbers, true);
        }
        let area = [0, 0, 320, 200];
        viewer.send(&ClientMessage::ContinuousUpdates { enable: true, area }).unwrap();
        for _ in 0..12 {
            paint_and_see(&rig, &mut viewer, &mut numbers, false);
        }
    }
    until(|| rig.server.clients().is_empty());
}

#[test]
fn keys_and_pointers_arrive_and_are_let_go() {
    let rig = rig(false, Sharing::AllowExclusive, false);
    let mut viewer = Viewer::connect(&rig.address, None).unwrap();
    viewer.press(u32::from(b'a')).unwrap();
    viewer.press(u32::from(b'A')).unwrap();
    viewer.send(&ClientMessage::ScanKey { down: true, symbol: 0, code: 0x9d }).unwrap();
    viewer.send(&ClientMessage::Pointer { buttons: 1, x: 10, y: 20 }).unwrap();
    drop(viewer);
    until(|| rig.stage.events.lock().last() == Some(&ClientEvent::Disconnected));
    let expected = [
        (30, true),
        (30, false),
        (42, true),
        (30, true),
        (42, false),
        (30, false),
        (97, true),
        (97, false),
    ];
    assert_eq!(*rig.stage.keys.lock(), expected);
    let places = rig.stage.places.lock();
    assert_eq!(places[0].motion, Motion::To { at: (10, 20), of: (320, 200) });
    assert_eq!((places[0].buttons, places[1].buttons), (1, 0));
    let events = [ClientEvent::Connected, ClientEvent::Initialized, ClientEvent::Disconnected];
    assert_eq!(*rig.stage.events.lock(), events);
}

#[test]
fn abilities_are_told_and_sizes_are_changed() {
    let rig = rig(false, Sharing::AllowExclusive, false);
    let mut viewer = Viewer::connect(&rig.address, None).unwrap();
    viewer.request(false).unwrap();
    let mut events = Vec::new();
    while !events.contains(&Event::Updated) {
        events.extend(viewer.wait(Instant::now() + PATIENCE).unwrap());
    }
    for event in [Event::Fence, Event::ContinuousUpdates, Event::ScanKeys, Event::Lights(2)] {
        assert!(events.contains(&event), "{event:?} is not in {events:?}");
    }
    assert!(events.iter().any(|event| matches!(event, Event::Pointer(_))));
    viewer.resize(400, 300).unwrap();
    viewer.request(true).unwrap();
    while viewer.frame().width != 400 {
        let events = viewer.wait(Instant::now() + PATIENCE).unwrap();
        if events.contains(&Event::Updated) {
            viewer.request(true).unwrap();
        }
    }
    assert_eq!(*rig.stage.wanted.lock(), Some((400, 300)));
    assert_eq!(*viewer.look(PATIENCE).unwrap(), Frame::new(400, 300));
}

#[test]
fn passwords_hold_until_they_expire() {
    let rig = rig(true, Sharing::AllowExclusive, false);
    let enter = |password| Viewer::connect(&rig.address, password).map(|_| ());
    let is_refused = |result| matches!(result, Err(ViewerError::Protocol(_)));
    assert!(is_refused(enter(Some(""))), "no password is set");
    rig.server.set_password(Some("sesame"));
    assert!(enter(Some("sesame")).is_ok() && is_refused(enter(Some("sesamf"))));
    assert!(is_refused(enter(None)));
    rig.server.set_expiry(Some(SystemTime::now() - Duration::from_secs(1)));
    assert!(is_refused(enter(Some("sesame"))));
    rig.server.set_expiry(Some(SystemTime::now() + Duration::from_secs(100)));
    assert!(enter(Some("sesame")).is_ok());
}

fn connect(rig: &Rig, shared: bool) -> Result<Viewer, ViewerError> {
    let stream = std::net::TcpStream::connect(&rig.address).unwrap();
    Viewer::over(Socket::Tcp(stream), None, shared)
}

#[test]
fn who_does_not_share_is_alone_or_stays_out() {
    let sharing = rig(false, Sharing::AllowExclusive, false);
    let mut first = connect(&sharing, true).unwrap();
    let alone = connect(&sharing, false).unwrap();
    assert!(first.look(PATIENCE).is_err(), "it had to go");
    assert!(connect(&sharing, true).is_err(), "nobody beside");
    drop(alone);
    until(|| sharing.server.clients().is_empty());
    assert!(connect(&sharing, true).is_ok());
    let forced = rig(false, Sharing::ForceShared, false);
    assert!(connect(&forced, false).is_err() && connect(&forced, true).is_ok());
    let ignoring = rig(false, Sharing::Ignore, false);
    let mut one = connect(&ignoring, false).unwrap();
    let mut other = connect(&ignoring, false).unwrap();
    assert!(one.look(PATIENCE).is_ok() && other.look(PATIENCE).is_ok());
}

#[test]
fn hostile_clients_do_no_harm_and_nobody_is_kept_waiting() {
    let rig = rig(false, Sharing::Ignore, false);
    let mut numbers = Numbers(0xabcd_ef01);
    for round in 0..200 {
        let stream = std::net::TcpStream::connect(&rig.address).unwrap();
        let socket = Socket::Tcp(stream);
        let mut bytes = b"RFB 003.008\n\x01\x01".to_vec();
        if round % 5 == 0 {
            bytes.clear();
        }
        for _ in 0..numbers.next(300) {
            let most = if numbers.next(3) == 0 { 256 } else { 7 };
            bytes.push(numbers.next(most) as u8);
        }
        _ = socket.write(&bytes); // it may have hung up
    }
    // Those before may have taken all places; they give them back.
    until(|| {
        let viewer = Viewer::connect(&rig.address, None);
        viewer.is_ok_and(|mut viewer| viewer.look(PATIENCE).is_ok())
    });
    until(|| rig.server.clients().is_empty());
}

#[test]
fn nobody_looks_at_a_screen_without_clients() {
    let rig = rig(false, Sharing::AllowExclusive, false);
    let mut viewer = Viewer::connect(&rig.address, None).unwrap();
    viewer.look(PATIENCE).unwrap();
    thread::sleep(Duration::from_millis(100));
    let before = rig.stage.looks.load(Ordering::SeqCst);
    thread::sleep(Duration::from_millis(300));
    let after = rig.stage.looks.load(Ordering::SeqCst);
    assert!(after - before <= 2, "{before} to {after} while nobody waits for an update");
}

#[test]
fn a_browser_comes_in_through_its_websocket() {
    let rig = rig(false, Sharing::AllowExclusive, true);
    let stream = std::net::TcpStream::connect(&rig.address).unwrap();
    let socket = Socket::Tcp(stream);
    let head = "GET /websockify HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\
        \r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    socket.write(head.as_bytes()).unwrap();
    socket.patience(Some(PATIENCE), None).unwrap();
    let mut come = Vec::new();
    let mut buffer = [0; 4096];
    while !come.ends_with(b"RFB 003.008\n") {
        let count = socket.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&come));
        come.extend(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&come);
    assert!(text.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
    assert_eq!(come[come.len() - 14..][..2], [0x82, 12], "a frame of the server is not masked");
}

#[test]
fn unix_sockets_are_as_good() {
    let (one, other) = UnixStream::pair().unwrap();
    drop(other);
    assert!(Viewer::over(Socket::Unix(one), None, true).is_err(), "the other end has gone");
}

/// Full screens of 1280 by 800 that change wholly, as fast as a client takes them.
#[test]
#[ignore = "a measurement: run it in a release build with --nocapture"]
fn full_screens_a_second() {
    let rig = rig(false, Sharing::AllowExclusive, false);
    let pictures = [1_u32, 2].map(|seed| {
        let mut frame = Frame::new(1280, 800);
        for (at, pixel) in frame.pixels.iter_mut().enumerate() {
            // Runs of a few pixels of many colours, as text and windows have.
            *pixel = (at as u32 / 5).wrapping_mul(2_654_435_761 * seed) >> 20 << 8;
        }
        frame
    });
    for number in
        [encoding::RAW, encoding::HEXTILE, encoding::ZLIB, encoding::TIGHT, encoding::ZRLE]
    {
        rig.stage.frame.lock().clone_from(&pictures[0]);
        let mut viewer = Viewer::connect(&rig.address, None).unwrap();
        viewer.encodings(&[number]).unwrap();
        viewer.look(PATIENCE).unwrap();
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(3) {
            rig.stage.frame.lock().clone_from(&pictures[(count + 1) % 2]);
            viewer.request(true).unwrap();
            while !viewer.wait(start + PATIENCE).unwrap().contains(&Event::Updated) {}
            count += 1;
        }
        println!("encoding {number}: {:.1} a second", count as f64 / start.elapsed().as_secs_f64());
    }
}

/// A client that says and hears bytes, for what our own viewer does not do.
struct Raw(TcpStream);

impl Raw {
    fn new(rig: &Rig, encodings: &[i32]) -> Self {
        let mut raw = Self(TcpStream::connect(&rig.address).unwrap());
        raw.0.set_read_timeout(Some(PATIENCE)).unwrap();
        raw.hear(12);
        raw.say(b"RFB 003.008\n");
        raw.hear(2);
        raw.say(&[1]);
        raw.hear(4);
        raw.say(&[1]);
        let head = raw.hear(24);
        let name = u32::from_be_bytes(head[20..].try_into().unwrap());
        raw.hear(name as usize);
        let mut message = vec![2, 0];
        message.extend((encodings.len() as u16).to_be_bytes());
        encodings.iter().for_each(|number| message.extend(number.to_be_bytes()));
        raw.say(&message);
        raw
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next text of the clipboard: true beside one by the extension.
    fn text(&mut self) -> (bool, Vec<u8>) {
        let head = self.hear(8);
        assert_eq!(head[..4], [3, 0, 0, 0], "a text");
        let length = i32::from_be_bytes(head[4..].try_into().unwrap());
        (length < 0, self.hear(length.unsigned_abs() as usize))
    }

    fn cut(&mut self, is_extended: bool, bytes: &[u8]) {
        let length = bytes.len() as i32 * if is_extended { -1 } else { 1 };
        self.say(&[&[6, 0, 0, 0][..], &length.to_be_bytes(), bytes].concat());
    }
}

#[test]
fn what_one_client_cuts_the_others_can_paste() {
    let rig = rig(false, Sharing::Ignore, false);
    let mut plain = Raw::new(&rig, &[0]);
    let mut knowing = Raw::new(&rig, &[0, encoding::EXTENDED_CLIPBOARD]);
    let (is_extended, capabilities) = knowing.text();
    assert!(is_extended && capabilities[..4] == [0x1f, 0, 0, 1], "{capabilities:?}");
    until(|| rig.server.clients().len() == 2);
    // From Latin 1 to Unicode, when it is asked for.
    plain.cut(false, b"caf\xe9");
    assert_eq!(knowing.text(), (true, vec![0x08, 0, 0, 1]), "there is a text");
    knowing.cut(true, &[0x02, 0, 0, 1]);
    let (is_extended, provided) = knowing.text();
    assert!(is_extended && provided[..4] == [0x10, 0, 0, 1]);
    // What was provided can be given back, and reaches the other in Latin 1.
    knowing.cut(true, &[0x08, 0, 0, 1]);
    assert_eq!(knowing.text(), (true, vec![0x02, 0, 0, 1]), "the server asks");
    knowing.cut(true, &provided);
    assert_eq!(plain.text(), (false, b"caf\xe9".to_vec()));
    // Who comes later hears of it; too much is not kept, and nonsense ends its client only.
    let mut late = Raw::new(&rig, &[encoding::EXTENDED_CLIPBOARD]);
    late.text();
    assert_eq!(late.text(), (true, vec![0x08, 0, 0, 1]));
    plain.cut(false, &vec![b'x'; (1 << 20) + 1]);
    late.cut(true, &[0x10, 0, 0, 1, 9, 9, 9]);
    until(|| rig.server.clients().len() == 2);
    plain.cut(false, b"end");
    assert_eq!(knowing.text(), (true, vec![0x08, 0, 0, 1]), "only of the short one");
}
