//! What the resources of a fleet are called.

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

    /// The command that launches the fleet, as far as its name tells: what is in its file, if it has one, is not known.
    pub(crate) fn launch_command(&self) -> String {
        let Self { fleet, region } = self;
        match super::Fleet::built_in(fleet) {
            Some(_) => format!("`bootstrap launch {fleet} --region {region}`"),
            None => format!("`bootstrap launch FILE --region {region}`, with the fleet's file,"),
        }
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

    /// The bucket that holds the package, unique in the world as an account's number is. With the longest
    /// name of a fleet and of a region it has the 63 characters that S3 takes.
    pub(crate) fn bucket(&self, account: &str) -> String {
        format!("instance-agent-{}-{account}-{}", self.fleet, self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buckets_name_fits_with_the_longest_fleet_and_region() {
        let name = Names::new(&"f".repeat(20), "ap-northeast-1").bucket("123456789012");
        assert_eq!(name.len(), 63);
        assert_eq!(
            Names::new("clusters", "us-east-1").bucket("123456789012"),
            "instance-agent-clusters-123456789012-us-east-1"
        );
    }
}
