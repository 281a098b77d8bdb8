//! Doing the actions of a plan: from the fleet as wanted and what earlier steps made to calls.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use instance_tags::CLUSTER;
use tokio::sync::Notify;

use crate::cloud::ec2::Batch;
use crate::cloud::pace::Pace;
use crate::cloud::package::PackageError;
use crate::cloud::{CallError, Cloud};
use crate::deb::Deb;
use crate::engine::health::{Unhealthy, Wanted, Watch};
use crate::fleet::names::Names;
use crate::fleet::tagging;
use crate::fleet::{Fleet, Group, Package};
use crate::plan::inventory::{Balancer, Instance, Inventory};
use crate::plan::surroundings::Surroundings;
use crate::plan::{Action, Effect, Side, members};
use crate::policy::{self, Scope};
use crate::user_data::{PackageForInstance, UserDataError, user_data};

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
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
    /// Instances are not terminated in time.
    #[error("still not terminated: {0}; run the command again later")]
    Lingering(String),
    /// An instance that was to be replaced was taken for its own replacement.
    #[error("{0} was to be replaced, and AWS gave it back instead of a new one; run the command again")]
    Reused(String),
    /// Another command is changing the fleet.
    #[error(
        "another command has changed the definition of fleet {0} meanwhile, so this one stops; if this is the one that \
         is meant, run it again when the other has ended: it shows the differences"
    )]
    Overtaken(String),
    /// The fleet is being destroyed.
    #[error(
        "fleet {0} was destroyed meanwhile, so this launch stops; `bootstrap destroy {0}` removes what it has made \
         since"
    )]
    Destroyed(String),
    /// Something was made of the fleet since it was looked at, and is in the way.
    #[error("{0} has come to be meanwhile")]
    More(String),
    /// The account is not as it was when the plan was made.
    #[error("{0} is not there; run the command again")]
    Missing(String),
}

/// What actions need, and what they have made so far.
pub(crate) struct Work<'a> {
    pub(crate) cloud: &'a Cloud,
    pub(crate) fleet: &'a Fleet,
    pub(crate) names: &'a Names,
    pub(crate) around: &'a Surroundings,
    /// The package's file, where it is at hand.
    pub(crate) deb: Option<&'a Deb>,
    pub(crate) have: &'a Inventory,
    /// How long the fleet may take to become healthy, or to go.
    pub(crate) patience: Duration,
    pub(super) made: RefCell<Made>,
}

/// What is there by now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    pub(crate) balancer: Option<Balancer>,
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

impl<'a> Work<'a> {
    /// Work on what is there.
    pub(crate) fn new(
        cloud: &'a Cloud,
        fleet: &'a Fleet,
        names: &'a Names,
        around: &'a Surroundings,
        deb: Option<&'a Deb>,
        have: &'a Inventory,
        patience: Duration,
    ) -> Self {
        let target_groups = fleet.groups.iter().filter_map(|group| {
            let found = have.target_group(fleet, group)?;
            Some((group.name.clone(), found.arn.clone()))
        });
        let made = Made {
            balancer: have.balancer.clone(),
            balancer_group: have.balancer_group.as_ref().map(|group| group.id.clone()),
            instances_group: have.instances_group.as_ref().map(|group| group.id.clone()),
            listener: have.listener.as_ref().map(|listener| listener.arn.clone()),
            target_groups: target_groups.collect(),
            ..Made::default()
        };
        Self { cloud, fleet, names, around, deb, have, patience, made: RefCell::new(made) }
    }

    /// The balancer as last seen.
    pub(crate) fn balancer(&self) -> Option<Balancer> {
        self.made.borrow().balancer.clone()
    }

    /// The fleet's instances as they were when all was done.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        self.made.borrow().instances.clone()
    }

    /// Does one action and answers what it made, in short. May be repeated.
    ///
    /// # Errors
    /// It could not be done.
    pub(crate) async fn act(&self, action: &Action, waiting: &dyn Fn(&str)) -> Result<String, ActError> {
        let waits = Notify::new();
        let tell = |reason: &str| {
            waits.notify_one();
            waiting(reason);
        };
        tokio::select! {
            made = self.make(action, &tell) => made,
            error = self.no_longer_wanted(&waits), if action.effect() == Effect::Create => Err(error),
        }
    }

    async fn make(&self, action: &Action, waiting: &dyn Fn(&str)) -> Result<String, ActError> {
        let Self { cloud, fleet, names, .. } = self;
        match action {
            Action::CreateSecurityGroup(side) => return self.create_security_group(*side).await,
            Action::StoreDefinition => self.store_definition().await?,
            Action::Tag { resources, arns } => {
                let tags = tagging::common(fleet);
                cloud.tag_load_balancing(arns, &tags).await?;
                cloud.tag(resources, &tags).await?;
            }
            Action::TagAnswers { group, paths, ids } => {
                cloud.tag(ids, &tagging::answers(self.group(group)?)).await?;
                if !paths {
                    cloud.untag(ids, &[CLUSTER.to_owned()]).await?;
                }
            }
            Action::Open(side, openings) => {
                cloud.open(&self.security_group(*side)?, openings, &self.balancer_group(), waiting).await?;
            }
            Action::Close(side, openings) => {
                cloud.close(&self.security_group(*side)?, openings, &self.balancer_group()).await?;
            }
            Action::CreateRole => {
                let china = self.around.partition == "aws-cn";
                let service = if china { "ec2.amazonaws.com.cn" } else { "ec2.amazonaws.com" };
                cloud.create_role(&names.role(), &tagging::common(fleet), service).await?;
            }
            Action::PutRolePolicy { also } => {
                let policy = agent_policy(fleet, names, self.around, also);
                cloud.put_role_policy(&names.role(), &policy, waiting).await?;
            }
            Action::CreateProfile => cloud.create_profile(&names.role(), &tagging::common(fleet)).await?,
            Action::AddRole => cloud.add_role(&names.role(), waiting).await?,
            Action::CreateBucket => {
                let (bucket, account) = self.bucket();
                cloud.create_bucket(&bucket, account, &tagging::common(fleet), waiting).await?;
                self.made.borrow_mut().fresh_bucket = true;
                return Ok(bucket);
            }
            Action::Upload => {
                let (bucket, account) = self.bucket();
                let fresh = self.made.borrow().fresh_bucket;
                let deb = self.deb.ok_or_else(|| ActError::Missing("the package's file".to_owned()))?;
                cloud.upload(&bucket, account, deb, fresh, waiting).await?;
            }
            Action::CreateTargetGroup(name) => {
                let vpc = self.around.vpc().ok_or_else(|| ActError::Missing("the default VPC".to_owned()))?;
                let arn = cloud.create_target_group(fleet, self.group(name)?, vpc).await?;
                self.made.borrow_mut().target_groups.insert(name.clone(), arn);
            }
            Action::SetHealthCheck(name) => cloud.set_health_check(&self.target_group(name)?, fleet).await?,
            Action::SetDelay(name) => {
                cloud.set_delay(&self.target_group(name)?, fleet.deregistration_delay, waiting).await?;
            }
            Action::CreateBalancer => {
                let group = self.security_group(Side::Balancer)?;
                let made =
                    cloud.create_balancer(fleet, &self.subnets(&fleet.zones)?, &group, waiting).await?;
                let dns_name = made.dns_name.clone();
                self.made.borrow_mut().balancer = Some(made);
                return Ok(dns_name);
            }
            Action::SetZones(zones) => {
                cloud.set_subnets(&self.balancer_arn()?, &self.subnets(zones)?).await?;
            }
            Action::CreateListener => {
                let (balancer, weights) = (self.balancer_arn()?, self.weights()?);
                let arn = cloud.create_listener(&balancer, fleet, &weights, waiting).await?;
                self.made.borrow_mut().listener = Some(arn);
            }
            Action::KeepDefault { there, new } => {
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
                cloud.create_rule(&listener, fleet, group, *priority, &target_group, waiting).await?;
            }
            Action::DeleteRule { arn } => cloud.delete_rule(arn).await?,
            Action::RunInstances { group, zone, slots } => {
                return self.run_instances(group, zone, slots, waiting).await;
            }
            Action::Confirm => self.confirm(&fleet.definition()).await?,
            Action::WaitHealthy => self.until_healthy(true, waiting).await?,
            Action::TerminateInstances { ids } => {
                // Whatever led to it: what this run has launched is not what this run has to end.
                let launched = self.made.borrow().launched.clone();
                let is_new = |id: &&String| launched.values().flatten().any(|new| new == *id);
                if let Some(id) = ids.iter().find(is_new) {
                    return Err(ActError::Reused(id.clone()));
                }
                cloud.terminate(ids).await?;
            }
            Action::DeleteTargetGroup { arn, name } => {
                self.when_unused(waiting, async || cloud.delete_target_group(arn, name).await).await?;
            }
            Action::Settle => {
                let group = self.security_group(Side::Instances)?;
                let digest = tagging::digest(&fleet.definition());
                let tags = [(tagging::SETTLED.to_owned(), digest)].into();
                // The addresses of new instances are known only now, and whoever launched wants to see them.
                let (group, names) = ([group], *names);
                let ((), found) = tokio::try_join!(cloud.tag(&group, &tags), cloud.instances(names))?;
                self.made.borrow_mut().instances = found;
            }
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

    /// Waits until every wanted instance is healthy. `repaired`: something has just come to be that agents may
    /// have asked for in vain.
    ///
    /// # Errors
    /// They are not, or a call failed.
    pub(crate) async fn until_healthy(&self, repaired: bool, waiting: &dyn Fn(&str)) -> Result<(), ActError> {
        let Self { cloud, fleet, names, patience, .. } = *self;
        let wanted = self.wanted()?;
        let watch = Watch { cloud, fleet, names, wanted: &wanted, patience, repaired };
        let balancer = self.made.borrow().balancer.clone();
        watch.until_healthy(balancer.as_ref(), waiting).await?;
        if let Some(balancer) = &mut self.made.borrow_mut().balancer {
            "active".clone_into(&mut balancer.state);
        }
        Ok(())
    }

    async fn create_security_group(&self, side: Side) -> Result<String, ActError> {
        let vpc = self.around.vpc().ok_or_else(|| ActError::Missing("the default VPC".to_owned()))?;
        let mut tags = tagging::common(self.fleet);
        let (name, description) = match side {
            Side::Balancer => (self.names.balancer_group(), "load balancer of the fleet"),
            Side::Instances => {
                tags.extend(tagging::definition(self.fleet));
                (self.names.instances_group(), "instances of the fleet")
            }
        };
        let description = format!("{description} {}", self.fleet.name);
        let (id, was_there) =
            self.cloud.create_security_group(self.names, &name, &description, vpc, tags).await?;
        if was_there && side == Side::Instances {
            self.confirm(&self.fleet.definition()).await?;
        }
        let mut made = self.made.borrow_mut();
        match side {
            Side::Balancer => made.balancer_group = Some(id.clone()),
            Side::Instances => made.instances_group = Some(id.clone()),
        }
        Ok(id)
    }

    /// Pieces of an older, longer definition are removed first: cut off at a gap, what is left of it
    /// cannot be taken for a whole one.
    async fn store_definition(&self) -> Result<(), ActError> {
        let group = self.security_group(Side::Instances)?;
        self.confirm(&self.have.definition().unwrap_or_default()).await?;
        let tags = tagging::definition(self.fleet);
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
    ) -> Result<String, ActError> {
        let fleet = self.fleet;
        let group = self.group(group)?;
        let image = self.around.image(&group.instance_type);
        let image = image.ok_or_else(|| ActError::Missing(format!("the image {}", fleet.image)))?;
        let mut batch = Batch {
            group: group.name.clone(),
            target_group: self.target_group(&group.name)?,
            subnet: String::new(),
            zone: String::new(),
            revision: tagging::revision(fleet, group),
            slots: slots.to_vec(),
            image: image.id.clone(),
            root_device: image.root_device.clone(),
            instance_type: group.instance_type.clone(),
            security_group: self.security_group(Side::Instances)?,
            key_pair: fleet.key_pair.clone(),
            profile: fleet.instance_profile.clone().unwrap_or_else(|| self.names.role()),
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
            let tags = |slots: &[u16]| tagging::instance(fleet, group, slots);
            match self.cloud.run_instances(&batch, &tags, waiting).await {
                Ok(launched) => {
                    let ids: Vec<_> = launched.into_iter().map(|instance| instance.id).collect();
                    let text = ids.join(", ");
                    let mut made = self.made.borrow_mut();
                    made.launched.entry(group.name.clone()).or_default().extend(ids);
                    return Ok(format!("{text} in {zone}"));
                }
                Err(error) if error.code() == "InsufficientInstanceCapacity" => {
                    waiting(&format!("{zone} has no room for {}; trying another zone", group.instance_type));
                    full = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(full.map_or_else(|| ActError::Missing(format!("a subnet in {zone}")), ActError::from))
    }

    async fn user_data(&self, waiting: &dyn Fn(&str)) -> Result<Option<String>, ActError> {
        let package = match (PackageForInstance::of(self.fleet.package.as_ref()), &self.fleet.package) {
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
    fn wanted(&self) -> Result<Vec<Wanted>, ActError> {
        wanted(self.fleet, self.have, |group| self.target_group(group), &self.made.borrow().launched)
    }

    async fn until_terminated(&self, ids: &[String], waiting: &dyn Fn(&str)) -> Result<(), ActError> {
        let mut pace = Pace::new(self.patience);
        loop {
            let found = self.cloud.instances(self.names).await?;
            let left: Vec<_> =
                found.iter().filter(|i| ids.contains(&i.id) && !i.is_gone()).map(|i| i.id.clone()).collect();
            if left.is_empty() {
                return Ok(());
            }
            waiting(&format!("{} still shutting down", left.len()));
            if !pace.next().await {
                return Err(ActError::Lingering(left.join(", ")));
            }
        }
    }

    fn bucket(&self) -> (String, &str) {
        (self.names.bucket(&self.around.account), &self.around.account)
    }

    fn group(&self, name: &str) -> Result<&'a Group, ActError> {
        let found = self.fleet.groups.iter().find(|group| group.name == name);
        found.ok_or_else(|| ActError::Missing(format!("the group {name}")))
    }

    fn target_group(&self, group: &str) -> Result<String, ActError> {
        let found = self.made.borrow().target_groups.get(group).cloned();
        found.ok_or_else(|| ActError::Missing(format!("the target group of {group}")))
    }

    fn security_group(&self, side: Side) -> Result<String, ActError> {
        let made = self.made.borrow();
        let (found, name) = match side {
            Side::Balancer => (&made.balancer_group, self.names.balancer_group()),
            Side::Instances => (&made.instances_group, self.names.instances_group()),
        };
        found.clone().ok_or_else(|| ActError::Missing(format!("the security group {name}")))
    }

    fn balancer_group(&self) -> String {
        self.made.borrow().balancer_group.clone().unwrap_or_default()
    }

    fn balancer_arn(&self) -> Result<String, ActError> {
        let made = self.made.borrow();
        let found = made.balancer.as_ref().map(|balancer| balancer.arn.clone());
        found.ok_or_else(|| ActError::Missing("the load balancer".to_owned()))
    }

    fn listener(&self) -> Result<String, ActError> {
        self.made.borrow().listener.clone().ok_or_else(|| ActError::Missing("the listener".to_owned()))
    }

    fn subnets<'z>(&self, zones: impl IntoIterator<Item = &'z String>) -> Result<Vec<String>, ActError> {
        let subnet = |zone: &String| {
            let found = self.around.subnets.get(zone).map(|subnet| subnet.id.clone());
            found.ok_or_else(|| ActError::Missing(format!("a subnet in {zone}")))
        };
        zones.into_iter().map(subnet).collect()
    }

    fn weights(&self) -> Result<Vec<(String, u16)>, ActError> {
        let groups = self.fleet.groups.iter();
        groups.map(|group| Ok((self.target_group(&group.name)?, group.weight))).collect()
    }
}

/// What the fleet's agents may do, and those in target groups that it had `also`.
pub(crate) fn agent_policy(
    fleet: &Fleet,
    names: &Names,
    around: &Surroundings,
    also: &[String],
) -> serde_json::Value {
    let mut scope = Scope::of(fleet, Some(&names.region), Some(&around.account));
    scope.target_groups.extend_from_slice(also);
    policy::agent(&scope)
}

/// The instances of each group that have to be healthy.
pub(crate) fn wanted<E>(
    fleet: &Fleet,
    have: &Inventory,
    arn: impl Fn(&str) -> Result<String, E>,
    launched: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<Wanted>, E> {
    let of_group = |group: &Group| {
        let kept = members(fleet, group, have).kept;
        let mut ids: BTreeSet<_> = kept.into_values().map(|instance| instance.id.clone()).collect();
        ids.extend(launched.get(&group.name).into_iter().flatten().cloned());
        Ok(Wanted { target_group: arn(&group.name)?, ids })
    };
    fleet.groups.iter().map(of_group).collect()
}
