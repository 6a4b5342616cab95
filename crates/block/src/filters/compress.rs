//! `compress`: writes to the image below become compressed clusters.
//!
//! `-blockdev driver=compress,node-name=c,file=disk`

use std::sync::Arc;

use super::{hand_on, open_file, stand_over};
use crate::error::{Error, Result};
use crate::node::{Node, NodeRef, Zeroing};
use crate::open::OpenMode;
use crate::options::OpenOptions;
use crate::protocols::Protocol;

pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "compress",
    prefixes: &[],
    parse: super::parse,
    open,
    create: None,
    create_options: &[],
};

struct Compress {
    file: NodeRef,
}

fn open(options: &mut OpenOptions, mode: &OpenMode) -> Result<NodeRef> {
    let file = open_file(options, mode)?;
    if file.compressing().is_none() {
        return Err(Error::unsupported(
            "Compression is not supported for underlying format: ".to_owned() + file.driver(),
        ));
    }
    Ok(Arc::new(Compress { file }))
}

impl Node for Compress {
    hand_on!(file);
    stand_over!(file);

    fn driver(&self) -> &'static str {
        "compress"
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let compressing = self.file.compressing();
        let compressing =
            compressing.ok_or_else(|| Error::unsupported("Operation not supported"))?;
        let unit = compressing.unit() as u64;
        let (start, end) = (offset, offset + data.len() as u64);
        let mut at = start;
        while at < end {
            let cluster = at - at % unit;
            let next = (cluster + unit).min(end);
            let mut whole;
            let piece = &data[(at - start) as usize..(next - start) as usize];
            let full = (cluster + unit).min(self.file.size()) - cluster;
            let cluster_data = if piece.len() as u64 == full {
                piece
            } else {
                // Compressed clusters are written whole.
                whole = vec![0; full as usize];
                self.file.read_at(&mut whole, cluster)?;
                let skip = (at - cluster) as usize;
                whole[skip..skip + piece.len()].copy_from_slice(piece);
                &whole[..]
            };
            let packed = compressing.pack(cluster_data)?;
            compressing.store(cluster, cluster_data, &packed)?;
            at = next;
        }
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64, zeroing: Zeroing) -> Result<()> {
        self.file.zero_at(offset, length, zeroing)
    }
}
