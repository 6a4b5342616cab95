//! The verbs, a file each family.

pub mod alias;
pub mod clone;
pub mod console;
pub mod events;
pub mod exec;
pub mod forward;
pub mod image;
pub mod info;
pub mod launch;
pub mod lifecycle;
pub mod list;
pub mod logs;
pub mod mount;
pub mod networks;
pub mod port;
pub mod proxy;
pub mod serving;
pub mod settings;
pub mod snapshot;
pub mod top;
pub mod transfer;
pub mod view;
