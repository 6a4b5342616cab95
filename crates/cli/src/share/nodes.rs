//! The guest's numbers for files, and the paths behind them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use rustix::io::Errno;

pub const ROOT: u64 = 1;
/// A guest that remembers more files than this forgets none.
const NODES_MAX: usize = 1 << 20;

/// A file that the guest has looked up.
struct Node {
    path: Vec<u8>,
    /// How often; it is forgotten when the guest has taken all back.
    count: u64,
    /// Deleted: the path may be another file's now.
    is_gone: bool,
}

pub struct Nodes {
    by_number: HashMap<u64, Node>,
    by_path: BTreeMap<Vec<u8>, u64>,
    next: u64,
}

impl Nodes {
    pub fn new() -> Self {
        let root = Node { path: Vec::new(), count: 1, is_gone: false };
        let by_path = BTreeMap::from([(Vec::new(), ROOT)]);
        Self { by_number: HashMap::from([(ROOT, root)]), by_path, next: ROOT + 1 }
    }

    /// The path of a file, relative to the folder; empty for that itself.
    pub fn path(&self, number: u64) -> Result<&[u8], Errno> {
        match self.by_number.get(&number) {
            Some(node) if !node.is_gone => Ok(&node.path),
            _ => Err(Errno::STALE),
        }
    }

    /// The path of a name in a folder.
    pub fn child(&self, folder: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let folder = self.path(folder)?;
        match folder.is_empty() {
            true => Ok(name.to_vec()),
            false => Ok([folder, b"/", name].concat()),
        }
    }

    /// The guest hears of a file.
    pub fn look_up(&mut self, path: Vec<u8>) -> Result<u64, Errno> {
        if let Some(number) = self.by_path.get(&path) {
            let node = self.by_number.get_mut(number).expect("both maps hold the same");
            node.count = node.count.saturating_add(1);
            return Ok(*number);
        }
        if self.by_number.len() >= NODES_MAX {
            return Err(Errno::NFILE);
        }
        let number = self.next;
        self.next += 1;
        self.by_path.insert(path.clone(), number);
        self.by_number.insert(number, Node { path, count: 1, is_gone: false });
        Ok(number)
    }

    /// The guest forgets a file.
    pub fn forget(&mut self, number: u64, count: u64) {
        let Some(node) = self.by_number.get_mut(&number).filter(|_| number != ROOT) else { return };
        node.count = node.count.saturating_sub(count);
        if node.count == 0 {
            let node = self.by_number.remove(&number).expect("it was just there");
            if !node.is_gone {
                self.by_path.remove(&node.path);
            }
        }
    }

    /// A path is nobody's any more, with all below it.
    pub fn remove(&mut self, path: &[u8]) {
        for (path, number) in self.at_and_below(path) {
            self.by_path.remove(&path);
            if let Some(node) = self.by_number.get_mut(&number) {
                node.is_gone = true;
            }
        }
    }

    /// A file has another path now, and so has all below it.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) {
        self.remove(to);
        for (path, number) in self.at_and_below(from) {
            self.by_path.remove(&path);
            let path = [to, &path[from.len()..]].concat();
            if let Some(node) = self.by_number.get_mut(&number) {
                node.path.clone_from(&path);
            }
            self.by_path.insert(path, number);
        }
    }

    fn at_and_below(&self, path: &[u8]) -> Vec<(Vec<u8>, u64)> {
        let below = [path, b"/"].concat();
        let start = (Bound::Included(below.clone()), Bound::Unbounded);
        let inside = self.by_path.range(start).take_while(|(path, _)| path.starts_with(&below));
        let own = self.by_path.get_key_value(path);
        own.into_iter().chain(inside).map(|(path, number)| (path.clone(), *number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_folders_take_what_is_below_with_them() {
        let mut nodes = Nodes::new();
        let [a, ab, other] =
            ["a", "a/b", "a-c"].map(|path| nodes.look_up(path.as_bytes().to_vec()).unwrap());
        nodes.rename(b"a", b"z");
        let path = |nodes: &Nodes, number| nodes.path(number).unwrap().to_vec();
        assert_eq!(path(&nodes, a), b"z");
        assert_eq!(path(&nodes, ab), b"z/b");
        assert_eq!(path(&nodes, other), b"a-c");
        nodes.remove(b"z");
        assert_eq!(nodes.path(ab), Err(Errno::STALE));
        // The name is another file's now.
        let new = nodes.look_up(b"z".to_vec()).unwrap();
        assert_ne!(new, a);
        nodes.forget(a, 1);
        assert_eq!(path(&nodes, new), b"z");
        nodes.forget(new, 9);
        assert!(nodes.path(new).is_err());
        nodes.forget(ROOT, 99);
        assert!(nodes.path(ROOT).is_ok());
    }
}
