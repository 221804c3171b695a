//! Limits of the last resort: per process, inherited. Used for what no control
//! group of this host enforces. The soft limits are lowered while the recipe
//! is started and raised again for the supervisor itself.

use std::io;
use std::process::{Child, Command};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::attempt::Bounds;

pub(super) fn spawn(command: &mut Command, bounds: &Bounds) -> io::Result<Child> {
    // The number of processes counts per user here, which would hit other
    // builders of the same agent: that limit needs a control group.
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS)?;
    let wanted = if bounds.memory_bytes == 0 {
        soft
    } else {
        bounds.memory_bytes.min(hard)
    };
    setrlimit(Resource::RLIMIT_AS, wanted, hard)?;
    let child = command.spawn();
    setrlimit(Resource::RLIMIT_AS, soft, hard)?;
    child
}
