//! What people and programs are shown.
//!
//! | file | holds |
//! | --- | --- |
//! | `outcome.rs` | text or JSON; how a command ended |
//! | `streams.rs` | results on stdout, remarks on stderr |
//! | `board.rs` | steps and counts under way |

pub use outcome::{Outcome, Output};

pub(crate) use board::Board;
pub(crate) use streams::{print, print_error, reader_is_gone, remark, write_failure};

mod board;
mod outcome;
mod streams;
