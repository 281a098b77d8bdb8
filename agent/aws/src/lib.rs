//! How `instance-agent` and `bootstrap` call AWS and the instance metadata service.
//!
//! | item | does |
//! | --- | --- |
//! | [`http_client`] | the one HTTP client that all SDK clients of a program share: TLS, proxies, complete answers only |
//! | [`nameless`] | the text for an error status without an AWS error code |
//! | [`region_from_environment`] | the region that the environment or a profile names |
//! | [`Checked`] | refuses credentials with invalid characters |
//!
//! The crate only makes sure that an answer is complete; the programs interpret it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "in a test a panic is the report"))]
#![forbid(unsafe_code)]

mod answer;
mod credentials;
mod http_client;
mod region;

pub use answer::{NoAnswer, nameless};
pub use credentials::Checked;
pub use http_client::{has_certificates, http_client};
pub use region::region_from_environment;
