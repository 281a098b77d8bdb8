//! A whole fleet on this machine: a local cloud, and a process of the real agent for each instance.

mod agents;
mod fleet;
mod running;

pub use agents::{AgentCommand, AgentProcess};
pub(crate) use fleet::{LocalFleet, LocalOptions, Member};
pub(crate) use running::{RunningMark, running_local};
