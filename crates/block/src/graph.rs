//! The block graph: nodes by their names, for those that refer to each other.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::node::NodeRef;
use crate::open::{OpenMode, open};
use crate::options::OpenOptions;

/// More nodes than this are no machine's.
const NODES_MAX: usize = 10_000;

/// Nodes by name. Clones share the same graph.
#[derive(Clone, Default)]
pub struct Graph {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<String, Entry>,
    /// For names of nodes that nobody has named.
    next: u64,
}

struct Entry {
    node: NodeRef,
    order: u64,
    mode: OpenMode,
    /// It was asked for by itself; others go with the last node that stands on them.
    owned: bool,
}

/// A node as listings show it.
#[derive(Clone)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The node.
    pub node: NodeRef,
    /// How it was opened.
    pub mode: OpenMode,
}

impl fmt::Debug for Graph {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.state.lock().nodes.keys()).finish()
    }
}

impl Graph {
    /// Opens a node whose options may refer to others by name. Its own name stands in `node-name`.
    pub fn add(&self, options: OpenOptions) -> Result<NodeRef> {
        if options.text("node-name").is_none() {
            return Err(Error::invalid("'node-name' must be specified for the root node"));
        }
        self.open(None, options)
    }

    /// The same for an image that need not have a name.
    pub fn open(&self, filename: Option<&str>, options: OpenOptions) -> Result<NodeRef> {
        self.open_as(filename, options, &OpenMode::default())
    }

    /// The same, with what the mode says about the top node alone.
    pub fn open_as(
        &self,
        filename: Option<&str>,
        options: OpenOptions,
        mode: &OpenMode,
    ) -> Result<NodeRef> {
        let mode = OpenMode { write: true, graph: Some(self.clone()), ..mode.clone() };
        let before: Vec<String> = self.state.lock().nodes.keys().cloned().collect();
        let opened = open(filename, options, &mode);
        if let Ok(node) = &opened
            && let Some(name) = self.name_of(node)
            && let Some(entry) = self.state.lock().nodes.get_mut(&name)
        {
            entry.owned = true;
        }
        if opened.is_err() {
            // Children that were opened for it go with it.
            self.state.lock().nodes.retain(|name, _| before.contains(name));
        }
        opened
    }

    /// Enters a node that was opened, under its name or one that is made up.
    pub(crate) fn insert(
        &self,
        name: Option<String>,
        node: &NodeRef,
        mode: &OpenMode,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.nodes.len() >= NODES_MAX {
            return Err(Error::invalid(format!("There are {NODES_MAX} block nodes already")));
        }
        if name.is_none() && state.nodes.values().any(|entry| Arc::ptr_eq(&entry.node, node)) {
            return Ok(()); // it was referred to
        }
        let order = state.next;
        state.next += 1;
        let name = name.unwrap_or_else(|| format!("#block{order:03}"));
        if state.nodes.contains_key(&name) {
            return Err(Error::invalid(format!("Duplicate nodes with node-name='{name}'")));
        }
        let mode = OpenMode { graph: None, ..mode.clone() };
        state.nodes.insert(name, Entry { node: Arc::clone(node), order, mode, owned: false });
        Ok(())
    }

    /// A node by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<NodeRef> {
        self.state.lock().nodes.get(name).map(|entry| Arc::clone(&entry.node))
    }

    /// The node that another one refers to.
    pub(crate) fn referred(&self, name: &str) -> Result<NodeRef> {
        self.get(name).ok_or_else(|| {
            Error::invalid(format!("Cannot find device='{name}' nor node-name='{name}'"))
        })
    }

    /// The name of a node.
    #[must_use]
    pub fn name_of(&self, node: &NodeRef) -> Option<String> {
        let state = self.state.lock();
        let entry = state.nodes.iter().find(|(_, entry)| Arc::ptr_eq(&entry.node, node));
        entry.map(|(name, _)| name.clone())
    }

    /// All nodes, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Named> {
        let state = self.state.lock();
        let mut entries: Vec<_> = state.nodes.iter().collect();
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.order));
        let named = |(name, entry): (&String, &Entry)| Named {
            name: name.clone(),
            node: Arc::clone(&entry.node),
            mode: entry.mode.clone(),
        };
        entries.into_iter().map(named).collect()
    }

    /// Takes a node out that no other node uses, and the unnamed ones that were opened for it.
    /// Whether a device uses it is for the caller to know.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut state = self.state.lock();
        let Some(entry) = state.nodes.get(name) else {
            return Err(Error::invalid(format!("Failed to find node with node-name='{name}'")));
        };
        let node = Arc::clone(&entry.node);
        if state.nodes.values().any(|entry| is_child(&entry.node, &node)) {
            return Err(Error::invalid(format!("Node {name} is in use")));
        }
        node.flush()?;
        state.nodes.remove(name);
        // What only this one used, level by level.
        loop {
            let used =
                |child: &NodeRef| state.nodes.values().any(|entry| is_child(&entry.node, child));
            let orphan = state
                .nodes
                .iter()
                .find(|(_, entry)| !entry.owned && !used(&entry.node))
                .map(|(name, _)| name.clone());
            match orphan {
                Some(name) => drop(state.nodes.remove(&name)),
                None => return Ok(()),
            }
        }
    }

    /// Somebody beside the graph has taken hold of a node: it stays when nothing stands on it.
    pub fn hold(&self, name: &str) {
        if let Some(entry) = self.state.lock().nodes.get_mut(name) {
            entry.owned = true;
        }
    }

    /// Whether another node stands on this one.
    #[must_use]
    pub fn has_parent(&self, node: &NodeRef) -> bool {
        self.state.lock().nodes.values().any(|entry| is_child(&entry.node, node))
    }
}

fn is_child(parent: &NodeRef, node: &NodeRef) -> bool {
    parent.children().iter().any(|(_, child)| Arc::ptr_eq(child, node))
        || parent.file().is_some_and(|child| Arc::ptr_eq(&child, node))
        || parent.backing().is_some_and(|child| Arc::ptr_eq(&child, node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> OpenOptions {
        OpenOptions::parse_json(json).unwrap()
    }

    #[test]
    fn nodes_refer_to_each_other_by_name() {
        let directory = std::env::temp_dir().join(format!("graph-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("disk");
        std::fs::write(&path, vec![7; 4096]).unwrap();
        let graph = Graph::default();
        let file = format!("{{'driver':'file','filename':'{}','node-name':'f'}}", path.display());
        graph.add(options(&file)).unwrap();
        let error =
            graph.add(options("{'driver':'raw','file':'g','node-name':'r'}")).err().unwrap();
        assert_eq!(error.to_string(), "Cannot find device='g' nor node-name='g'");
        let node = graph.add(options("{'driver':'raw','file':'f','node-name':'r'}")).unwrap();
        let mut bytes = [0; 4];
        node.read_at(&mut bytes, 100).unwrap();
        assert_eq!((bytes, graph.name_of(&node).as_deref()), ([7; 4], Some("r")));
        assert_eq!(graph.remove("f").unwrap_err().to_string(), "Node f is in use");
        graph.remove("r").unwrap();
        graph.remove("f").unwrap();
        assert!(graph.list().is_empty());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn children_without_a_name_come_and_go_with_their_parent() {
        let directory = std::env::temp_dir().join(format!("graph2-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("disk");
        std::fs::write(&path, vec![0; 4096]).unwrap();
        let graph = Graph::default();
        let raw = format!(
            "{{'driver':'raw','node-name':'r','file':{{'driver':'file','filename':'{}'}}}}",
            path.display()
        );
        graph.add(options(&raw)).unwrap();
        assert_eq!(graph.list().len(), 2);
        let error = graph.add(options(&raw)).err().unwrap().to_string();
        assert_eq!(error, "Duplicate nodes with node-name='r'");
        assert_eq!(graph.list().len(), 2);
        graph.remove("r").unwrap();
        assert!(graph.list().is_empty());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
