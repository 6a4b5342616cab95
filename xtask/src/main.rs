//! Automation in Rust: `cargo xtask TASK`.

fn main() {}
