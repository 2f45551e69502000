//! The descriptors that this process may have open.
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of descriptors of this process to its maximum, because each
/// connection needs one. Returns the limit.
///
/// # Errors
///
/// When the system refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}
