//! The names of a fleet's resources.

/// The names of the resources, made of the fleet's name and region.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The fleet's name.
    pub(crate) fleet: String,
    /// The region's name.
    pub(crate) region: String,
}

impl Names {
    pub(crate) fn new(fleet: &str, region: &str) -> Self {
        Self { fleet: fleet.to_owned(), region: region.to_owned() }
    }

    /// The command that launches the fleet. The name tells a built-in fleet from a fleet file, but not the file's path.
    pub(crate) fn launch_command(&self) -> String {
        let Self { fleet, region } = self;
        match super::Fleet::built_in(fleet) {
            Some(_) => format!("`bootstrap launch {fleet} --region {region}`"),
            None => format!("`bootstrap launch FILE --region {region}`, with the fleet's file,"),
        }
    }

    /// The name of the load balancer.
    pub(crate) fn balancer(&self) -> String {
        self.fleet.clone()
    }

    /// The name of the load balancer's security group.
    pub(crate) fn balancer_group(&self) -> String {
        format!("{}-balancer", self.fleet)
    }

    /// The name of the instances' security group.
    pub(crate) fn instances_group(&self) -> String {
        format!("{}-instances", self.fleet)
    }

    /// The name of a group's target group.
    pub(crate) fn target_group(&self, group: &str) -> String {
        format!("{}-{group}", self.fleet)
    }

    /// The name of the instances' role and instance profile. IAM has no regions, so the name contains the region.
    pub(crate) fn role(&self) -> String {
        format!("instance-agent-{}-{}", self.fleet, self.region)
    }

    /// The name of the bucket that holds the package. The account's number makes it unique among all buckets of AWS.
    /// With the longest names of a fleet and a region it has 63 characters, the most that S3 takes.
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
