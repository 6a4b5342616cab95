use std::fs as host;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

struct Share {
    folder: PathBuf,
    server: Server,
}

fn share(test: &str, read_only: bool) -> Share {
    let folder = std::env::temp_dir().join(format!("share-{test}-{}", std::process::id()));
    _ = host::remove_dir_all(&folder);
    host::create_dir_all(folder.join("in/deep")).unwrap();
    host::write(folder.join("secret"), "beside").unwrap();
    host::write(folder.join("in/file"), "hello").unwrap();
    let options = Options { read_only, guest_user: 7, guest_group: 8 };
    let server = Server::new(&folder.join("in"), options).unwrap();
    Share { folder, server }
}

impl Drop for Share {
    fn drop(&mut self) {
        _ = host::remove_dir_all(&self.folder);
    }
}

/// A request's bytes.
fn request(operation: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    bytes[..4].copy_from_slice(&((40 + body.len()) as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&operation.to_le_bytes());
    bytes[8..16].copy_from_slice(&99_u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&node.to_le_bytes());
    bytes.extend(body);
    bytes
}

impl Share {
    /// What is answered, or the error's number.
    fn ask(&mut self, operation: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        let answer = self.server.answer(&request(operation, node, body)).unwrap();
        assert_eq!(answer.len() as u32, u32::from_le_bytes(answer[..4].try_into().unwrap()));
        assert_eq!(answer[8..16], 99_u64.to_le_bytes());
        match i32::from_le_bytes(answer[4..8].try_into().unwrap()) {
            0 => Ok(answer[16..].to_vec()),
            error => Err(-error),
        }
    }

    fn look_up(&mut self, node: u64, name: &str) -> Result<u64, i32> {
        let answer = self.ask(operation::LOOKUP, node, &[name.as_bytes(), b"\0"].concat())?;
        Ok(number(&answer, 0))
    }

    fn open(&mut self, node: u64, flags: u32) -> Result<u64, i32> {
        let answer = self.ask(operation::OPEN, node, &words(&[flags, 0]))?;
        Ok(number(&answer, 0))
    }

    fn read(&mut self, handle: u64) -> Result<Vec<u8>, i32> {
        let body = [&longs(&[handle, 0])[..], &words(&[100, 0, 0, 0, 0, 0])].concat();
        self.ask(operation::READ, 1, &body)
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn longs(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

const ROOT: u64 = 1;
const LOOP: i32 = 40;
const INVAL: i32 = 22;
const XDEV: i32 = 18;

#[test]
fn files_are_read_written_and_renamed() {
    let mut share = share("files", false);
    let file = share.look_up(ROOT, "file").unwrap();
    let handle = share.open(file, 0).unwrap();
    assert_eq!(share.read(handle).unwrap(), b"hello");
    let body = [&words(&[1 | 0o100, 0o6755, 0, 0])[..], b"new\0"].concat();
    let created = share.ask(operation::CREATE, ROOT, &body).unwrap();
    let (node, handle) = (number(&created, 0), number(&created, 128));
    let body = [&longs(&[handle, 2])[..], &words(&[3, 0, 0, 0, 0, 0]), b"abc"].concat();
    share.ask(operation::WRITE, node, &body).unwrap();
    let path = share.folder.join("in/new");
    assert_eq!(host::read(&path).unwrap(), b"\0\0abc");
    let mode = host::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7000, 0, "no program of the host's gets other rights");
    let deep = share.look_up(ROOT, "deep").unwrap();
    let body = [&longs(&[deep])[..], b"new\0moved\0"].concat();
    share.ask(operation::RENAME, ROOT, &body).unwrap();
    let attributes = share.ask(operation::GETATTR, node, &longs(&[0, 0])).unwrap();
    assert_eq!(
        number(&attributes, 16),
        host::metadata(share.folder.join("in/deep/moved")).unwrap().ino()
    );
    share.ask(operation::UNLINK, deep, b"moved\0").unwrap();
    assert!(share.ask(operation::GETATTR, node, &longs(&[0, 0])).is_err());
}

#[test]
fn folders_are_listed_in_pieces() {
    let mut share = share("list", false);
    for number in 0..50 {
        host::write(share.folder.join(format!("in/deep/{number}")), "").unwrap();
    }
    let deep = share.look_up(ROOT, "deep").unwrap();
    let opened = share.ask(operation::OPENDIR, deep, &words(&[0, 0])).unwrap();
    let (mut offset, mut names) = (0, Vec::new());
    loop {
        let body = [&longs(&[number(&opened, 0), offset])[..], &words(&[200, 0])].concat();
        let answer = share.ask(operation::READDIR, deep, &body).unwrap();
        assert!(answer.len() <= 200);
        if answer.is_empty() {
            break;
        }
        let mut at = 0;
        while at < answer.len() {
            offset = number(&answer, at + 8);
            let length = u32::from_le_bytes(answer[at + 16..at + 20].try_into().unwrap()) as usize;
            names.push(answer[at + 24..at + 24 + length].to_vec());
            at += (24 + length).next_multiple_of(8);
        }
    }
    assert_eq!(names.len(), 52, "with the folder itself and the one above");
}

#[test]
fn no_way_leads_out_of_the_folder() {
    let mut share = share("escape", false);
    for name in ["..", ".", "a/b", "../secret", "/etc/passwd"] {
        assert_eq!(share.look_up(ROOT, name), Err(INVAL), "{name}");
    }
    // Links, made by the guest or by the host: they are shown, and nothing goes through them.
    let body = b"link\0../secret\0";
    share.ask(operation::SYMLINK, ROOT, body).unwrap();
    symlink("..", share.folder.join("in/up")).unwrap();
    symlink("/", share.folder.join("in/root")).unwrap();
    let link = share.look_up(ROOT, "link").unwrap();
    assert_eq!(share.open(link, 0), Err(LOOP));
    let up = share.look_up(ROOT, "up").unwrap();
    let error = share.look_up(up, "secret").unwrap_err();
    assert!([LOOP, XDEV].contains(&error), "{error}");
    let size = [&words(&[valid::SIZE, 0])[..], &longs(&[0, 1, 0, 0, 0, 0]), &[0; 40]].concat();
    assert!(share.ask(operation::SETATTR, link, &size).is_err());
    let mode = [&words(&[valid::MODE, 0])[..], &longs(&[0; 6]), &words(&[0, 0, 0, 0o777, 0, 0, 0])];
    assert!(share.ask(operation::SETATTR, link, &mode.concat()).is_err());
    // A folder that becomes a link behind the guest's back.
    let deep = share.look_up(ROOT, "deep").unwrap();
    host::remove_dir(share.folder.join("in/deep")).unwrap();
    symlink(&share.folder, share.folder.join("in/deep")).unwrap();
    assert!(share.look_up(deep, "secret").is_err());
    let body = [&words(&[1 | 0o100, 0o644, 0, 0])[..], b"evil\0"].concat();
    assert!(share.ask(operation::CREATE, deep, &body).is_err());
    assert!(share.ask(operation::UNLINK, deep, b"secret\0").is_err());
    assert_eq!(host::read(share.folder.join("secret")).unwrap(), b"beside");
    assert!(!share.folder.join("evil").exists());
    // Devices are not made, even by root.
    let body = [&words(&[0o020_666, 0x103, 0, 0])[..], b"null\0"].concat();
    assert_eq!(share.ask(operation::MKNOD, ROOT, &body), Err(1));
}

#[test]
fn read_only_is_read_only() {
    let mut share = share("read-only", true);
    let file = share.look_up(ROOT, "file").unwrap();
    assert_eq!(share.open(file, 1), Err(30));
    assert_eq!(share.open(file, 0o1000), Err(30), "emptying is writing");
    assert_eq!(share.ask(operation::UNLINK, ROOT, b"file\0"), Err(30));
    let handle = share.open(file, 0).unwrap();
    assert_eq!(share.read(handle).unwrap(), b"hello");
}

#[test]
fn owners_are_the_guests() {
    let mut share = share("owner", false);
    let file = share.look_up(ROOT, "file").unwrap();
    let attributes = share.ask(operation::GETATTR, file, &longs(&[0, 0])).unwrap();
    let at = |at: usize| u32::from_le_bytes(attributes[at..at + 4].try_into().unwrap());
    assert_eq!((at(16 + 68), at(16 + 72)), (7, 8));
}

/// Any bytes at all: an answer or none, and the folder above is as it was.
#[test]
fn a_hostile_guest_breaks_nothing() {
    let mut share = share("fuzz", false);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let length = random() % 120;
        let body: Vec<u8> = (0..length)
            .map(|_| match random() % 4 {
                0 => 0,
                1 => b'.',
                2 => b"abcfile/"[(random() % 8) as usize],
                _ => random() as u8,
            })
            .chain([0])
            .collect();
        let bytes = request((random() % 50) as u32, random() % 8, &body);
        let cut = bytes.len() - (random() % 3) as usize;
        _ = share.server.answer(&bytes[..cut]);
    }
    for length in 0..64 {
        _ = share.server.answer(&vec![0xff; length]);
    }
    assert_eq!(host::read(share.folder.join("secret")).unwrap(), b"beside");
    assert_eq!(host::read_dir(&share.folder).unwrap().count(), 2);
}
