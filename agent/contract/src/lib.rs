//! What `instance-agent` and `bootstrap` agree on, defined once.
//!
//! | item | defines |
//! | --- | --- |
//! | [`tags`] | the keys of the instance tags by which `bootstrap` configures the agent |
//! | [`ClusterName`] | the names of clusters, and the paths that no cluster may take |
//! | [`Root`] | the meaning of `GET /`, as tag, setting and key of a fleet file |
//! | [`TargetHealthState`] | the target health states of Elastic Load Balancing |
//! | [`duration`] | the grammar of durations in flags, environment, files and stored definitions |
//! | [`one_line`], [`plain_lines`] | the filter that text from outside passes before it is shown |
//! | [`Failure`], [`innermost`] | why a request got no answer |
//! | [`nearest`] | the known key that a misspelt one probably means |
//! | [`InvalidValue`] | the error of everything here that parses |
//!
//! The crate is pure: no I/O, no clock, no state. Code that only one program needs belongs to that program.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]
#![forbid(unsafe_code)]

mod cluster_name;
pub mod duration;
mod failure;
mod invalid_value;
mod nearest_key;
mod one_line;
mod root;
pub mod tags;
mod target_health;

pub use cluster_name::ClusterName;
pub use failure::{Failure, innermost};
pub use invalid_value::InvalidValue;
pub use nearest_key::nearest;
pub use one_line::{is_plain, one_line, plain_lines};
pub use root::Root;
pub use target_health::TargetHealthState;
