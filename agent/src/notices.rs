//! What AWS announces to an instance through IMDS: spot interruptions, rebalance recommendations
//! and the Auto Scaling lifecycle state, as one stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::identity::{Imds, ImdsError};

/// A spot interruption notice comes two minutes ahead; AWS recommends asking every five seconds.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long the first question may take before the agent goes on without an answer.
const FIRST_TRY: Duration = Duration::from_secs(3);

/// The notices in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notices {
    /// `terminate at 2026-01-01T00:00:00Z`; also `stop` and `hibernate`.
    pub(crate) spot: Option<String>,
    /// When a rebalance recommendation was given.
    pub(crate) rebalance: Option<String>,
    /// The Auto Scaling target lifecycle state, such as `InService`; `None` outside Auto Scaling.
    pub(crate) auto_scaling: Option<String>,
}

#[derive(serde::Deserialize)]
struct SpotAction {
    action: String,
    time: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rebalance {
    notice_time: String,
}

/// Publishes the notices: first as soon as they are known (or IMDS has failed once), then at each
/// change. While IMDS does not answer the last known notices stay in force.
pub(crate) async fn watch(imds: Option<Arc<Imds>>, publish: watch::Sender<Option<Notices>>) {
    let Some(imds) = imds else {
        publish.send_replace(Some(Notices::default()));
        return;
    };
    let mut backoff = Backoff::new(INTERVAL, Duration::from_secs(15));
    let mut first = true;
    loop {
        let fetched = if first {
            let late = || ImdsError::late(FIRST_TRY);
            tokio::time::timeout(FIRST_TRY, fetch(&imds)).await.unwrap_or_else(|_| Err(late()))
        } else {
            fetch(&imds).await
        };
        first = false;
        let pause = match fetched {
            Ok(notices) => {
                publish.send_if_modified(|published| {
                    let changed = published.as_ref() != Some(&notices);
                    if changed {
                        *published = Some(notices);
                    }
                    changed
                });
                backoff.reset();
                INTERVAL
            }
            Err(error) => {
                tracing::debug!(%error, "notices unknown");
                publish.send_if_modified(|published| {
                    published.is_none() && {
                        *published = Some(Notices::default());
                        true
                    }
                });
                backoff.next_delay()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn fetch(imds: &Imds) -> Result<Notices, ImdsError> {
    Ok(Notices {
        spot: imds.get("/latest/meta-data/spot/instance-action").await?.map(|text| spot(&text)),
        rebalance: imds
            .get("/latest/meta-data/events/recommendations/rebalance")
            .await?
            .map(|text| rebalance(&text)),
        auto_scaling: imds
            .get("/latest/meta-data/autoscaling/target-lifecycle-state")
            .await?
            .map(|text| text.trim().to_owned())
            .filter(|state| !state.is_empty()),
    })
}

/// One line for a spot interruption; text of an unknown form is shown as it came, since that there
/// is a notice matters more than how it is written.
fn spot(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(SpotAction { action, time: Some(time) }) => format!("{action} at {time}"),
        Ok(SpotAction { action, time: None }) => action,
        Err(_) => text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

fn rebalance(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(Rebalance { notice_time }) => notice_time,
        Err(_) => text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_become_one_line_whatever_their_form() {
        assert_eq!(
            spot(r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z"}"#),
            "terminate at 2026-01-01T00:00:00Z"
        );
        assert_eq!(spot(r#"{"action": "hibernate"}"#), "hibernate");
        assert_eq!(spot("something\nnew"), "something new");
        assert_eq!(rebalance(r#"{"noticeTime": "2026-01-01T00:00:00Z"}"#), "2026-01-01T00:00:00Z");
    }
}
