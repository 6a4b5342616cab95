//! Black-box tests: the real executable, real peers.

mod executable;
mod machine;
mod accelerators;
mod arm64;
mod linux_user;
mod riscv;
mod screen;
mod images;
mod daemon;
mod launch;
mod monitor;
mod pc;
