//! Who this instance is: its identity and its tags, from IMDSv2, with EC2 as the fallback for tags.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_ec2::operation::describe_tags::DescribeTagsOutput;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use instance_contract::tags::{CLUSTER, FLEET, ROOT, TARGET_GROUP};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::aws::{self, Action, CallError, CallErrorKind};
use crate::backoff::{Backoff, jitter, spread};
use crate::believed_tags::{BelievedTags, SECOND_LOOK, Tags};
use crate::guard::{TaskFailures, guard};
use crate::imds::{Imds, ImdsError};
use crate::{telemetry, validate};
use instance_server::repeat_filter::RepeatFilter;

/// After this long without identity and tags, the server answers with the id `unknown`.
const FIRST_TRY: Duration = Duration::from_secs(3);
/// Time limit of one refresh, far above those of its calls.
const REFRESH_LIMIT: Duration = Duration::from_secs(120);
/// How often to ask IMDS for changed tags. It is local and free.
const TAGS_INTERVAL: Duration = Duration::from_secs(15);
/// How often to ask EC2 for tags if IMDS has none or may have old ones.
const EC2_TAGS_INTERVAL: Duration = Duration::from_secs(3600);
/// Four tags fit on one page; EC2 may still return empty pages first.
const MOST_PAGES: usize = 10;
const BETWEEN_PAGES: Duration = Duration::from_millis(200);
const TAG_KEYS: [&str; 4] = [FLEET, CLUSTER, TARGET_GROUP, ROOT];

/// Instance families that are not Nitro: their IMDS may show the tags as they were at launch.
const XEN_FAMILIES: [&str; 24] = [
    "c1", "c3", "c4", "cc2", "cr1", "d2", "f1", "g2", "g3", "g3s", "h1", "hs1", "i2", "i3", "m1", "m2", "m3",
    "m4", "p2", "p3", "r3", "r4", "t1", "t2",
];

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct InstanceIdentity {
    /// `None` if neither the settings nor IMDS gave it.
    pub(crate) id: Option<String>,
    /// The region, such as `us-east-1`.
    pub(crate) region: Option<String>,
    /// The availability zone, such as `us-east-1a`.
    pub(crate) availability_zone: Option<String>,
    /// The instance type, such as `m4.large`.
    pub(crate) instance_type: Option<String>,
    /// The primary private IPv4 address.
    pub(crate) private_ip: Option<String>,
    /// Whether IMDS gave this, not only the settings.
    pub(crate) from_imds: bool,
}

/// Identity and tags, for the rest of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Instance {
    pub(crate) identity: InstanceIdentity,
    pub(crate) tags: Tags,
}

/// The fields of the instance identity document that the agent reads.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityDocument {
    instance_id: String,
    region: Option<String>,
    availability_zone: Option<String>,
    instance_type: Option<String>,
    private_ip: Option<String>,
}

async fn fetch_identity(imds: &Imds) -> Result<InstanceIdentity, ImdsError> {
    const PATH: &str = "/latest/dynamic/instance-identity/document";
    let text = imds.get(PATH).await?.ok_or_else(|| ImdsError::new(format!("{PATH}: absent")))?;
    let invalid = || ImdsError::invalid(PATH, "an instance identity document");
    let document: IdentityDocument = serde_json::from_str(&text).map_err(|_| invalid())?;
    if !validate::is_instance_id(&document.instance_id) {
        return Err(invalid());
    }
    Ok(InstanceIdentity {
        id: Some(document.instance_id),
        region: document.region.and_then(validate::place),
        availability_zone: document.availability_zone.and_then(validate::place),
        instance_type: document.instance_type.and_then(validate::place),
        private_ip: document.private_ip.and_then(validate::private_ip),
        from_imds: true,
    })
}

/// The tags for the agent; `None` if the instance does not publish tags in its metadata.
async fn fetch_tags(imds: &Imds) -> Result<Option<Tags>, ImdsError> {
    const PATH: &str = "/latest/meta-data/tags/instance";
    let Some(list) = imds.get(PATH).await? else {
        return Ok(None);
    };
    let keys = validate::tag_keys(&list).ok_or_else(|| ImdsError::invalid(PATH, "a list of tags"))?;
    let mut tags = Tags::new();
    for key in TAG_KEYS.into_iter().filter(|key| keys.contains(key)) {
        let path = format!("{PATH}/{key}");
        if let Some(value) = imds.get(&path).await? {
            let value =
                validate::tag_value(value).ok_or_else(|| ImdsError::invalid(&path, "a tag's value"))?;
            tags.insert(key.to_owned(), value);
        }
    }
    Ok(Some(tags))
}

/// Reads identity and tags, and follows changes for as long as the agent runs.
pub(crate) struct Identifier {
    imds: Option<Arc<Imds>>,
    http_client: SharedHttpClient,
    instance_id: Option<String>,
    known: Instance,
    ec2: Option<aws_sdk_ec2::Client>,
    tags: BelievedTags,
    /// The tags are from before a reload, and IMDS was not asked since.
    resumed: bool,
    ask_ec2_at: Instant,
    ec2_backoff: Backoff,
    /// While EC2 answers with no tags: those of a new instance may not be visible yet.
    untagged_backoff: Backoff,
    imds_failures: RepeatFilter<()>,
    ec2_failures: RepeatFilter<()>,
}

impl Identifier {
    /// `instance_id` is the setting, which overrides IMDS; `known` is the state before a reload.
    pub(crate) fn new(
        imds: Option<Arc<Imds>>,
        http_client: SharedHttpClient,
        instance_id: Option<String>,
        known: Option<Instance>,
    ) -> Self {
        let resumed = known.is_some();
        let known = known.unwrap_or_else(|| Instance {
            identity: InstanceIdentity { id: instance_id.clone(), ..InstanceIdentity::default() },
            tags: Tags::new(),
        });
        telemetry::name_instance(known.identity.id.as_deref());
        Self {
            imds,
            http_client,
            instance_id,
            ec2: None,
            tags: BelievedTags::new(known.tags.clone()),
            resumed,
            ask_ec2_at: Instant::now(),
            ec2_backoff: Backoff::new(Duration::from_secs(5), Duration::from_secs(300)),
            untagged_backoff: Backoff::new(SECOND_LOOK, EC2_TAGS_INTERVAL),
            // The previous program has logged it.
            imds_failures: if resumed && !known.identity.from_imds {
                RepeatFilter::already_said(())
            } else {
                RepeatFilter::default()
            },
            ec2_failures: RepeatFilter::default(),
            known,
        }
    }

    /// Publishes after the first attempt (three seconds at most), then at each change.
    pub(crate) async fn run(mut self, publish: watch::Sender<Option<Instance>>) {
        // Once IMDS gave the identity, EC2 was late, not IMDS.
        if guard(FIRST_TRY, self.refresh()).await.is_err() && !self.identified() {
            self.say_no_imds(&ImdsError::late(FIRST_TRY).to_string());
        }
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut mistakes = TaskFailures::default();
        loop {
            publish.send_if_modified(|published| {
                let changed = published.as_ref() != Some(&self.known);
                if changed {
                    *published = Some(self.known.clone());
                }
                changed
            });
            // Without IMDS and without an id there is nothing to ask.
            let pause = if self.imds.is_none() && self.known.identity.id.is_none() {
                std::future::pending::<()>().await;
                return;
            } else if self.identified() {
                backoff.reset();
                jitter(TAGS_INTERVAL)
            } else {
                backoff.next_delay()
            };
            tokio::time::sleep(pause).await;
            if let Err(broken) = guard(REFRESH_LIMIT, self.refresh()).await {
                mistakes.say("the metadata watcher", &broken);
            }
        }
    }

    fn identified(&self) -> bool {
        self.imds.is_none() || self.known.identity.from_imds
    }

    async fn refresh(&mut self) {
        match self.ask_imds().await {
            Ok(()) => {
                if let Some(failed) = self.imds_failures.end() {
                    tracing::info!("instance metadata available again after {failed} failed attempts");
                }
            }
            Err(error) => self.say_no_imds(&error.to_string()),
        }
        // Also without an answer of IMDS: the id may come from the settings.
        if self.tags.may_have_vanished() || !self.tags.are_in_imds() || self.may_be_stale() {
            self.ask_ec2().await;
        }
    }

    async fn ask_imds(&mut self) -> Result<(), ImdsError> {
        let imds =
            self.imds.clone().ok_or_else(|| ImdsError::new("disabled by AWS_EC2_METADATA_DISABLED"))?;
        if !self.identified() {
            self.take_identity(fetch_identity(&imds).await?);
        }
        self.take_imds_tags(fetch_tags(&imds).await?);
        Ok(())
    }

    fn take_imds_tags(&mut self, tags: Option<Tags>) {
        let is_old = std::mem::take(&mut self.resumed) && self.may_be_stale();
        let doubted = self.tags.may_have_vanished();
        let before = self.tags.tags().clone();
        self.tags.imds_says(tags, is_old, Instant::now());
        if self.tags.may_have_vanished() && !doubted {
            tracing::warn!(
                "the instance metadata service no longer lists any tag; keeping the tags until EC2, or a second query \
                 in a minute, confirms it"
            );
            self.ask_ec2_at = Instant::now();
        }
        if *self.tags.tags() != before {
            tracing::debug!("tags from instance metadata: {:?}", self.tags.tags());
        }
        self.known.tags.clone_from(self.tags.tags());
    }

    fn take_identity(&mut self, mut identity: InstanceIdentity) {
        if self.instance_id.is_some() {
            identity.id = self.instance_id.clone();
        }
        telemetry::name_instance(identity.id.as_deref());
        tracing::info!(
            "this is instance {}, {} in {}",
            identity.id.as_deref().unwrap_or("unknown"),
            identity.instance_type.as_deref().unwrap_or("of unknown type"),
            identity.availability_zone.as_deref().unwrap_or("an unknown zone")
        );
        self.known.identity = identity;
    }

    /// Logged once, and again only after IMDS has answered in between.
    fn say_no_imds(&mut self, problem: &str) {
        if self.imds_failures.news(&()).is_some() {
            let again = if self.imds.is_some() { ", retrying" } else { "" };
            tracing::warn!(
                reason = problem,
                "cannot read the instance metadata: {problem}; serving with what is known{again}"
            );
        }
    }

    fn may_be_stale(&self) -> bool {
        let family = self.known.identity.instance_type.as_deref().and_then(|kind| kind.split('.').next());
        family.is_some_and(|family| XEN_FAMILIES.contains(&family))
    }

    /// Asks EC2 for the tags if it is time.
    async fn ask_ec2(&mut self) {
        let Some(id) = self.known.identity.id.clone() else {
            return;
        };
        if Instant::now() < self.ask_ec2_at {
            return;
        }
        if self.ec2.is_none() {
            let config = aws::config(&self.http_client, self.known.identity.region.clone()).await;
            self.ec2 = config.map(|config| aws_sdk_ec2::Client::new(&config));
        }
        let answer = match &self.ec2 {
            Some(client) => describe_tags(client, &id).await,
            None => Err(CallError::no_region(Action::DescribeTags)),
        };
        match answer {
            Ok(tags) => {
                self.tags.ec2_says(&tags, Instant::now());
                self.known.tags.clone_from(self.tags.tags());
                if let Some(failed) = self.ec2_failures.end() {
                    tracing::info!("EC2 returns the instance tags again after {failed} failed attempts");
                }
                self.ec2_backoff.reset();
                let pause = if self.tags.may_have_vanished() {
                    SECOND_LOOK
                } else if tags.is_empty() {
                    self.untagged_backoff.next_delay()
                } else {
                    self.untagged_backoff.reset();
                    spread(EC2_TAGS_INTERVAL)
                };
                tracing::debug!("tags from EC2: {tags:?}; asking again in {} s", pause.as_secs());
                self.ask_ec2_at = Instant::now() + pause;
            }
            Err(error) => {
                self.ask_ec2_at = Instant::now() + self.ec2_backoff.next_delay();
                // The SDK keeps credentials until they expire, even if the instance no longer has their role.
                if matches!(error.kind, CallErrorKind::AccessDenied | CallErrorKind::Credentials) {
                    self.ec2 = None;
                }
                // A problem only if there are no tags from IMDS.
                if !self.tags.are_in_imds() && self.ec2_failures.news(&()).is_some() {
                    let cure = error.cure("the tags");
                    tracing::warn!("cannot get the instance tags from EC2: {error}; {cure}");
                }
            }
        }
    }
}

/// The tags for the agent, from EC2.
async fn describe_tags(client: &aws_sdk_ec2::Client, instance_id: &str) -> Result<Tags, CallError> {
    let filter = |name: &str, values: &[&str]| {
        aws_sdk_ec2::types::Filter::builder()
            .name(name)
            .set_values(Some(values.iter().map(|value| (*value).to_owned()).collect()))
            .build()
    };
    let mut tags = Tags::new();
    let mut next = None;
    // EC2 may spread even a few tags over several pages, some of them empty.
    for _ in 0..MOST_PAGES {
        let call = client
            .describe_tags()
            .filters(filter("resource-id", &[instance_id]))
            .filters(filter("key", &TAG_KEYS))
            .set_next_token(next);
        let call = async { call.send().await.map_err(|error| CallError::new(Action::DescribeTags, error)) };
        let found = |page: &DescribeTagsOutput| format!("{} on this page", page.tags().len());
        let page = aws::logged(Action::DescribeTags, instance_id, call, found).await?;
        let found = page.tags().iter();
        let found = found.filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
        tags.extend(found.filter(|(key, _)| TAG_KEYS.contains(&key.as_str())));
        next = page.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        if next.is_none() {
            return Ok(tags);
        }
        tokio::time::sleep(jitter(BETWEEN_PAGES)).await;
    }
    Err(CallError {
        action: Action::DescribeTags,
        kind: CallErrorKind::Unanswered,
        detail: format!("the answer has more than {MOST_PAGES} pages"),
    })
}
