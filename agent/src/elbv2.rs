//! The Elastic Load Balancing calls the agent makes. The only file that names the ELBv2 SDK.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{TargetDescription, TargetTypeEnum};
use instance_contract::TargetHealthState;

use crate::aws::{CallError, CallErrorKind};
use crate::target_group::{Target, TargetGroup, TargetGroupRef, TargetHealth, TargetType};

/// The ELBv2 client, in the agent's own types.
#[derive(Clone, Debug)]
pub(crate) struct Elbv2(Client);

impl Elbv2 {
    /// A client with the shared configuration.
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self(Client::new(config))
    }

    /// Finds a group by name or ARN. Its attributes are read too; where that is not allowed, the
    /// deregistration delay is left unknown.
    pub(crate) async fn find(&self, group: &TargetGroupRef) -> Result<TargetGroup, CallError> {
        const ACTION: &str = "elasticloadbalancing:DescribeTargetGroups";
        let call = self.0.describe_target_groups();
        let call = match group {
            TargetGroupRef::Name(name) => call.names(name),
            TargetGroupRef::Arn(arn) => call.target_group_arns(arn),
        };
        let answer = call.send().await.map_err(|error| CallError::new(ACTION, error))?;
        let not_found = || CallError {
            action: ACTION,
            kind: CallErrorKind::GroupNotFound,
            detail: format!("the answer does not hold {group}"),
        };
        let found = answer.target_groups().first().ok_or_else(not_found)?;
        let arn = found.target_group_arn().ok_or_else(not_found)?.to_owned();
        let target_type = match found.target_type() {
            None | Some(TargetTypeEnum::Instance) => TargetType::Instance,
            Some(TargetTypeEnum::Ip) => TargetType::Ip,
            Some(other) => {
                return Err(CallError {
                    action: ACTION,
                    kind: CallErrorKind::UnsupportedType,
                    detail: format!("{group} has targets of type {other}, which an instance cannot be"),
                });
            }
        };
        let check_interval = found
            .health_check_enabled()
            .unwrap_or(true)
            .then(|| found.health_check_interval_seconds())
            .flatten()
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs);
        let deregistration_delay = self.deregistration_delay(&arn).await;
        Ok(TargetGroup { arn, target_type, check_interval, deregistration_delay })
    }

    /// How long a target of the group stays `draining`; `None` where it cannot be read.
    pub(crate) async fn deregistration_delay(&self, arn: &str) -> Option<Duration> {
        let answer = self
            .0
            .describe_target_group_attributes()
            .target_group_arn(arn)
            .send()
            .await
            .map_err(|error| {
                let error = CallError::new("elasticloadbalancing:DescribeTargetGroupAttributes", error);
                tracing::debug!("{arn}: deregistration delay unknown, taking 300 s: {error}");
            })
            .ok()?;
        answer
            .attributes()
            .iter()
            .find(|attribute| attribute.key() == Some("deregistration_delay.timeout_seconds"))?
            .value()?
            .parse()
            .ok()
            .map(Duration::from_secs)
    }

    /// Registers `target` with the group.
    pub(crate) async fn register(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        self.0
            .register_targets()
            .target_group_arn(arn)
            .targets(description(target))
            .send()
            .await
            .map(drop)
            .map_err(|error| CallError::new("elasticloadbalancing:RegisterTargets", error))
    }

    /// Deregisters `target`, with the port that was registered.
    pub(crate) async fn deregister(&self, arn: &str, target: &Target) -> Result<(), CallError> {
        self.0
            .deregister_targets()
            .target_group_arn(arn)
            .targets(description(target))
            .send()
            .await
            .map(drop)
            .map_err(|error| CallError::new("elasticloadbalancing:DeregisterTargets", error))
    }

    /// Asks for the health of `target` alone: a whole group's health would be paid by every agent.
    pub(crate) async fn health(&self, arn: &str, target: &Target) -> Result<TargetHealth, CallError> {
        let answer = self
            .0
            .describe_target_health()
            .target_group_arn(arn)
            .targets(description(target))
            .send()
            .await
            .map_err(|error| CallError::new("elasticloadbalancing:DescribeTargetHealth", error))?;
        let not_registered = || TargetHealth {
            state: TargetHealthState::Unused,
            reason: Some("Target.NotRegistered".to_owned()),
            description: None,
        };
        let Some(health) =
            answer.target_health_descriptions().first().and_then(|description| description.target_health())
        else {
            return Ok(not_registered());
        };
        Ok(TargetHealth {
            state: health.state().map_or(TargetHealthState::Initial, |state| state.as_str().into()),
            reason: health.reason().map(|reason| reason.as_str().to_owned()),
            description: health.description().map(str::to_owned),
        })
    }
}

fn description(target: &Target) -> TargetDescription {
    TargetDescription::builder().id(&target.id).port(i32::from(target.port)).build()
}
