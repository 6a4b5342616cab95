//! `quorum`: several images that are to be alike; a vote decides what a read gives.
//!
//! `driver=quorum,vote-threshold=2,children.0.filename=a,children.1.filename=b,...`

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::node::{Extent, Node, NodeRef, Preallocation, Zeroing};
use crate::open::{OpenMode, open_below};
use crate::options::OpenOptions;
use crate::protocols::Protocol;

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "quorum",
    prefixes: &[],
    parse: |_, _| Err(Error::invalid("The quorum driver takes no file name")),
    open,
    create: None,
    create_options: &[],
};

/// More children than this are no quorum.
const CHILDREN_MAX: usize = 32;
/// The names under which children are shown.
const NAMES: [&str; CHILDREN_MAX] = [
    "children.0",
    "children.1",
    "children.2",
    "children.3",
    "children.4",
    "children.5",
    "children.6",
    "children.7",
    "children.8",
    "children.9",
    "children.10",
    "children.11",
    "children.12",
    "children.13",
    "children.14",
    "children.15",
    "children.16",
    "children.17",
    "children.18",
    "children.19",
    "children.20",
    "children.21",
    "children.22",
    "children.23",
    "children.24",
    "children.25",
    "children.26",
    "children.27",
    "children.28",
    "children.29",
    "children.30",
    "children.31",
];

struct Quorum {
    children: Vec<NodeRef>,
    threshold: usize,
    /// The first child that can be read is believed.
    first_wins: bool,
    rewrite_corrupted: bool,
}

fn open(options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    let mut children = Vec::new();
    loop {
        let key = format!("children.{}", children.len());
        let below = options.take_below(&key);
        if !below.is_empty() {
            children.push(open_below(None, below, mode)?);
        } else if let Some(reference) = options.take_text(&key) {
            children.push(mode.referred(&reference)?);
        } else {
            break;
        }
        if children.len() > CHILDREN_MAX {
            return Err(Error::invalid(format!("Cannot add more than {CHILDREN_MAX} children")));
        }
    }
    if children.is_empty() {
        return Err(Error::invalid("Number of provided children must be 1 or more"));
    }
    let threshold = options.take_size("vote-threshold")?.unwrap_or(0) as usize;
    if threshold == 0 {
        return Err(Error::invalid("Parameter 'vote-threshold' expects a value >= 1"));
    }
    if threshold > children.len() {
        return Err(Error::invalid("threshold may not exceed children count"));
    }
    let first_wins = match options.take_text("read-pattern").as_deref() {
        None | Some("quorum") => false,
        Some("fifo") => true,
        Some(_) => {
            return Err(Error::invalid("Please set read-pattern as fifo or quorum"));
        }
    };
    if options.take_bool("blkverify")? == Some(true) {
        return Err(Error::unsupported("The quorum option 'blkverify' is not supported"));
    }
    let rewrite_corrupted = options.take_bool("rewrite-corrupted")?.unwrap_or(false);
    if rewrite_corrupted && first_wins {
        return Err(Error::invalid("rewrite-corrupted=on cannot be used with read-pattern=fifo"));
    }
    Ok(Arc::new(Quorum { children, threshold, first_wins, rewrite_corrupted }))
}

impl Quorum {
    /// Does the same to all children; enough of them must succeed.
    fn each(&self, work: impl Fn(&NodeRef) -> Result<()>) -> Result<()> {
        let (mut good, mut first) = (0, None);
        for child in &self.children {
            match work(child) {
                Ok(()) => good += 1,
                Err(error) => first = first.or(Some(error)),
            }
        }
        match first {
            Some(error) if good < self.threshold => Err(error),
            _ => Ok(()),
        }
    }

    fn vote(&self, length: usize, offset: u64) -> Result<Vec<u8>> {
        let mut answers: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
        let mut failed = None;
        for (number, child) in self.children.iter().enumerate() {
            let mut bytes = vec![0; length];
            match child.read_at(&mut bytes, offset) {
                Ok(()) => match answers.iter_mut().find(|(known, _)| *known == bytes) {
                    Some((_, voters)) => voters.push(number),
                    None => answers.push((bytes, vec![number])),
                },
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        answers.sort_by_key(|(_, voters)| std::cmp::Reverse(voters.len()));
        let Some((winner, voters)) = answers.into_iter().next() else {
            return Err(failed.unwrap_or(Error::Os(rustix::io::Errno::IO)));
        };
        if voters.len() < self.threshold {
            return Err(Error::Os(rustix::io::Errno::IO));
        }
        if self.rewrite_corrupted {
            for (number, child) in self.children.iter().enumerate() {
                if !voters.contains(&number) {
                    // A copy that cannot be mended stays outvoted.
                    _ = child.write_at(&winner, offset);
                }
            }
        }
        Ok(winner)
    }
}

impl Node for Quorum {
    fn driver(&self) -> &'static str {
        "quorum"
    }

    fn filename(&self) -> String {
        let children = self.children.iter().map(|child| {
            serde_json::json!({"driver": child.driver(), "file": {"driver": "file", "filename": child.filename()}})
        });
        let tree = serde_json::json!({"driver": "quorum", "vote-threshold": self.threshold,
            "children": children.collect::<Vec<_>>()});
        format!("json:{tree}")
    }

    fn size(&self) -> u64 {
        self.children[0].size()
    }

    fn writable(&self) -> bool {
        self.children.iter().all(|child| child.writable())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        if self.first_wins {
            let mut outcome = Err(Error::Os(rustix::io::Errno::IO));
            for child in &self.children {
                outcome = child.read_at(buffer, offset);
                if outcome.is_ok() {
                    break;
                }
            }
            return outcome;
        }
        buffer.copy_from_slice(&self.vote(buffer.len(), offset)?);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.each(|child| child.write_at(data, offset))
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.each(|child| child.zero_at(offset, length, zeroing))
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<()> {
        self.each(|child| child.discard_at(offset, length))
    }

    fn flush(&self) -> Result<()> {
        self.each(|child| child.flush())
    }

    fn status(&self, offset: u64, length: u64) -> Result<Extent> {
        let mut length = length;
        let mut zero = true;
        for child in &self.children {
            let found = crate::node::status_above(child, None, offset, length)?.extent;
            length = length.min(found.length.max(1));
            zero &= found.zero;
        }
        Ok(Extent { length, data: !zero, zero, allocated: true, ..Extent::default() })
    }

    fn resize(&self, size: u64, preallocation: Preallocation) -> Result<()> {
        self.each(|child| child.resize(size, preallocation))
    }

    fn children(&self) -> Vec<(&'static str, NodeRef)> {
        NAMES.iter().copied().zip(self.children.iter().cloned()).collect()
    }
}
