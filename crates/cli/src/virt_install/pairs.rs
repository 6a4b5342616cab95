//! `key=value,...`, as virt-install's groups are written.

use super::{Result, Wrong};

/// A group's pairs, taken one by one; what is left over is refused.
pub struct Pairs {
    group: &'static str,
    text: String,
    pairs: Vec<(String, Option<String>)>,
}

impl Pairs {
    /// Reads a group. A first part without a key is the value of `first`.
    pub fn parse(group: &'static str, text: &str, first: Option<&str>) -> Result<Self> {
        let mut pairs = Vec::new();
        // A comma that is doubled stands for itself.
        let parts = text.replace(",,", "\0");
        for (place, part) in parts.split(',').filter(|part| !part.is_empty()).enumerate() {
            let part = part.replace('\0', ",");
            match (part.split_once('='), first) {
                (Some((key, value)), _) => pairs.push((key.to_owned(), Some(value.to_owned()))),
                (None, Some(first)) if place == 0 => pairs.push((first.to_owned(), Some(part))),
                (None, _) => pairs.push((part, None)),
            }
        }
        if pairs.iter().any(|(key, _)| key == "?") {
            return Err(Wrong(format!("--{group}: see virt-install's manual for what it takes")));
        }
        Ok(Self { group, text: text.to_owned(), pairs })
    }

    /// Takes a key's value out.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, value)| known == key && value.is_some())?;
        self.pairs.remove(at).1
    }

    /// Takes a word out that has no value, or `yes` for one.
    pub fn take_bare(&mut self, key: &str) -> bool {
        let is = |value: &Option<String>| {
            value.as_deref().is_none_or(|value| ["yes", "on", "true"].contains(&value))
        };
        let found = self.pairs.iter().position(|(known, value)| known == key && is(value));
        found.map(|at| self.pairs.remove(at)).is_some()
    }

    /// All must have been taken.
    pub fn finish(self) -> Result<()> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = self.pairs.iter().map(|(key, _)| format!("'{key}'")).collect();
        let Self { group, text, .. } = self;
        Err(Wrong(format!(
            "Error: --{group} {text}: Unknown --{group} options: [{}]",
            keys.join(", ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_and_leftovers_refused() {
        let mut pairs = Pairs::parse("disk", "/a,,b.img,size=5,readonly", Some("path")).unwrap();
        assert_eq!(pairs.take("path").as_deref(), Some("/a,b.img"));
        assert!(pairs.take_bare("readonly") && !pairs.take_bare("shareable"));
        let Err(Wrong(text)) = pairs.finish() else { panic!("size is left") };
        assert!(text.ends_with("Unknown --disk options: ['size']"), "{text}");
    }
}
