//! Black-box tests: the real executable, real peers.

mod executable;
mod daemon;
