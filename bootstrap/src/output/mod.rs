//! What people and programs are shown.
//!
//! | file | holds |
//! | --- | --- |
//! | `outcome.rs` | text or JSON; how a command ended |
//! | `streams.rs` | results on stdout, remarks on stderr |
//! | `board.rs` | steps and counts under way |

pub use outcome::{Outcome, Output, WrongUsage};
pub use streams::remark;

pub(crate) use board::Board;
pub(crate) use streams::{print, print_error, print_json, prompt, reader_is_gone, write_failure};

mod board;
mod outcome;
mod streams;
