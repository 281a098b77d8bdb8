//! What a policy is for.

use crate::fleet::Fleet;

/// What policies are aimed at.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) fleet: String,
    /// Its target groups' names.
    pub(crate) target_groups: Vec<String>,
    /// The instance profile that exists, for fleets that do not make their own.
    pub(crate) instance_profile: Option<String>,
    /// `None` is any.
    pub(crate) region: Option<String>,
    /// `None` is any.
    pub(crate) account: Option<String>,
}

impl Scope {
    /// For this fleet.
    pub(crate) fn of(fleet: &Fleet, region: Option<&str>, account: Option<&str>) -> Self {
        Self {
            fleet: fleet.name.clone(),
            target_groups: fleet.groups.iter().map(|group| fleet.target_group(group)).collect(),
            instance_profile: fleet.instance_profile.clone(),
            region: region.map(str::to_owned),
            account: account.map(str::to_owned),
        }
    }

    pub(super) fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("*")
    }

    pub(super) fn account(&self) -> &str {
        self.account.as_deref().unwrap_or("*")
    }

    /// The part of AWS that the region is in, as ARNs name it.
    pub(super) fn partition(&self) -> &'static str {
        let known = [
            ("cn-", "aws-cn"),
            ("us-gov-", "aws-us-gov"),
            ("us-iso-", "aws-iso"),
            ("us-isob-", "aws-iso-b"),
            ("eu-isoe-", "aws-iso-e"),
            ("us-isof-", "aws-iso-f"),
            ("eusc-", "aws-eusc"),
        ];
        let found = known.iter().find(|(prefix, _)| self.region().starts_with(prefix));
        found.map_or("aws", |(_, partition)| partition)
    }

    /// The ARN of something in the region.
    pub(super) fn arn(&self, service: &str, path: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{path}", self.partition(), self.region(), self.account())
    }
}
