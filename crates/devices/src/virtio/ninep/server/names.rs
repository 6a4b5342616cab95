//! Requests about names: finding, making, moving and removing them.

use std::sync::Arc;

use rustix::io::Errno;

use super::{Open, Result, Server};
use crate::virtio::ninep::node::{Node, name};
use crate::virtio::ninep::share::Owner;
use crate::virtio::ninep::spec;
use crate::virtio::ninep::wire::{Reader, Writer};

/// Names of one request.
const STEPS_MAX: u16 = 16;

impl Server {
    pub(super) fn walk(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let (from, to, steps) = (request.word()?, request.word()?, request.half()?);
        if steps > STEPS_MAX {
            return Err(Errno::INVAL);
        }
        let fid = self.fid(from)?;
        let (mut node, uid) = (Arc::clone(&fid.node), fid.uid);
        if from == to && !matches!(fid.open, Open::Nothing) {
            return Err(Errno::INVAL);
        }
        let mut qids = Vec::new();
        for step in 0..steps {
            let text = request.string()?;
            match self.step(&node, text).and_then(|node| Ok((self.share.qid(&node)?, node))) {
                Ok((qid, next)) => {
                    qids.push(qid);
                    node = next;
                }
                Err(error) if step == 0 => return Err(error),
                Err(_) => break,
            }
        }
        answer.half(qids.len() as u16);
        let whole = qids.len() == usize::from(steps);
        qids.into_iter().for_each(|qid| answer.qid(qid));
        match (whole, from == to) {
            (false, _) => Ok(()), // the new fid is none then
            (true, true) => {
                self.fid(from)?.node = node;
                Ok(())
            }
            (true, false) => self.insert(to, node, uid),
        }
    }

    fn step(&self, node: &Arc<Node>, text: &[u8]) -> Result<Arc<Node>> {
        match text {
            b".." => Ok(node.parent()),
            b"." => Ok(Arc::clone(node)),
            _ if !node.is_folder() => Err(Errno::NOTDIR),
            _ => self.share.child(node, name(text)?),
        }
    }

    /// The group of the request, and the user who attached.
    fn owner(&mut self, number: u32, gid: u32) -> Result<Owner> {
        Ok(Owner { uid: self.fid(number)?.uid, gid })
    }

    pub(super) fn create(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let number = request.word()?;
        let text = name(request.string()?)?;
        let (flags, mode, gid) = (request.word()?, request.word()?, request.word()?);
        self.share.writable()?;
        let (parent, owner) = (self.folder(number)?, self.owner(number, gid)?);
        if !matches!(self.fid(number)?.open, Open::Nothing) {
            return Err(Errno::INVAL);
        }
        let flags = super::data::flags(flags)?;
        let (node, file) = self.share.create(&parent, text, flags, mode, owner)?;
        answer.qid(self.share.qid(&node)?);
        answer.word(0); // the guest may move as much at a time as fits a message
        let fid = self.fid(number)?;
        fid.open = Open::File { file, writable: super::data::writes(flags) };
        fid.node = node;
        Ok(())
    }

    pub(super) fn mkdir(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let number = request.word()?;
        let text = name(request.string()?)?;
        let (mode, gid) = (request.word()?, request.word()?);
        self.share.writable()?;
        let (parent, owner) = (self.folder(number)?, self.owner(number, gid)?);
        let node = self.share.make_folder(&parent, text, mode, owner)?;
        answer.qid(self.share.qid(&node)?);
        Ok(())
    }

    pub(super) fn mknod(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let number = request.word()?;
        let text = name(request.string()?)?;
        let (mode, device) = (request.word()?, (request.word()?, request.word()?));
        let gid = request.word()?;
        self.share.writable()?;
        let (parent, owner) = (self.folder(number)?, self.owner(number, gid)?);
        let node = self.share.make_node(&parent, text, mode, device, owner)?;
        answer.qid(self.share.qid(&node)?);
        Ok(())
    }

    pub(super) fn symlink(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let number = request.word()?;
        let (text, target) = (name(request.string()?)?, request.string()?);
        let gid = request.word()?;
        self.share.writable()?;
        let (parent, owner) = (self.folder(number)?, self.owner(number, gid)?);
        let node = self.share.make_link(&parent, text, target, owner)?;
        answer.qid(self.share.qid(&node)?);
        Ok(())
    }

    pub(super) fn link(&mut self, request: &mut Reader<'_>, _answer: &mut Writer) -> Result<()> {
        let (parent, number) = (request.word()?, request.word()?);
        let text = name(request.string()?)?;
        self.share.writable()?;
        let (parent, node) = (self.folder(parent)?, self.node(number)?);
        self.share.link(&node, &parent, text)
    }

    /// Moves what a fid stands for.
    pub(super) fn rename(&mut self, request: &mut Reader<'_>, _answer: &mut Writer) -> Result<()> {
        let (number, parent) = (request.word()?, request.word()?);
        let text = name(request.string()?)?;
        self.share.writable()?;
        let (node, parent) = (self.node(number)?, self.folder(parent)?);
        let place = node.place.as_ref().ok_or(Errno::BUSY)?;
        self.still_there(&node)?;
        self.share.rename((&place.parent, &place.name), (&parent, text))?;
        self.moved((&place.parent, &place.name), (&parent, text))
    }

    /// Whether a file is still where it was found.
    fn still_there(&self, node: &Node) -> Result<()> {
        let place = node.place.as_ref().ok_or(Errno::BUSY)?;
        let now = self.share.child(&place.parent, &place.name)?;
        if now.identity == node.identity { Ok(()) } else { Err(Errno::NOENT) }
    }

    pub(super) fn renameat(
        &mut self,
        request: &mut Reader<'_>,
        _answer: &mut Writer,
    ) -> Result<()> {
        let from = request.word()?;
        let old = name(request.string()?)?;
        let to = request.word()?;
        let new = name(request.string()?)?;
        self.share.writable()?;
        let (from, to) = (self.folder(from)?, self.folder(to)?);
        self.share.rename((&from, old), (&to, new))?;
        self.moved((&from, old), (&to, new))
    }

    /// Fids of what has moved follow it.
    fn moved(
        &mut self,
        from: (&Node, &std::ffi::OsStr),
        to: (&Arc<Node>, &std::ffi::OsStr),
    ) -> Result<()> {
        let mut moved: Option<Arc<Node>> = None;
        for fid in self.fids.values_mut() {
            if fid.node.place.as_ref().is_some_and(|place| place.is(from.0, from.1)) {
                let node = match &moved {
                    Some(node) if node.identity == fid.node.identity => Arc::clone(node),
                    _ => fid.node.moved(to.0, to.1)?,
                };
                fid.node = Arc::clone(&node);
                moved = Some(node);
            }
        }
        Ok(())
    }

    pub(super) fn unlinkat(
        &mut self,
        request: &mut Reader<'_>,
        _answer: &mut Writer,
    ) -> Result<()> {
        let number = request.word()?;
        let text = name(request.string()?)?;
        let flags = request.word()?;
        if flags & !spec::UNLINK_FOLDER != 0 {
            return Err(Errno::INVAL);
        }
        self.share.writable()?;
        let parent = self.folder(number)?;
        self.share.remove(&parent, text, flags != 0)
    }

    /// Removes what a fid stands for, and in any case the fid.
    pub(super) fn remove(&mut self, request: &mut Reader<'_>, _answer: &mut Writer) -> Result<()> {
        let fid = self.fids.remove(&request.word()?).ok_or(Errno::BADF)?;
        self.share.writable()?;
        let place = fid.node.place.as_ref().ok_or(Errno::BUSY)?;
        self.still_there(&fid.node)?;
        self.share.remove(&place.parent, &place.name, fid.node.is_folder())
    }
}
