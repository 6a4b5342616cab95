//! One function for every served procedure, named as in the table of `libvirt_compat`.
//!
//! A handler gets the call's context and its decoded arguments, and returns what is encoded into
//! the reply. Where its error does not say who raised it, the procedure's name decides.

#![expect(
    clippy::needless_pass_by_value,
    reason = "arguments arrive decoded and owned; every handler has the shape of its row"
)]

mod connect;
mod events;
mod lifecycle;
mod info;
mod change;
mod statistics;
mod snapshots;
mod checkpoints;
mod consoles;
mod agent;
mod block_jobs;
mod migration;
mod pinning;
mod processors;
mod networks;
mod storage;
mod volumes;
mod secrets;
mod node;

pub use agent::*;
pub use block_jobs::*;
pub use change::*;
pub use checkpoints::*;
pub use connect::*;
pub use consoles::*;
pub use events::*;
pub use info::*;
pub use lifecycle::*;
pub use migration::*;
pub use networks::*;
pub use node::*;
pub use pinning::*;
pub use processors::*;
pub use secrets::*;
pub use snapshots::*;
pub use statistics::*;
pub use storage::*;
pub use volumes::*;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use libvirt_compat::rpc::{Header, types};
use libvirt_compat::{Code, Error, Result};
use parking_lot::Mutex;

use crate::client::Client;
use crate::domains::Domain;
use crate::streams::StreamBody;
use crate::world::{World, Worlds};

/// One call on its way through a handler.
pub struct Call {
    pub client: Arc<Client>,
    pub worlds: Arc<Worlds>,
    pub header: Header,
    /// Descriptors that came with the call, until the handler takes them.
    passed: Mutex<Vec<OwnedFd>>,
    products: Mutex<Products>,
}

/// What a handler makes besides its result.
#[derive(Default)]
struct Products {
    stream: Option<StreamBody>,
    descriptors: Vec<OwnedFd>,
}

impl Call {
    pub fn new(
        client: &Arc<Client>,
        worlds: &Arc<Worlds>,
        header: Header,
        passed: Vec<OwnedFd>,
    ) -> Self {
        Self {
            client: Arc::clone(client),
            worlds: Arc::clone(worlds),
            header,
            passed: Mutex::new(passed),
            products: Mutex::default(),
        }
    }

    /// What the client has opened.
    pub fn world(&self) -> Result<Arc<World>> {
        self.client.world()
    }

    /// The domain that the client refers to.
    pub fn domain(&self, reference: &types::Domain) -> Result<(Arc<World>, Arc<Domain>)> {
        let world = self.world()?;
        let domain = world.domains.find(reference)?;
        Ok((world, domain))
    }

    /// Opens a stream that starts once the reply is out.
    pub fn open_stream(&self, body: StreamBody) {
        self.products.lock().stream = Some(body);
    }

    /// Sends a descriptor along with the reply.
    pub fn pass(&self, descriptor: OwnedFd) {
        self.products.lock().descriptors.push(descriptor);
    }

    /// Descriptors that came with the call.
    pub fn take_passed(&self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.passed.lock())
    }

    /// The stream and the descriptors that the handler made.
    pub fn into_products(self) -> (Option<StreamBody>, Vec<OwnedFd>) {
        let products = self.products.into_inner();
        (products.stream, products.descriptors)
    }
}

/// A list and its length; the length alone when the client only wants to know that.
fn counted<T>(list: Vec<T>, need_results: i32) -> (Vec<T>, u32) {
    let count = list.len() as u32;
    (if need_results != 0 { list } else { Vec::new() }, count)
}

/// The first `maximum` of a list, for the older calls that bring a length.
fn at_most<T>(mut list: Vec<T>, maximum: i32) -> Vec<T> {
    list.truncate(usize::try_from(maximum).unwrap_or(0));
    list
}

/// Refuses flags that the call does not know, with libvirt's words.
fn check_flags(flags: u32, known: u32, function: &str) -> Result<()> {
    let unknown = flags & !known;
    if unknown == 0 {
        return Ok(());
    }
    let text = format!("unsupported flags (0x{unknown:x}) in function {function}");
    Err(Error::new(Code::InvalidArg, text))
}
