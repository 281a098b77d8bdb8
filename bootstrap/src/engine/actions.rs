//! Performs the actions of a plan: turns the desired fleet and the ids from earlier steps into calls.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use instance_contract::tags::CLUSTER;
use tokio::sync::Notify;

use super::health::{AwaitedInstances, Unhealthy, Watch};
use super::prepare::Prepared;
use crate::cloud::ec2::InstanceBatch;
use crate::cloud::pace::Pace;
use crate::cloud::package_bucket::PackageError;
use crate::cloud::{CallError, Cloud};
use crate::deb::Deb;
use crate::fleet::names::Names;
use crate::fleet::tagging;
use crate::fleet::{Desired, Group, Package};
use crate::plan::inventory::{Balancer, Instance, Inventory};
use crate::plan::surroundings::Surroundings;
use crate::plan::{Action, Effect, Side, members};
use crate::policy::agent_policy;
use crate::user_data::{PackageForInstance, UserDataError, user_data};

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActionError {
    /// AWS refused, or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The package cannot be handed over.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Instances cannot be told to install it.
    #[error(transparent)]
    UserData(#[from] UserDataError),
    /// Instances are not healthy.
    #[error(transparent)]
    Unhealthy(#[from] Unhealthy),
    /// An instance is protected from termination, so that none of those with it is terminated.
    #[error(
        "{id} has termination protection, so nothing was deleted, except perhaps instances in other zones: AWS \
         decides zone by zone. `bootstrap destroy {fleet} --region {region} \
         --force` removes the protection, as does `aws ec2 modify-instance-attribute --region {region} --instance-id {id} \
         --no-disable-api-termination`"
    )]
    Protected { id: String, fleet: String, region: String },
    /// Instances are not terminated in time.
    #[error("not terminated in time: {0}; run the command again later")]
    NotTerminated(String),
    /// An instance that was to be replaced was taken for its own replacement.
    #[error("AWS returned the existing {0} instead of creating a new one; run the command again")]
    Reused(String),
    /// Another command is changing the fleet.
    #[error(
        "another command changed the definition of fleet {0} meanwhile, so this one stops; to apply this one all \
         the same, run it again when the other has ended"
    )]
    ChangedElsewhere(String),
    /// The fleet is being destroyed.
    #[error(
        "fleet {fleet} was destroyed meanwhile, so this launch stops; `bootstrap destroy {fleet} --region \
         {region}` deletes what this launch has created since"
    )]
    Destroyed { fleet: String, region: String },
    /// Something was made of the fleet since it was looked at, and is in the way.
    #[error("{0} was created by someone else meanwhile")]
    NewResource(String),
    /// The account is not as it was when the plan was made.
    #[error("{0} does not exist any more; run the command again")]
    Missing(String),
}

/// Performs the actions of a plan, and remembers the ids of what they created.
pub(crate) struct Executor<'a> {
    pub(super) cloud: &'a Cloud,
    pub(crate) desired: &'a Desired,
    around: &'a Surroundings,
    /// The package's file, where it is at hand.
    deb: Option<&'a Deb>,
    pub(super) have: &'a Inventory,
    /// How long the fleet may take to become healthy, or to go.
    pub(super) timeout: Duration,
    /// Whether to remove deletion and termination protection first.
    force: bool,
    pub(super) created: RefCell<Created>,
}

/// The ids of the fleet's resources: those found before the first action, and those created since.
#[derive(Clone, Debug, Default)]
pub(super) struct Created {
    pub(super) balancer: Option<Balancer>,
    pub(super) balancer_group: Option<String>,
    pub(super) instances_group: Option<String>,
    pub(super) listener: Option<String>,
    /// ARNs by group.
    pub(super) target_groups: BTreeMap<String, String>,
    /// The ids of instances that were launched, by group.
    pub(super) launched: BTreeMap<String, Vec<String>>,
    /// The fleet's instances when all was done.
    instances: Vec<Instance>,
    fresh_bucket: bool,
}

impl<'a> Executor<'a> {
    /// For a fleet of which `have` is there.
    pub(crate) fn new(cloud: &'a Cloud, prepared: &'a Prepared, timeout: Duration) -> Self {
        let Prepared { desired, deb, have, around, force, .. } = prepared;
        let deb = deb.as_ref();
        let fleet = &desired.fleet;
        let target_groups = fleet.groups.iter().filter_map(|group| {
            let found = have.target_group(fleet, group)?;
            Some((group.name.clone(), found.arn.clone()))
        });
        let created = Created {
            balancer: have.balancer.clone(),
            balancer_group: have.balancer_group.as_ref().map(|group| group.id.clone()),
            instances_group: have.instances_group.as_ref().map(|group| group.id.clone()),
            listener: have.listener.as_ref().map(|listener| listener.arn.clone()),
            target_groups: target_groups.collect(),
            ..Created::default()
        };
        Self { cloud, desired, around, deb, have, timeout, force: *force, created: RefCell::new(created) }
    }

    /// The balancer as last seen.
    pub(crate) fn balancer(&self) -> Option<Balancer> {
        self.created.borrow().balancer.clone()
    }

    /// The fleet's instances as they were when all was done.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        self.created.borrow().instances.clone()
    }

    /// How many instances of the fleet run at most: some may have ended since they were seen.
    pub(crate) fn running(&self) -> usize {
        let runs = |instance: &&Instance| matches!(instance.state.as_str(), "pending" | "running");
        let launched = self.created.borrow().launched.values().map(Vec::len).sum::<usize>();
        self.have.instances.iter().filter(runs).count() + launched
    }

    /// Performs one action and returns a short name of what it created. Idempotent.
    ///
    /// # Errors
    /// It could not be done.
    pub(crate) async fn perform(
        &self,
        action: &Action,
        waiting: &dyn Fn(&str),
    ) -> Result<String, ActionError> {
        let waits = Notify::new();
        let tell = |reason: &str| {
            waits.notify_one();
            waiting(reason);
        };
        tokio::select! {
            result = self.attempt(action, &tell) => result,
            error = self.superseded(&waits), if action.effect() == Effect::Create => Err(error),
        }
    }

    async fn attempt(&self, action: &Action, waiting: &dyn Fn(&str)) -> Result<String, ActionError> {
        let Self { cloud, desired, .. } = self;
        let Desired { fleet, names, .. } = desired;
        match action {
            Action::CreateSecurityGroup(side) => return self.create_security_group(*side).await,
            Action::StoreDefinition => self.store_definition().await?,
            Action::Tag { resources, arns } => {
                cloud.tag_load_balancing(arns, &desired.tags).await?;
                cloud.tag(resources, &desired.tags).await?;
            }
            Action::TagAnswers { group, paths, ids } => {
                cloud.tag(ids, &tagging::answer_tags(self.group(group)?)).await?;
                if !paths {
                    cloud.untag(ids, &[CLUSTER.to_owned()]).await?;
                }
            }
            Action::AuthorizeIngress(side, ingress) => {
                cloud
                    .authorize_ingress(&self.security_group(*side)?, ingress, &self.balancer_group(), waiting)
                    .await?;
            }
            Action::RevokeIngress(side, ingress) => {
                cloud.revoke_ingress(&self.security_group(*side)?, ingress, &self.balancer_group()).await?;
            }
            Action::CreateRole => {
                let china = self.around.partition == "aws-cn";
                let service = if china { "ec2.amazonaws.com.cn" } else { "ec2.amazonaws.com" };
                cloud.create_role(&names.role(), &desired.tags, service).await?;
            }
            Action::PutRolePolicy { also } => {
                let policy = agent_policy(desired, &self.around.account, also);
                cloud.put_role_policy(&names.role(), &policy, waiting).await?;
            }
            Action::CreateProfile => cloud.create_profile(&names.role(), &desired.tags).await?,
            Action::AddRole => cloud.add_role(&names.role(), waiting).await?,
            Action::CreateBucket => {
                let (bucket, account) = self.bucket();
                cloud.create_bucket(&bucket, account, &desired.tags, waiting).await?;
                self.created.borrow_mut().fresh_bucket = true;
                return Ok(bucket);
            }
            Action::Upload => {
                let (bucket, account) = self.bucket();
                let fresh = self.created.borrow().fresh_bucket;
                let deb = self.deb.ok_or_else(|| ActionError::Missing("the package's file".to_owned()))?;
                cloud.upload(&bucket, account, deb, fresh, waiting).await?;
            }
            Action::CreateTargetGroup(name) => {
                let vpc =
                    self.around.vpc().ok_or_else(|| ActionError::Missing("the default VPC".to_owned()))?;
                let arn = cloud.create_target_group(desired, self.group(name)?, vpc).await?;
                self.created.borrow_mut().target_groups.insert(name.clone(), arn);
            }
            Action::SetHealthCheck(name) => cloud.set_health_check(&self.target_group(name)?, fleet).await?,
            Action::SetDelay(name) => {
                cloud.set_delay(&self.target_group(name)?, fleet.deregistration_delay, waiting).await?;
            }
            Action::CreateBalancer => {
                let group = self.security_group(Side::Balancer)?;
                let made =
                    cloud.create_balancer(desired, &self.subnets(&fleet.zones)?, &group, waiting).await?;
                let dns_name = made.dns_name.clone();
                self.created.borrow_mut().balancer = Some(made);
                return Ok(dns_name);
            }
            Action::SetZones(zones) => {
                cloud.set_subnets(&self.balancer_arn()?, &self.subnets(zones)?).await?;
            }
            Action::CreateListener => {
                let (balancer, weights) = (self.balancer_arn()?, self.weights()?);
                let arn = cloud.create_listener(&balancer, desired, &weights, waiting).await?;
                self.created.borrow_mut().listener = Some(arn);
            }
            Action::AddUnweighted { there, new } => {
                let mut weights = there.clone();
                for group in new {
                    weights.push((self.target_group(group)?, 0));
                }
                cloud.set_default(&self.listener()?, &weights).await?;
            }
            Action::SetDefault => cloud.set_default(&self.listener()?, &self.weights()?).await?,
            Action::CreateRule { group, priority } => {
                let (listener, target_group) = (self.listener()?, self.target_group(group)?);
                let group = self.group(group)?;
                cloud.create_rule(&listener, desired, group, *priority, &target_group, waiting).await?;
            }
            Action::DeleteRule { arn } => cloud.delete_rule(arn).await?,
            Action::RunInstances { group, zone, slots } => {
                return self.run_instances(group, zone, slots, waiting).await;
            }
            Action::Confirm => self.confirm_definition(&desired.definition).await?,
            Action::WaitHealthy => self.until_healthy(true, waiting).await?,
            Action::TerminateInstances { ids } => {
                // Never terminate what this run has launched, whatever the plan says.
                let launched = self.created.borrow().launched.clone();
                let is_new = |id: &&String| launched.values().flatten().any(|new| new == *id);
                if let Some(id) = ids.iter().find(is_new) {
                    return Err(ActionError::Reused(id.clone()));
                }
                self.terminate(ids, waiting).await?;
            }
            Action::DeleteTargetGroup { arn, name } => {
                self.when_unused(waiting, async || cloud.delete_target_group(arn, name).await).await?;
            }
            Action::Settle => {
                let group = self.security_group(Side::Instances)?;
                let tags = [(tagging::SETTLED.to_owned(), desired.digest.clone())].into();
                // The addresses of new instances are known only now, and whoever launched wants to see them.
                let group = [group];
                let ((), found) = tokio::try_join!(cloud.tag(&group, &tags), cloud.instances(names))?;
                self.created.borrow_mut().instances = found;
            }
            Action::LiftDeletionProtection { arn } => cloud.lift_deletion_protection(arn).await?,
            Action::DeleteBalancer { arn } => cloud.delete_balancer(arn).await?,
            Action::WaitTerminated { ids } => self.until_terminated(ids, waiting).await?,
            Action::DeleteSecurityGroup { id } => {
                self.when_unused(waiting, async || cloud.delete_security_group(id).await).await?;
            }
            Action::DeleteRole => {
                let found = self.have.role.clone().unwrap_or_default();
                cloud.delete_role(&names.role(), &found, waiting).await?;
            }
            Action::DeleteBucket => {
                let (bucket, account) = self.bucket();
                cloud.delete_bucket(&bucket, account, waiting).await?;
            }
        }
        Ok(String::new())
    }

    /// Terminates instances; with `force` also those that are protected from it. AWS names one at a time.
    async fn terminate(&self, ids: &[String], waiting: &dyn Fn(&str)) -> Result<(), ActionError> {
        let mut lifted = BTreeSet::new();
        loop {
            let error = match self.cloud.terminate(ids).await {
                Err(error) if error.is_protected() => error,
                result => return Ok(result?),
            };
            let named = ids.iter().find(|id| error.message().contains(id.as_str()));
            let Some(id) = named.filter(|id| lifted.insert(*id)) else { return Err(error.into()) };
            if !self.force {
                let Names { fleet, region } = self.desired.names.clone();
                return Err(ActionError::Protected { id: id.clone(), fleet, region });
            }
            waiting(&format!("{id} has termination protection; removing it"));
            self.cloud.lift_termination_protection(id).await?;
        }
    }

    /// Waits until every desired instance is healthy. `repaired`: a resource was just created that agents may have
    /// asked for earlier in vain, so they may retry as late as after five minutes.
    ///
    /// # Errors
    /// They are not, or a call failed.
    pub(crate) async fn until_healthy(
        &self,
        repaired: bool,
        waiting: &dyn Fn(&str),
    ) -> Result<(), ActionError> {
        let Self { cloud, desired, timeout, .. } = *self;
        let awaited = self.awaited()?;
        let watch = Watch { cloud, desired, awaited: &awaited, timeout, repaired };
        let balancer = self.created.borrow().balancer.clone();
        watch.until_healthy(balancer.as_ref(), waiting).await?;
        if let Some(balancer) = &mut self.created.borrow_mut().balancer {
            "active".clone_into(&mut balancer.state);
        }
        Ok(())
    }

    async fn create_security_group(&self, side: Side) -> Result<String, ActionError> {
        let vpc = self.around.vpc().ok_or_else(|| ActionError::Missing("the default VPC".to_owned()))?;
        let Desired { fleet, names, definition, .. } = self.desired;
        let mut tags = self.desired.tags.clone();
        let (name, description) = match side {
            Side::Balancer => (names.balancer_group(), "load balancer of the fleet"),
            Side::Instances => {
                tags.extend(tagging::definition_tags(definition));
                (names.instances_group(), "instances of the fleet")
            }
        };
        let description = format!("{description} {}", fleet.name);
        let (id, was_there) = self.cloud.create_security_group(names, &name, &description, vpc, tags).await?;
        if was_there && side == Side::Instances {
            self.confirm_definition(definition).await?;
        }
        let mut created = self.created.borrow_mut();
        match side {
            Side::Balancer => created.balancer_group = Some(id.clone()),
            Side::Instances => created.instances_group = Some(id.clone()),
        }
        Ok(id)
    }

    /// Removes the parts of an older, longer definition first. An interruption then leaves a definition with a gap,
    /// which no reader takes for a complete one.
    async fn store_definition(&self) -> Result<(), ActionError> {
        let group = self.security_group(Side::Instances)?;
        self.confirm_definition(&self.have.definition().unwrap_or_default()).await?;
        let tags = tagging::definition_tags(&self.desired.definition);
        let there = self.have.instances_group.as_ref().map(|group| &group.tags);
        let keys = there.into_iter().flat_map(|tags| tags.keys());
        let stale: Vec<_> = keys
            .filter(|key| {
                key.starts_with(tagging::DEFINITION) && !tags.contains_key(*key) || *key == tagging::SETTLED
            })
            .cloned()
            .collect();
        if !stale.is_empty() {
            self.cloud.untag(std::slice::from_ref(&group), &stale).await?;
        }
        Ok(self.cloud.tag(&[group], &tags).await?)
    }

    async fn run_instances(
        &self,
        group: &str,
        zone: &str,
        slots: &[u16],
        waiting: &dyn Fn(&str),
    ) -> Result<String, ActionError> {
        let Desired { fleet, names, .. } = self.desired;
        let group = self.group(group)?;
        let image = self.around.image(&group.instance_type);
        let image = image.ok_or_else(|| ActionError::Missing(format!("the image {}", fleet.image)))?;
        let mut batch = InstanceBatch {
            group: group.name.clone(),
            target_group: self.target_group(&group.name)?,
            subnet: String::new(),
            zone: String::new(),
            revision: self.desired.revision(group).to_owned(),
            slots: slots.to_vec(),
            image: image.id.clone(),
            root_device: image.root_device.clone(),
            instance_type: group.instance_type.clone(),
            security_group: self.security_group(Side::Instances)?,
            key_pair: fleet.key_pair.clone(),
            profile: fleet.instance_profile.clone().unwrap_or_else(|| names.role()),
            user_data: self.user_data(waiting).await?,
            known: self.have.instances.iter().map(|instance| instance.id.clone()).collect(),
        };
        // The zone it is meant for, then the others: an instance elsewhere is better than none.
        let others = fleet.zones.iter().map(String::as_str).filter(|other| *other != zone);
        let mut full = None;
        for zone in [zone].into_iter().chain(others) {
            let Some(subnet) = self.around.subnets.get(zone) else {
                continue;
            };
            batch.subnet.clone_from(&subnet.id);
            zone.clone_into(&mut batch.zone);
            let tags = |slots: &[u16]| self.desired.instance_tags(group, slots);
            match self.cloud.run_instances(&batch, &tags, waiting).await {
                Ok(launched) => {
                    let ids: Vec<_> = launched.into_iter().map(|instance| instance.id).collect();
                    let text = ids.join(", ");
                    let mut created = self.created.borrow_mut();
                    created.launched.entry(group.name.clone()).or_default().extend(ids);
                    return Ok(format!("{text} in {zone}"));
                }
                Err(error) if error.code() == "InsufficientInstanceCapacity" => {
                    waiting(&format!(
                        "{zone} has no capacity for {}; trying another zone",
                        group.instance_type
                    ));
                    full = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(full.map_or_else(|| ActionError::Missing(format!("a subnet in {zone}")), ActionError::from))
    }

    async fn user_data(&self, waiting: &dyn Fn(&str)) -> Result<Option<String>, ActionError> {
        let package = match (
            PackageForInstance::of(self.desired.fleet.package.as_ref()),
            &self.desired.fleet.package,
        ) {
            (None, Some(Package::Deb { sha256, .. })) => {
                let signed = self.cloud.presign(&self.bucket().0, sha256).await?;
                if let Some(note) = signed.note() {
                    waiting(&note);
                }
                PackageForInstance::Download { url: signed.url, sha256: sha256.clone() }
            }
            (package, _) => package.unwrap_or(PackageForInstance::InImage),
        };
        Ok(user_data(&package)?)
    }

    /// The instances that have to be healthy: those that stay and those that were launched.
    fn awaited(&self) -> Result<Vec<AwaitedInstances>, ActionError> {
        let launched = &self.created.borrow().launched;
        let of_group = |group: &Group| {
            let kept = members(self.desired, group, self.have).kept;
            let mut ids: BTreeSet<_> = kept.into_values().map(|instance| instance.id.clone()).collect();
            ids.extend(launched.get(&group.name).into_iter().flatten().cloned());
            Ok(AwaitedInstances { target_group: self.target_group(&group.name)?, ids })
        };
        self.desired.fleet.groups.iter().map(of_group).collect()
    }

    async fn until_terminated(&self, ids: &[String], waiting: &dyn Fn(&str)) -> Result<(), ActionError> {
        let mut pace = Pace::new(self.timeout);
        loop {
            let found = self.cloud.instances(&self.desired.names).await?;
            let left: Vec<_> =
                found.iter().filter(|i| ids.contains(&i.id) && !i.is_gone()).map(|i| i.id.clone()).collect();
            if left.is_empty() {
                return Ok(());
            }
            waiting(&format!("{} still shutting down", left.len()));
            if !pace.next().await {
                return Err(ActionError::NotTerminated(left.join(", ")));
            }
        }
    }

    fn bucket(&self) -> (String, &str) {
        (self.desired.names.bucket(&self.around.account), &self.around.account)
    }

    fn group(&self, name: &str) -> Result<&'a Group, ActionError> {
        let found = self.desired.fleet.groups.iter().find(|group| group.name == name);
        found.ok_or_else(|| ActionError::Missing(format!("the group {name}")))
    }

    fn target_group(&self, group: &str) -> Result<String, ActionError> {
        let found = self.created.borrow().target_groups.get(group).cloned();
        found.ok_or_else(|| ActionError::Missing(format!("the target group of {group}")))
    }

    fn security_group(&self, side: Side) -> Result<String, ActionError> {
        let created = self.created.borrow();
        let (found, name) = match side {
            Side::Balancer => (&created.balancer_group, self.desired.names.balancer_group()),
            Side::Instances => (&created.instances_group, self.desired.names.instances_group()),
        };
        found.clone().ok_or_else(|| ActionError::Missing(format!("the security group {name}")))
    }

    fn balancer_group(&self) -> String {
        self.created.borrow().balancer_group.clone().unwrap_or_default()
    }

    fn balancer_arn(&self) -> Result<String, ActionError> {
        let created = self.created.borrow();
        let found = created.balancer.as_ref().map(|balancer| balancer.arn.clone());
        found.ok_or_else(|| ActionError::Missing("the load balancer".to_owned()))
    }

    fn listener(&self) -> Result<String, ActionError> {
        self.created.borrow().listener.clone().ok_or_else(|| ActionError::Missing("the listener".to_owned()))
    }

    fn subnets<'z>(&self, zones: impl IntoIterator<Item = &'z String>) -> Result<Vec<String>, ActionError> {
        let subnet = |zone: &String| {
            let found = self.around.subnets.get(zone).map(|subnet| subnet.id.clone());
            found.ok_or_else(|| ActionError::Missing(format!("a subnet in {zone}")))
        };
        zones.into_iter().map(subnet).collect()
    }

    fn weights(&self) -> Result<Vec<(String, u16)>, ActionError> {
        let groups = self.desired.fleet.groups.iter();
        groups.map(|group| Ok((self.target_group(&group.name)?, group.weight))).collect()
    }
}
