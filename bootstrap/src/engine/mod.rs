//! From a request to a plan, and carrying it out.
//!
//! | file | holds |
//! | --- | --- |
//! | `prepare.rs` | looking at the account, comparing, refusing what would fail |
//! | `prepare_destroy.rs` | the same for a fleet that is to go |
//! | `problems.rs` | what would make a launch fail |
//! | `growth.rs` | how many instances are more than was agreed to |
//! | `execute.rs` | each step as soon as those it comes after are done |
//! | `actions.rs` | one step: from an action to calls |
//! | `other_commands.rs` | what other commands do to the fleet in the meantime |
//! | `health.rs` | waiting until instances are healthy, or cannot become so |
//! | `interrupt.rs` | being asked to stop |

pub(crate) mod actions;
pub(crate) mod execute;
mod growth;
pub(crate) mod health;
pub(crate) mod interrupt;
mod other_commands;
pub(crate) mod prepare;
pub(crate) mod prepare_destroy;
mod problems;
