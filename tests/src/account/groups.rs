//! Security groups as AWS keeps them: invisible at first, and there for as long as anything uses them.

use std::collections::HashMap;

use super::answer::{Answer, AwsError};
use super::request::Request;
use super::state::State;

/// What the front knows of security groups beyond moto.
#[derive(Default)]
pub(super) struct Groups {
    /// For new groups, how many uses of each kind do not see them yet.
    to_come: HashMap<String, HashMap<String, u32>>,
    /// The groups of deleted balancers, and how long their network interfaces linger.
    interfaces: HashMap<String, u32>,
}

impl State {
    pub(super) async fn create_security_group(&mut self, request: &Request) -> Result<Answer, AwsError> {
        for (what, text) in
            [("groupName", request.get("GroupName")), ("groupDescription", request.get("GroupDescription"))]
        {
            described(what, text)?;
        }
        if request.get("GroupName").starts_with("sg-") {
            return Err(AwsError::client("InvalidParameterValue", "Group names may not begin with sg-"));
        }
        let answer = self.forward(request).await;
        if answer.ok() {
            self.groups.to_come.insert(answer.xml().say("groupId").to_owned(), HashMap::new());
        }
        Ok(answer)
    }

    /// A call names a group: a new one is not there yet.
    pub(super) fn group_is_visible(&mut self, group: &str, by: &str) -> Result<(), AwsError> {
        let invisible = self.options.invisible_groups;
        let Some(uses) = self.groups.to_come.get_mut(group) else {
            return Ok(());
        };
        let used = uses.entry(by.to_owned()).or_default();
        if *used >= invisible {
            return Ok(());
        }
        *used += 1;
        Err(AwsError::client("InvalidGroup.NotFound", format!("The security group '{group}' does not exist")))
    }

    pub(super) async fn use_security_group(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let permissions = (1..).map(|n| format!("IpPermissions.{n}"));
        let permissions =
            permissions.take_while(|prefix| request.parameters.contains_key(&format!("{prefix}.IpProtocol")));
        let permissions: Vec<String> = permissions.collect();
        for prefix in &permissions {
            for n in 1..=20 {
                described("description", request.get(&format!("{prefix}.IpRanges.{n}.Description")))?;
                described("description", request.get(&format!("{prefix}.Groups.{n}.Description")))?;
            }
        }
        if request.action.starts_with("Revoke") {
            return Ok(self.forward(request).await);
        }
        self.group_is_visible(request.get("GroupId"), &request.action)?;
        for prefix in permissions {
            let groups: Vec<String> = (1..)
                .map_while(|n| request.parameters.get(&format!("{prefix}.Groups.{n}.GroupId")).cloned())
                .collect();
            for group in groups {
                self.group_is_visible(&group, "reference")?;
            }
        }
        Ok(self.forward(request).await)
    }

    pub(super) async fn describe_security_groups(&mut self, request: &Request) -> Result<Answer, AwsError> {
        for group in request.list("GroupId") {
            self.group_is_visible(group, "DescribeSecurityGroups")?;
        }
        Ok(self.forward(request).await)
    }

    pub(super) async fn delete_security_group(&mut self, request: &Request) -> Result<Answer, AwsError> {
        let group = request.get("GroupId").to_owned();
        if self.is_in_use(&group).await? {
            let text = format!("resource {group} has a dependent object");
            return Err(AwsError::client("DependencyViolation", text));
        }
        let answer = self.forward(request).await;
        if answer.ok() {
            self.groups.to_come.remove(&group);
        }
        Ok(answer)
    }

    /// A balancer was deleted: its network interfaces stay for a while.
    pub(super) fn interfaces_linger(&mut self, groups: Vec<String>) {
        for group in groups {
            self.groups.interfaces.insert(group, self.options.lingering_interfaces);
        }
    }

    async fn is_in_use(&mut self, group: &str) -> Result<bool, AwsError> {
        let mut used = false;
        if let Some(left) = self.groups.interfaces.get_mut(group).filter(|left| **left > 0) {
            *left -= 1;
            used = true;
        }
        let filter = [("Filter.1.Name", "instance.group-id"), ("Filter.1.Value.1", group)];
        let instances = self.moto.look("ec2", "DescribeInstances", &filter).await?;
        for reservation in instances.list("reservationSet") {
            for item in reservation.list("instancesSet") {
                used |= self.holds_its_groups(item);
            }
        }
        let balancers = self.moto.look("elasticloadbalancing", "DescribeLoadBalancers", &[]).await?;
        for balancer in balancers.list("DescribeLoadBalancersResult/LoadBalancers") {
            used |= balancer.list("SecurityGroups").iter().any(|member| member.text == group);
        }
        let groups = self.moto.look("ec2", "DescribeSecurityGroups", &[]).await?;
        for other in groups.list("securityGroupInfo").iter().filter(|other| other.say("groupId") != group) {
            for rule in other.list("ipPermissions").iter().chain(other.list("ipPermissionsEgress")) {
                used |= rule.list("groups").iter().any(|pair| pair.say("groupId") == group);
            }
        }
        Ok(used)
    }
}

/// AWS takes these characters alone in names and descriptions of groups and rules.
fn described(what: &str, text: &str) -> Result<(), AwsError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " ._-:/()#,@[]+=&;{}!$*".contains(c);
    if text.len() <= 255 && text.chars().all(allowed) {
        return Ok(());
    }
    let text = format!(
        "Value ({text}) for parameter {what} is invalid. Character sets beyond ASCII are not supported."
    );
    Err(AwsError::client("InvalidParameterValue", text))
}
