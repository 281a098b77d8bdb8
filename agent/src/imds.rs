//! The client for the instance metadata service, version 2.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_config::imds;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use instance_contract::innermost;

use crate::aws;

#[derive(Debug)]
pub(crate) struct Imds {
    http_client: SharedHttpClient,
    client: Mutex<imds::Client>,
}

/// Why IMDS gave neither a value nor "absent".
#[derive(Clone, Debug, thiserror::Error)]
#[error("instance metadata service: {detail}")]
pub(crate) struct ImdsError {
    detail: String,
    /// IMDS answered with a refusal: asking again soon is useless.
    pub(crate) refused: bool,
}

impl ImdsError {
    pub(crate) fn new(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), refused: false }
    }

    /// The value at `path` is invalid.
    pub(crate) fn invalid(path: &str, expected: &str) -> Self {
        Self { detail: format!("{path}: the answer is not {expected}"), refused: true }
    }

    pub(crate) fn late(limit: Duration) -> Self {
        Self::new(format!("no answer within {} s", limit.as_secs()))
    }
}

impl Imds {
    /// `None` if `AWS_EC2_METADATA_DISABLED` is `true`.
    pub(crate) fn new(http_client: &SharedHttpClient) -> Option<Self> {
        let disabled =
            std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        (!disabled)
            .then(|| Self { client: Mutex::new(Self::client(http_client)), http_client: http_client.clone() })
    }

    /// One attempt for each call: the callers have their own backoff.
    fn client(http_client: &SharedHttpClient) -> imds::Client {
        imds::Client::builder().configure(&aws::provider_config(http_client)).max_attempts(1).build()
    }

    /// The value at `path`; `None` if there is none (404). Logs each query at debug level.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let begun = Instant::now();
        let answer = self.ask(path).await;
        let outcome = match &answer {
            Ok(Some(value)) => format!("{} bytes", value.len()),
            Ok(None) => "absent".to_owned(),
            Err(error) => format!("failed: {}", error.detail),
        };
        tracing::debug!("metadata {path}: {outcome} ({} ms)", begun.elapsed().as_millis());
        answer
    }

    /// If IMDS no longer accepts the session token (401), takes a new one and repeats the call: the SDK's
    /// client would use the old token until its time to live is over.
    async fn ask(&self, path: &str) -> Result<Option<String>, ImdsError> {
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
}
