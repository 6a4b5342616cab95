//! Counts what goes through a node.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use block::info::{CheckReport, Fix};
use block::node::HostRange;
use block::root::Root;
use block::{Extent, Node, NodeRef, Preallocation, Result, Zeroing};
use serde_json::{Value, json};

/// One kind of request.
#[derive(Default)]
struct Kind {
    count: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Kind {
    fn count<T>(&self, bytes: u64, request: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let result = request();
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
        match result {
            Ok(_) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(_) => _ = self.failed.fetch_add(1, Ordering::Relaxed),
        }
        result
    }

    fn get(&self) -> [u64; 4] {
        [&self.count, &self.bytes, &self.failed, &self.nanoseconds]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// What a drive's user has done.
#[derive(Default)]
pub struct Counters {
    read: Kind,
    write: Kind,
    flush: Kind,
    discard: Kind,
}

impl Counters {
    /// As `query-blockstats` shows them.
    pub fn to_json(&self, node: &NodeRef) -> Value {
        let mut stats = json!({"wr_highest_offset": node.size(), "rd_merged": 0, "wr_merged": 0,
            "unmap_merged": 0, "invalid_rd_operations": 0, "invalid_wr_operations": 0,
            "invalid_flush_operations": 0, "invalid_unmap_operations": 0, "account_invalid": true,
            "account_failed": true, "timed_stats": []});
        for (name, kind) in [
            ("rd", &self.read),
            ("wr", &self.write),
            ("flush", &self.flush),
            ("unmap", &self.discard),
        ] {
            let [count, bytes, failed, nanoseconds] = kind.get();
            stats[format!("{name}_operations")] = count.into();
            stats[format!("{name}_total_time_ns")] = nanoseconds.into();
            stats[format!("failed_{name}_operations")] = failed.into();
            if name != "flush" {
                stats[format!("{name}_bytes")] = bytes.into();
            }
        }
        stats
    }
}

/// A node with counters before it.
pub struct Counted {
    node: Arc<Root>,
    counters: Arc<Counters>,
}

impl Counted {
    pub fn new(node: Arc<Root>, counters: Arc<Counters>) -> Self {
        Self { node, counters }
    }
}

impl Node for Counted {
    fn driver(&self) -> &'static str {
        self.node.driver()
    }

    fn filename(&self) -> String {
        self.node.filename()
    }

    fn size(&self) -> u64 {
        self.node.size()
    }

    fn writable(&self) -> bool {
        self.node.writable()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let bytes = buffer.len() as u64;
        self.counters.read.count(bytes, || self.node.read_at(buffer, offset))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let bytes = data.len() as u64;
        self.counters.write.count(bytes, || self.node.write_at(data, offset))
    }

    fn copy_from(&self, source: &HostRange<'_>, offset: u64) -> Result<()> {
        self.node.copy_from(source, offset)
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.counters.write.count(length, || self.node.zero_at(offset, length, zeroing))
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        self.counters.discard.count(length, || self.node.discard_at(offset, length))
    }

    fn flush(&self) -> Result<()> {
        self.counters.flush.count(0, || self.node.flush())
    }

    fn finish(&self) -> Result<()> {
        self.node.finish()
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        self.node.status(offset, length)
    }

    fn file(&self) -> Option<NodeRef> {
        Some(self.node.current())
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.node.resize(size, preallocation)
    }

    fn cluster_bytes(&self) -> Option<u64> {
        self.node.cluster_bytes()
    }

    fn check(&self, fix: Fix) -> Result<CheckReport> {
        self.node.check(fix)
    }

    fn host_file(&self) -> Option<&File> {
        None // what goes around the node is not counted
    }

    fn is_filter(&self) -> bool {
        true
    }
}
