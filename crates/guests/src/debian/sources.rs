//! Where this machine's packages come from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{GuestError, Result};

/// Keys that sign Debian's archive, where the sources name none.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The release that is taken where the environment names only a mirror.
const SUITE: &str = "bookworm";

/// A mirror of Debian's archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its address, without a slash at the end.
    pub url: String,
    /// The release.
    pub suite: String,
    /// The file of the keys that sign it.
    pub keyring: PathBuf,
}

impl Mirror {
    /// The mirror of the environment (`HOSTEL_MIRROR`), or the one that apt uses.
    pub fn of_host() -> Result<Self> {
        if let Ok(url) = std::env::var("HOSTEL_MIRROR") {
            let url = url.trim_end_matches('/').to_owned();
            let suite = std::env::var("HOSTEL_SUITE").unwrap_or_else(|_| SUITE.to_owned());
            return Ok(Self { url, suite, keyring: KEYRING.into() });
        }
        let folder = Path::new("/etc/apt/sources.list.d");
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        let mut more: Vec<PathBuf> = fs::read_dir(folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        more.sort();
        files.extend(more);
        let found = files.iter().find_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => from_paragraphs(&text),
                Some("list") => from_lines(&text),
                _ => None,
            }
        });
        found.ok_or(GuestError::NoMirror)
    }
}

/// Debian's own releases and nothing of what stands beside them.
fn is_release(suite: &str) -> bool {
    ["bookworm", "trixie", "forky", "stable", "testing", "sid", "unstable"].contains(&suite)
}

fn mirror(url: &str, suite: &str, keyring: Option<&str>) -> Option<Mirror> {
    let is_debian = url.trim_end_matches('/').ends_with("/debian");
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    (is_debian && is_http && is_release(suite)).then(|| Mirror {
        url: url.trim_end_matches('/').to_owned(),
        suite: suite.to_owned(),
        keyring: keyring.filter(|path| path.starts_with('/')).unwrap_or(KEYRING).into(),
    })
}

/// The newer form: paragraphs of fields.
fn from_paragraphs(text: &str) -> Option<Mirror> {
    text.split("\n\n").find_map(|paragraph| {
        let field = |name: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.strip_prefix(':')?.trim())
        };
        if field("Enabled") == Some("no") || !field("Types")?.split(' ').any(|kind| kind == "deb") {
            return None;
        }
        let keyring = field("Signed-By");
        field("URIs")?
            .split_whitespace()
            .flat_map(|url| field("Suites").unwrap_or("").split(' ').map(move |suite| (url, suite)))
            .find_map(|(url, suite)| mirror(url, suite, keyring))
    })
}

/// The older form: a line for each.
fn from_lines(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let keyring = options.split_whitespace().find_map(|word| word.strip_prefix("signed-by="));
        let mut words = rest.split_whitespace();
        mirror(words.next()?, words.next()?, keyring)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: Option<Mirror>, expected: Option<(&str, &str, &str)>) {
        let found =
            found.map(|mirror| (mirror.url, mirror.suite, mirror.keyring.display().to_string()));
        let expected = expected
            .map(|(url, suite, keyring)| (url.to_owned(), suite.to_owned(), keyring.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn both_forms_are_understood() {
        let paragraphs = "Types: deb\nURIs: http://a/debian-security\nSuites: bookworm-security\n\n\
            Types: deb deb-src\nURIs: http://a/debian/\nSuites: bookworm-updates bookworm\n\
            Signed-By: /k.gpg\n";
        let expected = Some(("http://a/debian", "bookworm", "/k.gpg"));
        check(from_paragraphs(paragraphs), expected);
        check(from_paragraphs(&paragraphs.replace("Types: deb deb-src", "Types: deb-src")), None);
        let lines = "# x\ndeb-src http://b/debian trixie main\n\
            deb [arch=amd64 signed-by=/k2.gpg] http://b/debian trixie main\n";
        check(from_lines(lines), Some(("http://b/debian", "trixie", "/k2.gpg")));
        check(from_lines("deb http://b/ubuntu noble main"), None);
        check(
            from_lines("deb https://b/debian trixie main"),
            Some(("https://b/debian", "trixie", KEYRING)),
        );
    }
}
