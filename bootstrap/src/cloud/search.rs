//! Searches the region by tag: which fleets exist, and what remains of one.

use std::fmt;

use futures_util::future::try_join_all;
use instance_contract::one_line;
use instance_contract::tags::FLEET;
use serde::Serialize;

use super::describe::filter;
use super::{CallError, Cloud, call};
use crate::fleet::values;
use crate::output::remark;

/// Roles in one answer; AWS's most.
const PAGE: i32 = 1000;
/// An id, name or ARN is shown to this length, in characters.
const LONGEST_ID: usize = 300;

/// Something that carries a fleet's tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct TaggedResource {
    /// The tag's value.
    pub(crate) fleet: String,
    pub(crate) kind: ResourceKind,
    /// Its id, name or ARN.
    pub(crate) id: String,
    /// Its state, where it has one.
    pub(crate) state: Option<String>,
}

/// A kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ResourceKind {
    LoadBalancer,
    Instance,
    Volume,
    TargetGroup,
    SecurityGroup,
    Bucket,
    Role,
    InstanceProfile,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LoadBalancer => "load balancer",
            Self::Instance => "instance",
            Self::Volume => "volume",
            Self::TargetGroup => "target group",
            Self::SecurityGroup => "security group",
            Self::Bucket => "bucket",
            Self::Role => "role",
            Self::InstanceProfile => "instance profile",
        })
    }
}

impl fmt::Display for TaggedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, one_line(&self.id, LONGEST_ID))?;
        match &self.state {
            Some(state) => write!(f, " ({state})"),
            None => Ok(()),
        }
    }
}

impl TaggedResource {
    /// Whether it is still there: EC2 goes on showing terminated instances for an hour.
    pub(crate) fn still_exists(&self) -> bool {
        !matches!(
            (self.kind, self.state.as_deref()),
            (ResourceKind::Instance, Some("terminated")) | (ResourceKind::Volume, Some("deleting"))
        )
    }
}

/// Everything in the region that carries the tag of this fleet, or of any, sorted. Roles and instance
/// profiles are looked for only where it is for any: those of one fleet have a name to look for.
///
/// # Errors
/// A call failed.
pub(crate) async fn search(cloud: &Cloud, fleet: Option<&str>) -> Result<Vec<TaggedResource>, CallError> {
    let (instances, volumes, groups, load_balancing, buckets, roles) = tokio::try_join!(
        instances(cloud, fleet),
        volumes(cloud, fleet),
        security_groups(cloud, fleet),
        load_balancing(cloud, fleet),
        buckets(cloud, fleet),
        async {
            match fleet {
                Some(_) => Ok(Vec::new()),
                None => roles(cloud).await,
            }
        },
    )?;
    let mut found = [instances, volumes, groups, load_balancing, buckets, roles].concat();
    found.sort();
    Ok(found)
}

fn tagged(fleet: Option<&str>) -> aws_sdk_ec2::types::Filter {
    match fleet {
        Some(fleet) => filter(&format!("tag:{FLEET}"), [fleet.to_owned()]),
        None => filter("tag-key", [FLEET.to_owned()]),
    }
}

fn fleet_of(tags: &[aws_sdk_ec2::types::Tag]) -> String {
    let tag = tags.iter().find(|tag| tag.key() == Some(FLEET));
    tag.and_then(|tag| tag.value()).unwrap_or_default().to_owned()
}

async fn instances(cloud: &Cloud, fleet: Option<&str>) -> Result<Vec<TaggedResource>, CallError> {
    let found = cloud.instances_where(tagged(fleet)).await?;
    let found = found.into_iter().map(|instance| TaggedResource {
        fleet: instance.tags.get(FLEET).cloned().unwrap_or_default(),
        kind: ResourceKind::Instance,
        id: instance.id,
        state: Some(instance.state),
    });
    Ok(found.collect())
}

async fn volumes(cloud: &Cloud, fleet: Option<&str>) -> Result<Vec<TaggedResource>, CallError> {
    let asked = cloud.ec2.describe_volumes().filters(tagged(fleet)).into_paginator().items().send();
    let found = call("list the volumes", asked.try_collect()).await?;
    let found = found.into_iter().map(|volume| TaggedResource {
        fleet: fleet_of(volume.tags()),
        kind: ResourceKind::Volume,
        id: volume.volume_id.unwrap_or_default(),
        state: volume.state.map(|state| state.as_str().to_owned()),
    });
    Ok(found.collect())
}

async fn security_groups(cloud: &Cloud, fleet: Option<&str>) -> Result<Vec<TaggedResource>, CallError> {
    let asked = cloud.ec2.describe_security_groups().filters(tagged(fleet)).into_paginator().items().send();
    let found = call("list the security groups", asked.try_collect()).await?;
    let found = found.into_iter().map(|group| TaggedResource {
        fleet: fleet_of(group.tags()),
        kind: ResourceKind::SecurityGroup,
        id: group.group_id.unwrap_or_default(),
        state: None,
    });
    Ok(found.collect())
}

async fn load_balancing(cloud: &Cloud, fleet: Option<&str>) -> Result<Vec<TaggedResource>, CallError> {
    let balancers = cloud.elbv2.describe_load_balancers().into_paginator().items().send();
    let groups = cloud.elbv2.describe_target_groups().into_paginator().items().send();
    let (balancers, groups) = tokio::try_join!(
        call("list the load balancers", balancers.try_collect()),
        call("list the target groups", groups.try_collect()),
    )?;
    let balancers = balancers.into_iter().map(|found| {
        let state = found.state.and_then(|state| state.code).map(|code| code.as_str().to_owned());
        (
            ResourceKind::LoadBalancer,
            found.load_balancer_arn.unwrap_or_default(),
            found.load_balancer_name,
            state,
        )
    });
    let groups = groups.into_iter().map(|found| {
        (ResourceKind::TargetGroup, found.target_group_arn.unwrap_or_default(), found.target_group_name, None)
    });
    let all: Vec<_> = balancers.chain(groups).collect();
    let arns: Vec<_> = all.iter().map(|(_, arn, _, _)| arn.clone()).collect();
    let tags = cloud.load_balancing_tags(&arns).await?;
    let found = all.into_iter().filter_map(|(kind, arn, name, state)| {
        let of = tags.get(&arn)?.get(FLEET)?;
        let wanted = fleet.is_none_or(|fleet| fleet == of);
        wanted.then(|| TaggedResource { fleet: of.clone(), kind, id: name.unwrap_or(arn), state })
    });
    Ok(found.collect())
}

/// By name, which says the fleet; this region's only.
async fn buckets(cloud: &Cloud, fleet: Option<&str>) -> Result<Vec<TaggedResource>, CallError> {
    let prefix = format!("instance-agent-{}", fleet.map(|fleet| format!("{fleet}-")).unwrap_or_default());
    let asked = cloud.s3.list_buckets().prefix(&prefix).into_paginator().items().send();
    let found = call("list the buckets", asked.try_collect()).await?;
    let ending = format!("-{}", cloud.region);
    let found = found.into_iter().filter_map(|bucket| {
        let id = bucket.name?;
        let middle = id.strip_prefix("instance-agent-")?.strip_suffix(&ending)?;
        let (of, account) = middle.rsplit_once('-')?;
        let ours = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        let wanted = ours && fleet.is_none_or(|fleet| fleet == of);
        wanted.then(|| TaggedResource {
            fleet: of.to_owned(),
            kind: ResourceKind::Bucket,
            id: id.clone(),
            state: None,
        })
    });
    Ok(found.collect())
}

/// By name, which says the fleet, and by tag where these credentials may read it; this region's only.
async fn roles(cloud: &Cloud) -> Result<Vec<TaggedResource>, CallError> {
    let roles = cloud.iam.list_roles().max_items(PAGE).into_paginator().items().send();
    let profiles = cloud.iam.list_instance_profiles().max_items(PAGE).into_paginator().items().send();
    let asked = tokio::try_join!(
        call("list the roles", roles.try_collect()),
        call("list the instance profiles", profiles.try_collect()),
    );
    let (roles, profiles): (Vec<_>, Vec<_>) = match asked {
        Ok(found) => found,
        // Without the permission to list roles, the rest of the list is still useful.
        Err(error) if error.is_denied() => {
            remark(&format!("warning: roles and instance profiles are not listed: {error}"));
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let roles = roles.into_iter().map(|role| (ResourceKind::Role, role.role_name));
    let profiles =
        profiles.into_iter().map(|profile| (ResourceKind::InstanceProfile, profile.instance_profile_name));
    let ending = format!("-{}", cloud.region);
    let named = roles.chain(profiles).filter_map(|(kind, id)| {
        let of = id.strip_prefix("instance-agent-")?.strip_suffix(&ending)?.to_owned();
        values::fleet_name(&of).is_ok().then_some(TaggedResource { fleet: of, kind, id, state: None })
    });
    let proved = named.map(async |found| match cloud.role(&found.id, &found.fleet).await {
        Ok(None) => Ok(None),
        Ok(Some(_)) => Ok(Some(found)),
        Err(error) if error.is_denied() => Ok(Some(found)),
        Err(error) => Err(error),
    });
    Ok(try_join_all(proved).await?.into_iter().flatten().collect())
}
