//! The long tests, of `make e2e`: a program of their own, so that `make test` does not count them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

mod nine_machines;
mod virtual_machine;
