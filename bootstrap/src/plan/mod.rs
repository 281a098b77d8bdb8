//! What a command will do, in which order. No I/O: `plan` prints exactly what `launch` and `destroy` do.
//!
//! | file | holds |
//! | --- | --- |
//! | `inventory.rs` | what exists of a fleet |
//! | `surroundings.rs` | the account around it |
//! | `preflight.rs` | what would make a launch fail, found before anything is created |
//! | `prices.rs` | what common instance types cost |
//! | `steps.rs` | a plan: steps, what each does, what each comes after |
//! | `launch.rs` | from what exists to what is wanted |
//! | `members.rs` | which instances of a group stay, which go, which are missing |
//! | `destroy.rs` | from what exists to nothing |

pub(crate) use destroy::destroy_plan;
pub(crate) use launch::launch_plan;
pub(crate) use members::{Members, members};
pub(crate) use prices::Price;
pub(crate) use steps::{Action, Effect, Plan, Side};

mod destroy;
pub(crate) mod inventory;
mod launch;
mod members;
pub(crate) mod preflight;
mod prices;
mod steps;
pub(crate) mod surroundings;

#[cfg(test)]
mod tests;
