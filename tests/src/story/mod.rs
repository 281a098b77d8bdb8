//! The whole story, with nothing of ours played that someone else has written: moto is AWS's control
//! plane, booted Debians are the instances, haproxy is the balancer, awscli is the witness.
//!
//! A fleet is launched from a package, lives through a day under load without one failed request, and
//! is destroyed: with the nine machines of `clusters`, and in less time with three.

use std::time::Duration;

pub use day::{Day, Times};

mod day;
pub mod flask;

/// Why nobody but root can tell it.
pub const WHY: &str = "only root can boot a machine";

/// Three machines whose balancer makes up its mind faster than `clusters`' does.
pub const TRIO: &str = r#"
name = "trio"
region = "us-east-1"
image = "ami-08c40ec9ead489470"
zones = ["us-east-1a", "us-east-1b"]
deregistration-delay = "30s"

[health-check]
path = "/"
interval = "5s"
timeout = "2s"
healthy = 2
unhealthy = 2

[[group]]
name = "cluster1"
type = "m4.large"
count = 2

[[group]]
name = "cluster2"
type = "t2.large"
count = 1
"#;

/// What its things may take.
pub const QUICK: Times = Times {
    boot: Duration::from_secs(300),
    settle: Duration::from_secs(300),
    lasts: Duration::from_secs(15),
};

/// As AWS is by default.
pub const USUAL: Times = Times {
    boot: Duration::from_secs(300),
    settle: Duration::from_secs(420),
    lasts: Duration::from_secs(60),
};

/// A day, from the launch to a power cut.
pub async fn live(day: &mut Day) {
    day.launch().await;
    day.is_what_was_asked_for().await;
    day.steps_of_the_boots().await;

    day.load_begins().await;
    day.rolling_upgrade().await;
    day.scale_up_and_down().await;
    day.one_is_stopped_and_started().await;
    day.a_spot_instance_is_interrupted().await;
    day.a_rebalance_is_recommended().await;
    day.auto_scaling_says_terminated().await;
    day.someone_deregisters_one_by_hand().await;
    day.metadata_are_gone().await;
    day.the_api_is_throttled().await;
    day.load_ends_without_a_failure().await;

    day.power_is_cut().await;
}
