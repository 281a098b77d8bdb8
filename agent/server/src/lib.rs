//! The part of `instance-agent` that clients meet: the HTTP server and the seed, and the small values that they share with
//! the rest of the agent.
//!
//! | item | holds |
//! | --- | --- |
//! | [`server`] | the HTTP server |
//! | [`seed`] | the stored integer, and how it survives a power cut |
//! | [`answers`], [`limits`] | what the rest of the agent tells the server |
//! | [`traffic`] | what the server counts |
//! | [`events`], [`repeat_filter`] | message ids, and the filter for repeated messages, of the whole agent |
//!
//! A crate of its own, because it is compiled for speed: generic code of hyper and tokio is compiled in the crate that uses
//! it, with that crate's settings. The rest of the agent calls AWS and is compiled for size.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]

pub mod answers;
pub mod events;
pub mod limits;
pub mod repeat_filter;
pub mod seed;
pub mod server;
pub mod traffic;
