//! The plan of a destroy: looks up what exists, and refuses what AWS would refuse before anything is deleted.

use super::growth::Growth;
use super::prepare::{PrepareError, Prepared, foreign_role, stored};
use super::problems::used_elsewhere;
use crate::cloud::Cloud;
use crate::cloud::survey::TARGET_GROUP;
use crate::fleet::names::Names;
use crate::fleet::{Desired, Fleet};
use crate::plan::destroy_plan;
use crate::plan::inventory::Role;
use crate::plan::surroundings::Surroundings;

/// Looks up a fleet's resources and plans their deletion. `known` is the fleet as an earlier survey found it: its stored
/// definition is deleted before the last resources are. `force` also plans to remove protections.
///
/// # Errors
/// A call failed; the balancer is protected.
pub(crate) async fn prepare_destroy(
    cloud: &Cloud,
    name: &str,
    known: Option<Fleet>,
    force: bool,
) -> Result<Prepared, PrepareError> {
    let names = Names::new(name, &cloud.region);
    let (survey, identity) = tokio::join!(cloud.survey(&names), cloud.identity());
    let (mut survey, (account, partition)) = (survey?, identity?);
    let known = stored(&survey.inventory).ok().flatten().or(known);
    let mut notes = Vec::new();
    let bucket = names.bucket(&account);
    let role = async {
        match &known {
            // This fleet has no role of its own, and its operator's policy does not allow the call.
            Some(fleet) if fleet.instance_profile.is_some() => Ok(Some(Role::default())),
            _ => cloud.role(&names.role(), name).await,
        }
    };
    let (role, bucket, proved) = tokio::join!(
        role,
        cloud.find_bucket(&bucket, name, &account),
        cloud.retain_tagged(&names, &mut survey)
    );
    proved?;
    match role {
        Ok(Some(found)) => survey.inventory.role = Some(found),
        Ok(None) => survey.foreign.push(foreign_role(&names)),
        Err(error) if known.is_none() && error.is_denied() => {
            notes.push(format!("cannot tell whether the role {} exists: {error}", names.role()));
        }
        Err(error) => return Err(error.into()),
    }
    match bucket {
        Ok(found) => survey.inventory.bucket = Some(found),
        Err(crate::cloud::package_bucket::PackageError::Call(error)) => return Err(error.into()),
        // The bucket belongs to someone else: destroy leaves it alone.
        Err(error) => notes.push(error.to_string()),
    }
    // Target groups of other fleets may begin with this one's name: no news.
    for found in survey.foreign.iter().filter(|found| found.kind != TARGET_GROUP) {
        notes.push(format!("{found} does not carry this fleet's tags: left unchanged"));
    }
    let have = survey.inventory;
    for (group, users) in used_elsewhere(cloud, &names, &have).await? {
        notes.push(format!(
            "cannot delete target group {group}: {users}, which does not belong to this fleet, uses it; delete \
             that listener or rule, or change where it forwards, then destroy again"
        ));
    }
    let protected = match &have.balancer {
        Some(balancer) => cloud.is_protected(&balancer.arn).await?,
        None => false,
    };
    if let Some(balancer) = have.balancer.as_ref().filter(|_| protected && !force) {
        return Err(PrepareError::Refused(format!(
            "nothing was changed: load balancer {} has deletion protection; `bootstrap destroy {name} --region \
             {} --force` removes it, as does `aws elbv2 modify-load-balancer-attributes --region {} \
             --load-balancer-arn {} \
             --attributes Key=deletion_protection.enabled,Value=false`",
            names.balancer(),
            names.region,
            names.region,
            balancer.arn
        )));
    }
    let plan = destroy_plan(&have, &names, protected);
    // A destroy needs only the name, not the definition.
    let fleet = known.unwrap_or_else(|| Fleet::unknown(name));
    let around = Surroundings { account, partition, ..Surroundings::default() };
    let desired = Desired::new(fleet, names);
    Ok(Prepared {
        desired,
        deb: None,
        have,
        around,
        plan,
        differences: Vec::new(),
        notes,
        is_explicit: true,
        growth: Growth::default(),
        force,
    })
}
