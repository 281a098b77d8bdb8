//! The seed: the stored integer, in a file that survives power cuts.
//!
//! `number` and `slot` are pure; `disk` has the file operations that durability depends on; `file` keeps the
//! guarantees; `store` runs it in one writer thread; `error` has the errors. `docs/seed-format.md` describes
//! the file format and the guarantees.

mod disk;
mod error;
mod file;
mod number;
mod slot;
mod store;

pub(crate) use error::SetError;
pub use error::{SeedInUse, SeedUnreadable};
pub(crate) use number::Seed;
pub(crate) use store::SeedReader;
pub use store::SeedStore;
