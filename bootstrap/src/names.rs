//! What the resources of a fleet are called.

use crate::cloud::package::bucket_name;

/// The names that follow from a fleet's name and region.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The fleet's.
    pub(crate) fleet: String,
    /// The region's.
    pub(crate) region: String,
}

impl Names {
    /// For a fleet of this name.
    pub(crate) fn new(fleet: &str, region: &str) -> Self {
        Self { fleet: fleet.to_owned(), region: region.to_owned() }
    }

    /// The load balancer.
    pub(crate) fn balancer(&self) -> String {
        self.fleet.clone()
    }

    /// The balancer's security group.
    pub(crate) fn balancer_group(&self) -> String {
        format!("{}-balancer", self.fleet)
    }

    /// The instances' security group.
    pub(crate) fn instances_group(&self) -> String {
        format!("{}-instances", self.fleet)
    }

    /// A group's target group.
    pub(crate) fn target_group(&self, group: &str) -> String {
        format!("{}-{group}", self.fleet)
    }

    /// The instances' role and instance profile. IAM knows no regions, so the name has it.
    pub(crate) fn role(&self) -> String {
        format!("instance-agent-{}-{}", self.fleet, self.region)
    }

    /// The bucket that holds the package.
    pub(crate) fn bucket(&self, account: &str) -> String {
        bucket_name(&self.fleet, account, &self.region)
    }
}
