//! The launcher, as a library for its own binary and for the tests.

pub mod local;
