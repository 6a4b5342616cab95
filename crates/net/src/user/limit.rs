//! How many connections the host lets us have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many descriptors as it may: each connection of a guest costs one,
/// and the customary limit of 1,024 is for programs that use `select`. Returns the limit. It is
/// for the program to call, not for each network: the limit is the process's.
pub fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // A refusal leaves what there was.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current
}
