//! The benchmarks: one row each.

use super::Row;

pub const ROWS: &[Row] = &[Row {
    name: "version",
    needs: &["target/release/hostel"],
    ours: "target/release/hostel --version",
    theirs: "/bin/true --version",
    expect: "",
}];
