//! Catalogues of cloud images in Ubuntu's "simplestreams" form: an index that names lists of
//! products, each with versions, each with files and their sums.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::cache::Cache;
use crate::debian::{sum, verified};
use crate::library::Wanted;
use crate::{GuestError, Progress, Result, http};

/// Ubuntu's released cloud images.
pub const DEFAULT_SOURCE: &str = "https://cloud-images.ubuntu.com/releases/";
/// Where Ubuntu's package of keys puts them.
pub const DEFAULT_KEYRING: &str = "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg";
const FRESH: Duration = Duration::from_secs(6 * 3600);
/// Disks of products, best first.
const DISKS: &[&str] = &["disk1.img", "uefi1.img", "disk-kvm.img", "disk.qcow2"];

/// A mirror of catalogues.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its address.
    pub url: String,
    /// The keys that sign it; none to take what is unsigned.
    pub keyring: Option<PathBuf>,
}

/// An image as a catalogue lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// The operating system.
    pub os: String,
    /// The release's code name.
    pub release: String,
    /// The release's number.
    pub version: String,
    /// Its title.
    pub title: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// The processor.
    pub arch: String,
    /// Whether it is still cared for.
    pub supported: bool,
    /// Which of the versions: the newest.
    pub serial: String,
    /// `release` or `daily`.
    pub label: String,
    /// Where its disk lies.
    pub url: String,
    /// The disk's type.
    pub ftype: String,
    /// The disk's sum.
    pub sha256: String,
    /// The disk's size.
    pub bytes: u64,
}

impl Product {
    /// A field by the name that filters use.
    fn field(&self, name: &str) -> Option<String> {
        Some(match name {
            "os" => self.os.clone(),
            "release" => self.release.clone(),
            "version" => self.version.clone(),
            "arch" => self.arch.clone(),
            "label" => self.label.clone(),
            "supported" => if self.supported { "True" } else { "False" }.to_owned(),
            "version_name" | "serial" => self.serial.clone(),
            "ftype" => self.ftype.clone(),
            "datatype" => "image-downloads".to_owned(),
            _ => return None,
        })
    }

    /// Whether it is called so.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.release == name || self.version == name || self.aliases.iter().any(|a| a == name)
    }

    /// What to fetch.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let mut aliases = self.aliases.clone();
        aliases.push(self.version.clone());
        Wanted {
            name: format!("{}-{}", self.release, self.arch),
            aliases,
            release: self.serial.clone(),
            url: self.url.clone(),
            sha256: Some(self.sha256.clone()),
            sha512: None,
        }
    }
}

/// A condition such as `release=noble` or `arch=amd64`; `~` takes a part of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    field: String,
    value: String,
    is_part: bool,
    is_negated: bool,
}

impl Filter {
    /// Reads `FIELD=VALUE`, `FIELD!=VALUE`, `FIELD~VALUE` or `FIELD!~VALUE`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let at = text.find(['=', '~'])?;
        let (field, rest) = text.split_at(at);
        let (field, is_negated) = match field.strip_suffix('!') {
            Some(field) => (field, true),
            None => (field, false),
        };
        let value = rest[1..].to_owned();
        let is_part = rest.starts_with('~');
        (!field.is_empty()).then(|| Self { field: field.to_owned(), value, is_part, is_negated })
    }

    fn fits(&self, product: &Product) -> bool {
        let Some(value) = product.field(&self.field) else { return self.is_negated };
        let fits = if self.is_part { value.contains(&self.value) } else { value == self.value };
        fits != self.is_negated
    }
}

/// The products that fit all filters.
#[must_use]
pub fn chosen(products: &[Product], filters: &[Filter]) -> Vec<Product> {
    let fits = |product: &&Product| filters.iter().all(|filter| filter.fits(product));
    products.iter().filter(fits).cloned().collect()
}

impl Source {
    /// All products whose disks we can use; from the cache while it is fresh, or without a network.
    pub fn products(
        &self,
        cache: &Cache,
        offline: bool,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Product>> {
        let index = self.document("streams/v1/index", cache, offline, progress)?;
        let lists = index["index"].as_object().into_iter().flatten();
        let mut products = Vec::new();
        for (_, list) in lists {
            if list["datatype"] != "image-downloads" {
                continue;
            }
            let Some(path) = list["path"].as_str().filter(|path| is_sound(path)) else { continue };
            let path = path.trim_end_matches(".json").trim_end_matches(".sjson");
            let document = self.document(path, cache, offline, progress)?;
            for product in document["products"].as_object().into_iter().flatten() {
                products.extend(self.product(&document, product.1));
            }
        }
        products.sort_by(|a, b| (&b.version, &a.arch).cmp(&(&a.version, &b.arch)));
        Ok(products)
    }

    /// A document, signed where there are keys: `PATH.sjson`, else `PATH.json`.
    fn document(
        &self,
        path: &str,
        cache: &Cache,
        offline: bool,
        progress: &mut dyn Progress,
    ) -> Result<Value> {
        let extension = if self.keyring.is_some() { "sjson" } else { "json" };
        let url = format!("{}/{path}.{extension}", self.url.trim_end_matches('/'));
        let name = format!("streams/{:.24}", sum(url.as_bytes()));
        let cached = cache.read(&name);
        let fresh = cache.age(&name).is_some_and(|age| age < FRESH);
        let (bytes, is_new) = match cached {
            Some(bytes) if fresh || offline => (bytes, false),
            None if offline => {
                let reason = "it was never fetched, and the network is not to be used".to_owned();
                return Err(GuestError::Fetch { url, reason });
            }
            cached => {
                progress.step(&format!("Fetching {url}"));
                match (http::get(&url, progress), cached) {
                    (Ok(bytes), _) => (bytes, true),
                    (Err(GuestError::Fetch { .. }), Some(bytes)) => (bytes, false),
                    (Err(error), _) => return Err(error),
                }
            }
        };
        let text = match &self.keyring {
            Some(keyring) => verified(&url, &bytes, keyring)?,
            None => String::from_utf8_lossy(&bytes).into_owned(),
        };
        let document = serde_json::from_str(&text)
            .map_err(|error| GuestError::Format { what: url.clone(), reason: error.to_string() })?;
        if is_new {
            cache.write(&name, &bytes)?;
        }
        Ok(document)
    }

    /// Keys are inherited: from the list by the product, by its versions, by their files.
    fn product(&self, list: &Value, product: &Value) -> Option<Product> {
        let versions = product["versions"].as_object()?;
        let (serial, version) = versions.iter().max_by(|a, b| a.0.cmp(b.0))?;
        let items = version["items"].as_object()?;
        let ftype = |item: &Value| item["ftype"].as_str().unwrap_or_default().to_owned();
        let item = DISKS.iter().find_map(|disk| {
            let (_, item) =
                items.iter().find(|(key, item)| *key == disk || ftype(item) == *disk)?;
            Some(item)
        })?;
        let text = |name: &str| {
            [item, version, product, list]
                .into_iter()
                .find_map(|from| from[name].as_str())
                .unwrap_or_default()
                .to_owned()
        };
        let path = Some(text("path")).filter(|path| is_sound(path))?;
        let sha256 = Some(text("sha256")).filter(|sum| sum.len() == 64)?;
        let aliases = text("aliases");
        let supported = product["supported"].as_bool().unwrap_or(true);
        Some(Product {
            os: text("os"),
            release: text("release"),
            version: text("version"),
            title: text("release_title"),
            aliases: aliases.split(',').map(|a| a.trim().to_owned()).collect(),
            arch: text("arch"),
            supported,
            serial: serial.clone(),
            label: text("label"),
            url: format!("{}/{path}", self.url.trim_end_matches('/')),
            ftype: ftype(item),
            sha256,
            bytes: item["size"].as_u64().unwrap_or(0),
        })
    }
}

/// A path below the source.
fn is_sound(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use serde_json::json;

    use super::*;
    use crate::Silent;
    use crate::library::Library;
    use crate::mirror::Mirror;

    fn disk() -> Vec<u8> {
        b"QFI\xfb".iter().copied().chain((0..50_000_u32).map(|number| number as u8)).collect()
    }

    fn catalogue(sha256: &str) -> (Value, Value) {
        let index = json!({"format": "index:1.0", "index": {
            "com.ubuntu.cloud:released:download": {"datatype": "image-downloads",
                "format": "products:1.0", "path": "streams/v1/images.json"},
            "other": {"datatype": "image-ids", "path": "streams/v1/none.json"}}});
        let items = json!({"disk1.img": {"ftype": "disk1.img", "path": "noble/disk.img",
            "sha256": sha256, "size": 50_004}, "x": {"ftype": "unknown"}});
        let product = |release: &str, version: &str, arch: &str| {
            json!({"arch": arch, "os": "ubuntu", "release": release, "version": version,
                "aliases": format!("{version},{release},lts"), "supported": true,
                "versions": {"20260101": {"items": {}}, "20260518": {"label": "release",
                    "items": items}}})
        };
        let products = json!({"products": {
            "com.ubuntu.cloud:server:24.04:amd64": product("noble", "24.04", "amd64"),
            "com.ubuntu.cloud:server:24.04:arm64": product("noble", "24.04", "arm64"),
            "com.ubuntu.cloud:server:22.04:amd64": product("jammy", "22.04", "amd64"),
            "no disk": {"arch": "amd64", "versions": {"1": {"items": {}}}},
            "outside": {"versions": {"1": {"items": {"disk1.img":
                {"ftype": "disk1.img", "path": "../../x", "sha256": sha256}}}}}}});
        (index, products)
    }

    #[test]
    fn a_mirror_is_read_fetched_from_and_resumed() {
        let folder = ::tests::scratch("streams");
        let cache = Cache::at(folder.clone());
        let (index, products) = catalogue(&sum(&disk()));
        let mirror = Mirror::new(vec![
            ("streams/v1/index.json".into(), index.to_string().into_bytes()),
            ("streams/v1/images.json".into(), products.to_string().into_bytes()),
            ("noble/disk.img".into(), disk()),
        ]);
        mirror.breaks("noble/disk.img", 20_000);
        mirror.refuses_after("noble/disk.img", 2);
        let source = Source { url: mirror.base().to_owned(), keyring: None };
        let found = source.products(&cache, false, &mut Silent).unwrap();
        assert_eq!(found.len(), 3, "what has no disk of ours is passed over: {found:?}");
        let filters = ["release=noble", "arch!=arm64"].map(|text| Filter::parse(text).unwrap());
        let chosen = chosen(&found, &filters);
        assert_eq!(chosen.len(), 1);
        assert!(chosen[0].is_called("lts") && chosen[0].serial == "20260518");
        let library = Library::of_cache(&cache);
        let wanted = chosen[0].wanted();
        let error = library.fetch(&wanted, &mut Silent).unwrap_err().to_string();
        assert!(error.contains("goes on from here"), "{error}");
        mirror.refuses_after("noble/disk.img", usize::MAX);
        let image = library.fetch(&wanted, &mut Silent).unwrap();
        assert_eq!(fs::read(&image.file).unwrap(), disk());
        assert_eq!(library.find("lts").unwrap().name, "noble-amd64");
        assert_eq!(mirror.requests("noble/disk.img").last(), Some(&20_000));
        // The catalogue is there without the network, and nothing else is.
        assert_eq!(source.products(&cache, true, &mut Silent).unwrap().len(), 3);
        assert!(source.products(&Cache::at(folder.join("x")), true, &mut Silent).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_has_another_sum_is_refused_and_taken_away() {
        let folder = ::tests::scratch("streams-sum");
        let library = Library::of_cache(&Cache::at(folder.clone()));
        let mirror = Mirror::new(vec![("x.img".into(), disk())]);
        let wanted = Wanted {
            name: "x".into(),
            url: mirror.url("x.img"),
            sha256: Some("0".repeat(64)),
            ..Wanted::default()
        };
        let error = library.fetch(&wanted, &mut Silent).unwrap_err();
        assert!(matches!(error, GuestError::Corrupt { .. }), "{error}");
        assert!(library.images().is_empty());
        let good = Wanted { sha256: Some(sum(&disk())), ..wanted };
        assert!(library.fetch(&good, &mut Silent).is_ok());
        assert_eq!(mirror.sent("x.img"), 2 * (50_004 + 1), "it began anew");
        fs::remove_dir_all(folder).unwrap();
    }

    /// Signs as the publishers do.
    fn signed(gpg: &Path, home: &Path, text: &str) -> Vec<u8> {
        let run = |words: &[&str]| {
            let run = Command::new(gpg).env("GNUPGHOME", home).args(words).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            run.stdout
        };
        let input = home.join("text");
        fs::write(&input, text).unwrap();
        if !home.join("key.gpg").exists() {
            run(&[
                "--batch",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
                "--quick-gen-key",
                "images@example.org",
                "rsa2048",
            ]);
            fs::write(home.join("key.gpg"), run(&["--export"])).unwrap();
        }
        run(&[
            "--batch",
            "--digest-algo",
            "SHA512",
            "--clearsign",
            "-o",
            "-",
            input.to_str().unwrap(),
        ])
    }

    #[test]
    fn signed_catalogues_are_checked_with_a_keyring() {
        let Some(gpg) = ::tests::program("gpg") else { ::tests::skip!("there is no gpg") };
        // Sockets of its agent have short paths.
        let home = std::env::temp_dir().join(format!("hostel-gpg-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let (index, products) = catalogue(&"a".repeat(64));
        let index = signed(&gpg, &home, &index.to_string());
        let mut products = signed(&gpg, &home, &products.to_string());
        let files = |products: &[u8]| {
            vec![
                ("streams/v1/index.sjson".to_owned(), index.clone()),
                ("streams/v1/images.sjson".to_owned(), products.to_owned()),
            ]
        };
        let keyring = Some(home.join("key.gpg"));
        let good = Source {
            url: Mirror::new(files(&products)).base().to_owned(),
            keyring: keyring.clone(),
        };
        let cache = Cache::at(home.join("good"));
        assert_eq!(good.products(&cache, false, &mut Silent).unwrap().len(), 3);
        let at = products.windows(5).position(|window| window == b"noble").unwrap();
        products[at] = b'N';
        let bad = Source { url: Mirror::new(files(&products)).base().to_owned(), keyring };
        let error = bad.products(&Cache::at(home.join("bad")), false, &mut Silent).unwrap_err();
        assert!(matches!(error, GuestError::Signature { .. }), "{error}");
        _ = Command::new("gpgconf").env("GNUPGHOME", &home).args(["--kill", "all"]).status();
        fs::remove_dir_all(home).unwrap();
    }
}
