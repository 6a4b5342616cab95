//! Black-box tests: the real executable, real peers.

mod executable;
mod machine;
mod accelerators;
mod arm64;
mod linux_user;
mod riscv;
mod screen;
mod images;
mod block_jobs;
mod iotests;
mod killed;
mod daemon;
mod launch;
mod monitor;
mod pc;
