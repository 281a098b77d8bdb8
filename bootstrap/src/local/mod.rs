//! A whole fleet on this machine: a local cloud, and a process of the real agent for each instance.

mod agents;
mod fleet;

pub use agents::{AgentCommand, AgentProcess};
pub(crate) use fleet::{LocalFleet, LocalOptions};
