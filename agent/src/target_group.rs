//! Target groups and target health, in ELBv2's terms.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use instance_contract::{InvalidValue, TargetHealthState};

/// How a target group is named in a tag or a setting: by its ARN or by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TargetGroupRef {
    /// `arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/cluster1/0123456789abcdef`
    Arn(String),
    /// The name, unique in an account and region.
    Name(String),
}

impl TargetGroupRef {
    /// The group's name, also where it was given as an ARN.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Arn(arn) => arn.split('/').nth(1).unwrap_or(arn),
        }
    }

    /// The region, if the group is named by its ARN.
    pub(crate) fn region(&self) -> Option<&str> {
        match self {
            Self::Name(_) => None,
            Self::Arn(arn) => arn.split(':').nth(3),
        }
    }

    /// Whether both name the same group. Names are unique in an account and region, so a name and an ARN
    /// with that name are the same group for an instance.
    pub(crate) fn is_same_group(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Arn(this), Self::Arn(other)) => this == other,
            _ => self.name() == other.name(),
        }
    }

    /// Parses names and ARNs separated by white space; the same group twice counts once.
    pub(crate) fn parse_list(text: &str) -> Result<Vec<Self>, InvalidValue> {
        let mut groups = Vec::new();
        for word in text.split_whitespace() {
            let group: Self = word.parse()?;
            if !groups.iter().any(|known: &Self| known.is_same_group(&group)) {
                groups.push(group);
            }
        }
        Ok(groups)
    }
}

impl FromStr for TargetGroupRef {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.starts_with("arn:") {
            let parts: Vec<&str> = text.splitn(6, ':').collect();
            let named = parts.get(2) == Some(&"elasticloadbalancing")
                && parts.get(5).is_some_and(|resource| {
                    let mut words = resource.split('/');
                    words.next() == Some("targetgroup")
                        && words.next().is_some_and(is_name)
                        && words.next().is_some_and(|id| !id.is_empty())
                        && words.next().is_none()
                });
            return if named {
                Ok(Self::Arn(text.to_owned()))
            } else {
                Err(InvalidValue {
                    found: text.to_owned(),
                    expected: "an ARN of the form arn:PARTITION:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID",
                })
            };
        }
        if is_name(text) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(InvalidValue {
                found: text.to_owned(),
                expected: "target group names (1 to 32 letters, digits and hyphens) or ARNs, separated by spaces",
            })
        }
    }
}

impl fmt::Display for TargetGroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arn(text) | Self::Name(text) => f.write_str(text),
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A target group, from `DescribeTargetGroups`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetGroup {
    pub(crate) arn: String,
    pub(crate) target_type: TargetType,
    /// How often a balancer node checks a target; `None` when health checks are off.
    pub(crate) check_interval: Option<Duration>,
}

/// The target types that an instance can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetType {
    /// An instance id.
    Instance,
    /// An IP address: the instance's primary private IPv4.
    Ip,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The instance id or the IP address.
    pub(crate) id: String,
    /// The port that the load balancer sends to. Deregistering with another port does nothing.
    pub(crate) port: u16,
}

/// A target's health as `DescribeTargetHealth` answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetHealth {
    /// The state.
    pub(crate) state: TargetHealthState,
    /// The reason code, such as `Target.ResponseCodeMismatch`; absent when healthy.
    pub(crate) reason: Option<String>,
    /// The balancer's own sentence about the reason.
    pub(crate) description: Option<String>,
}

impl TargetHealth {
    /// A state without reason or description.
    pub(crate) fn bare(state: TargetHealthState) -> Self {
        Self { state, reason: None, description: None }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.state == TargetHealthState::Healthy
    }

    /// Receives traffic: its health checks pass or are off.
    pub(crate) fn receives_traffic(&self) -> bool {
        matches!(self.state, TargetHealthState::Healthy | TargetHealthState::Unavailable)
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.state, TargetHealthState::Draining | TargetHealthState::UnhealthyDraining)
    }

    pub(crate) fn is_not_registered(&self) -> bool {
        self.reason.as_deref() == Some("Target.NotRegistered")
    }

    /// Registered, and not leaving.
    pub(crate) fn is_registered(&self) -> bool {
        !self.is_not_registered() && !self.is_draining()
    }

    /// What to do about the reason, in one sentence. `was_healthy`: the target was healthy at some time since it was
    /// registered, so the way to it is open.
    pub(crate) fn cure(&self, was_healthy: bool) -> Option<&'static str> {
        Some(match self.reason.as_deref()? {
            "Target.ResponseCodeMismatch" => {
                "request the group's health check path on this instance (`curl -i`), and correct the path or the group's matcher"
            }
            "Target.Timeout" if was_healthy => {
                "the target was healthy before: check the instance's load, its security group and its route"
            }
            "Target.Timeout" => {
                "allow the load balancer's security group to reach this instance on the registered port"
            }
            "Target.FailedHealthChecks" => {
                "check that the agent listens on the registered port and that the security groups admit the load balancer"
            }
            "Target.NotInUse" => {
                "forward a listener or rule to the target group, or enable this availability zone on the load balancer"
            }
            "Target.InvalidState" => "start the instance: the load balancer sees it as stopped",
            "Target.IpUnusable" => "the address is in use by a load balancer; register another",
            "Target.HealthCheckDisabled" => "enable health checks on the target group",
            "Elb.InternalError" => "fault inside the load balancer: the agent asks again",
            _ => return None,
        })
    }
}

impl fmt::Display for TargetHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state)?;
        match (&self.reason, &self.description) {
            (Some(reason), Some(description)) => write!(f, " ({reason}: {description})"),
            (Some(reason), None) => write!(f, " ({reason})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const ARN: &str =
        "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/cluster1/73e2d6bc24d8a067";

    #[test]
    fn a_list_holds_names_and_arns_in_any_white_space_each_once() {
        let groups = TargetGroupRef::parse_list(&format!("  other {ARN}\tother\n")).unwrap();
        assert_eq!(groups, [TargetGroupRef::Name("other".into()), TargetGroupRef::Arn(ARN.into())]);
        assert_eq!((groups[1].name(), groups[1].region()), ("cluster1", Some("us-east-1")));
        let twice = TargetGroupRef::parse_list(&format!("cluster1 {ARN}")).unwrap();
        assert_eq!(twice, [TargetGroupRef::Name("cluster1".into())], "by name and by ARN");
        let recreated = ARN.replace("73e2d6bc24d8a067", "0123456789abcdef");
        assert!(!groups[1].is_same_group(&TargetGroupRef::Arn(recreated)));
        assert_eq!(TargetGroupRef::parse_list("  ").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_a_group_is_refused_with_the_right_form() {
        for bad in [
            "a_b",
            "-a",
            "a-",
            "abcdefghijklmnopqrstuvwxyz0123456",
            "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/app/x/1",
            "arn:aws:ec2:us-east-1:1:targetgroup/x/1",
            "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/x",
        ] {
            let error = bad.parse::<TargetGroupRef>().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn registered_means_neither_unknown_nor_leaving() {
        let not_registered = TargetHealth {
            reason: Some("Target.NotRegistered".into()),
            ..TargetHealth::bare(TargetHealthState::Unused)
        };
        let not_in_use = TargetHealth {
            reason: Some("Target.NotInUse".into()),
            ..TargetHealth::bare(TargetHealthState::Unused)
        };
        assert!(!not_registered.is_registered());
        assert!(not_in_use.is_registered(), "an unused group's member is a member");
        assert!(!TargetHealth::bare(TargetHealthState::Draining).is_registered());
        assert!(TargetHealth::bare(TargetHealthState::Unhealthy).is_registered());
        assert!(not_in_use.cure(false).unwrap().contains("listener"));
    }
}
