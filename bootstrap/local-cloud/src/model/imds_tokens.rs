//! The session tokens of a metadata service.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ids::random_hex;

/// Session tokens that are kept; a client that fetches more loses its oldest.
const MAX_TOKENS: usize = 1024;

/// The session tokens of one instance that are still accepted, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct SessionTokens(Mutex<VecDeque<(String, Instant)>>);

impl SessionTokens {
    /// A new token that is accepted for `ttl` seconds.
    pub(crate) fn issue(&self, ttl: u64) -> String {
        let token = format!("AQAEA{}==", random_hex(48));
        let now = Instant::now();
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|(_, expires)| *expires > now);
        if tokens.len() == MAX_TOKENS {
            tokens.pop_front();
        }
        tokens.push_back((token.clone(), now + Duration::from_secs(ttl)));
        token
    }

    /// The seconds that a token has left; `None` if it is not accepted.
    pub(crate) fn remaining(&self, token: &str) -> Option<u64> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, expires) = tokens.iter().find(|(issued, _)| issued == token)?;
        let left = expires.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left.as_secs())
    }
}
