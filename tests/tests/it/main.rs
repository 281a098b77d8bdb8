//! The whole-program tests, one module for each subject, in one program: all that they link, the AWS
//! SDKs among it, is linked once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod account;
mod adversity;
mod apt_repository;
mod auto_scaling;
mod bed;
mod calls;
mod changes;
mod cli;
mod delivery;
mod http;
mod install;
mod interrupted;
mod journal;
mod launch;
mod local_fleet;
mod machine;
mod moto;
mod newcomer;
mod package;
mod policies;
mod registration;
mod reload;
mod reload_fleet;
mod sandbox;
mod seed;
mod service;
mod story;
mod together;
mod traffic;
mod upgrade;
mod user_data;
mod verify;
