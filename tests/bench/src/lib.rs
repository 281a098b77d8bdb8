//! What the client and the bare servers share: the answer that every server gives.

/// The body of each server's answer on `/cluster1`: as long as the agent's with an instance id of AWS.
pub const BODY: &str = "Instance i-0123456789abcdef0 is responding now!";
