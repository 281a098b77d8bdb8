//! Notices from IMDS: spot interruptions, rebalance recommendations and the Auto Scaling lifecycle state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::guard::{TaskFailure, TaskFailures, guard};
use crate::imds::{Imds, ImdsError};
use crate::validate;

/// A spot interruption notice comes two minutes ahead; AWS recommends asking every five seconds.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time limit of one query; after the first one, the agent continues without an answer.
const FIRST_TRY: Duration = Duration::from_secs(3);

/// The notices in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Notices {
    /// Whether IMDS has answered since the agent started. Until then there may be an unknown notice.
    pub(crate) read: bool,
    /// `terminate at 2026-01-01T00:00:00Z`; also `stop` and `hibernate`.
    pub(crate) spot: Option<String>,
    /// The time of a rebalance recommendation.
    pub(crate) rebalance: Option<String>,
    /// The Auto Scaling target lifecycle state, such as `InService`; `None` outside Auto Scaling.
    pub(crate) auto_scaling: Option<String>,
}

/// Publishes the notices after the first query, then at each change. Without an answer of IMDS the last
/// known notices stay; at first these are `known`.
pub(crate) async fn watch(
    imds: Option<Arc<Imds>>,
    known: Option<Notices>,
    publish: watch::Sender<Option<Notices>>,
) {
    let mut notices = known.unwrap_or_default();
    let Some(imds) = imds else {
        publish.send_replace(Some(notices));
        // Keeps the channel open.
        return std::future::pending().await;
    };
    let mut first_tries = Backoff::new(Duration::from_secs(1), INTERVAL);
    let mut outage = Backoff::new(INTERVAL, Duration::from_secs(15));
    let mut refusals = BTreeSet::new();
    let mut mistakes = TaskFailures::default();
    loop {
        // The first query needs a time limit too: registration waits for it.
        let refresh = refresh(&imds, &mut notices, &mut refusals);
        let result = match guard(FIRST_TRY, refresh).await {
            Ok(result) => result,
            Err(TaskFailure::Stuck(limit)) => Err(ImdsError::late(limit)),
            Err(broken) => {
                mistakes.say("the notice watcher", &broken);
                Err(ImdsError::new(broken.to_string()))
            }
        };
        let pause = match result {
            Ok(()) => {
                notices.read = true;
                outage.reset();
                INTERVAL
            }
            Err(error) => {
                tracing::debug!("cannot read notices: {error}");
                if notices.read { outage.next_delay() } else { first_tries.next_delay() }
            }
        };
        publish.send_if_modified(|published| {
            let changed = published.as_ref() != Some(&notices);
            if changed {
                *published = Some(notices.clone());
            }
            changed
        });
        tokio::time::sleep(pause).await;
    }
}

/// Queries each notice separately: one that IMDS refuses must not hide another.
async fn refresh(
    imds: &Imds,
    notices: &mut Notices,
    refusals: &mut BTreeSet<&'static str>,
) -> Result<(), ImdsError> {
    let Notices { spot, rebalance, auto_scaling, .. } = notices;
    for (path, notice, valid, expected) in [
        (
            "/latest/meta-data/spot/instance-action",
            spot,
            validate::spot_notice as fn(&str) -> Option<String>,
            "a spot interruption notice",
        ),
        (
            "/latest/meta-data/events/recommendations/rebalance",
            rebalance,
            validate::rebalance_notice,
            "a rebalance recommendation",
        ),
        (
            "/latest/meta-data/autoscaling/target-lifecycle-state",
            auto_scaling,
            validate::lifecycle_state,
            "an Auto Scaling lifecycle state",
        ),
    ] {
        let answer = imds.get(path).await.and_then(|text| {
            text.map(|text| valid(&text).ok_or_else(|| ImdsError::invalid(path, expected))).transpose()
        });
        match answer {
            Ok(told) => {
                *notice = told;
                refusals.remove(path);
            }
            Err(error) if error.refused => {
                if refusals.insert(path) {
                    tracing::warn!("cannot read a notice: {error}; the instance will not act on it");
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
