//! The tests' own AWS is as strict as AWS: each rule that the front adds to moto, tried by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod balancing;
mod front;
mod instances;
mod place;
mod policies;
mod visibility;
