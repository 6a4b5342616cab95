//! Requests about what is known of files: owners, modes, times, extended attributes.

use std::sync::Arc;

use rustix::io::Errno;

use super::{Open, Result, Server};
use crate::virtio::ninep::share::NewTime;
use crate::virtio::ninep::spec::{self, set};
use crate::virtio::ninep::wire::{Reader, Writer};

/// The largest value of an extended attribute, as Linux has it.
const ATTRIBUTE_BYTES_MAX: u64 = 64 << 10;

impl Server {
    pub(super) fn statfs(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let node = self.node(request.word()?)?;
        let known = self.share.statfs(&node)?;
        answer.word(known.f_type as u32);
        answer.word(known.f_bsize as u32);
        for value in [known.f_blocks, known.f_bfree, known.f_bavail, known.f_files, known.f_ffree] {
            answer.long(value);
        }
        answer.long(node.identity.0);
        answer.word(known.f_namelen as u32);
        Ok(())
    }

    pub(super) fn getattr(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let (number, wanted) = (request.word()?, request.long()?);
        let node = self.node(number)?;
        let stat = self.share.stat(&node)?;
        answer.long(wanted & spec::GETATTR_BASIC);
        answer.qid(self.share.qid_of(&stat)?);
        answer.word(stat.st_mode);
        answer.word(stat.st_uid);
        answer.word(stat.st_gid);
        for value in [stat.st_nlink, stat.st_rdev, stat.st_size as u64, stat.st_blksize as u64] {
            answer.long(value);
        }
        answer.long(stat.st_blocks as u64);
        for (seconds, nanoseconds) in [
            (stat.st_atime, stat.st_atime_nsec),
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
            (0, 0), // when it was made is not told
        ] {
            answer.long(seconds as u64);
            answer.long(nanoseconds);
        }
        answer.long(0); // generation
        answer.long(0); // version of the data
        Ok(())
    }

    pub(super) fn setattr(&mut self, request: &mut Reader<'_>, _answer: &mut Writer) -> Result<()> {
        let (number, valid, mode) = (request.word()?, request.word()?, request.word()?);
        let (uid, gid, size) = (request.word()?, request.word()?, request.long()?);
        let mut time = |change: u32, given: u32| -> Result<NewTime> {
            let (seconds, nanoseconds) = (request.long()?, request.long()?);
            Ok(match (valid & change != 0, valid & given != 0) {
                (false, _) => NewTime::Keep,
                (true, false) => NewTime::Now,
                (true, true) => NewTime::At(seconds, nanoseconds),
            })
        };
        let times = [time(set::ATIME, set::ATIME_GIVEN)?, time(set::MTIME, set::MTIME_GIVEN)?];
        self.share.writable()?;
        let (node, share) = (self.node(number)?, Arc::clone(&self.share));
        let has = |bits: u32| valid & bits != 0;
        // First the owner, for a change of owner takes the bits that lend rights.
        if has(set::UID | set::GID) {
            share.set_owner(&node, has(set::UID).then_some(uid), has(set::GID).then_some(gid))?;
        }
        if has(set::MODE) {
            share.set_mode(&node, mode)?;
        }
        if has(set::SIZE) {
            let open = match &self.fid(number)?.open {
                Open::File { file, writable: true } => Some(file),
                _ => None,
            };
            share.set_size(&node, open, size)?;
        }
        if has(set::ATIME | set::MTIME) {
            share.set_times(&node, &times)?;
        } else if valid & !set::CTIME == 0 && has(set::CTIME) {
            // Nothing but the time of the last change: giving it to nobody else sets that.
            share.set_owner(&node, None, None)?;
        }
        Ok(())
    }

    pub(super) fn readlink(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let node = self.node(request.word()?)?;
        answer.string(&self.share.read_link(&node)?);
        Ok(())
    }

    pub(super) fn xattr_walk(
        &mut self,
        request: &mut Reader<'_>,
        answer: &mut Writer,
    ) -> Result<()> {
        let (from, to) = (request.word()?, request.word()?);
        let name = request.string()?;
        let fid = self.fid(from)?;
        let (node, uid) = (Arc::clone(&fid.node), fid.uid);
        let value = match name {
            b"" => self.share.attributes(&node)?,
            _ if name.contains(&0) => return Err(Errno::INVAL),
            name => self.share.attribute(&node, name)?,
        };
        answer.long(value.len() as u64);
        if from != to {
            self.insert(to, node, uid)?;
        }
        let fid = self.fid(to)?;
        if !matches!(fid.open, Open::Nothing) {
            return Err(Errno::INVAL);
        }
        fid.open = Open::Attribute(value);
        Ok(())
    }

    pub(super) fn xattr_create(
        &mut self,
        request: &mut Reader<'_>,
        _answer: &mut Writer,
    ) -> Result<()> {
        let number = request.word()?;
        let name = request.string()?.to_vec();
        let (bytes, flags) = (request.long()?, request.word()?);
        self.share.writable()?;
        if bytes > ATTRIBUTE_BYTES_MAX || name.is_empty() || name.contains(&0) {
            return Err(if bytes > ATTRIBUTE_BYTES_MAX { Errno::NOSPC } else { Errno::INVAL });
        }
        let fid = self.fid(number)?;
        if !matches!(fid.open, Open::Nothing) {
            return Err(Errno::INVAL);
        }
        let bytes = bytes as usize;
        fid.open = Open::NewAttribute { name, flags, bytes, value: Vec::new() };
        Ok(())
    }
}
