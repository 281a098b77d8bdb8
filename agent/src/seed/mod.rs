//! The seed: the stored integer, and the file that keeps it over a power cut.
//!
//! `number` and `slot` are pure; `disk` is the few file operations the store's promises rest on;
//! `file` keeps the promises; `store` drives it from one writer thread; `error` says what failed. The file
//! format is described in `docs/seed-format.md`.

mod disk;
mod error;
mod file;
mod number;
mod slot;
mod store;

pub(crate) use error::{SeedInUse, SetError};
pub(crate) use number::Seed;
pub(crate) use store::{SeedReader, SeedStore};
