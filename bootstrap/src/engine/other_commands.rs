//! Detects what other commands do to the fleet while a plan is executed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::actions::{ActionError, Executor};
use tokio::sync::Notify;

use crate::cloud::CallError;
use crate::cloud::pace::Pace;

/// How long a tag that was just written may take to be seen.
const TAG_DELAY: Duration = Duration::from_secs(10);

impl Executor<'_> {
    /// # Errors
    /// The stored definition is another, also after the moment that a change may take to be seen.
    pub(super) async fn confirm_definition(&self, wanted: &str) -> Result<(), ActionError> {
        let mut pace = Pace::new(TAG_DELAY);
        loop {
            let name = self.desired.fleet.name.clone();
            let error = match self.cloud.definition(&self.desired.names).await? {
                Some(found) if found.as_deref().unwrap_or_default() == wanted => return Ok(()),
                Some(_) => ActionError::ChangedElsewhere(name),
                None => {
                    let region = self.desired.names.region.clone();
                    ActionError::Destroyed { fleet: name, region }
                }
            };
            if !pace.next().await {
                return Err(error);
            }
        }
    }

    /// Returns when another command has destroyed or redefined the fleet, so that the step would wait in vain. Looks
    /// only once the step `waits`, and then seldom.
    pub(super) async fn superseded(&self, waits: &Notify) -> ActionError {
        waits.notified().await;
        loop {
            tokio::time::sleep(TAG_DELAY).await;
            let is_stored = self.created.borrow().instances_group.is_some();
            // A failed look is ignored: the step's own calls report the failure.
            if is_stored
                && let Err(error @ (ActionError::ChangedElsewhere(_) | ActionError::Destroyed { .. })) =
                    self.confirm_definition(&self.desired.definition).await
            {
                return error;
            }
        }
    }

    /// Deletes something as soon as nothing uses it any more.
    ///
    /// # Errors
    /// The call failed, it is still used when the time is over, or by something that the plan does not
    /// know of, so that no waiting would help.
    pub(super) async fn when_unused(
        &self,
        waiting: &dyn Fn(&str),
        delete: impl AsyncFn() -> Result<(), CallError>,
    ) -> Result<(), ActionError> {
        let mut pace = Pace::new(self.timeout);
        loop {
            match delete().await {
                Err(error) if error.is_in_use() => {
                    waiting(&error.reason_to_wait());
                    if let Some(more) = self.unknown_resource().await? {
                        return Err(ActionError::NewResource(more));
                    }
                    if !pace.next().await {
                        return Err(error.into());
                    }
                }
                result => return Ok(result?),
            }
        }
    }

    /// A resource of the fleet that neither existed when the plan was made nor was created by it.
    async fn unknown_resource(&self) -> Result<Option<String>, ActionError> {
        let mut survey = self.cloud.survey(&self.desired.names).await?;
        self.cloud.retain_tagged(&self.desired.names, &mut survey).await?;
        let (now, have, created) = (survey.inventory, self.have, self.created.borrow());
        let is_known = |id: &String| {
            have.instances.iter().any(|known| known.id == *id)
                || created.launched.values().flatten().any(|i| i == id)
        };
        let instances = now.instances.iter().filter(|instance| !instance.is_dead());
        let mut more: Vec<_> =
            instances.map(|instance| instance.id.clone()).filter(|id| !is_known(id)).collect();
        let balancer =
            now.balancer.filter(|found| created.balancer.as_ref().is_none_or(|b| b.arn != found.arn));
        more.extend(balancer.map(|_| format!("the load balancer {}", self.desired.names.balancer())));
        let known = have.target_groups.iter().map(|group| &group.arn).chain(created.target_groups.values());
        let known: BTreeSet<_> = known.collect();
        let groups = now.target_groups.iter().filter(|group| !known.contains(&group.arn));
        more.extend(groups.map(|group| format!("the target group {}", group.name)));
        Ok(more.into_iter().next())
    }
}
