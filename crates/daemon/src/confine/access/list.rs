//! Access control lists as the kernel keeps them (acl(5)): who may do what with a file.

/// The kernel's version of the format.
const VERSION: u32 = 2;
/// An entry: tag, rights, user or group.
const ENTRY_BYTES: usize = 8;
/// The number of those who are known by their role.
const NOBODY: u32 = u32::MAX;

/// Kinds of entries, in the order of the format.
mod tag {
    pub const OWNER: u16 = 1;
    pub const USER: u16 = 2;
    pub const OWNING_GROUP: u16 = 4;
    pub const GROUP: u16 = 8;
    pub const MASK: u16 = 16;
    pub const OTHER: u16 = 32;
}

const READ: u16 = 4;
const WRITE: u16 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    rights: u16,
    who: u32,
}

impl Entry {
    /// Those whose rights the mask bounds.
    fn is_bounded(&self) -> bool {
        matches!(self.tag, tag::USER | tag::OWNING_GROUP | tag::GROUP)
    }

    fn is_named(&self) -> bool {
        matches!(self.tag, tag::USER | tag::GROUP)
    }
}

/// A list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List(Vec<Entry>);

impl List {
    /// What a file's mode means.
    pub fn of_mode(mode: u32) -> Self {
        let entry =
            |tag, shift: u32| Entry { tag, rights: (mode >> shift & 7) as u16, who: NOBODY };
        Self(vec![entry(tag::OWNER, 6), entry(tag::OWNING_GROUP, 3), entry(tag::OTHER, 0)])
    }

    /// The kernel's form.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % ENTRY_BYTES != 0 {
            return None;
        }
        let entries = rest.chunks_exact(ENTRY_BYTES).map(|entry| Entry {
            tag: u16::from_le_bytes([entry[0], entry[1]]),
            rights: u16::from_le_bytes([entry[2], entry[3]]),
            who: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
        });
        Some(Self(entries.collect()))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.rights.to_le_bytes());
            bytes.extend(entry.who.to_le_bytes());
        }
        bytes
    }

    /// The rights that a user has by name.
    #[cfg(test)]
    pub fn of(&self, user: u32) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag::USER && entry.who == user).map(|e| e.rights)
    }

    /// Lets a user read, and write if so wanted; nobody else may do more than before.
    pub fn enter(&mut self, user: u32, writable: bool) {
        // What the mask has bounded so far stays bounded when it grows.
        if let Some(mask) = self.0.iter().find(|entry| entry.tag == tag::MASK).copied() {
            let bounded = self.0.iter_mut().filter(|entry| entry.is_bounded());
            bounded.for_each(|entry| entry.rights &= mask.rights);
        }
        self.0.retain(|entry| entry.tag != tag::USER || entry.who != user);
        let rights = if writable { READ | WRITE } else { READ };
        self.0.push(Entry { tag: tag::USER, rights, who: user });
        self.settle();
    }

    /// Takes a user's entry away.
    pub fn leave(&mut self, user: u32) {
        self.0.retain(|entry| entry.tag != tag::USER || entry.who != user);
        self.settle();
    }

    /// Sets the mask, which a list needs exactly when it names somebody, and the order.
    fn settle(&mut self) {
        self.0.retain(|entry| entry.tag != tag::MASK);
        if self.0.iter().any(Entry::is_named) {
            let bounded = self.0.iter().filter(|entry| entry.is_bounded());
            let rights = bounded.fold(0, |rights, entry| rights | entry.rights);
            self.0.push(Entry { tag: tag::MASK, rights, who: NOBODY });
        }
        self.0.sort_by_key(|entry| (entry.tag, entry.who));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entering_and_leaving_gives_the_same_list() {
        for mode in [0o600, 0o644, 0o660, 0o777, 0] {
            let before = List::of_mode(mode);
            let mut list = before.clone();
            list.enter(7, true);
            list.enter(8, false);
            assert_eq!((list.of(7), list.of(8)), (Some(6), Some(4)));
            assert_eq!(List::parse(&list.bytes()).unwrap(), list);
            list.leave(7);
            list.leave(8);
            assert_eq!(list, before, "{mode:o}");
        }
        assert_eq!(List::parse(&[2, 0, 0]), None);
        assert_eq!(List::parse(&[3, 0, 0, 0]), None);
    }

    #[test]
    fn a_mask_that_grows_gives_nobody_more() {
        let mut list = List::of_mode(0o640);
        list.enter(7, true);
        // Somebody has narrowed the list since.
        list.0.iter_mut().find(|entry| entry.tag == tag::MASK).unwrap().rights = READ;
        list.enter(8, true);
        assert_eq!((list.of(7), list.of(8)), (Some(4), Some(6)));
    }
}
