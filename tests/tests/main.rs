//! Black-box tests: the real executable, real peers.

mod executable;
mod machine;
mod accelerators;
mod instructions;
mod arm64;
mod linux_user;
mod riscv;
mod screen;
mod images;
mod block_jobs;
mod iotests;
mod killed;
mod daemon;
mod clients;
mod friendly;
mod launch;
mod user;
mod virsh;
mod answers;
mod monitor;
mod pc;
mod outside;
mod reach;
