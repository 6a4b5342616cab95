//! Black-box tests: the real executable, real peers.

mod executable;
mod machine;
mod arm64;
mod linux_user;
mod images;
mod daemon;
