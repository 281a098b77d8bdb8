//! What every AWS client of the agent shares: one HTTP client, deadlines, credentials, region.
//!
//! Endpoints, credentials and region come from the SDK's own standard variables and sources.
//! Retries are the callers' business, so that each is logged, jittered and bounded in one place.

use std::error::Error as _;
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The longest that one API call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// What is said where [`has_certificates`] finds none.
pub(crate) const NO_CERTIFICATES: &str = "no CA certificates on this machine, so AWS cannot be called over \
    HTTPS; install ca-certificates, then reload the agent";

/// Whether the machine trusts any certificate authority.
pub(crate) fn has_certificates() -> bool {
    !rustls_native_certs::load_native_certs().certs.is_empty()
}

/// The HTTP client that all AWS clients share: rustls with ring, the machine's own trust store where
/// it has one (`trusts`).
pub(crate) fn http_client(trusts: bool) -> SharedHttpClient {
    let builder = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    // Native roots that are not there are an assertion's failure in the client's debug builds.
    let nobody = TlsContext::builder().with_trust_store(TrustStore::empty()).build();
    match (trusts, nobody) {
        (false, Ok(nobody)) => builder.tls_context(nobody).build_https(),
        _ => builder.build_https(),
    }
}

/// For the IMDS client, which needs no region and no credentials.
pub(crate) fn provider_config(http_client: &SharedHttpClient) -> ProviderConfig {
    ProviderConfig::without_region().with_http_client(http_client.clone())
}

/// Configuration for the service clients; `None` while no region is known. `region` is the
/// instance's own, used where neither the environment nor a profile names one.
pub(crate) async fn config(http_client: &SharedHttpClient, region: Option<String>) -> Option<SdkConfig> {
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(region.map(Region::new))
        .region()
        .await?;
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client.clone())
        .region(region)
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_DEADLINE)
                .operation_timeout(CALL_DEADLINE)
                .build(),
        )
        .load()
        .await;
    Some(config)
}

/// Why an API call did not succeed, told apart by what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {detail}")]
pub(crate) struct CallError {
    /// The action as IAM names it, such as `elasticloadbalancing:RegisterTargets`.
    pub(crate) action: &'static str,
    /// The kind of failure.
    pub(crate) kind: CallErrorKind,
    /// AWS's code and message, or the chain of causes where no answer came.
    pub(crate) detail: String,
}

/// The kinds of failure that lead to different cures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallErrorKind {
    /// No such target group in this account and region.
    GroupNotFound,
    /// The group cannot take this instance: other VPC, or not running.
    InvalidTarget,
    /// The group, or this target, has as many as are allowed.
    TooMany,
    /// The group's targets are of a kind that an instance cannot be.
    UnsupportedType,
    /// The credentials do not allow the action.
    AccessDenied,
    /// No credentials, or ones that AWS does not accept.
    Credentials,
    /// Too many calls in this account and region.
    Throttled,
    /// No region is known.
    NoRegion,
    /// The machine's clock is wrong.
    Clock,
    /// Sent, perhaps, but not answered: it may have taken effect.
    Unanswered,
    /// Anything else that AWS refuses.
    Refused,
}

impl CallError {
    /// Sorts an SDK error.
    pub(crate) fn new<E, R>(action: &'static str, error: SdkError<E, R>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        if let Some(service) = error.as_service_error() {
            let code = service.code().unwrap_or("unknown error");
            let message = service.message().unwrap_or("no message");
            let kind = match code {
                "RequestExpired" | "RequestTimeTooSkewed" => CallErrorKind::Clock,
                "SignatureDoesNotMatch" if message.contains("expired") || message.contains("not yet") => {
                    CallErrorKind::Clock
                }
                "TargetGroupNotFound" | "TargetGroupNotFoundException" => CallErrorKind::GroupNotFound,
                "InvalidTarget" | "InvalidTargetException" => CallErrorKind::InvalidTarget,
                _ if code.starts_with("TooMany") && !code.starts_with("TooManyRequests") => {
                    CallErrorKind::TooMany
                }
                "Throttling"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "TooManyRequestsException"
                | "SlowDown" => CallErrorKind::Throttled,
                "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                    CallErrorKind::AccessDenied
                }
                "AuthFailure"
                | "ExpiredToken"
                | "InvalidClientTokenId"
                | "MissingAuthenticationToken"
                | "SignatureDoesNotMatch"
                | "UnrecognizedClientException"
                | "ExpiredTokenException"
                | "IncompleteSignature" => CallErrorKind::Credentials,
                "InternalFailure" | "InternalError" | "ServiceUnavailable" | "Unavailable" => {
                    CallErrorKind::Unanswered
                }
                _ => CallErrorKind::Refused,
            };
            let detail = format!("{code}: {message}");
            return Self { action, kind, detail };
        }
        let mut kind = CallErrorKind::Unanswered;
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<CredentialsError>() {
                kind = CallErrorKind::Credentials;
            }
            let text = error.to_string();
            // Causes often repeat what wraps them.
            if !causes.iter().any(|known: &String| known.contains(&text)) {
                causes.push(text);
            }
            cause = error.source();
        }
        if matches!(error, SdkError::TimeoutError(_)) {
            causes.insert(0, format!("no answer within {} s", CALL_DEADLINE.as_secs()));
        }
        Self { action, kind, detail: causes.join(": ") }
    }

    /// The call cannot even be sent: no region is known.
    pub(crate) fn no_region(action: &'static str) -> Self {
        Self { action, kind: CallErrorKind::NoRegion, detail: "no region is known".to_owned() }
    }

    /// What a person can do about it, in one sentence.
    pub(crate) fn cure(&self) -> String {
        match self.kind {
            CallErrorKind::GroupNotFound => {
                "create the target group in this region, or correct the tag instance-agent:target-group"
                    .into()
            }
            CallErrorKind::InvalidTarget => {
                "the target group must be in this instance's VPC and the instance must be running".into()
            }
            CallErrorKind::TooMany => "raise the quota, or take targets out of the group".into(),
            CallErrorKind::UnsupportedType => "use a target group of type instance or ip".into(),
            CallErrorKind::AccessDenied => {
                format!("allow {} in the policy of this instance's role", self.action)
            }
            CallErrorKind::Credentials => {
                "attach an instance profile to this instance, or provide credentials in the environment"
                    .into()
            }
            CallErrorKind::Clock => {
                "set this machine's clock right: AWS refuses what is signed at another time".into()
            }
            CallErrorKind::Throttled => "nothing to do; it is tried again more slowly".into(),
            CallErrorKind::NoRegion => "set AWS_REGION, or let the instance metadata service tell it".into(),
            CallErrorKind::Unanswered => {
                "check the route, DNS and security groups towards the endpoint; it is tried again".into()
            }
            CallErrorKind::Refused => "see AWS's message; it is tried again".into(),
        }
    }
}
