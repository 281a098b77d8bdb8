//! Output for people and for programs.
//!
//! | file | holds |
//! | --- | --- |
//! | `outcome.rs` | text or JSON; how a command ended |
//! | `streams.rs` | results on stdout, remarks on stderr |
//! | `terminal.rs` | text for a terminal: broken between words, short lists |
//! | `table.rs` | tables, as wide as the terminal |
//! | `board.rs` | steps and counts under way |
//! | `wait.rs` | what a look waits for |

pub use outcome::{Outcome, Output, WrongUsage};
pub use streams::remark;

pub(crate) use board::Board;
pub(crate) use streams::{
    Screen, print, print_error, print_json, print_verbatim, prompt, reader_is_gone, write_failure,
};
pub(crate) use table::Table;
pub(crate) use terminal::size as terminal_size;
pub(crate) use wait::WaitLine;

mod board;
mod outcome;
mod streams;
mod table;
mod terminal;
mod wait;
