use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::server::Server;
use super::wire::{Reader, Writer};
use super::*;
use crate::virtio::guest::{Guest, Part};

/// A folder of the host for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = ::tests::scratch(&format!("9p-{name}"));
        let root = folder.join("root");
        fs::create_dir(&root).unwrap();
        fs::write(folder.join("secret"), "outside").unwrap();
        Self(folder)
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn share(&self, security: Security, read_only: bool) -> Arc<Share> {
        Share::open(&ShareOptions {
            path: self.root(),
            security,
            read_only,
            other_devices: OtherDevices::Renumber,
            modes: (0o600, 0o700),
            write_out: false,
        })
        .unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A client that has attached as fid 0.
struct Client(Server);

/// A field of a request.
enum Field<'a> {
    Half(u16),
    Word(u32),
    Long(u64),
    Text(&'a str),
    Raw(&'a [u8]),
}
use Field::{Half, Long, Raw, Text, Word};

fn message(kind: u8, fields: &[Field<'_>]) -> Vec<u8> {
    let mut message = Writer::new(kind, 5);
    for field in fields {
        match field {
            Half(value) => message.half(*value),
            Word(value) => message.word(*value),
            Long(value) => message.long(*value),
            Text(text) => message.string(text.as_bytes()),
            Raw(bytes) => bytes.iter().for_each(|byte| message.byte(*byte)),
        }
    }
    message.finish()
}

impl Client {
    fn new(share: Arc<Share>) -> Self {
        let mut client = Self(Server::new(share));
        client.ask(100, &[Word(65536), Text("9P2000.L")]).unwrap();
        client.ask(104, &[Word(0), Word(!0), Text("me"), Text("/"), Word(1000)]).unwrap();
        client
    }

    /// The body of the answer, or the number of the error.
    fn ask(&mut self, kind: u8, fields: &[Field<'_>]) -> Result<Vec<u8>, u32> {
        let answer = self.0.answer(&message(kind, fields));
        assert_eq!(answer.len(), u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize);
        assert_eq!(answer[5..7], [5, 0], "the tag");
        match answer[4] {
            7 => Err(u32::from_le_bytes(answer[7..11].try_into().unwrap())),
            other => {
                assert_eq!(other, kind + 1);
                Ok(answer[7..].to_vec())
            }
        }
    }

    /// Walks from fid 0; how far it came.
    fn walk(&mut self, to: u32, names: &[&str]) -> Result<u16, u32> {
        let mut fields = vec![Word(0), Word(to), Half(names.len() as u16)];
        fields.extend(names.iter().map(|name| Text(name)));
        let answer = self.ask(110, &fields)?;
        Ok(u16::from_le_bytes([answer[0], answer[1]]))
    }

    fn create(&mut self, fid: u32, name: &str, flags: u32, mode: u32) -> Result<Vec<u8>, u32> {
        self.walk(fid, &[]).unwrap();
        self.ask(14, &[Word(fid), Text(name), Word(flags), Word(mode), Word(2000)])
    }

    fn write(&mut self, fid: u32, offset: u64, data: &[u8]) -> Result<Vec<u8>, u32> {
        self.ask(118, &[Word(fid), Long(offset), Word(data.len() as u32), Raw(data)])
    }

    fn read(&mut self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>, u32> {
        let answer = self.ask(116, &[Word(fid), Long(offset), Word(count)])?;
        let mut reader = Reader(&answer);
        let count = reader.word().unwrap();
        Ok(reader.bytes(count as usize).unwrap().to_vec())
    }

    /// Mode, user, group.
    fn owner(&mut self, fid: u32) -> (u32, u32, u32) {
        let answer = self.ask(24, &[Word(fid), Long(0x7ff)]).unwrap();
        let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        (word(21), word(25), word(29))
    }

    fn names(&mut self, fid: u32, count: u32) -> Vec<String> {
        let (mut offset, mut names) = (0, Vec::new());
        loop {
            let answer = self.ask(40, &[Word(fid), Long(offset), Word(count)]).unwrap();
            let mut reader = Reader(&answer[4..]);
            if reader.0.is_empty() {
                return names;
            }
            while !reader.0.is_empty() {
                reader.bytes(13).unwrap();
                offset = reader.long().unwrap();
                reader.byte().unwrap();
                names.push(String::from_utf8(reader.string().unwrap().to_vec()).unwrap());
            }
        }
    }
}

const MODELS: [Security; 4] = [
    Security::Passthrough,
    Security::Lenient,
    Security::Mapped(Keep::Attributes),
    Security::Mapped(Keep::Files),
];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn files_are_written_and_read_in_all_models() {
    for security in MODELS {
        if security == Security::Passthrough && !is_root() {
            continue; // it would have to give files away
        }
        let folder = Folder::new("files");
        let mut client = Client::new(folder.share(security, false));
        client.create(1, "new", 2, 0o640).unwrap();
        client.write(1, 3, b"hello").unwrap();
        assert_eq!(client.read(1, 0, 100).unwrap(), b"\0\0\0hello");
        let (mode, uid, gid) = client.owner(1);
        assert_eq!(mode, 0o100_640, "{security:?}");
        if is_root() || matches!(security, Security::Mapped(_)) {
            assert_eq!((uid, gid), (1000, 2000), "{security:?}");
        }
        assert_eq!(client.create(2, "new", 0o200 | 2, 0o600), Err(17), "exclusively");
        client.ask(120, &[Word(2)]).unwrap();
        // The guest sees nothing of how owners are kept.
        client.walk(3, &[]).unwrap();
        client.ask(12, &[Word(3), Word(0)]).unwrap();
        let mut names = client.names(3, 60);
        names.sort();
        assert_eq!(names, [".", "..", "new"], "{security:?}");
        assert_eq!(client.walk(9, &[".virtfs_metadata"]), Err(2));
        // A move takes along what is kept, and fids.
        client.ask(72, &[Word(0), Text("sub"), Word(0o755), Word(7)]).unwrap();
        client.walk(4, &["sub"]).unwrap();
        let moved = client.ask(74, &[Word(0), Text("new"), Word(4), Text("moved")]);
        moved.unwrap();
        assert_eq!(client.owner(1).0, 0o100_640, "{security:?}");
        client.walk(5, &["sub", "moved"]).unwrap();
        assert_eq!(client.owner(5).0, 0o100_640, "{security:?}");
        client.ask(26, &set(5, 1, 0o4711, 0)).unwrap();
        assert_eq!(client.owner(5).0, 0o104_711, "{security:?}");
        client.ask(26, &set(5, 8, 0, 4)).unwrap();
        assert_eq!(client.read(1, 0, 100).unwrap(), b"\0\0\0h");
        client.ask(122, &[Word(5)]).unwrap();
        client.ask(76, &[Word(0), Text("sub"), Word(0x200)]).unwrap();
        assert_eq!(client.walk(6, &["sub"]), Err(2), "{security:?}");
        assert_eq!(client.read(1, 3, 9).unwrap(), b"h", "open files outlive their names");
    }
}

/// `SETATTR` of a mode or a size.
fn set(fid: u32, valid: u32, mode: u32, size: u64) -> Vec<Field<'static>> {
    let mut fields = vec![Word(fid), Word(valid), Word(mode), Word(!0), Word(!0), Long(size)];
    fields.extend([Long(0), Long(0), Long(0), Long(0)]);
    fields
}

#[test]
fn kept_beside_the_host_sees_plain_files() {
    for keep in [Keep::Attributes, Keep::Files] {
        let folder = Folder::new("mapped");
        let mut client = Client::new(folder.share(Security::Mapped(keep), false));
        client.ask(16, &[Word(0), Text("link"), Text("../secret"), Word(5)]).unwrap();
        let device = [Word(0o20_666), Word(1), Word(3), Word(5)];
        let [mode, major, minor, gid] = device;
        client.ask(18, &[Word(0), Text("null"), mode, major, minor, gid]).unwrap();
        for (name, mode) in [("link", 0o120_777), ("null", 0o20_666)] {
            let host = fs::symlink_metadata(folder.root().join(name)).unwrap();
            assert!(host.is_file() && host.mode() & 0o777 == 0o600, "{name} {keep:?}");
            client.walk(1, &[name]).unwrap();
            assert_eq!(client.owner(1), (mode, 1000, 5), "{name} {keep:?}");
            client.ask(120, &[Word(1)]).unwrap();
        }
        client.walk(1, &["link"]).unwrap();
        let target = client.ask(22, &[Word(1)]).unwrap();
        assert_eq!(target[2..], *b"../secret");
    }
}

#[test]
fn nothing_outside_is_reached() {
    let folder = Folder::new("confined");
    fs::create_dir(folder.root().join("a")).unwrap();
    symlink("..", folder.root().join("up")).unwrap();
    symlink("/etc", folder.root().join("etc")).unwrap();
    symlink("../secret", folder.root().join("link")).unwrap();
    let mut client = Client::new(folder.share(Security::Lenient, false));
    // Upwards from the root is the root.
    client.walk(1, &["..", "a", "..", ".."]).unwrap();
    client.ask(12, &[Word(1), Word(0)]).unwrap();
    assert!(client.names(1, 4000).contains(&"etc".to_owned()));
    for names in [&["up", "secret"][..], &["etc", "passwd"], &["../secret"], &["a/../../secret"]] {
        let fields = client.walk(2, names);
        assert!(fields.is_err() || fields == Ok(1), "{names:?}");
        assert_eq!(client.ask(120, &[Word(2)]), Err(9), "no fid was made");
    }
    // A link is not followed when it is opened either.
    client.walk(3, &["link"]).unwrap();
    assert_eq!(client.ask(12, &[Word(3), Word(0)]), Err(40));
    assert_eq!(client.create(4, "link", 1, 0o600), Err(40));
    for (name, error) in [("../x", 2), ("..", 17), (".", 17), ("", 2), ("a\0b", 2)] {
        let made = client.ask(72, &[Word(0), Text(name), Word(0o755), Word(0)]);
        assert_eq!(made, Err(error), "{name:?}");
    }
    // Nor when a folder on the way becomes one.
    client.walk(5, &["a"]).unwrap();
    fs::remove_dir(folder.root().join("a")).unwrap();
    symlink("..", folder.root().join("a")).unwrap();
    let walked = client.ask(110, &[Word(5), Word(6), Half(1), Text("secret")]);
    assert_eq!(walked, Err(2));
    assert_eq!(fs::read(folder.0.join("secret")).unwrap(), b"outside");
}

#[test]
fn pipes_and_devices_of_the_host_are_not_opened() {
    let folder = Folder::new("special");
    let mut client = Client::new(folder.share(Security::Lenient, false));
    client.ask(18, &[Word(0), Text("pipe"), Word(0o10_644), Word(0), Word(0), Word(0)]).unwrap();
    client.walk(1, &["pipe"]).unwrap();
    assert_eq!(client.ask(12, &[Word(1), Word(0)]), Err(6));
}

#[test]
fn a_share_that_must_not_change_does_not() {
    let folder = Folder::new("read-only");
    fs::write(folder.root().join("file"), "text").unwrap();
    let mut client = Client::new(folder.share(Security::Lenient, true));
    assert_eq!(client.create(1, "x", 1, 0o600), Err(30));
    client.walk(2, &["file"]).unwrap();
    assert_eq!(client.ask(26, &set(2, 1, 0o600, 0)), Err(30));
    assert_eq!(client.ask(12, &[Word(2), Word(2)]), Err(30));
    assert_eq!(client.ask(12, &[Word(2), Word(0o1000)]), Err(30), "cutting off is writing");
    client.ask(12, &[Word(2), Word(0)]).unwrap();
    assert_eq!(client.read(2, 0, 10).unwrap(), b"text");
    for (kind, fields) in [
        (72, &[Word(0), Text("d"), Word(0o755), Word(0)][..]),
        (16, &[Word(0), Text("l"), Text("t"), Word(0)]),
        (18, &[Word(0), Text("n"), Word(0o10_644), Word(0), Word(0), Word(0)]),
        (70, &[Word(0), Word(2), Text("hard")]),
        (74, &[Word(0), Text("file"), Word(0), Text("other")]),
        (76, &[Word(0), Text("file"), Word(0)]),
        (32, &[Word(2), Text("user.x"), Long(1), Word(0)]),
        (122, &[Word(2)]),
    ] {
        assert_eq!(client.ask(kind, fields), Err(30), "request {kind}");
    }
    assert_eq!(fs::read_dir(folder.root()).unwrap().count(), 1);
}

#[test]
fn extended_attributes_come_and_go() {
    let folder = Folder::new("attributes");
    fs::write(folder.root().join("file"), "").unwrap();
    for security in [Security::Lenient, Security::Mapped(Keep::Attributes)] {
        let mut client = Client::new(folder.share(security, false));
        for (fid, value) in [(1, &b"value"[..]), (2, b"")] {
            client.walk(fid, &["file"]).unwrap();
            let size = value.len() as u64;
            client.ask(32, &[Word(fid), Text("user.a"), Long(size), Word(0)]).unwrap();
            if !value.is_empty() {
                client.write(fid, 0, value).unwrap();
            }
            client.ask(120, &[Word(fid)]).unwrap();
            client.walk(3, &["file"]).unwrap();
            client.ask(26, &set(3, 1, 0o600, 0)).unwrap(); // leaves `user.virtfs.mode` where mapped
            let got = client.ask(30, &[Word(3), Word(4), Text("user.a")]);
            if value.is_empty() {
                assert_eq!(got, Err(61), "an empty value takes it away");
            } else {
                assert_eq!(client.read(4, 0, 100).unwrap(), value);
                client.ask(120, &[Word(4)]).unwrap();
                client.ask(30, &[Word(3), Word(4), Text("")]).unwrap();
                assert_eq!(client.read(4, 0, 100).unwrap(), b"user.a\0", "{security:?}");
                client.ask(120, &[Word(4)]).unwrap();
            }
            client.ask(120, &[Word(3)]).unwrap();
        }
        client.walk(1, &["file"]).unwrap();
        let too_large = client.ask(32, &[Word(1), Text("user.a"), Long(1 << 40), Word(0)]);
        assert_eq!(too_large, Err(28));
    }
}

#[test]
fn the_device_carries_messages_and_starts_over() {
    let folder = Folder::new("device");
    fs::write(folder.root().join("file"), "text").unwrap();
    let device = NineP::new(folder.share(Security::Lenient, false), "tag");
    let mut guest = Guest::ready(device, 1);
    assert_eq!(guest.read(0x100), u32::from_le_bytes([3, 0, b't', b'a']));
    let version = message(100, &[Word(65536), Text("9P2000.L")]);
    let attach = message(104, &[Word(0), Word(!0), Text(""), Text(""), Word(0)]);
    for round in 0..2 {
        for (request, bytes) in [(&version, 21), (&attach, 20)] {
            let sent = guest.put(0, &[Part::Out(request), Part::In(4096)]);
            guest.notify(0);
            assert_eq!(guest.wait(0), (sent.head, bytes), "round {round}");
            assert_eq!(guest.answer(&sent)[4], request[4] + 1);
        }
        guest.start(1, 64); // a new driver may attach as fid 0 again
    }
    // A message that is longer than its buffers is no message.
    guest.put(0, &[Part::Out(&[200, 0, 0, 0, 100, 0, 0]), Part::In(64)]);
    guest.notify(0);
    let start = std::time::Instant::now();
    while guest.read(0x70) & 0x40 == 0 {
        assert!(start.elapsed().as_secs() < 20, "the device asks for a reset");
        std::thread::yield_now();
    }
}

#[test]
fn hostile_rings_do_no_harm() {
    for seed in 1..5 {
        let folder = Folder::new("rings");
        let device = NineP::new(folder.share(Security::Lenient, false), "tag");
        crate::virtio::guest::hostile(device, 1, 200, seed);
        assert_eq!(fs::read(folder.0.join("secret")).unwrap(), b"outside");
    }
}

/// Random requests with small numbers and short names, most of them well formed.
#[test]
fn hostile_requests_do_no_harm() {
    let rounds = std::env::var("BOARD_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for (index, security) in MODELS.into_iter().enumerate() {
        let folder = Folder::new("hostile");
        let mut client = Client::new(folder.share(security, false));
        let mut random = crate::virtio::guest::Random(17 + index as u64);
        for _ in 0..20_000 * rounds {
            let kinds: Vec<u8> = super::server::kinds().collect();
            let kind = match random.below(20) {
                0 => random.next() as u8,
                1 => 100,
                _ => kinds[random.below(kinds.len() as u64) as usize],
            };
            let mut request = Writer::new(kind, random.next() as u16);
            for _ in 0..random.below(8) {
                match random.below(6) {
                    0 => request.string(name(&mut random)),
                    1 => request.half(random.below(18) as u16),
                    2 => request.long(random.below(100)),
                    3 => request.word(random.next() as u32),
                    _ => request.word(random.below(6) as u32),
                }
            }
            let answer = client.0.answer(&request.finish());
            assert!(answer.len() <= server::MESSAGE_BYTES_MAX as usize);
            if random.below(100) == 0 {
                client = Client::new(folder.share(security, false));
            }
        }
        drop(client);
        assert_eq!(fs::read(folder.0.join("secret")).unwrap(), b"outside");
        let outside: Vec<_> = fs::read_dir(&folder.0).unwrap().collect();
        assert_eq!(outside.len(), 2, "{security:?}");
        readable(&folder.root());
    }
}

/// So that the folder can be removed by who is not root.
fn readable(folder: &Path) {
    _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            readable(&entry.path());
        }
    }
}

fn name(random: &mut crate::virtio::guest::Random) -> &'static [u8] {
    const NAMES: &[&[u8]] = &[
        b"a",
        b"b",
        b"c",
        b"..",
        b".",
        b"",
        b"../secret",
        b"/etc/passwd",
        b"user.x",
        b"secret",
        b".virtfs_metadata",
        b"\0",
        b"9P2000.L",
        b"user.virtfs.mode",
    ];
    NAMES[random.below(NAMES.len() as u64) as usize]
}
