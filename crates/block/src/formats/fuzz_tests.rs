//! Images of every format with bytes changed at random: an error or a result, never a panic, and no
//! allocation that the file's size does not justify.

use std::io::Write;
use std::path::PathBuf;

use crate::info::Fix;
use crate::node::Zeroing;
use crate::open::{OpenContext, OpenMode, open};
use crate::options::{CreateOptions, OpenOptions};

/// Changed images of each format.
const ROUNDS: u64 = 60;
/// Reads are at most so long, whatever size an image claims.
const READ_BYTES_MAX: u64 = 256 << 10;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("hostel-fuzz-{}-{name}", std::process::id()))
}

/// An image with some data, of formats that can be made.
fn made(format: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let path = path(&format!("make-{format}"));
    let name = path.to_str().unwrap();
    let mut wanted = CreateOptions::new();
    wanted.set("size", "1048576");
    options.iter().for_each(|(name, value)| wanted.set(name, *value));
    let row = super::find(format).unwrap();
    row.create.unwrap()(name, &wanted, &OpenContext::default()).unwrap();
    let mut open_options = OpenOptions::new();
    open_options.set("driver", format);
    if format == "luks" {
        open_options.set("key-secret", "fuzz");
    }
    let mode = OpenMode { write: true, ..OpenMode::default() };
    let image = open(Some(name), open_options, &mode).unwrap();
    if image.only_compressed() {
        let compressing = image.compressing().unwrap();
        let data = vec![5; compressing.unit()];
        compressing.store(0, &data, &compressing.pack(&data).unwrap()).unwrap();
    } else {
        image.write_at(&[5; 70_000], 1000).unwrap();
    }
    image.flush().unwrap();
    drop(image);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

fn cloop() -> Vec<u8> {
    let mut bytes =
        b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
            .to_vec();
    bytes.resize(128, 0);
    bytes.extend(65_536u32.to_be_bytes());
    bytes.extend(2u32.to_be_bytes());
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&[7; 65_536]).unwrap();
    let block = packer.finish().unwrap();
    let start = 136 + 24u64;
    for number in 0..3 {
        bytes.extend((start + number * block.len() as u64).to_be_bytes());
    }
    bytes.extend(&block);
    bytes.extend(&block);
    bytes
}

fn bochs() -> Vec<u8> {
    let mut bytes = b"Bochs Virtual HD Image\0".to_vec();
    bytes.resize(32, 0);
    bytes.extend(b"Redolog\0");
    bytes.resize(48, 0);
    bytes.extend(b"Growing\0");
    bytes.resize(64, 0);
    for word in [0x2_0000u32, 512, 16, 16, 65_536, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend((1u64 << 20).to_le_bytes());
    bytes.resize(512, 0);
    for entry in 0..16u32 {
        bytes.extend(if entry == 2 { 0 } else { u32::MAX }.to_le_bytes());
    }
    bytes.resize(bytes.len() + 512 + 65_536, 0xff);
    bytes
}

fn qed() -> Vec<u8> {
    let mut bytes = b"QED\0".to_vec();
    for word in [4096u32, 1, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [0u64, 0, 0, 4096, 1 << 20, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(4096, 0);
    bytes.extend(8192u64.to_le_bytes());
    bytes.resize(8192, 0);
    for entry in [12_288u64, 1, 0, 16_384] {
        bytes.extend(entry.to_le_bytes());
    }
    bytes.resize(12_288, 0);
    bytes.resize(20_480, 9);
    bytes
}

fn dmg() -> Vec<u8> {
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&[3; 4096]).unwrap();
    let mut bytes = packer.finish().unwrap();
    let packed = bytes.len() as u64;
    let mut table = b"mish".to_vec();
    table.resize(200, 0);
    table.extend(2u32.to_be_bytes());
    for (kind, sector, count, length) in [(0x8000_0005u32, 0u64, 8u64, packed), (0, 8, 8, 0)] {
        table.extend(kind.to_be_bytes());
        table.extend(0u32.to_be_bytes());
        for word in [sector, count, 0, length] {
            table.extend(word.to_be_bytes());
        }
    }
    let data = crate::secrets::to_base64(&table);
    let xml =
        format!("<plist><dict><key>blkx</key><array><data>{data}</data></array></dict></plist>");
    let at = bytes.len() as u64;
    bytes.extend(xml.as_bytes());
    let trailer = bytes.len();
    bytes.extend(b"koly");
    bytes.resize(trailer + 512, 0);
    bytes[trailer + 0xd8..trailer + 0xe0].copy_from_slice(&at.to_be_bytes());
    bytes[trailer + 0xe0..trailer + 0xe8].copy_from_slice(&(xml.len() as u64).to_be_bytes());
    bytes
}

/// Everything that a user may do with an image, none of which may end the program.
fn use_it(format: &str, path: &str, write: bool) {
    let mut options = OpenOptions::new();
    options.set("driver", format);
    options.set("file.locking", "off");
    options.set("backing", serde_json::Value::Null);
    if format == "luks" {
        options.set("key-secret", "fuzz");
    }
    if super::find(format).is_none_or(|row| !row.backing) {
        options.take_null("backing");
    }
    let mode = OpenMode { write, auto_read_only: true, ..OpenMode::default() };
    let Ok(image) = open(Some(path), options, &mode) else { return };
    let size = image.size();
    let mut buffer = vec![0; size.clamp(1, READ_BYTES_MAX) as usize];
    _ = image.read_at(&mut buffer, 0);
    let middle = (size / 2).min(size.saturating_sub(buffer.len() as u64));
    _ = image.read_at(&mut buffer, middle);
    if size > 0 {
        _ = image.status(0, size);
        _ = image.status(size - 1, 1);
    }
    _ = image.info();
    _ = image.check(Fix::default());
    if write && image.writable() && size >= 8192 {
        _ = image.write_at(&[1; 3000], 1000);
        _ = image.write_at(&[2; 512], size - 512);
        _ = image.zero_at(4096, 4096, Zeroing::Unmap);
        _ = image.check(Fix { leaks: true, errors: true });
        _ = image.flush();
    }
}

fn fuzz(format: &str, image: &[u8]) {
    let path = path(format);
    let name = path.to_str().unwrap();
    std::fs::write(&path, image).unwrap();
    use_it(format, name, false);
    let mut random = Random(0x5eed_0001);
    for round in 0..ROUNDS {
        let mut bytes = image.to_vec();
        // Headers are where most of the trouble is.
        let reach = match round % 3 {
            0 => 512.min(bytes.len() as u64),
            1 => 8192.min(bytes.len() as u64),
            _ => bytes.len() as u64,
        };
        for _ in 0..1 + random.below(8) {
            let at = random.below(reach) as usize;
            bytes[at] = match random.below(3) {
                0 => 0xff,
                1 => bytes[at] ^ 1 << random.below(8),
                _ => random.below(256) as u8,
            };
        }
        if random.below(8) == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        for write in [false, true] {
            std::fs::write(&path, &bytes).unwrap();
            use_it(format, name, write);
        }
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn changed_images_never_end_the_program() {
    for (format, options) in [
        ("vdi", &[][..]),
        ("vpc", &[]),
        ("vmdk", &[]),
        ("vmdk", &[("subformat", "streamOptimized")]),
        ("parallels", &[("cluster_size", "65536")]),
        ("vhdx", &[("block_size", "1048576")]),
        ("qcow2", &[("cluster_size", "4096")]),
    ] {
        fuzz(format, &made(format, options));
    }
    for (format, image) in [("cloop", cloop()), ("bochs", bochs()), ("qed", qed()), ("dmg", dmg())]
    {
        fuzz(format, &image);
    }
}

#[test]
fn changed_headers_of_encrypted_images_never_end_the_program() {
    crate::secrets::add("fuzz", b"fuzz".to_vec());
    let image = made("luks", &[("key-secret", "fuzz"), ("iter-time", "1")]);
    // Only the header: each try to unlock costs a derivation.
    let path = path("luks-header");
    let name = path.to_str().unwrap();
    let mut random = Random(0x5eed_0002);
    for _ in 0..40 {
        let mut bytes = image.clone();
        let at = random.below(592) as usize;
        bytes[at] = random.below(256) as u8;
        std::fs::write(&path, &bytes).unwrap();
        use_it("luks", name, false);
    }
    std::fs::remove_file(&path).unwrap();
}
