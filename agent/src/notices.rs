//! What AWS announces to an instance through IMDS: spot interruptions, rebalance recommendations
//! and the Auto Scaling lifecycle state, as one stream.

use std::collections::BTreeSet;
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
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Notices {
    /// Whether IMDS has been asked with success since the agent started. Until then there may be a
    /// notice that is not known.
    pub(crate) read: bool,
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
/// change. What IMDS does not answer stays as it was known last, which at first is `known`.
pub(crate) async fn watch(
    imds: Option<Arc<Imds>>,
    known: Option<Notices>,
    publish: watch::Sender<Option<Notices>>,
) {
    let mut notices = known.unwrap_or_default();
    let Some(imds) = imds else {
        publish.send_replace(Some(notices));
        // Kept open: a closed channel would say that the notices are over.
        return std::future::pending().await;
    };
    let mut first_tries = Backoff::new(Duration::from_secs(1), INTERVAL);
    let mut outage = Backoff::new(INTERVAL, Duration::from_secs(15));
    let mut refusals = BTreeSet::new();
    loop {
        // A deadline also for the first of all tries, which registration waits for.
        let refresh = refresh(&imds, &mut notices, &mut refusals);
        let result = tokio::time::timeout(FIRST_TRY, refresh)
            .await
            .unwrap_or_else(|_| Err(ImdsError::late(FIRST_TRY)));
        let pause = match result {
            Ok(()) => {
                notices.read = true;
                outage.reset();
                INTERVAL
            }
            Err(error) => {
                tracing::debug!("notices unknown: {error}");
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

/// Asks for each notice by itself: one that IMDS will not tell must not hide another.
async fn refresh(
    imds: &Imds,
    notices: &mut Notices,
    refusals: &mut BTreeSet<&'static str>,
) -> Result<(), ImdsError> {
    let Notices { spot, rebalance, auto_scaling, .. } = notices;
    for (path, notice, read) in [
        ("/latest/meta-data/spot/instance-action", spot, read_spot as fn(&str) -> String),
        ("/latest/meta-data/events/recommendations/rebalance", rebalance, read_rebalance),
        ("/latest/meta-data/autoscaling/target-lifecycle-state", auto_scaling, one_line),
    ] {
        match imds.get(path).await {
            Ok(text) => *notice = text.map(|text| read(&text)).filter(|line| !line.is_empty()),
            Err(error) if error.refused => {
                if refusals.insert(path) {
                    tracing::warn!(
                        "this notice cannot be read, the instance will not act on it: {path}: {error}"
                    );
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One line for a spot interruption; text of an unknown form is shown as it came, since that there
/// is a notice matters more than how it is written.
fn read_spot(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(SpotAction { action, time: Some(time) }) => format!("{action} at {time}"),
        Ok(SpotAction { action, time: None }) => action,
        Err(_) => one_line(text),
    }
}

fn read_rebalance(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(Rebalance { notice_time }) => notice_time,
        Err(_) => one_line(text),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_become_one_line_whatever_their_form() {
        assert_eq!(
            read_spot(r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z"}"#),
            "terminate at 2026-01-01T00:00:00Z"
        );
        assert_eq!(read_spot(r#"{"action": "hibernate"}"#), "hibernate");
        assert_eq!(read_spot("something\nnew"), "something new");
        assert_eq!(read_rebalance(r#"{"noticeTime": "2026-01-01T00:00:00Z"}"#), "2026-01-01T00:00:00Z");
    }
}
