//! The outside world: shared folders, agents, networks, each with the programs that people use.

mod agent;
mod browser;
mod guest;
mod measures;
mod networks;
mod samba;
pub mod screens;
mod shares;
mod sound;
