//! What a machine is made from: `spark`, an image of the library, a file, an address, a release in a
//! catalogue.

use std::path::{Path, PathBuf};
use std::process::Command;

use guests::cache::Cache;
use guests::library::{Boot, Image, Kind, Library, Wanted, name_of_url};
use guests::simplestreams::Source;
use guests::{Progress, catalogue, debian_image, disk, firmware, spark};
use serde_json::Value;

use crate::arguments::Launch;
use crate::failure::{Failure, USAGE};
use crate::nearest::nearest_few;
use crate::progress::Line;
use crate::settings;
use crate::verbs::launch::workshop::Workshop;

/// Ubuntu's words for its releases, for which its catalogue is asked.
const UBUNTU: &[&str] = &["ubuntu", "lts", "noble", "jammy", "focal", "plucky", "questing"];
const DISK_BYTES: u64 = 5 << 30;
const DISK_BYTES_MIN: u64 = 16 << 20;

/// An image that was chosen.
pub struct Chosen {
    /// As it was called.
    pub name: String,
    /// Its version, for people.
    pub release: String,
    /// What a disk of the machine's own lies over.
    pub base: Base,
    /// A kernel outside the disk.
    pub boot: Option<Boot>,
    /// An installation medium.
    pub medium: Option<PathBuf>,
    /// It has cloud-init rather than our own first process.
    pub has_cloud_init: bool,
}

/// What lies below a machine's own disk.
pub enum Base {
    /// An empty file system that is made for the size.
    Ext4,
    /// An image.
    Image { file: PathBuf, format: &'static str },
    /// Nothing.
    Empty,
}

/// Finds or makes what was asked for.
pub fn choose(what: &Launch, line: &mut Line) -> Result<Chosen, Failure> {
    let cache = Cache::of_user();
    line.step("Looking for the image");
    let library = Library::of_cache(&cache);
    let path = what.image.strip_prefix("file://").unwrap_or(&what.image);
    if what.image == "spark" {
        let image = spark::image(&cache, what.offline, line)?;
        return Ok(Chosen {
            name: "spark".to_owned(),
            release: image.version,
            base: Base::Ext4,
            boot: Some(Boot {
                kernel: image.kernel,
                initrd: image.initrd,
                command_line: image.command_line,
            }),
            medium: None,
            has_cloud_init: false,
        });
    }
    let image = if let Some(suite) = debian_image::suite(&what.image) {
        debian_image::image(&cache, suite, what.offline, &mut Workshop, line)?
    } else if path.contains('/') || Path::new(path).is_file() {
        if what.image.starts_with("http://") || what.image.starts_with("https://") {
            by_address(&library, &what.image, what.offline, line)?
        } else {
            return of_file(&cache, Path::new(path), what, line);
        }
    } else {
        by_name(&cache, &library, &what.image, what.offline, line)?
    };
    library.touch(&image.name);
    of_image(&cache, image, what, line)
}

fn of_image(
    cache: &Cache,
    image: Image,
    what: &Launch,
    line: &mut Line,
) -> Result<Chosen, Failure> {
    if image.boot.is_none() {
        firmware::ensure(cache, what.offline, line)?;
    }
    let is_medium = image.kind == Kind::Iso;
    Ok(Chosen {
        name: image.name,
        release: image.release,
        base: match image.kind {
            Kind::Iso => Base::Empty,
            kind => Base::Image { file: image.file.clone(), format: kind.name() },
        },
        boot: image.boot,
        medium: is_medium.then_some(image.file),
        has_cloud_init: !is_medium,
    })
}

/// A file of the user's own: machines lie over it where it is.
fn of_file(cache: &Cache, path: &Path, what: &Launch, line: &mut Line) -> Result<Chosen, Failure> {
    let failed = |error: &dyn std::error::Error| {
        let failure = Failure::new(format!("The image '{}' cannot be used", path.display()));
        failure.because(error).hint("'hostel images' lists those that have names")
    };
    let file = path.canonicalize().map_err(|error| failed(&error).code(USAGE))?;
    let kind = Kind::of_file(&file).map_err(|error| failed(&error).code(USAGE))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let image = Image {
        name,
        aliases: Vec::new(),
        release: String::new(),
        kind,
        origin: file.display().to_string(),
        file,
        sha256: String::new(),
        boot: None,
    };
    of_image(cache, image, what, line)
}

/// Fetches an image from an address, unless it is there.
pub fn by_address(
    library: &Library,
    url: &str,
    offline: bool,
    line: &mut Line,
) -> Result<Image, Failure> {
    // A sum may stand behind the address: URL#sha256=...
    let (address, sum) = match url.split_once("#sha256=") {
        Some((address, sum)) => (address, Some(sum.to_ascii_lowercase())),
        None => (url, None),
    };
    let name = name_of_url(address);
    match library.find(&name) {
        Some(image) if sum.as_ref().is_none_or(|sum| *sum == image.sha256) => return Ok(image),
        _ if offline => {
            return Err(never_fetched(address));
        }
        _ => {}
    }
    let wanted = Wanted { name, url: address.to_owned(), sha256: sum, ..Wanted::default() };
    Ok(library.fetch(&wanted, line)?)
}

fn never_fetched(name: &str) -> Failure {
    Failure::new(format!("The image '{name}' was never fetched"))
        .hint("without --offline it is fetched now")
}

/// The catalogue of the settings, or Ubuntu's.
pub fn source() -> Source {
    let mirror = settings::get("local.image.mirror");
    let keyring = settings::get("local.image.keyring");
    let url = mirror.unwrap_or_else(|| guests::simplestreams::DEFAULT_SOURCE.to_owned());
    let keyring = keyring.unwrap_or_else(|| guests::simplestreams::DEFAULT_KEYRING.to_owned());
    // Without the keys only their absence can be told apart from a forgery when it is said so.
    let keyring = (keyring != "none").then(|| PathBuf::from(keyring));
    Source { url, keyring }
}

/// An image by its name: of the library, or of the catalogue.
pub fn by_name(
    cache: &Cache,
    library: &Library,
    name: &str,
    offline: bool,
    line: &mut Line,
) -> Result<Image, Failure> {
    if let Some(image) = library.find(name) {
        return Ok(image);
    }
    let entries = catalogue::entries(&catalogue::own_file(), "amd64")?;
    if let Some(entry) = catalogue::find(&entries, name) {
        if offline {
            return Err(never_fetched(name));
        }
        return Ok(library.fetch(&entry.wanted(line)?, line)?);
    }
    let wanted = name.strip_prefix("ubuntu:").or_else(|| name.strip_prefix("release:"));
    let wanted = wanted.unwrap_or(if name == "ubuntu" { "lts" } else { name });
    let is_number = wanted.len() == 5 && wanted.as_bytes()[2] == b'.';
    let asks =
        UBUNTU.contains(&wanted) || is_number || settings::get("local.image.mirror").is_some();
    let source = source();
    let known = source.products(cache, offline || !asks, line);
    let products = match known {
        Ok(products) => products,
        Err(error) if asks => return Err(error.into()),
        Err(_) => Vec::new(),
    };
    let found =
        products.iter().find(|product| product.arch == "amd64" && product.is_called(wanted));
    if let Some(product) = found {
        if offline {
            return Err(never_fetched(name));
        }
        return Ok(library.fetch(&product.wanted(), line)?);
    }
    let images = library.images();
    let mut names: Vec<&str> = vec!["spark", "debian", "debian-12", "debian-13"];
    names.extend(images.iter().map(|image| image.name.as_str()));
    names.extend(products.iter().map(|product| product.release.as_str()));
    names.extend(UBUNTU);
    for entry in &entries {
        names.push(&entry.name);
        names.extend(entry.aliases.iter().map(String::as_str));
    }
    let failure = Failure::new(format!("There is no image '{name}'")).code(USAGE);
    let near: Vec<String> =
        nearest_few(name, names).into_iter().map(|name| format!("'{name}'")).collect();
    Err(match near.is_empty() {
        false => failure.hint(format!("did you mean {}?", near.join(" or "))),
        true => failure.hint("'hostel images' lists those that there are, 'hostel find' more"),
    })
}

/// Makes a machine's own disk over what was chosen.
pub fn disk(chosen: &Chosen, size: Option<u64>, path: &Path) -> Result<(), Failure> {
    let whole = |size: u64| size.next_multiple_of(1 << 20);
    let mut words: Vec<String> = ["create", "-q", "-f", "qcow2"].map(str::to_owned).into();
    let size = match &chosen.base {
        Base::Ext4 => {
            let base = disk::empty_ext4(&Cache::of_user(), whole(size.unwrap_or(DISK_BYTES)))?;
            words.extend(["-F".into(), "raw".into(), "-b".into(), base.display().to_string()]);
            None
        }
        Base::Image { file, format } => {
            let least = virtual_size(file)?;
            if let Some(size) = size.filter(|size| whole(*size) < least) {
                return Err(too_small(size, least));
            }
            words.extend(["-F".into(), (*format).into(), "-b".into(), file.display().to_string()]);
            Some(size.map_or_else(|| least.max(DISK_BYTES), whole))
        }
        Base::Empty => Some(whole(size.unwrap_or(DISK_BYTES))),
    };
    words.push(path.display().to_string());
    words.extend(size.map(|size| size.to_string()));
    image_tool(&words).map(|_| ())
}

/// How large a disk looks from inside.
pub fn virtual_size(file: &Path) -> Result<u64, Failure> {
    let words = ["info", "--output", "json"].map(str::to_owned);
    let said = image_tool(&[&words[..], &[file.display().to_string()]].concat())?;
    let info: Value = serde_json::from_str(&said).unwrap_or_default();
    info["virtual-size"]
        .as_u64()
        .ok_or_else(|| Failure::new(format!("The image {} does not tell its size", file.display())))
}

/// Takes the snapshots out of a disk that was copied.
pub fn forget_snapshots(file: &Path) -> Result<(), Failure> {
    let path = file.display().to_string();
    let words = ["info", "--output", "json"].map(str::to_owned);
    let said = image_tool(&[&words[..], std::slice::from_ref(&path)].concat())?;
    let info: Value = serde_json::from_str(&said).unwrap_or_default();
    for snapshot in info["snapshots"].as_array().into_iter().flatten() {
        let name = snapshot["name"].as_str().unwrap_or_default().to_owned();
        image_tool(&["snapshot".into(), "-d".into(), name, path.clone()])?;
    }
    Ok(())
}

/// Checked before anything else is done.
pub fn check_size(size: Option<u64>) -> Result<(), Failure> {
    match size.filter(|size| *size < DISK_BYTES_MIN) {
        Some(size) => Err(too_small(size, DISK_BYTES_MIN)),
        None => Ok(()),
    }
}

fn too_small(size: u64, least: u64) -> Failure {
    Failure::new(format!("{} MiB are too small a disk", size >> 20))
        .hint(format!("{} MiB will do", least.div_ceil(1 << 20)))
        .code(USAGE)
}

/// Our own `qemu-img`: what it prints.
pub fn image_tool(words: &[String]) -> Result<String, Failure> {
    let failed = || {
        let failure = Failure::new("The disk cannot be made or changed");
        failure.hint("'hostel qemu-img check FILE' looks whether an image is whole")
    };
    let program = std::env::current_exe().map_err(|error| failed().because(&error))?;
    let run = Command::new(program).arg("qemu-img").args(words).output();
    let run = run.map_err(|error| failed().because(&error))?;
    if run.status.success() {
        return Ok(String::from_utf8_lossy(&run.stdout).into_owned());
    }
    let mut failure = failed();
    failure.causes.push(String::from_utf8_lossy(&run.stderr).trim().to_owned());
    Err(failure)
}
