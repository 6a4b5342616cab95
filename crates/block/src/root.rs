//! Where a device meets the block graph: the node behind it may be exchanged while it is used, and
//! its writes can be watched.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockWriteGuard};

use crate::error::Result;
use crate::filters::throttle::Group;
use crate::info::ImageInfo;
use crate::node::{Extent, HostRange, Node, NodeRef, Preallocation, Zeroing};

/// Who wants to know about writes. Calls come from the threads that write.
pub trait Watcher: Send + Sync {
    /// A range is about to change. The write waits until this returns.
    fn before_write(&self, offset: u64, length: u64) -> Result<()> {
        _ = (offset, length);
        Ok(())
    }

    /// A range has changed, or a write to it has failed.
    fn after_write(&self, offset: u64, length: u64) {
        _ = (offset, length);
    }
}

/// A place in which a node stands.
///
/// Requests hold `node` for reading while they run, so that an exchange waits for them.
pub struct Root {
    node: RwLock<NodeRef>,
    watchers: RwLock<Vec<Arc<dyn Watcher>>>,
    limits: RwLock<Option<Arc<Group>>>,
}

/// While this lives, no request goes through the root.
pub struct Held<'a> {
    node: RwLockWriteGuard<'a, NodeRef>,
    watchers: &'a RwLock<Vec<Arc<dyn Watcher>>>,
}

impl Held<'_> {
    /// Puts another node in place.
    pub fn exchange(&mut self, node: NodeRef) {
        *self.node = node;
    }

    /// From now on this one is told of writes.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.watchers.write().push(watcher);
    }
}

impl Root {
    /// With a node in place.
    pub fn new(node: NodeRef) -> Arc<Self> {
        Arc::new(Self {
            node: RwLock::new(node),
            watchers: RwLock::default(),
            limits: RwLock::default(),
        })
    }

    /// What stands in place.
    pub fn current(&self) -> NodeRef {
        Arc::clone(&self.node.read())
    }

    /// Waits for all requests, and keeps new ones waiting.
    pub fn hold(&self) -> Held<'_> {
        Held { node: self.node.write(), watchers: &self.watchers }
    }

    /// Puts limits on requests, or takes them away.
    pub fn limit(&self, group: Option<Arc<Group>>) {
        *self.limits.write() = group;
    }

    /// The limits on requests.
    pub fn limits(&self) -> Option<Arc<Group>> {
        self.limits.read().clone()
    }

    fn admit(&self, write: bool, bytes: u64) {
        if let Some(group) = self.limits() {
            group.admit(write, bytes);
        }
    }

    /// From now on this one is told of writes.
    pub fn watch(&self, watcher: Arc<dyn Watcher>) {
        // A write under way must not be missed by half.
        self.hold().watch(watcher);
    }

    /// No longer.
    pub fn unwatch(&self, watcher: &Arc<dyn Watcher>) {
        self.watchers.write().retain(|other| !Arc::ptr_eq(other, watcher));
    }

    fn change(
        &self,
        offset: u64,
        length: u64,
        request: impl FnOnce(&NodeRef) -> Result<()>,
    ) -> Result<()> {
        self.admit(true, length);
        let node = self.node.read();
        let watchers = self.watchers.read().clone();
        for watcher in &watchers {
            watcher.before_write(offset, length)?;
        }
        let done = request(&node);
        for watcher in &watchers {
            watcher.after_write(offset, length);
        }
        done
    }
}

impl Node for Root {
    fn driver(&self) -> &'static str {
        self.node.read().driver()
    }

    fn filename(&self) -> String {
        self.node.read().filename()
    }

    fn size(&self) -> u64 {
        self.node.read().size()
    }

    fn writable(&self) -> bool {
        self.node.read().writable()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.admit(false, buffer.len() as u64);
        self.node.read().read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.change(offset, data.len() as u64, |node| node.write_at(data, offset))
    }

    fn copy_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        self.change(offset, source.length, |node| node.copy_from(source, offset))
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.change(offset, length, |node| node.zero_at(offset, length, zeroing))
    }

    fn zero_fast(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.change(offset, length, |node| node.zero_fast(offset, length, zeroing))
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        self.change(offset, length, |node| node.discard_at(offset, length))
    }

    fn flush(&self) -> Result<()> {
        self.node.read().flush()
    }

    fn finish(&self) -> Result<()> {
        self.node.read().finish()
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        self.node.read().status(offset, length)
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.current())
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.node.read().resize(size, preallocation)
    }

    fn cluster_bytes(&self) -> Option<u64> {
        self.node.read().cluster_bytes()
    }

    fn info(&self) -> Result<ImageInfo> {
        self.node.read().info()
    }

    fn set_writable(&self, writable: bool) -> Result<()> {
        self.node.read().set_writable(writable)
    }

    fn is_filter(&self) -> bool {
        true
    }
}
