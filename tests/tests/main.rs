//! Black-box tests: the real executable, real peers.

mod executable;
mod machine;
mod accelerators;
mod arm64;
mod linux_user;
mod screen;
mod images;
mod daemon;
mod clients;
mod friendly;
mod launch;
mod user;
mod monitor;
