//! The package as a service of a booted Debian.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed unwrap is a failed test")]

use tests::debian::{package, root};
use tests::service::ServiceBed;
use tests::solo::is_root_or_skip;

#[tokio::test]
async fn installed_it_registers_and_serves() {
    if !is_root_or_skip("only root can boot a machine") {
        return;
    }
    let bed = ServiceBed::serving(&root("bookworm").await, &package("instance-agent")).await;
    assert_eq!(bed.stored().await, "0");
}
