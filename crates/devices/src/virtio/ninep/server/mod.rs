//! A guest's conversation: requests in, answers out.

mod attributes;
mod data;
mod names;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::node::Node;
use super::share::Share;
use super::spec;
use super::wire::{Reader, Writer};

/// The largest message, and the smallest that is worth a conversation.
pub const MESSAGE_BYTES_MAX: u32 = 1 << 20;
const MESSAGE_BYTES_MIN: u32 = 4096;
/// Files that a guest may hold; each is a descriptor of the host's.
const FIDS_MAX: usize = 1 << 16;

type Result<T> = std::result::Result<T, Errno>;
type Answer = fn(&mut Server, &mut Reader<'_>, &mut Writer) -> Result<()>;

/// What is answered, by number.
const REQUESTS: &[(u8, Answer)] = &[
    (spec::STATFS, Server::statfs),
    (spec::OPEN, Server::open),
    (spec::CREATE, Server::create),
    (spec::SYMLINK, Server::symlink),
    (spec::MKNOD, Server::mknod),
    (spec::RENAME, Server::rename),
    (spec::READLINK, Server::readlink),
    (spec::GETATTR, Server::getattr),
    (spec::SETATTR, Server::setattr),
    (spec::XATTRWALK, Server::xattr_walk),
    (spec::XATTRCREATE, Server::xattr_create),
    (spec::READDIR, Server::readdir),
    (spec::FSYNC, Server::fsync),
    (spec::LOCK, Server::lock),
    (spec::GETLOCK, Server::getlock),
    (spec::LINK, Server::link),
    (spec::MKDIR, Server::mkdir),
    (spec::RENAMEAT, Server::renameat),
    (spec::UNLINKAT, Server::unlinkat),
    (spec::ATTACH, Server::attach),
    (spec::WALK, Server::walk),
    (spec::READ, Server::read),
    (spec::WRITE, Server::write),
    (spec::CLUNK, Server::clunk),
    (spec::REMOVE, Server::remove),
];

/// What a guest holds.
struct Fid {
    node: Arc<Node>,
    /// The user who attached.
    uid: u32,
    open: Open,
}

/// What a fid is open for.
enum Open {
    Nothing,
    File {
        file: OwnedFd,
        writable: bool,
    },
    Folder(OwnedFd),
    /// The value of an attribute, or the names of all.
    Attribute(Vec<u8>),
    /// An attribute that is set when the fid goes.
    NewAttribute {
        name: Vec<u8>,
        flags: u32,
        bytes: usize,
        value: Vec<u8>,
    },
}

/// A guest's conversation with a share.
pub struct Server {
    share: Arc<Share>,
    fids: HashMap<u32, Fid>,
    /// The largest message that was agreed on; 0 before.
    message_bytes: u32,
}

impl Server {
    pub fn new(share: Arc<Share>) -> Self {
        Self { share, fids: HashMap::new(), message_bytes: 0 }
    }

    /// Forgets the conversation.
    pub fn reset(&mut self) {
        self.fids.clear();
        self.message_bytes = 0;
    }

    /// The answer to a request, whose header is whole.
    pub fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut reader = Reader(request);
        let (Ok(_), Ok(kind), Ok(tag)) = (reader.word(), reader.byte(), reader.half()) else {
            return Writer::error(u16::MAX, Errno::INVAL);
        };
        let mut writer = Writer::new(kind | 1, tag);
        let done = match kind {
            spec::VERSION_REQUEST => self.version(&mut reader, &mut writer),
            // Requests are answered in turn, so that the one that is meant was answered.
            spec::FLUSH => Ok(()),
            _ if self.message_bytes == 0 => Err(Errno::INVAL),
            // Nobody needs to prove who they are.
            spec::AUTH => Err(Errno::NOENT),
            _ => match REQUESTS.iter().find(|(known, _)| *known == kind) {
                Some((_, answer)) => answer(self, &mut reader, &mut writer),
                None => Err(Errno::OPNOTSUPP),
            },
        };
        match done {
            Ok(()) => writer.finish(),
            Err(error) => Writer::error(tag, error),
        }
    }

    fn version(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let bytes = request.word()?;
        let version = request.string()?;
        self.reset();
        if bytes < MESSAGE_BYTES_MIN {
            return Err(Errno::MSGSIZE);
        }
        let known = version == spec::VERSION;
        let bytes = bytes.min(MESSAGE_BYTES_MAX);
        self.message_bytes = if known { bytes } else { 0 };
        answer.word(bytes);
        answer.string(if known { spec::VERSION } else { spec::VERSION_UNKNOWN });
        Ok(())
    }

    fn attach(&mut self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let number = request.word()?;
        let _authorization = request.word()?;
        let (_user, _tree) = (request.string()?, request.string()?);
        let uid = request.word()?;
        let node = self.share.root();
        answer.qid(self.share.qid(&node)?);
        self.insert(number, node, uid)
    }

    /// What a fid stands for.
    fn fid(&mut self, number: u32) -> Result<&mut Fid> {
        self.fids.get_mut(&number).ok_or(Errno::BADF)
    }

    fn node(&mut self, number: u32) -> Result<Arc<Node>> {
        self.fid(number).map(|fid| Arc::clone(&fid.node))
    }

    /// A folder by its fid.
    fn folder(&mut self, number: u32) -> Result<Arc<Node>> {
        let node = self.node(number)?;
        if node.is_folder() { Ok(node) } else { Err(Errno::NOTDIR) }
    }

    /// Gives a number to something. Numbers must be free, and not too many.
    fn insert(&mut self, number: u32, node: Arc<Node>, uid: u32) -> Result<()> {
        if number == spec::NO_FID || self.fids.contains_key(&number) {
            return Err(Errno::INVAL);
        }
        if self.fids.len() >= FIDS_MAX {
            return Err(Errno::MFILE);
        }
        self.fids.insert(number, Fid { node, uid, open: Open::Nothing });
        Ok(())
    }

    fn clunk(&mut self, request: &mut Reader<'_>, _answer: &mut Writer) -> Result<()> {
        let fid = self.fids.remove(&request.word()?).ok_or(Errno::BADF)?;
        let Open::NewAttribute { name, flags, bytes, value } = fid.open else { return Ok(()) };
        if value.len() != bytes {
            return Err(Errno::INVAL); // what was announced did not come
        }
        let value = (bytes > 0).then_some(&value[..]);
        self.share.set_attribute(&fid.node, &name, value, flags)
    }
}

/// The numbers of all requests, for tests.
#[cfg(test)]
pub fn kinds() -> impl Iterator<Item = u8> {
    REQUESTS.iter().map(|(kind, _)| *kind)
}
