//! Target health states of Elastic Load Balancing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a target in one target group, as `DescribeTargetHealth` answers it in
/// `TargetHealth.State`.
///
/// AWS may add states. A state that is not listed here becomes [`Unknown`](Self::Unknown) and is shown as
/// AWS sent it:
///
/// ```
/// use instance_contract::TargetHealthState;
///
/// assert_eq!(TargetHealthState::from("healthy"), TargetHealthState::Healthy);
/// let later = TargetHealthState::from("resting");
/// assert_eq!(later, TargetHealthState::Unknown("resting".to_owned()));
/// assert_eq!(later.to_string(), "resting");
/// ```
///
/// Source: `TargetHealthStateEnum` of the API version 2015-12-01.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TargetHealthState {
    /// `initial`: being registered, or in its first health checks.
    Initial,
    /// `healthy`: passes its health checks.
    Healthy,
    /// `unhealthy`: fails its health checks, or did not answer the first ones.
    Unhealthy,
    /// `unused`: not registered, the group is not used by a listener, the target's zone is not
    /// enabled, or the target is stopped or terminated.
    Unused,
    /// `draining`: deregistered; requests in flight may finish until the deregistration delay is over.
    Draining,
    /// `unhealthy.draining`: unhealthy, but its connections may finish. Network Load Balancers only.
    UnhealthyDraining,
    /// `unavailable`: the group has no health checks.
    Unavailable,
    /// Any other state, never one of those above: build values with [`From`].
    Unknown(String),
}

impl TargetHealthState {
    /// The word as AWS writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unused => "unused",
            Self::Draining => "draining",
            Self::UnhealthyDraining => "unhealthy.draining",
            Self::Unavailable => "unavailable",
            Self::Unknown(word) => word,
        }
    }

    fn known(word: &str) -> Option<Self> {
        Some(match word {
            "initial" => Self::Initial,
            "healthy" => Self::Healthy,
            "unhealthy" => Self::Unhealthy,
            "unused" => Self::Unused,
            "draining" => Self::Draining,
            "unhealthy.draining" => Self::UnhealthyDraining,
            "unavailable" => Self::Unavailable,
            _ => return None,
        })
    }
}

impl From<&str> for TargetHealthState {
    fn from(word: &str) -> Self {
        Self::known(word).unwrap_or_else(|| Self::Unknown(word.to_owned()))
    }
}

impl From<String> for TargetHealthState {
    fn from(word: String) -> Self {
        Self::known(&word).unwrap_or(Self::Unknown(word))
    }
}

impl From<TargetHealthState> for String {
    fn from(state: TargetHealthState) -> Self {
        match state {
            TargetHealthState::Unknown(word) => word,
            known => known.as_str().to_owned(),
        }
    }
}

impl fmt::Display for TargetHealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_aws_is_a_state_and_any_other_is_kept_as_it_is() {
        use TargetHealthState::*;
        for (word, state) in [
            ("initial", Initial),
            ("healthy", Healthy),
            ("unhealthy", Unhealthy),
            ("unused", Unused),
            ("draining", Draining),
            ("unhealthy.draining", UnhealthyDraining),
            ("unavailable", Unavailable),
            ("Healthy", Unknown("Healthy".to_owned())),
            ("resting", Unknown("resting".to_owned())),
            ("", Unknown(String::new())),
        ] {
            assert_eq!(TargetHealthState::from(word), state);
            assert_eq!(TargetHealthState::from(word.to_owned()), state);
            assert_eq!((state.as_str(), state.to_string().as_str()), (word, word));
            let json = format!("\"{word}\"");
            assert_eq!(serde_json::to_string(&state).unwrap(), json);
            assert_eq!(serde_json::from_str::<TargetHealthState>(&json).unwrap(), state);
        }
        assert_eq!(format!("{Healthy:>8}"), " healthy");
    }
}
