//! The tag contract: the instance tags by which `bootstrap` tells `instance-agent` what to be.
//!
//! Both programs take the keys from here and nowhere else. All tags are optional. Keys use only
//! characters that EC2 allows when instance tags are published in the metadata (letters, digits
//! and `+ - = . , _ : @`); a key with a space or `/` would make the launch fail.

/// The fleet an instance belongs to; `bootstrap` finds, shows and destroys by it.
pub const FLEET: &str = "instance-agent:fleet";

/// The cluster whose path (`/{cluster}`) the instance answers.
pub const CLUSTER: &str = "instance-agent:cluster";

/// Names or ARNs of the target groups to register with, separated by spaces.
pub const TARGET_GROUP: &str = "instance-agent:target-group";

/// What `GET /` answers: `health` or `seed`.
pub const ROOT: &str = "instance-agent:root";
