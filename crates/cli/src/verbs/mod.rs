//! The verbs, a file each family.

pub mod exec;
pub mod images;
pub mod info;
pub mod launch;
pub mod lifecycle;
pub mod list;
pub mod logs;
pub mod port;
pub mod transfer;
