//! The plan of a launch: from the existing resources to the desired fleet.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::inventory::{Bucket, IngressRule, Instance, Inventory, Rule, Source, TargetGroup};
use super::members::members;
use super::steps::{Action, Plan, Side, instances_of, listed};
use crate::fleet::tagging::{self, Tags};
use crate::fleet::{Desired, Fleet, Group, Package};

/// AWS's own deregistration delay, which a new target group has.
const DEFAULT_DELAY: u64 = 300;

/// Instances of one call: their slots have to fit into a tag's 256 characters.
const MAX_BATCH: usize = 60;

/// Target groups that one listener action can forward to.
const MAX_FORWARD_GROUPS: usize = 5;

/// The steps from `have` to the desired fleet; empty if there is no difference. Nothing is planned for resources that
/// were not looked up (`None` in the inventory).
///
/// # Errors
/// What cannot be changed while the fleet is there.
pub(crate) fn launch_plan(
    desired: &Desired,
    have: &Inventory,
    agent_policy: &dyn Fn(&[String]) -> Value,
) -> Result<Plan, String> {
    let fleet = &desired.fleet;
    for group in &fleet.groups {
        if let Some(found) = have.target_group(fleet, group)
            && found.port != fleet.port
        {
            return Err(format!(
                "the target group {} has port {}, which AWS cannot change to {}; destroy the fleet first, or \
                 launch another with --name",
                found.name, found.port, fleet.port
            ));
        }
    }
    let new = new_groups(fleet, have)?;
    let plan = Plan::default();
    let mut planner = Planner { desired, have, agent_policy, plan, store_step: None, changed: Vec::new() };
    planner.store_step = planner.definition();
    planner.tags();
    let (balancer_group, instances_group) = planner.security_groups();
    let mut before = planner.role();
    before.extend(instances_group);
    before.extend(planner.package());
    let target_groups = planner.target_groups();
    let listener = planner.balancer(balancer_group, &target_groups, new);
    let unwanted = planner.rules(listener, &target_groups);
    planner.instances(&before, &target_groups);
    planner.finish(&unwanted);
    Ok(planner.plan)
}

/// The groups to add to the listener's default action with weight 0: AWS probes only target groups that a listener
/// uses, and a group must be healthy before it gets requests.
///
/// # Errors
/// There is no room for them beside those that are there.
fn new_groups(fleet: &Fleet, have: &Inventory) -> Result<Vec<String>, String> {
    let Some(listener) = &have.listener else {
        return Ok(Vec::new());
    };
    let is_new = |group: &&Group| {
        let found = have.target_group(fleet, group);
        found.is_none_or(|found| listener.default.iter().all(|(arn, _)| *arn != found.arn))
    };
    let mut new: Vec<_> = fleet.groups.iter().filter(is_new).collect();
    let there = listener.default.len();
    if there + new.len() > MAX_FORWARD_GROUPS {
        // Groups with paths are in use through their rules, so they are probed anyway.
        new.retain(|group| !group.paths);
    }
    if !new.is_empty() && there + new.len() > MAX_FORWARD_GROUPS {
        return Err(format!(
            "the listener forwards to {there} target groups, and AWS allows {MAX_FORWARD_GROUPS}, so {} cannot \
             be added beside them; launch a file with fewer groups first, then this one",
            listed(new.iter().map(|group| &group.name))
        ));
    }
    Ok(new.into_iter().map(|group| group.name.clone()).collect())
}

struct Planner<'a> {
    desired: &'a Desired,
    have: &'a Inventory,
    /// What agents may do, with the names of the target groups that go.
    agent_policy: &'a dyn Fn(&[String]) -> Value,
    plan: Plan,
    /// The step that stores the definition. All changes wait for it, so the next launch can finish an interrupted change.
    store_step: Option<usize>,
    /// The steps that the fleet's health depends on.
    changed: Vec<usize>,
}

impl<'a> Planner<'a> {
    fn add(
        &mut self,
        action: Action,
        title: impl Into<String>,
        after: impl IntoIterator<Item = Option<usize>>,
    ) -> usize {
        let after = after.into_iter().chain([self.store_step]).flatten();
        let step = self.plan.add(action, title, after);
        self.changed.push(step);
        step
    }

    fn definition(&mut self) -> Option<usize> {
        let same = self.have.definition().as_ref() == Some(&self.desired.definition);
        (self.have.instances_group.is_some() && !same)
            .then(|| self.add(Action::StoreDefinition, "store the fleet's new definition", []))
    }

    /// Sets the fleet's tags on existing resources. A tag that was removed from the fleet file stays. The tags for cluster
    /// and root are reset to the group's values, even if someone changed them.
    fn tags(&mut self) {
        let (have, desired) = (self.have, self.desired);
        let lacks = |tags: &Tags| desired.tags.iter().any(|(key, value)| tags.get(key) != Some(value));
        let groups = have.balancer_group.iter().chain(&have.instances_group);
        let groups = groups.map(|group| (&group.id, &group.tags));
        // Instances that others launched, such as an Auto Scaling group, keep their tags.
        let is_own = |instance: &&Instance| !instance.is_dead() && instance.slot().is_some();
        let instances = have.instances.iter().filter(is_own);
        let all = groups.chain(instances.map(|instance| (&instance.id, &instance.tags)));
        let resources: Vec<_> = all.filter(|(_, tags)| lacks(tags)).map(|(id, _)| id.clone()).collect();
        if !resources.is_empty() {
            let balancers = have.balancer.iter().map(|found| found.arn.clone());
            let arns = balancers.chain(have.target_groups.iter().map(|found| found.arn.clone())).collect();
            self.add(Action::Tag { resources, arns }, "set the fleet's tags on existing resources", []);
        }
        for group in &desired.fleet.groups {
            let kept = members(desired, group, have).kept.into_values();
            let wrong = kept.filter(|instance| !tagging::answers_match(&instance.tags, group));
            let ids: Vec<_> = wrong.map(|instance| instance.id.clone()).collect();
            if !ids.is_empty() {
                let instances = instances_of(ids.len());
                let title = format!(
                    "repair the cluster and root tags of {instances} of {}: {}",
                    group.name,
                    listed(&ids)
                );
                let (group, paths) = (group.name.clone(), group.paths);
                self.add(Action::TagAnswers { group, paths, ids }, title, []);
            }
        }
    }

    fn security_groups(&mut self) -> (Option<usize>, Option<usize>) {
        let (have, fleet, names) = (self.have, &self.desired.fleet, &self.desired.names);
        let mut create = |side, name: String, there: bool| {
            (!there).then(|| {
                self.add(Action::CreateSecurityGroup(side), format!("create security group {name}"), [])
            })
        };
        let instances = create(Side::Instances, names.instances_group(), have.instances_group.is_some());
        let balancer = create(Side::Balancer, names.balancer_group(), have.balancer_group.is_some());
        let security = &fleet.security;
        let anywhere = |cidrs: &[String], first, last| -> Vec<IngressRule> {
            cidrs.iter().map(|cidr| IngressRule { first, last, from: Source::Cidr(cidr.clone()) }).collect()
        };
        let mut ingress: BTreeSet<_> =
            security.ports.iter().flat_map(|port| anywhere(&security.allow, *port, *port)).collect();
        ingress.insert(IngressRule { first: fleet.port, last: fleet.port, from: Source::Balancer });
        let there = have.instances_group.as_ref().map(|group| &group.ingress);
        self.ingress(Side::Instances, ingress, there, [instances, balancer]);
        let ingress = anywhere(&security.balancer_allow, 0, u16::MAX).into_iter().collect();
        let there = have.balancer_group.as_ref().map(|group| &group.ingress);
        self.ingress(Side::Balancer, ingress, there, [balancer, None]);
        (balancer, instances)
    }

    fn ingress(
        &mut self,
        side: Side,
        wanted: BTreeSet<IngressRule>,
        there: Option<&BTreeSet<IngressRule>>,
        after: [Option<usize>; 2],
    ) {
        let name = match side {
            Side::Balancer => self.desired.names.balancer_group(),
            Side::Instances => self.desired.names.instances_group(),
        };
        let none = BTreeSet::new();
        let there = there.unwrap_or(&none);
        let missing: BTreeSet<_> = wanted.difference(there).cloned().collect();
        let opened = (!missing.is_empty()).then(|| {
            let title = format!("open {name} to {}", listed(&missing));
            self.add(Action::AuthorizeIngress(side, missing), title, after)
        });
        // Rules that bootstrap cannot have written are left alone: someone added them on purpose.
        let ours = there.iter().filter(|opening| !matches!(opening.from, Source::Other(_)));
        let extra: BTreeSet<_> = ours.filter(|opening| !wanted.contains(opening)).cloned().collect();
        if !extra.is_empty() {
            let title = format!("close {name} to {}", listed(&extra));
            self.add(Action::RevokeIngress(side, extra), title, [opened]);
        }
    }

    /// The steps after which instances can be launched with the profile.
    fn role(&mut self) -> Vec<usize> {
        let Some(found) = self.have.role.as_ref().filter(|_| self.desired.fleet.instance_profile.is_none())
        else {
            return Vec::new();
        };
        let name = self.desired.names.role();
        let role = found.policy.is_none();
        let role = role.then(|| self.add(Action::CreateRole, format!("create role {name}"), []));
        let profile = (!found.profile)
            .then(|| self.add(Action::CreateProfile, format!("create instance profile {name}"), []));
        // An agent deregisters itself, so it needs that permission until its instance is terminated.
        let also: Vec<_> = self.removed_groups().into_iter().map(|group| group.name.clone()).collect();
        let allowed = (found.policy != Some((self.agent_policy)(&also))).then(|| {
            let title = format!("allow role {name} to register targets with this fleet's target groups");
            self.add(Action::PutRolePolicy { also }, title, [role])
        });
        let added = (!found.in_profile).then(|| {
            self.add(Action::AddRole, format!("add role {name} to its instance profile"), [role, profile])
        });
        allowed.into_iter().chain(added).collect()
    }

    fn package(&mut self) -> Option<usize> {
        // Where the file is not at hand it was uploaded by an earlier launch.
        let Some(Package::Deb { file: Some(_), sha256 }) = &self.desired.fleet.package else {
            return None;
        };
        let bucket = match self.have.bucket {
            Some(Bucket::Absent | Bucket::Untagged) => {
                Some(self.add(Action::CreateBucket, "create the private bucket for the package", []))
            }
            Some(Bucket::Ours) => None,
            None => return None,
        };
        let title = format!("upload the package (SHA-256 {}…)", &sha256.get(..12).unwrap_or_default());
        Some(self.add(Action::Upload, title, [bucket]))
    }

    /// The steps that create target groups, by group.
    fn target_groups(&mut self) -> BTreeMap<String, Option<usize>> {
        let mut steps = BTreeMap::new();
        for group in &self.desired.fleet.groups {
            let name = self.desired.fleet.target_group(group);
            let found = self.have.target_group(&self.desired.fleet, group);
            let created = found.is_none().then(|| {
                let title = format!("create target group {name}: HTTP, port {}", self.desired.fleet.port);
                self.add(Action::CreateTargetGroup(group.name.clone()), title, [])
            });
            if found.is_some_and(|found| found.health != self.desired.fleet.health_check) {
                let title = format!("set the health check of {name}");
                self.add(Action::SetHealthCheck(group.name.clone()), title, []);
            }
            let delay = self.desired.fleet.deregistration_delay.as_secs();
            let there = match found {
                None => Some(DEFAULT_DELAY),
                Some(found) => found.delay,
            };
            if there.is_some_and(|there| there != delay) {
                let title = format!("set the deregistration delay of {name} to {delay} s");
                self.add(Action::SetDelay(group.name.clone()), title, [created]);
            }
            steps.insert(group.name.clone(), created);
        }
        steps
    }

    /// The step after which the listener knows all wanted groups.
    fn balancer(
        &mut self,
        security_group: Option<usize>,
        target_groups: &BTreeMap<String, Option<usize>>,
        new: Vec<String>,
    ) -> Option<usize> {
        let fleet = &self.desired.fleet;
        let zones: BTreeSet<_> = fleet.zones.iter().cloned().collect();
        let balancer = match &self.have.balancer {
            None => {
                let title =
                    format!("create load balancer {} in {}", self.desired.names.balancer(), listed(&zones));
                Some(self.add(Action::CreateBalancer, title, [security_group]))
            }
            // Zones are removed later, when no instance in them serves any more.
            Some(found) if !zones.is_subset(&found.zones) => {
                let both: BTreeSet<_> = zones.union(&found.zones).cloned().collect();
                let title = format!("set the load balancer's zones to {}", listed(&both));
                Some(self.add(Action::SetZones(both), title, []))
            }
            Some(_) => None,
        };
        let after: Vec<_> = target_groups.values().copied().chain([balancer]).collect();
        let Some(listener) = &self.have.listener else {
            let title = format!("create HTTP listener on port {}: {}", fleet.port, self.shares());
            return Some(self.add(Action::CreateListener, title, after));
        };
        // AWS probes a group only if a listener uses it; with weight 0 it gets no requests.
        (!new.is_empty()).then(|| {
            let title = format!("add {} to the listener with weight 0", listed(&new));
            self.add(Action::AddUnweighted { there: listener.default.clone(), new }, title, after)
        })
    }

    /// The existing target groups that the fleet no longer has.
    fn removed_groups(&self) -> Vec<&'a TargetGroup> {
        let found = self.have.target_groups.iter();
        found.filter(|found| !is_wanted(&self.desired.fleet, &found.name)).collect()
    }

    fn shares(&self) -> String {
        listed(
            self.desired.fleet.groups.iter().map(|group| format!("{} weight {}", group.name, group.weight)),
        )
    }

    /// Whether the existing listener's weights differ from the fleet's.
    fn shares_differ(&self) -> bool {
        let Some(listener) = &self.have.listener else {
            return false;
        };
        let of_group = |group: &Group| {
            (self.have.target_group(&self.desired.fleet, group).map(|found| found.arn.clone()), group.weight)
        };
        let mut weights: Vec<_> = self.desired.fleet.groups.iter().map(of_group).collect();
        weights.sort();
        !listener.default.iter().map(|(arn, weight)| (Some(arn.clone()), *weight)).eq(weights)
    }

    /// Adds the missing rules, and returns the existing ones to delete.
    fn rules(
        &mut self,
        listener: Option<usize>,
        target_groups: &BTreeMap<String, Option<usize>>,
    ) -> Vec<&'a Rule> {
        let (fleet, have) = (&self.desired.fleet, self.have);
        let mut unwanted: Vec<_> = have.rules.iter().collect();
        let mut missing = Vec::new();
        for group in fleet.groups.iter().filter(|group| group.paths) {
            let paths: BTreeSet<_> = group.rule_paths().into_iter().collect();
            let arn = have.target_group(fleet, group).map(|found| found.arn.as_str());
            let right =
                |rule: &&Rule| rule.paths == paths && rule.target_group.as_deref() == arn && arn.is_some();
            match unwanted.iter().position(right) {
                Some(index) => {
                    unwanted.remove(index);
                }
                None => missing.push(group),
            }
        }
        let taken: BTreeSet<_> = have.rules.iter().map(|rule| rule.priority).collect();
        let mut free = (1..).filter(|priority| !taken.contains(priority));
        for group in missing {
            let priority = free.next().unwrap_or_default();
            let title = format!("create rule {priority}: {} to {}", listed(group.rule_paths()), group.name);
            let created = target_groups.get(&group.name).copied().flatten();
            self.add(Action::CreateRule { group: group.name.clone(), priority }, title, [listener, created]);
        }
        // Rules that bootstrap cannot have written are left alone: someone added them on purpose.
        unwanted.retain(|rule| {
            let target_group = rule.target_group.as_ref();
            is_of_a_group(&rule.paths)
                && have.target_groups.iter().any(|found| Some(&found.arn) == target_group)
        });
        unwanted
    }

    /// Adds what launches instances.
    fn instances(&mut self, before: &[usize], target_groups: &BTreeMap<String, Option<usize>>) {
        let fleet = &self.desired.fleet;
        for group in &fleet.groups {
            let missing = members(self.desired, group, self.have).missing;
            let created = target_groups.get(&group.name).copied().flatten();
            for (index, zone) in fleet.zones.iter().enumerate() {
                let of_zone = |slot: &u16| usize::from(*slot) % fleet.zones.len() == index;
                let slots: Vec<_> = missing.iter().copied().filter(of_zone).collect();
                for slots in slots.chunks(MAX_BATCH) {
                    let Group { name, instance_type, .. } = group;
                    let title = format!("launch {} × {instance_type} of {name} in {zone}", slots.len());
                    let (group, slots) = (name.clone(), slots.to_vec());
                    let action = Action::RunInstances { group, zone: zone.clone(), slots };
                    self.add(action, title, before.iter().copied().map(Some).chain([created]));
                }
            }
        }
    }

    /// Plans everything that takes resources away. It starts only when all new instances are healthy: until then the old
    /// ones serve. The order keeps requests away from what is about to go: first the weights and rules change, then the
    /// instances end, then their target groups and permissions are deleted, and the load balancer leaves zones last.
    /// `confirm` steps stand before each removal, since another command may have changed the fleet during the wait.
    /// Surplus instances (more than the count) go without waiting: nothing replaces them.
    fn finish(&mut self, unwanted: &[&Rule]) {
        let (fleet, have) = (&self.desired.fleet, self.have);
        let (mut surplus, mut replaced) = (Vec::new(), Vec::new());
        for group in &fleet.groups {
            let members = members(self.desired, group, have);
            surplus.extend(members.surplus);
            replaced.extend(members.replaced);
        }
        if !surplus.is_empty() {
            let confirmed = self.confirm([]);
            self.terminate(&surplus, "surplus", [confirmed]);
        }
        let is_wanted = |name: &str| is_wanted(fleet, name);
        let removed = self.removed_groups();
        let is_leftover = |found: &&Instance| {
            !found.is_dead() && found.slot().is_some() && !found.target_group().is_some_and(is_wanted)
        };
        let leftover: Vec<_> = have.instances.iter().filter(is_leftover).collect();
        let zones: BTreeSet<_> = fleet.zones.iter().cloned().collect();
        let leaves = have.balancer.as_ref().is_some_and(|found| !found.zones.is_subset(&zones));
        let share = self.shares_differ();
        let nothing = self.changed.is_empty()
            && replaced.is_empty()
            && removed.is_empty()
            && leftover.is_empty()
            && unwanted.is_empty()
            && !leaves
            && !share;
        if nothing && have.is_settled(self.desired) {
            return;
        }
        let title = match fleet.instances() {
            1 => "wait until the instance is healthy".to_owned(),
            count => format!("wait until all {count} instances are healthy"),
        };
        let after: Vec<_> = self.changed.iter().copied().map(Some).collect();
        let wait = Some(self.add(Action::WaitHealthy, title, after));
        let confirmed = self.confirm([wait]);
        let mut freed = vec![confirmed];
        if share {
            let title = format!("set the listener's weights: {}", self.shares());
            freed.push(Some(self.add(Action::SetDefault, title, [confirmed])));
        }
        for rule in unwanted {
            let title = format!("delete rule {}: {}", rule.priority, listed(&rule.paths));
            freed.push(Some(self.add(Action::DeleteRule { arn: rule.arn.clone() }, title, [confirmed])));
        }
        if !replaced.is_empty() {
            self.terminate(&replaced, "replaced", [confirmed]);
        }
        // Also if their target group is already deleted: a forgotten instance keeps costing money.
        let ended = (!leftover.is_empty()).then(|| self.terminate(&leftover, "of no group", freed.clone()));
        let mut deleted = Vec::new();
        for group in removed {
            let action = Action::DeleteTargetGroup { arn: group.arn.clone(), name: group.name.clone() };
            let after = freed.iter().copied().chain([ended]);
            deleted.push(Some(self.add(action, format!("delete target group {}", group.name), after)));
        }
        if !deleted.is_empty() && have.role.is_some() && fleet.instance_profile.is_none() {
            let title = format!("remove permissions that role {} no longer needs", self.desired.names.role());
            self.add(Action::PutRolePolicy { also: Vec::new() }, title, deleted);
        }
        if leaves {
            let title = format!("set the load balancer's zones to {}", listed(&zones));
            self.add(Action::SetZones(zones), title, [confirmed]);
        }
        let after: Vec<_> = self.changed.iter().copied().map(Some).collect();
        self.add(Action::Settle, "tag the fleet as complete", after);
    }

    /// Checks that the stored definition is still this command's: before anything is removed, and before the fleet is
    /// recorded as settled. Of two commands at once, only the one that stored last goes on.
    fn confirm(&mut self, after: impl IntoIterator<Item = Option<usize>>) -> Option<usize> {
        Some(self.add(Action::Confirm, "check that no other command has changed the fleet", after))
    }

    fn terminate(
        &mut self,
        instances: &[&Instance],
        why: &str,
        after: impl IntoIterator<Item = Option<usize>>,
    ) -> usize {
        let ids: Vec<_> = instances.iter().map(|instance| instance.id.clone()).collect();
        let title = format!("terminate {} ({why}): {}", instances_of(ids.len()), listed(&ids));
        self.add(Action::TerminateInstances { ids }, title, after)
    }
}

/// Whether a rule with these paths is of the shape that `launch` makes: `/x` and `/x/*`.
fn is_of_a_group(paths: &BTreeSet<String>) -> bool {
    let mut sorted = paths.iter();
    match (sorted.next(), sorted.next(), sorted.next()) {
        (Some(path), Some(below), None) => below.strip_prefix(path.as_str()) == Some("/*"),
        _ => false,
    }
}

/// Whether a target group of this name is one of the fleet's.
fn is_wanted(fleet: &Fleet, target_group: &str) -> bool {
    fleet.groups.iter().any(|group| fleet.target_group(group) == target_group)
}
