//! How a command's result is written, and how a command ended.

use clap::ValueEnum;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The command line is wrong or incomplete. Nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);

/// How a command ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or nothing to do.
    Done,
    /// The fleet did not become healthy in time.
    NotHealthy,
    /// A check failed; the result says which.
    Failed,
    /// A program that was run for the user ended with this status.
    Exits(u8),
}
