//! What moto knows of instances.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::account::{Account, Element};

/// What Auto Scaling tags its instances with.
pub(super) const AUTO_SCALING_GROUP: &str = "aws:autoscaling:groupName";

/// An instance, as `DescribeInstances` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// `running`, `stopped`, `terminated`, ...
    pub state: String,
    /// Its type.
    pub kind: String,
    /// Its image.
    pub image: String,
    /// Its availability zone.
    pub zone: String,
    /// The VPC it is in.
    pub vpc: String,
    /// Its private address.
    pub private: Option<Ipv4Addr>,
    /// Its public address.
    pub public: Option<Ipv4Addr>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Whether its metadata has its tags.
    pub publishes_tags: bool,
    /// The name of its instance profile; empty if it has none.
    pub profile: String,
}

impl Instance {
    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.get(key).map(String::as_str)
    }

    /// Whether its machine should be on.
    pub(super) fn is_on(&self) -> bool {
        ["pending", "running"].contains(&self.state.as_str())
    }

    /// Its cluster, by its tag.
    pub fn cluster(&self) -> &str {
        self.tag(instance_contract::tags::CLUSTER).unwrap_or_default()
    }
}

/// Every instance of the account.
pub(super) async fn look(account: &Account) -> Vec<Instance> {
    let found = account.ask("ec2", "DescribeInstances", &[]).await.xml();
    let reservations = found.list("reservationSet").iter();
    let items = reservations.flat_map(|reservation| reservation.list("instancesSet"));
    let mut instances = Vec::new();
    for item in items {
        let mut instance = read(account, item).await;
        if let Some(group) = instance.tag(AUTO_SCALING_GROUP).map(str::to_owned) {
            by_template(account, &mut instance, &group).await;
        }
        instances.push(instance);
    }
    instances
}

/// What its Auto Scaling group's launch template says, and moto does not apply: it may have been
/// deleted, which the instance outlives.
async fn by_template(account: &Account, instance: &mut Instance, group: &str) {
    let asked = [("AutoScalingGroupNames.member.1", group)];
    let found = account.ask("autoscaling", "DescribeAutoScalingGroups", &asked).await.xml();
    let groups = found.list("DescribeAutoScalingGroupsResult/AutoScalingGroups");
    let Some(template) = groups.first().map(|group| group.say("LaunchTemplate/LaunchTemplateId")) else {
        return;
    };
    let asked = [("LaunchTemplateId", template), ("LaunchTemplateVersion.1", "$Latest")];
    let found = account.ask("ec2", "DescribeLaunchTemplateVersions", &asked).await.xml();
    let Some(data) =
        found.list("launchTemplateVersionSet").first().and_then(|found| found.at("launchTemplateData"))
    else {
        return;
    };
    instance.profile = data.say("iamInstanceProfile/name").to_owned();
    instance.publishes_tags = data.say("metadataOptions/instanceMetadataTags") == "enabled";
}

async fn read(account: &Account, item: &Element) -> Instance {
    let id = item.say("instanceId").to_owned();
    let profile = item.say("iamInstanceProfile/arn");
    let profile = profile.rsplit_once('/').map(|(_, name)| name.to_owned());
    // moto gives a launch's profile to the first instance alone.
    let profile = match profile {
        Some(name) => name,
        None => account.profile_of(&id).await,
    };
    Instance {
        state: item.say("instanceState/name").to_owned(),
        kind: item.say("instanceType").to_owned(),
        image: item.say("imageId").to_owned(),
        zone: item.say("placement/availabilityZone").to_owned(),
        vpc: item.say("vpcId").to_owned(),
        private: item.say("privateIpAddress").parse().ok(),
        public: item.say("ipAddress").parse().ok(),
        tags: item.tags("tagSet").into_iter().collect(),
        publishes_tags: item.say("metadataOptions/instanceMetadataTags") == "enabled",
        profile,
        id,
    }
}
