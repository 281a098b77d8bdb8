//! The plan of a launch: looks up what exists, compares it with the request, and finds what would fail before
//! anything is created.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use instance_contract::nearest;

use super::growth::Growth;
use super::problems::{name_conflicts, package_problem, stopped, used_elsewhere};
use crate::cloud::survey::{ForeignResource, Survey};
use crate::cloud::{CallError, Cloud};
use crate::deb::{CarriedPackages, Deb};
use crate::fleet::names::Names;
use crate::fleet::{DefinitionError, Desired, Difference, Fleet, Group, Package};
use crate::local::running_local;
use crate::output::WrongUsage;
use crate::plan::inventory::{Inventory, Role};
use crate::plan::surroundings::Surroundings;
use crate::plan::{Action, Effect, Plan, launch_plan, preflight};
use crate::policy::agent_policy;

/// Why there is no plan. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The stored definition cannot be used.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The request names something that the fleet does not have.
    #[error(transparent)]
    Usage(#[from] WrongUsage),
    /// The request would fail: why, with the cure.
    #[error("{0}")]
    Refused(String),
    /// New instances need the query of the package's address, which is not stored.
    #[error("{0}")]
    QueryNeeded(QueryNeeded),
}

/// The query of the package's address is needed again.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing was changed: the package's address {address} had a query, perhaps a signature, which bootstrap does \
     not store; new instances ({launched}) need it"
)]
pub(crate) struct QueryNeeded {
    /// Without the query.
    pub(crate) address: String,
    /// SHA-256 of the package.
    pub(crate) sha256: String,
    /// How many instances are to be launched.
    launched: usize,
    /// `launch` with what `scale` was asked for; `None` where the typed command takes the package.
    pub(crate) launch: Option<String>,
}

/// What is asked for.
pub(crate) enum Request {
    /// This fleet; without a package, with the one it has.
    Fleet(Box<Fleet>),
    /// The fleet that is there, with other counts.
    Counts(Vec<(String, u16)>),
}

/// Everything that is known before the first change: the input of a plan's execution.
pub(crate) struct Prepared {
    /// The fleet as wanted, package included.
    pub(crate) desired: Desired,
    /// The package's file, where it is at hand.
    pub(super) deb: Option<Deb>,
    pub(crate) have: Inventory,
    pub(crate) around: Surroundings,
    pub(crate) plan: Plan,
    /// How the fleet differs from its stored definition; empty for a new fleet.
    pub(crate) differences: Vec<Difference>,
    /// Remarks for the user, a sentence each.
    pub(crate) notes: Vec<String>,
    /// Whether the command line named each difference (`scale`), so that no confirmation is needed.
    pub(super) is_explicit: bool,
    pub(super) growth: Growth,
    /// Whether to remove deletion and termination protection first.
    pub(super) force: bool,
}

/// Looks at the account and plans. Nothing is changed. A fleet for which no package is known gets the one that comes
/// with this program.
///
/// # Errors
/// A call failed, or something would make the launch fail; all that was found is in the message.
pub(crate) async fn prepare(
    cloud: &Cloud,
    name: &str,
    request: Request,
    mut deb: Option<Deb>,
) -> Result<Prepared, PrepareError> {
    let names = Names::new(name, &cloud.region);
    let mut survey = cloud.survey(&names).await?;
    let stored = stored(&survey.inventory)?;
    let is_explicit = matches!(request, Request::Counts(_));
    let scaled = match &request {
        Request::Counts(counts) => Some(counts.clone()),
        Request::Fleet(_) => None,
    };
    if is_explicit && stored.is_none() {
        return Err(PrepareError::Refused(not_found_message(cloud, name).await));
    }
    let mut fleet = requested(request, stored.as_ref())?;
    let differences = stored.as_ref().map(|stored| fleet.differences(stored)).unwrap_or_default();
    let growth = Growth::between(stored.as_ref(), &fleet);
    let from_stored = is_explicit || fleet.package.is_none();
    if fleet.package.is_none() {
        fleet.package = stored.and_then(|stored| stored.package);
    }
    let carried = CarriedPackages::find();
    let needs_carried = fleet.package.is_none();
    if needs_carried {
        if carried.is_empty() {
            return Err(PrepareError::Refused(no_package("this bootstrap comes with none")));
        }
        // Which one it is follows from the instances' processors.
        fleet.package = Some(Package::Deb { file: None, sha256: String::new() });
    }
    let mut desired = Desired::new(fleet, names);
    refuse(&desired.names, &stopped(&desired, &survey.inventory))?;
    if survey.ownership_is_certain() && survey.inventory.is_settled(&desired) {
        let have = survey.inventory.clone();
        let plan =
            launch_plan(&desired, &have, &|_| serde_json::Value::Null).map_err(PrepareError::Refused)?;
        if plan.is_empty() {
            let (around, notes) = (Surroundings::default(), Vec::new());
            return Ok(Prepared {
                desired,
                deb,
                have,
                around,
                plan,
                differences,
                notes,
                is_explicit,
                growth,
                force: false,
            });
        }
    }
    let mut problems = Vec::new();
    let around = look_up_details(cloud, &desired, &mut survey, &mut problems).await?;
    if deb.is_none() {
        let found = match &desired.fleet.package {
            Some(Package::Deb { .. }) if needs_carried => fitting(&carried, &desired.fleet, &around).await,
            // The launch that stored it may have been interrupted before the package was in its bucket.
            Some(Package::Deb { sha256, .. }) => Ok(carried.with_sum(sha256).await),
            _ => Ok(None),
        };
        deb = found.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if let Some(deb) = &deb {
            let mut fleet = desired.fleet;
            fleet.package = Some(Package::Deb { file: Some(deb.file.clone()), sha256: deb.sha256.clone() });
            desired = Desired::new(fleet, desired.names);
        }
    }
    let (fleet, names) = (&desired.fleet, &desired.names);
    let have = survey.inventory;
    problems.extend(name_conflicts(&survey.foreign, fleet, around.vpc()));
    for (group, users) in used_elsewhere(cloud, names, &have).await? {
        problems.push(format!(
            "target group {group} belongs to another load balancer: {users} uses it; delete that listener or \
             rule, or change where it forwards"
        ));
    }
    let policy = |also: &[String]| agent_policy(&desired, &around.account, also);
    let plan = launch_plan(&desired, &have, &policy).map_err(PrepareError::Refused)?;
    let launched = fleet.groups.iter().map(|g| (g.instance_type.clone(), plan.launched(&g.name)));
    let launched: Vec<_> = launched.filter(|(_, count)| *count > 0).collect();
    // A plan that only takes away needs nothing of what could be missing.
    if plan.steps.iter().any(|step| step.action.effect() == Effect::Create) {
        problems.extend(preflight::problems(&around, fleet, &cloud.region, &launched));
    }
    let query_needed = fleet.package.as_ref().filter(|_| from_stored && !launched.is_empty());
    let query_needed = query_needed.and_then(Package::without_its_query);
    if query_needed.is_some() {
        // The server would refuse the rest of the address.
    } else if needs_carried && deb.is_none() {
        if problems.is_empty() {
            problems.push(no_package("the architecture of their types is unknown"));
        }
    } else if !launched.is_empty() || deb.is_some() {
        // A package that nobody needs now is kept for later launches.
        problems.extend(package_problem(fleet, &have, &around, deb.as_ref()).await);
    }
    refuse(names, &problems)?;
    if let Some((address, sha256)) = query_needed {
        return Err(PrepareError::QueryNeeded(QueryNeeded {
            address: address.to_owned(),
            sha256: sha256.to_owned(),
            launched: launched.iter().map(|(_, count)| count).sum(),
            launch: scaled.map(|counts| launch_command(names, &counts)),
        }));
    }
    let notes = Vec::new();
    Ok(Prepared { desired, deb, have, around, plan, differences, notes, is_explicit, growth, force: false })
}

/// The package that has come with this program and that this fleet's instances can install.
///
/// # Errors
/// Why there is none, with the cure.
async fn fitting(
    carried: &CarriedPackages,
    fleet: &Fleet,
    around: &Surroundings,
) -> Result<Option<Deb>, String> {
    let known = |group: &Group| around.types.get(&group.instance_type)?.architecture.as_deref();
    // Types that are not known are problems of their own.
    let Some(architecture) = fleet.groups.iter().find_map(known) else {
        return Ok(None);
    };
    match carried.read(architecture).await {
        Ok(Some(deb)) => Ok(Some(deb)),
        Ok(None) => Err(no_package(&format!("this bootstrap comes with none for {architecture}"))),
        Err(error) => Err(error.to_string()),
    }
}

/// The message that there is no package, with the cure.
fn no_package(why: &str) -> String {
    format!(
        "no package of instance-agent for the instances: {why}; install the package instance-bootstrap, which \
         contains it, or give --deb FILE, --package-url with --package-sha256, --apt with --apt-key, or \
         --in-image if the image contains the agent"
    )
}

/// The `launch` that does what a `scale` was asked for: it takes a package.
fn launch_command(names: &Names, counts: &[(String, u16)]) -> String {
    let fleet = Fleet::built_in(&names.fleet).map_or("FLEET-FILE", |_| &names.fleet);
    let counts = counts.iter().map(|(group, count)| format!(" --count {group}={count}"));
    format!("bootstrap launch {fleet} --region {}{}", names.region, counts.collect::<String>())
}

/// # Errors
/// The problems, one a line, if there are any.
fn refuse(names: &Names, problems: &[String]) -> Result<(), PrepareError> {
    let text = match problems {
        [] => return Ok(()),
        [one] => format!("nothing was changed: {one}"),
        many => format!(
            "nothing was changed; {} problems would make fleet {} fail:\n  {}",
            many.len(),
            names.fleet,
            many.join("\n  ")
        ),
    };
    Err(PrepareError::Refused(text))
}

/// The definition that a launch stored.
///
/// # Errors
/// It cannot be read, or another version wrote it.
pub(crate) fn stored(have: &Inventory) -> Result<Option<Fleet>, DefinitionError> {
    let Some(text) = have.definition() else {
        return Ok(None);
    };
    Ok(Some(Fleet::from_definition(&text)?))
}

fn requested(request: Request, stored: Option<&Fleet>) -> Result<Fleet, PrepareError> {
    match (request, stored) {
        (Request::Fleet(fleet), _) => Ok(*fleet),
        (Request::Counts(_), None) => Err(PrepareError::Refused("there is nothing to scale".to_owned())),
        (Request::Counts(counts), Some(stored)) => {
            let mut fleet = stored.clone();
            for (group, count) in counts {
                fleet.set_count(&group, count).map_err(WrongUsage)?;
            }
            Ok(fleet)
        }
    }
}

/// The message that there is no such fleet: which region was searched, and how to search another.
pub(crate) async fn not_found_message(cloud: &Cloud, name: &str) -> String {
    let account = cloud.identity().await.map(|(account, _)| account).unwrap_or_default();
    let (place, local) = (place(&cloud.region, &account), running_local(name));
    match did_you_mean(name) {
        hint if hint.is_empty() => format!("there is no fleet {name} in {place}; {OTHER_REGION_HINT}{local}"),
        hint => format!("there is no fleet {name} in {place}{hint} Otherwise: {OTHER_REGION_HINT}{local}"),
    }
}

/// `; did you mean clusters?` where a name is nearly that of a built-in fleet; else nothing.
pub(crate) fn did_you_mean(name: &str) -> String {
    let built_in = Fleet::built_in(name).is_some();
    let near = nearest(name, Fleet::built_in_names()).filter(|_| !built_in);
    near.map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// A region and, where it is known, the account.
pub(crate) fn place(region: &str, account: &str) -> String {
    match account {
        "" => region.to_owned(),
        account => format!("{region} of account {account}"),
    }
}

/// Where a fleet that was not found can be.
pub(crate) const OTHER_REGION_HINT: &str = "for a fleet in another region give --region, or its fleet file \
 instead of its name; `bootstrap list --region REGION` lists a region's fleets";

pub(super) fn foreign_role(names: &Names) -> ForeignResource {
    ForeignResource { kind: "the role or instance profile", name: names.role(), vpc: None }
}

/// Looks up the facts that only a change needs.
async fn look_up_details(
    cloud: &Cloud,
    desired: &Desired,
    survey: &mut Survey,
    problems: &mut Vec<String>,
) -> Result<Surroundings, CallError> {
    let Desired { fleet, names, .. } = desired;
    let have = survey.inventory.clone();
    let groups = &have.target_groups;
    let delays = async { try_join_all(groups.iter().map(|group| cloud.deregistration_delay(group))).await };
    let role = async {
        match fleet.instance_profile {
            Some(_) => Ok(Some(Role::default())),
            None => cloud.role(&names.role(), &names.fleet).await,
        }
    };
    let profile = cloud.profile_problem(fleet);
    // The bucket's name has the account in it.
    let account = async {
        let (account, partition) = cloud.identity().await?;
        let bucket = match fleet.package {
            Some(Package::Deb { .. }) => {
                Some(cloud.find_bucket(&names.bucket(&account), &names.fleet, &account).await)
            }
            _ => None,
        };
        Ok((account, partition, bucket))
    };
    let (mut around, unhealthy, delays, role, profile, account, ()) = tokio::try_join!(
        cloud.surroundings(fleet),
        cloud.unhealthy(fleet, &have),
        delays,
        role,
        profile,
        account,
        cloud.retain_tagged(names, survey)
    )?;
    let (account, partition, bucket) = account;
    around.account = account;
    around.partition = partition;
    survey.inventory.unhealthy = unhealthy;
    for (group, delay) in groups.iter().zip(delays) {
        if let Some(found) = survey.inventory.target_groups.iter_mut().find(|found| found.arn == group.arn) {
            found.delay = delay;
        }
    }
    match role {
        Some(found) => survey.inventory.role = Some(found),
        None => survey.foreign.push(foreign_role(names)),
    }
    problems.extend(profile);
    match bucket {
        Some(Ok(bucket)) => survey.inventory.bucket = Some(bucket),
        Some(Err(error)) => problems.push(error.to_string()),
        None => {}
    }
    Ok(around)
}

impl Prepared {
    /// How many instances it adds that somebody has to agree to.
    pub(crate) fn growth_to_confirm(&self) -> Option<u32> {
        self.growth.needs_consent().then_some(self.growth.instances)
    }

    /// Whether it takes away or changes what somebody may rely on, or costs more than was agreed to before.
    pub(crate) fn needs_consent(&self) -> bool {
        self.growth_to_confirm().is_some()
            || !self.differences.is_empty() && !self.is_explicit
            || self.plan.steps_that(Effect::Delete).next().is_some()
            || self.plan.steps.iter().any(|step| matches!(step.action, Action::RevokeIngress(..)))
    }
}

impl Cloud {
    /// The instances that are not healthy, of groups that have more than they are to have: these go first.
    async fn unhealthy(&self, fleet: &Fleet, have: &Inventory) -> Result<BTreeSet<String>, CallError> {
        let mut unhealthy = BTreeSet::new();
        for group in &fleet.groups {
            let own = have.of_group(fleet, group);
            if let Some(found) =
                have.target_group(fleet, group).filter(|_| own.len() > usize::from(group.count))
            {
                let healths = self.target_health(&found.arn).await?;
                let is_healthy = |id: &String| healths.iter().any(|h| h.id == *id && h.is_healthy());
                unhealthy.extend(own.iter().map(|instance| instance.id.clone()).filter(|id| !is_healthy(id)));
            }
        }
        Ok(unhealthy)
    }

    async fn profile_problem(&self, fleet: &Fleet) -> Result<Option<String>, CallError> {
        let Some(name) = &fleet.instance_profile else {
            return Ok(None);
        };
        let found = self.has_profile(name).await?;
        Ok((!found).then(|| {
            format!(
                "there is no instance profile {name}; correct instance-profile, or leave it out: launch then \
             creates one"
            )
        }))
    }
}
