//! Who this instance is: its identity and its tags, from IMDSv2, with EC2 as the fallback for tags.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::imds;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use instance_contract::tags::{CLUSTER, FLEET, ROOT, TARGET_GROUP};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::aws::{self, CallError};
use crate::backoff::{Backoff, jitter, spread};
use crate::telemetry;

/// How long a start waits for identity and tags before the server says `unknown`.
const FIRST_TRY: Duration = Duration::from_secs(3);
/// How often IMDS is asked for changed tags. It is local and free.
const TAGS_INTERVAL: Duration = Duration::from_secs(15);
/// How often EC2 is asked for tags where IMDS may be stale or has none.
const EC2_TAGS_INTERVAL: Duration = Duration::from_secs(3600);
/// The tags that mean something to the agent.
const TAG_KEYS: [&str; 4] = [FLEET, CLUSTER, TARGET_GROUP, ROOT];

/// Instance families that are not Nitro: their IMDS shows the tags as they were at launch.
const XEN_FAMILIES: [&str; 24] = [
    "c1", "c3", "c4", "cc2", "cr1", "d2", "f1", "g2", "g3", "g3s", "h1", "hs1", "i2", "i3", "m1", "m2", "m3",
    "m4", "p2", "p3", "r3", "r4", "t1", "t2",
];

/// What is known of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct InstanceIdentity {
    /// The instance id; `None` where neither the settings nor IMDS told it.
    pub(crate) id: Option<String>,
    /// The region, such as `us-east-1`.
    pub(crate) region: Option<String>,
    /// The availability zone, such as `us-east-1a`.
    pub(crate) availability_zone: Option<String>,
    /// The instance type, such as `m4.large`.
    pub(crate) instance_type: Option<String>,
    /// The primary private IPv4 address.
    pub(crate) private_ip: Option<String>,
    /// Whether IMDS told this, and not the settings alone.
    pub(crate) from_imds: bool,
}

/// The instance identity document, as far as the agent reads it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityDocument {
    instance_id: String,
    region: Option<String>,
    availability_zone: Option<String>,
    instance_type: Option<String>,
    private_ip: Option<String>,
}

/// Identity and tags, as they are published to the rest of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Instance {
    /// Who it is.
    pub(crate) identity: InstanceIdentity,
    /// Its tags of the contract, by key.
    pub(crate) tags: BTreeMap<String, String>,
}

/// The instance metadata service, version 2.
#[derive(Debug)]
pub(crate) struct Imds {
    http_client: SharedHttpClient,
    client: Mutex<imds::Client>,
}

/// Why IMDS did not answer with a value or with "absent".
#[derive(Clone, Debug, thiserror::Error)]
#[error("instance metadata service: {detail}")]
pub(crate) struct ImdsError {
    detail: String,
    /// It did answer, and will not tell: asking again soon is no use.
    pub(crate) refused: bool,
}

impl ImdsError {
    fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), refused: false }
    }

    /// IMDS did not answer in time.
    pub(crate) fn late(limit: Duration) -> Self {
        Self::new(format!("no answer within {} s", limit.as_secs()))
    }
}

impl Imds {
    /// A client, or `None` where `AWS_EC2_METADATA_DISABLED` is `true`.
    pub(crate) fn new(http_client: &SharedHttpClient) -> Option<Self> {
        let disabled =
            std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        (!disabled)
            .then(|| Self { client: Mutex::new(Self::client(http_client)), http_client: http_client.clone() })
    }

    /// One attempt a call: each caller has its own rhythm and backoff.
    fn client(http_client: &SharedHttpClient) -> imds::Client {
        imds::Client::builder().configure(&aws::provider_config(http_client)).max_attempts(1).build()
    }

    /// The value at `path`; `None` when there is none (404).
    ///
    /// A session token that IMDS no longer accepts (401) is replaced and the call made once more:
    /// the SDK's client would go on using the one it has until its time to live is over.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let mut fresh_token = false;
        loop {
            let client =
                self.client.lock().map_or_else(|held| held.into_inner().clone(), |held| held.clone());
            match client.get(path).await {
                Ok(value) => return Ok(Some(value.into())),
                Err(imds::client::error::ImdsError::ErrorResponse(answer)) => {
                    match answer.response().status().as_u16() {
                        404 => return Ok(None),
                        401 if !fresh_token => {
                            fresh_token = true;
                            let client = Self::client(&self.http_client);
                            match self.client.lock() {
                                Ok(mut held) => *held = client,
                                Err(held) => *held.into_inner() = client,
                            }
                        }
                        status => {
                            let refused = (400..500).contains(&status) && status != 401;
                            let detail = format!("{path}: status {status}");
                            return Err(ImdsError { detail, refused });
                        }
                    }
                }
                Err(error) => return Err(ImdsError::new(format!("{path}: {}", innermost(&error)))),
            }
        }
    }

    async fn fetch_identity(&self) -> Result<InstanceIdentity, ImdsError> {
        let path = "/latest/dynamic/instance-identity/document";
        let text = self.get(path).await?.ok_or_else(|| ImdsError::new(format!("{path}: absent")))?;
        let document: IdentityDocument =
            serde_json::from_str(&text).map_err(|error| ImdsError::new(format!("{path}: {error}")))?;
        Ok(InstanceIdentity {
            id: Some(document.instance_id),
            region: document.region,
            availability_zone: document.availability_zone,
            instance_type: document.instance_type,
            private_ip: document.private_ip,
            from_imds: true,
        })
    }

    /// The contract's tags; `None` when the instance does not publish tags in its metadata.
    async fn fetch_tags(&self) -> Result<Option<BTreeMap<String, String>>, ImdsError> {
        let Some(keys) = self.get("/latest/meta-data/tags/instance").await? else {
            return Ok(None);
        };
        let mut tags = BTreeMap::new();
        for key in TAG_KEYS {
            if keys.lines().any(|line| line == key)
                && let Some(value) = self.get(&format!("/latest/meta-data/tags/instance/{key}")).await?
            {
                tags.insert(key.to_owned(), value);
            }
        }
        Ok(Some(tags))
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// Finds out identity and tags, and follows them as long as the agent runs.
pub(crate) struct Identifier {
    imds: Option<Arc<Imds>>,
    http_client: SharedHttpClient,
    instance_id: Option<String>,
    known: Instance,
    ec2: Option<aws_sdk_ec2::Client>,
    /// What IMDS said last; `None` while the instance publishes no tags there.
    imds_tags: Option<BTreeMap<String, String>>,
    /// What is known is from the program before this one, and IMDS was not asked for tags since.
    resumed: bool,
    ask_ec2_at: Instant,
    ec2_backoff: Backoff,
    failed: Failed,
}

/// Failures in a row: the first is said, the others are counted.
#[derive(Default)]
struct Failed {
    imds: u64,
    ec2_tags: u64,
}

impl Identifier {
    /// `instance_id` is the setting, which wins over IMDS; `known` what the program before this one
    /// had found out.
    pub(crate) fn new(
        imds: Option<Arc<Imds>>,
        http_client: SharedHttpClient,
        instance_id: Option<String>,
        known: Option<Instance>,
    ) -> Self {
        let resumed = known.is_some();
        let known = known.unwrap_or_else(|| Instance {
            identity: InstanceIdentity { id: instance_id.clone(), ..InstanceIdentity::default() },
            tags: BTreeMap::new(),
        });
        telemetry::name_instance(known.identity.id.as_deref());
        Self {
            imds,
            http_client,
            instance_id,
            ec2: None,
            imds_tags: None,
            resumed,
            ask_ec2_at: Instant::now(),
            ec2_backoff: Backoff::new(Duration::from_secs(5), Duration::from_secs(300)),
            // The program before this one has said it.
            failed: Failed { imds: u64::from(resumed && !known.identity.from_imds), ec2_tags: 0 },
            known,
        }
    }

    /// Publishes what is known after the first try (three seconds at most), then each change.
    pub(crate) async fn run(mut self, publish: watch::Sender<Option<Instance>>) {
        // A late answer of EC2 about tags is not IMDS's fault.
        if tokio::time::timeout(FIRST_TRY, self.refresh()).await.is_err() && !self.identified() {
            self.say_no_imds(&ImdsError::late(FIRST_TRY).to_string());
        }
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            publish.send_if_modified(|published| {
                let changed = published.as_ref() != Some(&self.known);
                if changed {
                    *published = Some(self.known.clone());
                }
                changed
            });
            // Without IMDS only EC2 can tell something new.
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
            self.refresh().await;
        }
    }

    fn identified(&self) -> bool {
        self.imds.is_none() || self.known.identity.from_imds
    }

    async fn refresh(&mut self) {
        match self.ask_imds().await {
            Ok(()) if self.failed.imds > 0 => {
                tracing::info!("instance metadata are back after {} failed tries", self.failed.imds);
                self.failed.imds = 0;
            }
            Ok(()) => {}
            Err(error) => self.say_no_imds(&error.to_string()),
        }
        // Also where IMDS does not answer: the id may come from the settings.
        if self.imds_tags.is_none() || self.may_be_stale() {
            self.ask_ec2().await;
        }
    }

    async fn ask_imds(&mut self) -> Result<(), ImdsError> {
        let imds =
            self.imds.clone().ok_or_else(|| ImdsError::new("switched off by AWS_EC2_METADATA_DISABLED"))?;
        if !self.identified() {
            self.take_identity(imds.fetch_identity().await?);
        }
        self.take_imds_tags(imds.fetch_tags().await?);
        Ok(())
    }

    /// Tags in IMDS count when they are news: where they are those of the launch, an unchanged
    /// answer must not undo what EC2 said since, be it to the program before this one.
    fn take_imds_tags(&mut self, tags: Option<BTreeMap<String, String>>) {
        let old = std::mem::take(&mut self.resumed) && self.may_be_stale();
        if let Some(news) = tags.as_ref().filter(|_| !old && tags != self.imds_tags) {
            self.known.tags = news.clone();
        }
        self.imds_tags = tags;
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

    /// Said once, and again only after IMDS had come back.
    fn say_no_imds(&mut self, problem: &str) {
        if self.failed.imds == 0 {
            let again = if self.imds.is_some() { ", and trying again" } else { "" };
            tracing::warn!(reason = problem, "no instance metadata: {problem}; serving without{again}");
        }
        self.failed.imds += 1;
    }

    fn may_be_stale(&self) -> bool {
        let family = self.known.identity.instance_type.as_deref().and_then(|kind| kind.split('.').next());
        family.is_some_and(|family| XEN_FAMILIES.contains(&family))
    }

    /// Asks EC2 for the tags when it is time to.
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
            None => Err(CallError::no_region("ec2:DescribeTags")),
        };
        match answer {
            Ok(tags) => {
                self.known.tags = tags;
                let failed = std::mem::take(&mut self.failed.ec2_tags);
                if failed > 0 {
                    tracing::info!("instance tags are told by EC2 after {failed} failed tries");
                }
                self.ec2_backoff.reset();
                self.ask_ec2_at = Instant::now() + spread(EC2_TAGS_INTERVAL);
            }
            Err(error) => {
                self.ask_ec2_at = Instant::now() + self.ec2_backoff.next_delay();
                // Only where there are no other tags does this need somebody's attention.
                if self.imds_tags.is_none() {
                    if self.failed.ec2_tags == 0 {
                        let cure = error.cure();
                        tracing::warn!("instance tags cannot be asked of EC2: {error}; {cure}");
                    }
                    self.failed.ec2_tags += 1;
                }
            }
        }
    }
}

async fn describe_tags(
    client: &aws_sdk_ec2::Client,
    instance_id: &str,
) -> Result<BTreeMap<String, String>, CallError> {
    let filter = |name: &str, values: &[&str]| {
        aws_sdk_ec2::types::Filter::builder()
            .name(name)
            .set_values(Some(values.iter().map(|value| (*value).to_owned()).collect()))
            .build()
    };
    let mut pages = client
        .describe_tags()
        .filters(filter("resource-id", &[instance_id]))
        .filters(filter("key", &TAG_KEYS))
        // However few there are: EC2 may spread them over pages, some of which are empty.
        .into_paginator()
        .send();
    let mut tags = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| CallError::new("ec2:DescribeTags", error))?;
        let found = page.tags().iter();
        let found = found.filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
        tags.extend(found.filter(|(key, _)| TAG_KEYS.contains(&key.as_str())));
    }
    Ok(tags)
}
