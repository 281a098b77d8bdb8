//! Everything that exists in the cloud, and its clock. Nothing here does I/O or starts a task.

pub(crate) mod groups;
pub(crate) mod ids;
pub(crate) mod routing;
pub(crate) mod throttle;
pub(crate) mod tokens;
