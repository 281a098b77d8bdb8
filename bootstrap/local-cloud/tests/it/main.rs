//! The local cloud, driven with raw requests: it has to be as strict as AWS where it matters.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod api;
mod balancer;
mod metadata;
mod support;
mod targets;
