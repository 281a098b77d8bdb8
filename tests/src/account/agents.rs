//! The agents on the account's instances, played by the front: each registers its instance with the
//! target groups that the instance's tag names, as soon as it runs and its role lets it.

use percent_encoding::percent_decode_str;

use super::answer::AwsError;
use super::options::Agents as Fate;
use super::policy::{Context, Document};
use super::request::Request;
use super::state::State;

/// The agents, by what they are about.
#[derive(Default)]
pub(super) struct Agents {
    waiting: Vec<Waiting>,
    /// Target group and instance.
    registered: Vec<(String, String)>,
}

#[derive(Clone)]
struct Waiting {
    instance: String,
    group: String,
}

const SERVICE: &str = "elasticloadbalancing";

impl State {
    /// Instances were launched; their agents will find their tags.
    pub(super) fn boots(&mut self, instances: &[String], request: &Request) {
        let tags = request.tag_specification("instance");
        let groups = tags.iter().find(|(key, _)| key == instance_contract::tags::TARGET_GROUP);
        // An agent reads its tags from the metadata, where the launch has to publish them.
        let published = request.get("MetadataOptions.InstanceMetadataTags") == "enabled";
        for instance in instances {
            for group in groups.iter().filter(|_| published).flat_map(|(_, names)| names.split_whitespace()) {
                self.agents.waiting.push(Waiting { instance: instance.clone(), group: group.to_owned() });
            }
        }
    }

    /// An instance is terminated, and with it its agent.
    pub(super) fn leaves(&mut self, id: &str) {
        self.agents.waiting.retain(|waiting| waiting.instance != id);
        let (gone, stays) =
            std::mem::take(&mut self.agents.registered).into_iter().partition(|(_, instance)| instance == id);
        self.agents.registered = stays;
        let gone: Vec<(String, String)> = gone;
        for (group, id) in gone {
            self.target_leaves(&group, &id);
        }
    }

    /// Every agent that is due tries to register.
    pub(super) async fn agents_try(&mut self) {
        if matches!(self.options.agents, Fate::Never | Fate::Real) {
            return;
        }
        let mut still = Vec::new();
        for waiting in std::mem::take(&mut self.agents.waiting) {
            match self.registers(&waiting).await {
                Some(group) => self.agents.registered.push((group, waiting.instance)),
                None => still.push(waiting),
            }
        }
        self.agents.waiting = still;
    }

    /// The ARN of the group that the agent has registered with; `None`: not yet.
    async fn registers(&self, waiting: &Waiting) -> Option<String> {
        let Waiting { instance, group } = waiting;
        if !self.is_running(instance) {
            return None;
        }
        let policies = self.agent_policies(instance).await.ok()?;
        let may = |permission: &str, resource: &str| {
            policies.iter().any(|policy| policy.allows(permission, resource, &Context::new()))
        };
        let arn = if group.starts_with("arn:") {
            group.clone()
        } else {
            if !may("elasticloadbalancing:DescribeTargetGroups", "*") {
                return None;
            }
            let found =
                self.moto.look(SERVICE, "DescribeTargetGroups", &[("Names.member.1", group)]).await.ok()?;
            found.find("TargetGroupArn")?.text.clone()
        };
        let needed = [
            ("elasticloadbalancing:DescribeTargetHealth", "*"),
            ("elasticloadbalancing:RegisterTargets", arn.as_str()),
            ("elasticloadbalancing:DeregisterTargets", arn.as_str()),
        ];
        if !needed.into_iter().all(|(permission, resource)| may(permission, resource)) {
            return None;
        }
        let target = [("TargetGroupArn", arn.as_str()), ("Targets.member.1.Id", instance)];
        self.moto.look(SERVICE, "RegisterTargets", &target).await.ok()?;
        Some(arn)
    }

    /// What the role of an instance allows.
    async fn agent_policies(&self, instance: &str) -> Result<Vec<Document>, AwsError> {
        let profile = [("InstanceProfileName", self.profile_of(instance))];
        let profile = self.moto.look("iam", "GetInstanceProfile", &profile).await?;
        let roles = profile.list("GetInstanceProfileResult/InstanceProfile/Roles");
        let role = roles.first().map(|role| role.say("RoleName")).unwrap_or_default();
        let trusted = roles.first().map(|role| role.say("AssumeRolePolicyDocument")).unwrap_or_default();
        // EC2 hands out credentials of a role that lets it assume it, and of no other.
        if !trusted.contains("ec2.amazonaws.com") {
            return Ok(Vec::new());
        }
        let names = self.moto.look("iam", "ListRolePolicies", &[("RoleName", role)]).await?;
        let mut policies = Vec::new();
        for name in names.list("ListRolePoliciesResult/PolicyNames") {
            let asked = [("RoleName", role), ("PolicyName", name.text.as_str())];
            let found = self.moto.look("iam", "GetRolePolicy", &asked).await?;
            policies.push(Document::parse(&decoded(found.say("GetRolePolicyResult/PolicyDocument"))));
        }
        Ok(policies)
    }
}

/// IAM gives documents back in the encoding of URLs.
pub(super) fn decoded(document: &str) -> String {
    percent_decode_str(document).decode_utf8_lossy().into_owned()
}
