//! The instance metadata service, version 2.

pub(crate) mod leaves;
pub(crate) mod service;
