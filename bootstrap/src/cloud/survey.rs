//! Looks up the existing resources of a fleet.
//!
//! A resource belongs to the fleet if it carries the tag `instance-agent:fleet`; a name alone proves nothing. A command
//! that changes nothing needs less proof: a balancer that uses the fleet's own tagged security group, and the target
//! groups behind that balancer, belong to the fleet. That saves a call when a launch is repeated.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Filter;
use instance_contract::tags::FLEET;

use super::describe::{self, DEREGISTRATION_DELAY, filter, forwards, security_group};
use super::{CallError, Cloud, call, none_if_absent};
use crate::fleet::Fleet;
use crate::fleet::names::Names;
use crate::fleet::tagging::{self, Tags};
use crate::plan::inventory::{Balancer, Instance, Inventory, Listener, Rule, SecurityGroup, TargetGroup};

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// What has the fleet's names. Balancer and target groups may be someone else's, see
    /// [`Self::ownership_is_certain`] and [`Cloud::retain_tagged`].
    pub(crate) inventory: Inventory,
    /// Resources of others with one of the fleet's names, and target groups of others whose names begin alike.
    pub(crate) foreign: Vec<ForeignResource>,
}

/// The kind of a target group.
pub(crate) const TARGET_GROUP: &str = "the target group";

/// Someone else's.
#[derive(Clone, Debug)]
pub(crate) struct ForeignResource {
    /// What it is, for people, such as [`TARGET_GROUP`].
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// Where that matters: names of security groups are a VPC's.
    pub(crate) vpc: Option<String>,
}

impl std::fmt::Display for ForeignResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        match &self.vpc {
            Some(vpc) => write!(f, " in {vpc}"),
            None => Ok(()),
        }
    }
}

impl Survey {
    /// Whether all that was found is the fleet's by what it uses: the balancer uses the fleet's own
    /// security group, the target groups are behind that balancer.
    pub(crate) fn ownership_is_certain(&self) -> bool {
        let Inventory { balancer_group, balancer, target_groups, .. } = &self.inventory;
        let own = balancer_group.as_ref().map(|group| &group.id);
        let is_own = |found: &Balancer| own.is_some_and(|id| found.security_groups.contains(id));
        let arn = balancer.as_ref().map(|found| &found.arn);
        let is_behind = |group: &TargetGroup| arn.is_some_and(|arn| group.balancers.contains(arn));
        self.foreign.is_empty() && balancer.as_ref().is_none_or(is_own) && target_groups.iter().all(is_behind)
    }
}

impl Cloud {
    /// Looks at everything that has the fleet's names and tag.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn survey(&self, names: &Names) -> Result<Survey, CallError> {
        let (groups, instances, balancer, target_groups) = tokio::try_join!(
            self.security_groups(names),
            self.instances(names),
            self.balancer(names),
            self.target_groups(names),
        )?;
        let mut survey = Survey::default();
        for (name, group) in groups {
            if group.tags.get(FLEET).is_none_or(|fleet| *fleet != names.fleet) {
                survey.foreign.push(ForeignResource {
                    kind: "the security group",
                    name,
                    vpc: Some(group.vpc),
                });
            } else if name == names.balancer_group() {
                survey.inventory.balancer_group = Some(group);
            } else {
                survey.inventory.instances_group = Some(group);
            }
        }
        if let Some(balancer) = &balancer
            && let Some(listener) = self.listener(&balancer.arn, port(&survey.inventory)).await?
        {
            survey.inventory.rules = self.rules(&listener.arn).await?;
            survey.inventory.listener = Some(listener);
        }
        survey.inventory.instances = instances;
        survey.inventory.balancer = balancer;
        survey.inventory.target_groups = target_groups;
        Ok(survey)
    }

    /// Keeps only the balancer and target groups that carry the fleet's tag, and lists the rest as foreign.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) async fn retain_tagged(&self, names: &Names, survey: &mut Survey) -> Result<(), CallError> {
        let Survey { inventory, foreign } = survey;
        let arns = inventory.balancer.iter().map(|found| &found.arn);
        let arns: Vec<_> =
            arns.chain(inventory.target_groups.iter().map(|group| &group.arn)).cloned().collect();
        let tags = self.load_balancing_tags(&arns).await?;
        let is_ours = |arn: &String| {
            tags.get(arn).and_then(|tags| tags.get(FLEET)).is_some_and(|fleet| *fleet == names.fleet)
        };
        inventory.target_groups.retain(|group| {
            let ours = is_ours(&group.arn);
            if !ours {
                foreign.push(ForeignResource { kind: TARGET_GROUP, name: group.name.clone(), vpc: None });
            }
            ours
        });
        if inventory.balancer.as_ref().is_some_and(|found| !is_ours(&found.arn)) {
            foreign.push(ForeignResource { kind: "the load balancer", name: names.balancer(), vpc: None });
            inventory.balancer = None;
            inventory.listener = None;
            inventory.rules.clear();
        }
        Ok(())
    }

    /// The tags of balancers and target groups, by ARN. One that has gone meanwhile has none.
    pub(crate) async fn load_balancing_tags(
        &self,
        arns: &[String],
    ) -> Result<BTreeMap<String, Tags>, CallError> {
        let mut found = BTreeMap::new();
        // AWS's limit for one call.
        for arns in arns.chunks(20) {
            let asked = self.elbv2.describe_tags().set_resource_arns(Some(arns.to_vec()));
            let answer = call("read the tags of load balancing resources", asked.send()).await;
            let Some(answer) = none_if_absent(answer)? else { continue };
            for description in answer.tag_descriptions.unwrap_or_default() {
                let tags = description.tags.unwrap_or_default().into_iter();
                let tags = tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())));
                found.insert(description.resource_arn.unwrap_or_default(), tags.collect());
            }
        }
        Ok(found)
    }

    async fn security_groups(&self, names: &Names) -> Result<Vec<(String, SecurityGroup)>, CallError> {
        let filter = filter("group-name", [names.balancer_group(), names.instances_group()]);
        let asked = self.ec2.describe_security_groups().filters(filter).into_paginator().items().send();
        let groups = call("list the security groups", asked.try_collect()).await?;
        let balancer = groups.iter().find(|group| group.group_name() == Some(&names.balancer_group()));
        let balancer = balancer.and_then(|group| group.group_id.clone());
        Ok(groups
            .into_iter()
            .map(|group| {
                (group.group_name.clone().unwrap_or_default(), security_group(group, balancer.as_deref()))
            })
            .collect())
    }

    /// The definition that is stored now; `None` where the group that holds it is not there.
    ///
    /// # Errors
    /// The call failed.
    pub(crate) async fn definition(&self, names: &Names) -> Result<Option<Option<String>>, CallError> {
        let groups = self.security_groups(names).await?.into_iter();
        let own = groups.filter(|(name, group)| {
            *name == names.instances_group() && group.tags.get(FLEET) == Some(&names.fleet)
        });
        Ok(own.map(|(_, group)| tagging::read_definition(&group.tags)).next())
    }

    /// The instances with the fleet's tag, whatever their state.
    pub(crate) async fn instances(&self, names: &Names) -> Result<Vec<Instance>, CallError> {
        self.instances_where(filter(&format!("tag:{}", FLEET), [names.fleet.clone()])).await
    }

    /// The instances that a filter finds.
    pub(crate) async fn instances_where(&self, filter: Filter) -> Result<Vec<Instance>, CallError> {
        let asked = self.ec2.describe_instances().filters(filter).into_paginator().items().send();
        let found = call("list the instances", asked.try_collect()).await?;
        Ok(found
            .into_iter()
            .flat_map(|reservation| reservation.instances.unwrap_or_default())
            .map(describe::instance)
            .collect())
    }

    /// The balancer of the fleet's name, whoever's it is.
    pub(crate) async fn balancer(&self, names: &Names) -> Result<Option<Balancer>, CallError> {
        let asked = self.elbv2.describe_load_balancers().names(names.balancer());
        let answer = call(format!("look up the load balancer {}", names.balancer()), asked.send()).await;
        let found = none_if_absent(answer)?.and_then(|answer| answer.load_balancers).unwrap_or_default();
        Ok(found.into_iter().next().map(describe::balancer))
    }

    async fn target_groups(&self, names: &Names) -> Result<Vec<TargetGroup>, CallError> {
        let asked = self.elbv2.describe_target_groups().into_paginator().items().send();
        let found = call("list the target groups", asked.try_collect()).await?;
        let prefix = names.target_group("");
        let groups = found.into_iter().map(describe::target_group);
        Ok(groups.filter(|group| group.name.starts_with(&prefix)).collect())
    }

    /// The fleet's listener among those that others may have added to its balancer.
    async fn listener(&self, balancer: &str, port: Option<u16>) -> Result<Option<Listener>, CallError> {
        let asked =
            self.elbv2.describe_listeners().load_balancer_arn(balancer).into_paginator().items().send();
        let found = none_if_absent(call("list the listeners", asked.try_collect()).await)?;
        let mut listeners = found.unwrap_or_default().into_iter().map(|listener| Listener {
            arn: listener.listener_arn.unwrap_or_default(),
            port: listener.port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
            default: forwards(listener.default_actions.as_deref().unwrap_or_default()),
        });
        Ok(listeners.find(|listener| port.is_none_or(|port| listener.port == port)))
    }

    /// The rules of a listener, without its default one.
    pub(crate) async fn rules(&self, listener: &str) -> Result<Vec<Rule>, CallError> {
        let asked = self.elbv2.describe_rules().listener_arn(listener).into_paginator().items().send();
        let found = none_if_absent(call("list the listener's rules", asked.try_collect()).await)?;
        let found = found.unwrap_or_default().into_iter();
        Ok(found.filter(|rule| rule.is_default != Some(true)).map(describe::rule).collect())
    }

    /// The listeners and rules of a load balancer that forward to a target group. A rule that forwards to several
    /// groups is not found.
    pub(crate) async fn users_of(&self, balancer: &str, group: &str) -> Result<Vec<String>, CallError> {
        let asked =
            self.elbv2.describe_listeners().load_balancer_arn(balancer).into_paginator().items().send();
        let found = none_if_absent(call("list the listeners", asked.try_collect()).await)?;
        let mut uses = Vec::new();
        for listener in found.unwrap_or_default() {
            let port = listener.port.unwrap_or_default();
            let default = forwards(listener.default_actions.as_deref().unwrap_or_default());
            if default.iter().any(|(arn, _)| arn == group) {
                uses.push(format!("the listener on port {port}"));
            }
            let rules = self.rules(listener.listener_arn.as_deref().unwrap_or_default()).await?;
            let own = rules.iter().filter(|rule| rule.target_group.as_deref() == Some(group));
            uses.extend(own.map(|rule| format!("rule {} of the listener on port {port}", rule.priority)));
        }
        Ok(uses)
    }

    /// The deregistration delay of a target group, in seconds.
    pub(crate) async fn deregistration_delay(&self, group: &TargetGroup) -> Result<Option<u64>, CallError> {
        let asked = self.elbv2.describe_target_group_attributes().target_group_arn(&group.arn);
        let answer = call(format!("read the attributes of {}", group.name), asked.send()).await?;
        let attributes = answer.attributes.unwrap_or_default();
        let delay = attributes.into_iter().find(|attribute| attribute.key() == Some(DEREGISTRATION_DELAY));
        Ok(delay.and_then(|attribute| attribute.value?.parse().ok()))
    }
}

/// The port that the stored definition names.
fn port(found: &Inventory) -> Option<u16> {
    Some(Fleet::from_definition(&found.definition()?).ok()?.port)
}
