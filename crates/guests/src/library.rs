//! The images that this user has: disks and installation media, fetched, imported or built here.
//!
//! An image is a folder with its file and a note. Machines lie over it and never write to it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::cache::Cache;
use crate::{GuestError, Progress, Result, download};

const NOTE: &str = "image.json";
const PIECE_BYTES: usize = 1 << 20;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A disk in QEMU's format.
    Qcow2,
    /// A disk, byte by byte.
    Raw,
    /// An installation medium.
    Iso,
}

impl Kind {
    /// As formats are called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Iso => "iso",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Qcow2, Self::Raw, Self::Iso].into_iter().find(|kind| kind.name() == name)
    }

    /// By a file's own marks.
    pub fn of_file(path: &Path) -> Result<Self> {
        let in_file = |error| GuestError::io(path, error);
        let mut file = File::open(path).map_err(in_file)?;
        let mut mark = [0; 4];
        let broken = |reason: &str| GuestError::Format {
            what: path.display().to_string(),
            reason: reason.to_owned(),
        };
        file.read_exact(&mut mark).map_err(|_| broken("it is too short for a disk"))?;
        match &mark {
            b"QFI\xfb" => return Ok(Self::Qcow2),
            b"KDMV" | b"cone" | b"vhdx" => {
                return Err(broken("its format cannot be launched; convert it to qcow2 first"));
            }
            _ => {}
        }
        // Of a medium that is a disk too ("isohybrid") people want the medium.
        let mut volume = [0; 6];
        file.seek(SeekFrom::Start(32768)).map_err(in_file)?;
        let is_iso = file.read_exact(&mut volume).is_ok() && &volume == b"\x01CD001";
        Ok(if is_iso { Self::Iso } else { Self::Raw })
    }
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Its version, for people.
    pub release: String,
    /// What it is.
    pub kind: Kind,
    /// Where it lies.
    pub file: PathBuf,
    /// Where it comes from.
    pub origin: String,
    /// The sum of what was fetched.
    pub sha256: String,
    /// Booted directly: kernel, initial RAM disk, what the kernel is told.
    pub boot: Option<Boot>,
}

/// A kernel outside the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: PathBuf,
    /// What the kernel is told.
    pub command_line: String,
}

impl Image {
    /// Bytes on the host's disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.file).map_or(0, |metadata| metadata.blocks() * 512)
    }

    fn to_note(&self) -> Value {
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let boot = self.boot.as_ref().map(|boot| {
            json!({"kernel": name(&boot.kernel), "initrd": name(&boot.initrd),
                "command-line": boot.command_line})
        });
        json!({"name": self.name, "aliases": self.aliases, "release": self.release,
            "kind": self.kind.name(), "file": name(&self.file), "origin": self.origin,
            "sha256": self.sha256, "boot": boot})
    }

    fn from_note(folder: &Path, note: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // A name in the folder, never a way out of it.
        let file = |value: &Value| {
            let name = Path::new(value.as_str()?).file_name()?;
            let path = folder.join(name);
            path.is_file().then_some(path)
        };
        let boot = match &note["boot"] {
            Value::Null => None,
            boot => Some(Boot {
                kernel: file(&boot["kernel"])?,
                initrd: file(&boot["initrd"])?,
                command_line: text(&boot["command-line"]),
            }),
        };
        Some(Self {
            name: folder.file_name()?.to_str()?.to_owned(),
            aliases: note["aliases"].as_array().into_iter().flatten().map(text).collect(),
            release: text(&note["release"]),
            kind: Kind::of_name(note["kind"].as_str()?)?,
            file: file(&note["file"])?,
            origin: text(&note["origin"]),
            sha256: text(&note["sha256"]),
            boot,
        })
    }
}

/// All of them.
pub struct Library {
    root: PathBuf,
}

impl Library {
    /// The user's.
    #[must_use]
    pub fn of_cache(cache: &Cache) -> Self {
        Self { root: cache.path("library") }
    }

    /// All images, by name.
    #[must_use]
    pub fn images(&self) -> Vec<Image> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let image = |entry: fs::DirEntry| {
            let note = fs::read(entry.path().join(NOTE)).ok()?;
            Image::from_note(&entry.path(), &serde_json::from_slice(&note).ok()?)
        };
        let mut images: Vec<Image> = entries.filter_map(image).collect();
        images.sort_by(|a, b| a.name.cmp(&b.name));
        images
    }

    /// An image by its name, another name, or the beginning of its sum.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Image> {
        const SUM_CHARS_MIN: usize = 6;
        let images = self.images();
        let by_sum = |image: &&Image| name.len() >= SUM_CHARS_MIN && image.sha256.starts_with(name);
        let found = images
            .iter()
            .find(|image| image.name == name)
            .or_else(|| images.iter().find(|image| image.aliases.iter().any(|a| a == name)));
        found.or_else(|| images.iter().find(by_sum)).cloned()
    }

    /// The folder in which a new image is put together; nobody sees it before [`Self::keep`].
    pub fn workshop(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let folder = self.root.join(format!(".{name}.new"));
        fs::create_dir_all(&folder).map_err(|error| GuestError::io(&folder, error))?;
        Ok(folder)
    }

    /// Makes what lies in the workshop an image, in place of one of the same name.
    pub fn keep(&self, image: &Image) -> Result<Image> {
        let folder = self.workshop(&image.name)?;
        let note = format!("{:#}\n", image.to_note());
        fs::write(folder.join(NOTE), note).map_err(|error| GuestError::io(&folder, error))?;
        let place = self.root.join(&image.name);
        if place.exists() {
            // Machines may lie over the old one; it stays for them under another name.
            let when = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let aside = self.root.join(format!("{}-{}", image.name, when.as_secs()));
            fs::rename(&place, &aside).map_err(|error| GuestError::io(&aside, error))?;
        }
        fs::rename(&folder, &place).map_err(|error| GuestError::io(&place, error))?;
        self.find(&image.name).ok_or_else(|| GuestError::NoImage { name: image.name.clone() })
    }

    /// Copies a file in.
    pub fn import(&self, name: &str, file: &Path, progress: &mut dyn Progress) -> Result<Image> {
        let kind = Kind::of_file(file)?;
        let folder = self.workshop(name)?;
        let target = folder.join(format!("disk.{}", kind.name()));
        progress.step(&format!("Copying {}", file.display()));
        // Where the file system can, both share their blocks.
        let copied = fs::copy(file, &target);
        copied.map_err(|error| GuestError::io(&target, error))?;
        let sha256 = sum_of_file(&target, progress)?;
        self.keep(&Image {
            name: name.to_owned(),
            aliases: Vec::new(),
            release: String::new(),
            kind,
            file: target,
            origin: file.display().to_string(),
            sha256,
            boot: None,
        })
    }

    /// Fetches an image, goes on where an earlier attempt has stopped, and checks its sum.
    pub fn fetch(&self, wanted: &Wanted, progress: &mut dyn Progress) -> Result<Image> {
        let folder = self.workshop(&wanted.name)?;
        let part = folder.join("part");
        progress.step(&format!("Fetching {}", wanted.url));
        download::fetch(&wanted.url, &part, progress)?;
        progress.step("Checking");
        let found = sum_of_file(&part, progress)?;
        let mut wrong = wanted.sha256.clone().zip(Some(found.clone()));
        if let Some(expected) = &wanted.sha512 {
            let long = long_sum_of_file(&part, progress)?;
            wrong = wrong.filter(|(a, b)| a != b).or_else(|| Some((expected.clone(), long)));
        }
        if let Some((expected, found)) = wrong.filter(|(expected, found)| expected != found) {
            download::forget(&part);
            return Err(GuestError::Corrupt { what: wanted.url.clone(), expected, found });
        }
        let unpacked = unpack(&part, progress)?;
        let kind = Kind::of_file(&unpacked)?;
        let file = folder.join(format!("disk.{}", kind.name()));
        fs::rename(&unpacked, &file).map_err(|error| GuestError::io(&file, error))?;
        self.keep(&Image {
            name: wanted.name.clone(),
            aliases: wanted.aliases.clone(),
            release: wanted.release.clone(),
            kind,
            file,
            origin: wanted.url.clone(),
            sha256: found,
            boot: None,
        })
    }

    /// Takes an image away.
    pub fn remove(&self, name: &str) -> Result<()> {
        let image = self.find(name).ok_or_else(|| GuestError::NoImage { name: name.to_owned() })?;
        let folder = self.root.join(&image.name);
        fs::remove_dir_all(&folder).map_err(|error| GuestError::io(&folder, error))
    }

    /// Notes that an image is in use.
    pub fn touch(&self, name: &str) {
        let note = self.root.join(name).join(NOTE);
        let opened = File::options().append(true).open(note);
        _ = opened.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Takes away what was not used for so long and what nobody lies over.
    pub fn expire(&self, age: Duration, in_use: &[PathBuf]) -> Vec<String> {
        let mut gone = Vec::new();
        for image in self.images() {
            let note = self.root.join(&image.name).join(NOTE);
            let used = fs::metadata(note).and_then(|metadata| metadata.modified());
            let is_old = used.is_ok_and(|used| used.elapsed().unwrap_or_default() > age);
            let is_ours = image.origin.starts_with("http");
            if is_old
                && is_ours
                && !in_use.contains(&image.file)
                && self.remove(&image.name).is_ok()
            {
                gone.push(image.name);
            }
        }
        gone
    }
}

/// Something to be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What it is to be called.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Its version.
    pub release: String,
    /// From where.
    pub url: String,
    /// What its sum must be.
    pub sha256: Option<String>,
    /// The same by SHA-512, which some publish instead.
    pub sha512: Option<String>,
}

/// A name for what is only known by its address.
#[must_use]
pub fn name_of_url(url: &str) -> String {
    let last = url.split(['?', '#']).next().unwrap_or(url).trim_end_matches('/');
    let last = last.rsplit('/').next().unwrap_or("image");
    let good =
        |sign: char| if sign.is_ascii_alphanumeric() || "-_.".contains(sign) { sign } else { '-' };
    let name: String = last.chars().map(good).collect();
    // Two mirrors may serve different things under one name.
    format!("{}-{}", name.trim_matches(['.', '-']), &crate::debian::sum(url.as_bytes())[..8])
}

fn check_name(name: &str) -> Result<()> {
    let sound = !name.is_empty()
        && name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_.:".contains(sign));
    match sound {
        true => Ok(()),
        false => Err(GuestError::Format {
            what: format!("'{name}'"),
            reason: "names of images have letters, digits, dots, dashes and colons".to_owned(),
        }),
    }
}

/// The SHA-256 sum of a file, in hexadecimal.
pub fn sum_of_file(path: &Path, progress: &mut dyn Progress) -> Result<String> {
    digest_of_file::<Sha256>(path, progress)
}

/// The SHA-512 sum.
fn long_sum_of_file(path: &Path, progress: &mut dyn Progress) -> Result<String> {
    digest_of_file::<Sha512>(path, progress)
}

fn digest_of_file<D: Digest>(path: &Path, progress: &mut dyn Progress) -> Result<String> {
    let in_file = |error| GuestError::io(path, error);
    let mut file = File::open(path).map_err(in_file)?;
    let total = file.metadata().map_err(in_file)?.len();
    let mut hash = D::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    loop {
        let count = file.read(&mut piece).map_err(in_file)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        done += count as u64;
        progress.bytes(done, Some(total));
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Images often come packed as a whole.
fn unpack(path: &Path, progress: &mut dyn Progress) -> Result<PathBuf> {
    let in_file = |error| GuestError::io(path, error);
    let mut file = File::open(path).map_err(in_file)?;
    let mut mark = [0; 6];
    let count = file.read(&mut mark).map_err(in_file)?;
    file.rewind().map_err(in_file)?;
    let mut source: Box<dyn Read> = match &mark[..count] {
        b"\xfd7zXZ\0" => Box::new(liblzma::read::XzDecoder::new(file)),
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(file).map_err(in_file)?),
        _ => return Ok(path.to_owned()),
    };
    progress.step("Unpacking");
    let target = path.with_extension("unpacked");
    let mut output = File::create(&target).map_err(|error| GuestError::io(&target, error))?;
    let copied = io::copy(&mut source, &mut output);
    copied.map_err(|error| GuestError::io(&target, error))?;
    fs::remove_file(path).map_err(in_file)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn images_are_imported_found_and_removed() {
        let folder = ::tests::scratch("library");
        let library = Library::of_cache(&Cache::at(folder.clone()));
        let file = folder.join("x.img");
        fs::write(&file, b"QFI\xfb and so on").unwrap();
        let image = library.import("web", &file, &mut Silent).unwrap();
        assert_eq!((image.kind, image.sha256.len()), (Kind::Qcow2, 64));
        assert_eq!(library.find(&image.sha256[..8]), Some(image.clone()));
        assert_eq!(library.images(), std::slice::from_ref(&image));
        // A new one does not pull the old one from under its machines.
        library.import("web", &file, &mut Silent).unwrap();
        assert_eq!(library.images().len(), 2);
        library.remove("web").unwrap();
        assert!(library.find("web").is_none() && library.remove("web").is_err());
        for name in ["", "../x", ".x", "a b", "a/b"] {
            assert!(library.import(name, &file, &mut Silent).is_err(), "{name}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn kinds_are_told_by_their_marks() {
        let folder = ::tests::scratch("kinds");
        let file = folder.join("x");
        let mut iso = vec![0; 40_000];
        iso[32768..32774].copy_from_slice(b"\x01CD001");
        for (data, kind) in
            [(iso, Kind::Iso), (vec![0; 40_000], Kind::Raw), (b"QFI\xfb".to_vec(), Kind::Qcow2)]
        {
            fs::write(&file, data).unwrap();
            assert_eq!(Kind::of_file(&file).unwrap(), kind);
        }
        fs::write(&file, b"KDMV....").unwrap();
        assert!(Kind::of_file(&file).unwrap_err().to_string().contains("convert"));
        assert_ne!(name_of_url("http://a/x.qcow2?y"), name_of_url("http://b/x.qcow2"));
        fs::remove_dir_all(folder).unwrap();
    }
}
