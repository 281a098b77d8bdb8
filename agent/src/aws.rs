//! Shared by all AWS clients of the agent: HTTP client, time limits, credentials, region, errors.
//!
//! Endpoints, credentials and region come from the SDK's standard variables and sources. The SDK's
//! retries are off: the callers retry, so that each retry is logged, jittered and limited in one place.

use std::error::Error as _;
use std::fmt;
use std::time::{Duration, Instant};

use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use instance_aws::{Checked, nameless};
use instance_contract::one_line;

/// Time limit of one API call.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// The longest error text of AWS, in characters.
const LONGEST_DETAIL: usize = 1_000;

pub(crate) const NO_CERTIFICATES: &str = "no CA certificates on this machine, so AWS cannot be called over \
    HTTPS; install ca-certificates, then reload the agent";

/// For the IMDS client, which needs no region and no credentials.
pub(crate) fn provider_config(http_client: &SharedHttpClient) -> ProviderConfig {
    ProviderConfig::without_region().with_http_client(http_client.clone())
}

/// The configuration of the service clients; `None` while no region is known. `region` is the instance's
/// own, used if neither the environment nor a profile names one.
pub(crate) async fn config(http_client: &SharedHttpClient, region: Option<String>) -> Option<SdkConfig> {
    let region = match instance_aws::region_from_environment().await {
        Some(named) => named,
        None => Region::new(region?),
    };
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
    Some(match config.credentials_provider() {
        Some(found) => {
            let checked = SharedCredentialsProvider::new(Checked(found));
            config.into_builder().credentials_provider(checked).build()
        }
        None => config,
    })
}

/// The actions that the agent calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    DescribeTags,
    DescribeTargetGroups,
    DescribeTargetGroupAttributes,
    DescribeTargetHealth,
    RegisterTargets,
    DeregisterTargets,
}

impl Action {
    /// Whether the call changes something: without an answer, it may have done so.
    pub(crate) fn is_change(self) -> bool {
        match self {
            Self::RegisterTargets | Self::DeregisterTargets => true,
            Self::DescribeTags
            | Self::DescribeTargetGroups
            | Self::DescribeTargetGroupAttributes
            | Self::DescribeTargetHealth => false,
        }
    }
}

/// Makes a call, and logs its duration and outcome at debug level.
pub(crate) async fn logged<T>(
    action: Action,
    about: &str,
    call: impl Future<Output = Result<T, CallError>>,
    outcome: impl FnOnce(&T) -> String,
) -> Result<T, CallError> {
    let begun = Instant::now();
    let answer = call.await;
    log_call(action, about, answer.as_ref().map(outcome), begun.elapsed());
    answer
}

/// A function of its own: the code for a log event is large, and `logged` is generic.
fn log_call(action: Action, about: &str, outcome: Result<String, &CallError>, took: Duration) {
    let outcome = outcome.unwrap_or_else(|error| format!("failed: {}", error.detail));
    tracing::debug!("{action} of {about}: {outcome} ({} ms)", took.as_millis());
}

/// As named in IAM policies.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DescribeTags => "ec2:DescribeTags",
            Self::DescribeTargetGroups => "elasticloadbalancing:DescribeTargetGroups",
            Self::DescribeTargetGroupAttributes => "elasticloadbalancing:DescribeTargetGroupAttributes",
            Self::DescribeTargetHealth => "elasticloadbalancing:DescribeTargetHealth",
            Self::RegisterTargets => "elasticloadbalancing:RegisterTargets",
            Self::DeregisterTargets => "elasticloadbalancing:DeregisterTargets",
        })
    }
}

/// Why an API call failed. Its kind decides what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {detail}")]
pub(crate) struct CallError {
    /// The action that was called.
    pub(crate) action: Action,
    /// The kind of failure.
    pub(crate) kind: CallErrorKind,
    /// AWS's code and message, or the causes if there was no answer.
    pub(crate) detail: String,
}

/// The kinds of failures, by what to do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallErrorKind {
    /// No such target group in this account and region.
    GroupNotFound,
    /// The ARN is of another region.
    OtherRegion,
    /// The group cannot contain this instance: it is in another VPC or not running.
    InvalidTarget,
    /// A quota of the group or of this target is used up.
    TooMany,
    /// The target type does not allow instances.
    UnsupportedType,
    /// The credentials do not allow the action.
    AccessDenied,
    /// No credentials, or AWS does not accept them.
    Credentials,
    /// Too many calls in this account and region.
    Throttled,
    /// No region is known.
    NoRegion,
    /// The machine's clock is wrong.
    Clock,
    /// No answer: the call may have taken effect.
    Unanswered,
    /// Anything else that AWS refuses.
    Refused,
}

impl CallError {
    pub(crate) fn new<E>(action: Action, error: SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status());
        if let Some(code) = error.code() {
            let message = error.message().unwrap_or("no message");
            let kind = match kind_of(code, message) {
                // An unknown code with a 5xx status is a fault of AWS.
                CallErrorKind::Refused if status.is_some_and(|status| status.is_server_error()) => {
                    CallErrorKind::Unanswered
                }
                kind => kind,
            };
            let detail = one_line(&format!("{code}: {message}"), LONGEST_DETAIL);
            return Self { action, kind, detail };
        }
        if let Some(status) = status.filter(|status| !status.is_success()) {
            let kind = match status.as_u16() {
                429 => CallErrorKind::Throttled,
                500.. => CallErrorKind::Unanswered,
                _ => CallErrorKind::Refused,
            };
            return Self { action, kind, detail: nameless(status.as_u16()) };
        }
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<CredentialsError>() {
                return Self { action, kind: CallErrorKind::Credentials, detail: without_credentials(error) };
            }
            cause = error.source();
            // Its text only says that there is a cause.
            if error.is::<ConnectorError>() && cause.is_some() {
                continue;
            }
            let text = error.to_string();
            // Causes often repeat what wraps them.
            if !causes.iter().any(|known: &String| known.contains(&text)) {
                causes.push(text);
            }
        }
        if matches!(error, SdkError::TimeoutError(_)) {
            causes.insert(0, format!("no answer within {} s", CALL_DEADLINE.as_secs()));
        }
        Self { action, kind: CallErrorKind::Unanswered, detail: one_line(&causes.join(": "), LONGEST_DETAIL) }
    }

    /// The call cannot even be sent: no region is known.
    pub(crate) fn no_region(action: Action) -> Self {
        Self { action, kind: CallErrorKind::NoRegion, detail: "no region is known".to_owned() }
    }

    /// What to do about it, in one sentence. `named_in` is where the target group is named.
    pub(crate) fn cure(&self, named_in: &str) -> String {
        match self.kind {
            CallErrorKind::GroupNotFound => {
                format!("create the target group in this region, or correct {named_in}")
            }
            CallErrorKind::OtherRegion => {
                format!("name a target group of this instance's region in {named_in}")
            }
            CallErrorKind::InvalidTarget => {
                "the target group must be in this instance's VPC and the instance must be running".into()
            }
            CallErrorKind::TooMany => "raise the quota, or deregister other targets from the group".into(),
            CallErrorKind::UnsupportedType => "use a target group of type instance or ip".into(),
            CallErrorKind::AccessDenied => {
                format!("allow {} in the policy of this instance's role", self.action)
            }
            CallErrorKind::Credentials => {
                "attach an instance profile to this instance, or provide credentials in the environment"
                    .into()
            }
            CallErrorKind::Clock => {
                "set this machine's clock: AWS refuses requests signed at a wrong time".into()
            }
            CallErrorKind::Throttled => "nothing to do: the agent now calls less often".into(),
            CallErrorKind::NoRegion => {
                "set AWS_REGION, or let the instance reach its metadata service".into()
            }
            CallErrorKind::Unanswered => {
                "check the route, DNS and security groups to the endpoint, or name a proxy in HTTPS_PROXY"
                    .into()
            }
            CallErrorKind::Refused => "see AWS's message".into(),
        }
    }
}

/// The kind of an AWS error code.
fn kind_of(code: &str, message: &str) -> CallErrorKind {
    match code {
        "RequestExpired" | "RequestTimeTooSkewed" => CallErrorKind::Clock,
        "SignatureDoesNotMatch" if message.contains("expired") || message.contains("not yet") => {
            CallErrorKind::Clock
        }
        "TargetGroupNotFound" | "TargetGroupNotFoundException" => CallErrorKind::GroupNotFound,
        "InvalidTarget" | "InvalidTargetException" => CallErrorKind::InvalidTarget,
        _ if code.starts_with("TooMany") && !code.starts_with("TooManyRequests") => CallErrorKind::TooMany,
        "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown" => CallErrorKind::Throttled,
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => CallErrorKind::AccessDenied,
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
    }
}

/// One sentence: the SDK's list of searched places helps less than the cure.
fn without_credentials(error: &CredentialsError) -> String {
    if matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
        return "there are no credentials".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    one_line(&format!("no credentials: {innermost}"), LONGEST_DETAIL)
}
