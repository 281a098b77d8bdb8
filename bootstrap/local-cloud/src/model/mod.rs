//! Everything that exists in the cloud, and its clock. Nothing here does I/O or starts a task.

pub(crate) mod balancers;
pub(crate) mod faults;
pub(crate) mod ids;
pub(crate) mod imds_tokens;
pub(crate) mod instances;
pub(crate) mod options;
pub(crate) mod routing;
pub(crate) mod state;
pub(crate) mod target_groups;
pub(crate) mod throttle;
