//! The keys of the instance tags by which `bootstrap` configures `instance-agent`.
//!
//! All tags are optional. Keys use only characters that EC2 allows when instance tags are published
//! in the metadata (letters, digits and `+ - = . , _ : @`); a key with a space or `/` would make the
//! launch fail.

/// The fleet an instance belongs to; `bootstrap` finds, shows and destroys by it.
pub const FLEET: &str = "instance-agent:fleet";

/// The cluster whose path (`/{cluster}`) the instance answers, a [`ClusterName`](crate::ClusterName).
pub const CLUSTER: &str = "instance-agent:cluster";

/// Names or ARNs of the target groups to register with, separated by spaces.
pub const TARGET_GROUP: &str = "instance-agent:target-group";

/// What `GET /` answers: `health` or `seed`, a [`Root`](crate::Root).
pub const ROOT: &str = "instance-agent:root";
