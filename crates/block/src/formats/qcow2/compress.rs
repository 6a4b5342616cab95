//! Compressed clusters: raw deflate with a window of 4 KiB, or a zstd frame. They are packed
//! one behind the other at byte granularity.

use std::cell::RefCell;

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress};

use super::Qcow2;
use super::geometry::{COMPRESSED, COPIED, Entry, Kind, OFFSET_MASK};
use super::header::Compression;
use super::metadata::Freed;
use crate::error::{Error, Result};
use crate::node::{Compressing, Node, Packed};

/// log2 of the window that every reader has.
const WINDOW_BITS: u8 = 12;
/// The reference implementation's levels, so that sizes compare.
const ZLIB_LEVEL: u32 = 9;
const ZSTD_LEVEL: i32 = 3;

thread_local! {
    /// Contexts are expensive to make: one of each a thread.
    static DEFLATE: RefCell<Option<Compress>> = const { RefCell::new(None) };
    static INFLATE: RefCell<Option<Decompress>> = const { RefCell::new(None) };
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static UNZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses a cluster; `None` when it does not become smaller than `limit`.
fn pack(method: Compression, data: &[u8], limit: usize) -> Result<Option<Vec<u8>>> {
    let mut out = vec![0; limit];
    let length = match method {
        Compression::Zlib => DEFLATE.with_borrow_mut(|context| {
            let context = context.get_or_insert_with(|| {
                Compress::new_with_window_bits(Level::new(ZLIB_LEVEL), false, WINDOW_BITS)
            });
            context.reset();
            let status = context
                .compress(data, &mut out, FlushCompress::Finish)
                .map_err(|_| Error::Os(rustix::io::Errno::IO))?;
            let finished = status == flate2::Status::StreamEnd;
            Ok::<_, Error>(finished.then_some(context.total_out() as usize))
        })?,
        Compression::Zstd => ZSTD.with_borrow_mut(|context| {
            if context.is_none() {
                *context = Some(zstd::bulk::Compressor::new(ZSTD_LEVEL)?);
            }
            let context = context.as_mut().expect("it was just made");
            // A frame that does not fit is an error of the library, not of ours.
            Ok::<_, Error>(context.compress_to_buffer(data, &mut out).ok())
        })?,
    };
    Ok(length.filter(|length| *length < limit).map(|length| {
        out.truncate(length);
        out
    }))
}

/// Unpacks a cluster. The packed bytes may be followed by others.
pub fn unpack(method: Compression, packed: &[u8], cluster: usize) -> Result<Vec<u8>> {
    let mut out = vec![0; cluster];
    let length = match method {
        Compression::Zlib => INFLATE.with_borrow_mut(|context| {
            let context = context.get_or_insert_with(|| Decompress::new(false));
            context.reset(false);
            context
                .decompress(packed, &mut out, FlushDecompress::Finish)
                .map_err(|_| Error::Os(rustix::io::Errno::IO))?;
            Ok::<_, Error>(context.total_out() as usize)
        })?,
        Compression::Zstd => UNZSTD.with_borrow_mut(|context| {
            if context.is_none() {
                *context = Some(zstd::bulk::Decompressor::new()?);
            }
            let context = context.as_mut().expect("it was just made");
            let frame = zstd::zstd_safe::find_frame_compressed_size(packed)
                .map_err(|_| Error::Os(rustix::io::Errno::IO))?;
            Ok::<_, Error>(context.decompress_to_buffer(&packed[..frame], &mut out)?)
        })?,
    };
    if length == cluster { Ok(out) } else { Err(rustix::io::Errno::IO.into()) }
}

impl Compressing for Qcow2 {
    fn unit(&self) -> usize {
        self.geometry.cluster as usize
    }

    fn pack(&self, data: &[u8]) -> Result<Packed> {
        let cluster = self.unit();
        let limit = cluster - 1;
        let bytes = if data.len() < cluster {
            let mut whole = data.to_vec();
            whole.resize(cluster, 0);
            pack(self.compression, &whole, limit)?
        } else {
            pack(self.compression, data, limit)?
        };
        Ok(Packed { bytes })
    }

    fn store(&self, offset: u64, data: &[u8], packed: &Packed) -> Result<()> {
        if self.external() {
            return Err(Error::unsupported("Operation not supported"));
        }
        let Some(bytes) = &packed.bytes else {
            return self.write_at(data, offset);
        };
        let geometry = self.geometry;
        if !offset.is_multiple_of(geometry.cluster) {
            return Err(rustix::io::Errno::INVAL.into());
        }
        let mut guard = self.state.lock();
        self.wait_for(&mut guard, offset, offset + geometry.cluster, true);
        self.forget_unpacked();
        let state = &mut *guard;
        self.refuse_frozen(state)?;
        super::bitmaps::note_write(state, offset, data.len() as u64);
        let slot = self.l2_for_write(state, offset)?;
        let index = geometry.l2_index(offset);
        let old = state.meta.entry(slot, index);
        // Compressed data goes only where nothing is: it cannot be updated in place.
        let taken = old.word & COMPRESSED == 0
            && old.word & COPIED != 0
            && geometry.kind(old, 0, false) == Kind::Normal;
        if taken && old.word & OFFSET_MASK != 0 && !geometry.extended() {
            return Err(rustix::io::Errno::IO.into());
        }
        let place = state.meta.allocate_bytes(bytes.len() as u64)?;
        let word = geometry
            .compressed_word(place, bytes.len() as u64)
            .ok_or(Error::Os(rustix::io::Errno::FBIG))?;
        state.meta.file.about_to("write_compressed");
        state.meta.file.write_at(bytes, place)?;
        state.meta.new_data = true;
        let slot = self.l2_for_write(state, offset)?;
        state.meta.set_entry(slot, index, Entry { word, bitmap: 0 });
        self.free_entry(state, old, Freed::Other);
        Ok(())
    }
}

impl super::metadata::Metadata {
    /// Room for compressed bytes: behind the last ones if they fit, else in new clusters.
    fn allocate_bytes(&mut self, bytes: u64) -> Result<u64> {
        let cluster = self.geometry.cluster;
        let mut place = self.packed_end;
        let room = if place.is_multiple_of(cluster) { 0 } else { cluster - place % cluster };
        let shared = room > 0 && self.refcount(place / cluster)? < self.geometry.refcount_max();
        if room == 0 || !shared {
            place = self.allocate(bytes)?;
        } else if bytes > room {
            let next = place + room;
            let needed = (bytes - room).div_ceil(cluster);
            if self.allocate_at(next, needed)? == needed {
                self.change_refcounts(place, 1, false)?;
            } else {
                place = self.allocate(bytes)?;
            }
        } else {
            self.change_refcounts(place, 1, false)?;
        }
        if place == 0 {
            return Err(Error::corrupt(
                "Preventing invalid allocation of compressed cluster at offset 0",
            ));
        }
        self.packed_end = place + bytes;
        self.note_touched((place + bytes).next_multiple_of(cluster));
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text with repeats at distances of about 20,000, which a large window would use.
    fn sample() -> Vec<u8> {
        let mut seed = 1u32;
        let mut block = Vec::new();
        while block.len() < 20_000 {
            seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            block.push(b'a' + (seed >> 16) as u8 % 16);
        }
        block.iter().copied().cycle().take(65_536).collect()
    }

    #[test]
    fn clusters_survive_both_methods() {
        let data = sample();
        for method in [Compression::Zlib, Compression::Zstd] {
            let mut packed = pack(method, &data, data.len()).unwrap().expect("text shrinks");
            packed.extend([0xaa; 300]); // the next cluster's bytes
            assert_eq!(unpack(method, &packed, data.len()).unwrap(), data);
        }
    }

    /// Readers may inflate in pieces with a window of 4 KiB.
    #[test]
    fn no_match_reaches_further_than_the_window() {
        let data = sample();
        let packed = pack(Compression::Zlib, &data, data.len()).unwrap().expect("text shrinks");
        let mut reader = Decompress::new_with_window_bits(false, WINDOW_BITS);
        let mut out: Vec<u8> = Vec::new();
        let mut piece = [0; 512];
        loop {
            let (used, made) = (reader.total_in() as usize, reader.total_out());
            let status =
                reader.decompress(&packed[used..], &mut piece, FlushDecompress::None).unwrap();
            out.extend(&piece[..(reader.total_out() - made) as usize]);
            if status == flate2::Status::StreamEnd {
                break;
            }
        }
        assert_eq!(out, data);
    }
}
