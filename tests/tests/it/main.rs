//! The whole-program tests of `make test`, a module for each subject: whatever needs neither packages nor
//! machines that boot nor real root, and a short pass of each sweep. One program, so that the AWS SDKs
//! are linked once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod account;
mod adversity;
mod bench;
mod cached;
mod calls;
mod carried;
mod changes;
mod cli;
mod consent;
mod delivery;
mod hostile;
mod http;
mod interrupted;
mod journal;
mod launch;
mod lied_to;
mod list;
mod local_fleet;
mod moto;
mod newcomer;
mod operator;
mod policies;
mod registration;
mod release;
mod reload;
mod reload_fleet;
mod seed;
mod ssh;
mod terminal;
mod together;
mod traffic;
mod unanswered;
mod verify;
