//! Why the seed cannot be opened, read or stored.

use std::io;

/// Writes that may wait for the disk at a time; one more is answered [`SetError::Busy`].
pub(super) const QUEUE: usize = 1_024;

/// Another process holds the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the seed in {path} is in use by {}: stop it or choose another --state-dir", owner(*pid))]
pub(crate) struct SeedInUse {
    /// The state folder.
    pub(crate) path: String,
    /// The owner's process id, if its lock file tells.
    pub(crate) pid: Option<u32>,
}

/// Names the process that holds the lock.
pub(super) fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Why the seed cannot be shown, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the seed: {reason}")]
pub(crate) struct SeedUnreadable {
    /// What is wrong and what to do.
    pub(crate) reason: String,
}

/// Why a seed was not stored, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SetError {
    /// There is no file yet and the disk has no room for one.
    #[error("the seed was not stored: the disk is full; free some space and send it again")]
    NoSpace,
    /// A file operation failed; the value before it stays.
    #[error("the seed was not stored: {reason}; the previous value stays")]
    Failed {
        /// The operation and its error.
        reason: String,
    },
    /// Too many writes wait for the disk.
    #[error("the seed was not stored: {QUEUE} writes already wait for the disk; send it again later")]
    Busy,
}

/// Tells a full disk from other failures.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
