//! The Elastic Load Balancing calls the agent makes. The only file that names the ELBv2 SDK.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::operation::describe_target_groups::DescribeTargetGroupsOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_target_health::DescribeTargetHealthOutput;
use aws_sdk_elasticloadbalancingv2::types::{TargetDescription, TargetTypeEnum};
use instance_contract::{TargetHealthState, one_line};

use crate::aws::{Action, CallError, CallErrorKind, logged};
use crate::target_group::{Target, TargetGroup, TargetGroupRef, TargetHealth, TargetType};
use crate::validate;

/// The longest text about a target's health, in characters.
const LONGEST_TEXT: usize = 400;

/// The ELBv2 client, in the agent's own types.
#[derive(Clone, Debug)]
pub(crate) struct Elbv2(Client);

impl Elbv2 {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self(Client::new(config))
    }

    /// Finds a group by name or ARN.
    pub(crate) async fn find(&self, group: &TargetGroupRef) -> Result<TargetGroup, CallError> {
        // AWS would only answer that the ARN is not valid.
        if let (Some(there), Some(here)) = (group.region(), self.0.config().region())
            && there != here.as_ref()
        {
            return Err(CallError {
                action: Action::DescribeTargetGroups,
                kind: CallErrorKind::OtherRegion,
                detail: format!("not called: {group} is in region {there}, this instance in {here}"),
            });
        }
        let call = self.0.describe_target_groups();
        let call = match group {
            TargetGroupRef::Name(name) => call.names(name),
            TargetGroupRef::Arn(arn) => call.target_group_arns(arn),
        };
        let call =
            async { call.send().await.map_err(|error| CallError::new(Action::DescribeTargetGroups, error)) };
        let found = |answer: &DescribeTargetGroupsOutput| format!("{} found", answer.target_groups().len());
        let answer = logged(Action::DescribeTargetGroups, &group.to_string(), call, found).await?;
        // For an unknown name or ARN, AWS answers with an error, never with an empty list.
        let no_answer = || CallError {
            action: Action::DescribeTargetGroups,
            kind: CallErrorKind::Unanswered,
            detail: format!("the answer does not contain {group}"),
        };
        let found = answer.target_groups().first().ok_or_else(no_answer)?;
        let arn = found.target_group_arn().ok_or_else(no_answer)?.to_owned();
        let target_type = match found.target_type() {
            None | Some(TargetTypeEnum::Instance) => TargetType::Instance,
            Some(TargetTypeEnum::Ip) => TargetType::Ip,
            Some(other) => {
                return Err(CallError {
                    action: Action::DescribeTargetGroups,
                    kind: CallErrorKind::UnsupportedType,
                    detail: format!("{group} has target type {other}, which takes no instances"),
                });
            }
        };
        let checked = found.health_check_enabled().unwrap_or(true);
        let check_interval = found.health_check_interval_seconds().filter(|_| checked);
        let check_interval = check_interval.and_then(validate::check_interval);
        Ok(TargetGroup { arn, target_type, check_interval })
    }

    /// How long a target of the group stays `draining`; `None` if it cannot be read.
    pub(crate) async fn deregistration_delay(&self, arn: &str) -> Option<Duration> {
        const KEY: &str = "deregistration_delay.timeout_seconds";
        let call = async {
            let answer = self.0.describe_target_group_attributes().target_group_arn(arn).send().await;
            let answer =
                answer.map_err(|error| CallError::new(Action::DescribeTargetGroupAttributes, error))?;
            let delay = answer.attributes().iter().find(|attribute| attribute.key() == Some(KEY));
            Ok(delay.and_then(|delay| validate::deregistration_delay(delay.value()?)))
        };
        let delay = |delay: &Option<Duration>| match delay {
            Some(delay) => format!("a deregistration delay of {} s", delay.as_secs()),
            None => "no deregistration delay".to_owned(),
        };
        logged(Action::DescribeTargetGroupAttributes, arn, call, delay).await.ok().flatten()
    }

    /// Registers `target` with the group.
    pub(crate) async fn register(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        let call = self.0.register_targets().target_group_arn(arn).targets(description(target)).send();
        let call = async { call.await.map_err(|error| CallError::new(Action::RegisterTargets, error)) };
        logged(Action::RegisterTargets, &about(target, arn), call, |_| "accepted".to_owned()).await.map(drop)
    }

    /// Deregisters `target`, with the port that was registered.
    pub(crate) async fn deregister(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        let call = self.0.deregister_targets().target_group_arn(arn).targets(description(target)).send();
        let call = async { call.await.map_err(|error| CallError::new(Action::DeregisterTargets, error)) };
        logged(Action::DeregisterTargets, &about(target, arn), call, |_| "accepted".to_owned())
            .await
            .map(drop)
    }

    /// Asks for the health of `target` only: with the whole group, each agent's calls would grow with the fleet.
    pub(crate) async fn health(&self, arn: &str, target: &Target) -> Result<TargetHealth, CallError> {
        let call = async {
            let call = self.0.describe_target_health().target_group_arn(arn).targets(description(target));
            let answer = call.send().await;
            health_in(target, &answer.map_err(|error| CallError::new(Action::DescribeTargetHealth, error))?)
        };
        logged(Action::DescribeTargetHealth, &about(target, arn), call, ToString::to_string).await
    }
}

/// For the log: which target of which group.
fn about(target: &Target, arn: &str) -> String {
    format!("{}:{} in {arn}", target.id, target.port)
}

fn health_in(target: &Target, answer: &DescribeTargetHealthOutput) -> Result<TargetHealth, CallError> {
    // Asked for by id, a target that is not registered is in the answer too, as `unused`.
    let health = answer.target_health_descriptions().first().and_then(|described| described.target_health());
    let health = health.ok_or_else(|| CallError {
        action: Action::DescribeTargetHealth,
        kind: CallErrorKind::Unanswered,
        detail: format!("the answer does not contain {}:{}", target.id, target.port),
    })?;
    Ok(TargetHealth {
        state: health.state().map_or(TargetHealthState::Initial, |state| {
            one_line(state.as_str(), LONGEST_TEXT).as_str().into()
        }),
        reason: health.reason().map(|reason| one_line(reason.as_str(), LONGEST_TEXT)),
        description: health.description().map(|text| one_line(text, LONGEST_TEXT)),
    })
}

fn description(target: &Target) -> TargetDescription {
    TargetDescription::builder().id(&target.id).port(i32::from(target.port)).build()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use aws_config::{BehaviorVersion, Region};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_types::body::SdkBody;

    use super::*;

    /// Answers every call like this.
    #[derive(Clone, Debug)]
    struct Says(u16, &'static str);

    impl HttpConnector for Says {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            HttpConnectorFuture::ready(Ok(HttpResponse::new(
                self.0.try_into().unwrap(),
                SdkBody::from(self.1),
            )))
        }
    }

    /// Has no credentials, for this reason.
    #[derive(Debug)]
    struct Without(fn() -> CredentialsError);

    impl ProvideCredentials for Without {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(self.0()))
        }
    }

    async fn registered(says: Says, credentials: SharedCredentialsProvider) -> CallError {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .credentials_provider(credentials)
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(says.clone())))
            .build();
        let target = Target { id: "i-1".to_owned(), port: 80 };
        Elbv2::new(&config).register("arn", &target).await.unwrap_err()
    }

    #[tokio::test]
    async fn an_answer_without_a_code_is_told_by_its_status() {
        const PAGE: &str = "<html><body>Bad Gateway</body></html>";
        const UNKNOWN: &str =
            "<ErrorResponse><Error><Code>New</Code><Message>m</Message></Error></ErrorResponse>";
        for (status, body, kind, detail) in [
            (503, "", CallErrorKind::Unanswered, "status 503 Service Unavailable without an AWS error code"),
            (502, PAGE, CallErrorKind::Unanswered, "status 502 Bad Gateway without an AWS error code"),
            (502, "Bad", CallErrorKind::Unanswered, "status 502 Bad Gateway without an AWS error code"),
            (429, "", CallErrorKind::Throttled, "status 429 Too Many Requests without an AWS error code"),
            (403, PAGE, CallErrorKind::Refused, "status 403 Forbidden without an AWS error code"),
            (500, UNKNOWN, CallErrorKind::Unanswered, "New: m"),
            (400, UNKNOWN, CallErrorKind::Refused, "New: m"),
        ] {
            let keys = SharedCredentialsProvider::new(Credentials::new("a", "b", None, None, "test"));
            let error = registered(Says(status, body), keys).await;
            assert_eq!((error.kind, &*error.detail), (kind, detail), "{status} {body}");
        }
    }

    #[tokio::test]
    async fn without_credentials_one_sentence_says_so() {
        type Cause = fn() -> CredentialsError;
        let causes: [(Cause, &str); 3] = [
            (|| CredentialsError::not_loaded("chain: A: B: C"), "there are no credentials"),
            (
                || CredentialsError::provider_error("the service is down"),
                "no credentials: the service is down",
            ),
            (|| CredentialsError::invalid_configuration("the key is odd"), "no credentials: the key is odd"),
        ];
        for (cause, detail) in causes {
            let error = registered(Says(200, ""), SharedCredentialsProvider::new(Without(cause))).await;
            assert_eq!((error.kind, &*error.detail), (CallErrorKind::Credentials, detail));
        }
    }

    #[tokio::test]
    async fn an_arn_of_another_region_is_refused_without_a_call() {
        // Without an HTTP client and credentials, a call would end in another error.
        let here = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .build();
        let arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/cluster1/73e2d6bc24d8a067";
        let found = Elbv2::new(&here).find(&TargetGroupRef::Arn(arn.to_owned())).await;
        assert_eq!(found.as_ref().map_err(|error| error.kind), Err(CallErrorKind::OtherRegion));
        assert!(
            found
                .is_err_and(|error| error.detail.contains("eu-west-1") && error.detail.contains("us-east-1"))
        );
    }
}
