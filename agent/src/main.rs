//! The agent on the instance.
#![allow(dead_code, reason = "rooms land one after another")]
mod seed;
mod server;
mod serving;
fn main() {}
