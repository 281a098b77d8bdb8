//! The whole-program tests of `make e2e`, a module for each subject: whatever needs packages, machines that
//! boot or real root, and the whole of each sweep.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod apt_repository;
mod auto_scaling;
mod bed;
mod install;
mod machine;
mod package;
mod sandbox;
mod service;
mod story;
mod sweeps;
mod upgrade;
mod user_data;
mod users;
mod virtual_machine;
