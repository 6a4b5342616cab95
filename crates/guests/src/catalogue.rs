//! Cloud images of distributions that publish no catalogue: where each lies, and where its sum does.
//!
//! The table (`catalogue.json`) is part of the program. A user's own file of the same form, by default
//! `~/.config/hostel/images.json`, adds to it and comes first. `{arch}` stands for the distribution's
//! own word for a processor.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::library::Wanted;
use crate::{GuestError, Progress, Result, http};

const TABLE: &str = include_str!("catalogue.json");
const SCHEMA: u64 = 1;
/// A file of sums is a few lines for each of some hundred files.
const SUMS_BYTES_MAX: usize = 4 << 20;

/// An image as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// What it is, for people.
    pub title: String,
    /// Its version.
    pub version: String,
    /// The processor.
    pub arch: String,
    /// Where the image lies.
    pub url: String,
    /// Where its sum stands; none for one of the user's that has none.
    pub sums: Option<String>,
}

/// The file of the user's.
#[must_use]
pub fn own_file() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    folder.unwrap_or_else(|| "/etc".into()).join("hostel/images.json")
}

/// All images for a processor: those of the user's file, then ours that it does not replace.
pub fn entries(own: &Path, arch: &str) -> Result<Vec<Entry>> {
    let mut found = match fs::read_to_string(own) {
        Ok(text) => parse(&text, arch, &own.display().to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(GuestError::io(own, error)),
    };
    for entry in parse(TABLE, arch, "The catalogue")? {
        if found.iter().all(|own| own.name != entry.name) {
            found.push(entry);
        }
    }
    Ok(found)
}

/// The entry of a name.
#[must_use]
pub fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    let named = entries.iter().find(|entry| entry.name == name);
    named.or_else(|| entries.iter().find(|entry| entry.aliases.iter().any(|alias| alias == name)))
}

fn parse(text: &str, arch: &str, what: &str) -> Result<Vec<Entry>> {
    let wrong = |reason: String| GuestError::Format { what: what.to_owned(), reason };
    let table: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if table["schema"] != SCHEMA {
        return Err(wrong(format!("its \"schema\" is not {SCHEMA}")));
    }
    let images = table["images"].as_array().ok_or_else(|| wrong("it has no \"images\"".into()))?;
    let mut entries = Vec::new();
    for (place, image) in images.iter().enumerate() {
        let text = |name: &str| image[name].as_str().map(str::to_owned);
        let needed = |name: &str| {
            text(name).ok_or_else(|| wrong(format!("image {} has no \"{name}\"", place + 1)))
        };
        let (name, base, file) = (needed("name")?, needed("base")?, needed("image")?);
        let Some(word) = image["arches"][arch].as_str() else { continue };
        let whole =
            |file: &str| format!("{}/{file}", base.trim_end_matches('/')).replace("{arch}", word);
        let url = whole(&file);
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(wrong(format!("image {}: \"{url}\" is no address", place + 1)));
        }
        let aliases = image["aliases"].as_array().into_iter().flatten();
        entries.push(Entry {
            name,
            aliases: aliases.filter_map(|alias| alias.as_str().map(str::to_owned)).collect(),
            title: text("title").unwrap_or_default(),
            version: text("version").unwrap_or_default(),
            arch: arch.to_owned(),
            url,
            sums: text("sums").map(|sums| whole(&sums)),
        });
    }
    Ok(entries)
}

impl Entry {
    /// What to fetch: the sum is asked for first.
    pub fn wanted(&self, progress: &mut dyn Progress) -> Result<Wanted> {
        let mut wanted = Wanted {
            name: self.name.clone(),
            aliases: self.aliases.clone(),
            release: self.version.clone(),
            url: self.url.clone(),
            ..Wanted::default()
        };
        let Some(sums) = &self.sums else { return Ok(wanted) };
        progress.step(&format!("Fetching {sums}"));
        let bytes = http::get(sums, progress)?;
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SUMS_BYTES_MAX)]);
        let file = self.url.rsplit('/').next().unwrap_or_default();
        let sum = sum_in(&text, file).ok_or_else(|| GuestError::Format {
            what: sums.clone(),
            reason: format!("there is no sum of {file} in it"),
        })?;
        match sum.len() {
            64 => wanted.sha256 = Some(sum),
            _ => wanted.sha512 = Some(sum),
        }
        Ok(wanted)
    }
}

/// A file's sum in a list as the tools of GNU (`SUM  FILE`) or of BSD (`SHA256 (FILE) = SUM`) write it.
/// A list with one sum may call the file by another name: "latest" stands for one with a date.
fn sum_in(text: &str, file: &str) -> Option<String> {
    let is_sum = |word: &str| {
        matches!(word.len(), 64 | 128) && word.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, sum) = match words.as_slice() {
            [sum] if is_sum(sum) => ("", *sum),
            [sum, name, ..] if is_sum(sum) => (name.trim_start_matches(['*']), *sum),
            [kind, name, "=", sum] if is_sum(sum) && kind.starts_with("SHA") => {
                (name.trim_matches(['(', ')']), *sum)
            }
            _ => continue,
        };
        found.push((name.trim_start_matches("./").to_owned(), sum.to_ascii_lowercase()));
    }
    let named: Vec<&String> =
        found.iter().filter(|(name, _)| name == file).map(|(_, sum)| sum).collect();
    // The longest one, where there are several kinds.
    let best = named.into_iter().max_by_key(|sum| sum.len()).cloned();
    match (best, found.as_slice()) {
        (Some(sum), _) => Some(sum),
        (None, [(_, sum)]) => Some(sum.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sha2::{Digest, Sha512};

    use super::*;
    use crate::Silent;
    use crate::cache::Cache;
    use crate::library::Library;
    use crate::mirror::Mirror;

    #[test]
    fn the_table_is_sound_and_no_name_stands_for_two_images() {
        let entries = entries(Path::new("/nonexistent"), "amd64").unwrap();
        let mut names: Vec<&str> = entries
            .iter()
            .flat_map(|entry| entry.aliases.iter().chain([&entry.name]).map(String::as_str))
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for word in ["debian", "fedora", "alma", "rocky", "opensuse", "arch", "alpine", "freebsd"] {
            assert!(entries.iter().any(|entry| entry.name.starts_with(word)), "{word}");
        }
        for entry in &entries {
            assert!(entry.url.starts_with("https://") && entry.sums.is_some(), "{entry:?}");
            assert!(!entry.url.contains('{') && !entry.title.is_empty(), "{entry:?}");
            assert!(crate::debian_image::suite(&entry.name).is_none(), "{entry:?}");
        }
        assert_eq!(find(&entries, "alma").unwrap().name, "almalinux-10");
    }

    #[test]
    fn sums_are_found_in_the_lists_of_all_publishers() {
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let gnu = format!("{a}  other.qcow2\n{b} *x.qcow2\n");
        let bsd = format!("# x.qcow2: 1 bytes\nSHA256 (x.qcow2) = {a}\nSHA256 (y) = {b}\n");
        let dated = format!("{a}  x-20260101.qcow2\n");
        assert_eq!(sum_in(&gnu, "x.qcow2").unwrap(), "b".repeat(64));
        assert_eq!(sum_in(&bsd, "x.qcow2").unwrap(), a);
        assert_eq!(sum_in(&dated, "x.qcow2").unwrap(), a);
        assert_eq!(sum_in(&a, "x.qcow2").unwrap(), a);
        assert_eq!(sum_in(&gnu, "z.qcow2"), None);
        assert_eq!(sum_in("<html>no</html>", "x.qcow2"), None);
    }

    #[test]
    fn a_users_own_catalogue_comes_first_and_its_sums_are_checked() {
        let folder = ::tests::scratch("catalogue");
        let disk: Vec<u8> =
            b"QFI\xfb".iter().copied().chain((0..90_000_u32).map(|n| n as u8)).collect();
        let sum: String = Sha512::digest(&disk).iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{sum}  mine-x86.qcow2\n{}  bad-x86.qcow2\n", "0".repeat(128));
        let mirror = Mirror::new(vec![
            ("mine-x86.qcow2".into(), disk.clone()),
            ("bad-x86.qcow2".into(), disk.clone()),
            ("SUMS".into(), list.into_bytes()),
        ]);
        let image = |name: &str, file: &str| {
            json!({"name": name, "aliases": ["my"], "base": mirror.base(), "image": file,
                "sums": "SUMS", "arches": {"amd64": "x86"}})
        };
        let images = [image("fedora-44", "mine-{arch}.qcow2"), image("bad", "bad-{arch}.qcow2")];
        let own = folder.join("images.json");
        fs::write(&own, json!({"schema": 1, "images": images}).to_string()).unwrap();
        let entries = entries(&own, "amd64").unwrap();
        assert_eq!(entries.iter().filter(|entry| entry.name == "fedora-44").count(), 1);
        let library = Library::of_cache(&Cache::at(folder.clone()));
        let wanted = find(&entries, "fedora-44").unwrap().wanted(&mut Silent).unwrap();
        let image = library.fetch(&wanted, &mut Silent).unwrap();
        assert!(fs::read(&image.file).unwrap() == disk);
        let wanted = find(&entries, "bad").unwrap().wanted(&mut Silent).unwrap();
        let error = library.fetch(&wanted, &mut Silent).unwrap_err();
        assert!(matches!(error, GuestError::Corrupt { .. }), "{error}");
        for (text, reason) in [
            ("{", "EOF"),
            (r#"{"schema": 2}"#, "schema"),
            (r#"{"schema": 1, "images": [{}]}"#, "image 1 has no \"name\""),
        ] {
            fs::write(&own, text).unwrap();
            let error = super::entries(&own, "amd64").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
