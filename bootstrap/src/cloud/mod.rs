//! AWS: one client for each service, made once, and what all calls share.
//!
//! Endpoints and credentials come from the SDK's own standard variables and files. The SDK retries
//! what AWS throttles and answers that were lost; what a new resource's invisibility needs is in
//! [`error`].

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use instance_aws::Checked;

pub(crate) use error::{CallError, call};
use error::{none_if_absent, ok_if_absent};

use credentials::AwsCliFallback;

use crate::policy;

mod clock;
mod credentials;
mod describe;
pub(crate) mod ec2;
pub(crate) mod elbv2;
mod error;
pub(crate) mod iam;
pub(crate) mod image;
pub(crate) mod look;
pub(crate) mod pace;
pub(crate) mod package_bucket;
pub(crate) mod package_reachable;
pub(crate) mod search;
mod surroundings;
pub(crate) mod survey;

/// An account and region, as the credentials at hand may use them.
pub(crate) struct Cloud {
    /// Instances, images, security groups, subnets.
    pub(crate) ec2: aws_sdk_ec2::Client,
    /// The balancer and its target groups.
    pub(crate) elbv2: aws_sdk_elasticloadbalancingv2::Client,
    /// The instances' role.
    pub(crate) iam: aws_sdk_iam::Client,
    /// How much the account may use.
    pub(crate) quotas: aws_sdk_servicequotas::Client,
    /// The package on its way to the instances.
    pub(crate) s3: aws_sdk_s3::Client,
    /// The names of public images.
    pub(crate) ssm: aws_sdk_ssm::Client,
    /// Whose credentials these are.
    pub(crate) sts: aws_sdk_sts::Client,
    pub(crate) region: String,
    /// Where the credentials come from; to know how long they live.
    credentials: Option<SharedCredentialsProvider>,
}

/// The longest one try of a call may take; an upload is a call too.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(60);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// With the delays below, a throttled call is tried for about half a minute.
const ATTEMPTS: u32 = 8;
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

impl Cloud {
    /// Clients for `region`, else for the one the SDK's own sources name. Calls nothing yet.
    ///
    /// # Errors
    /// No region is known.
    pub(crate) async fn connect(region: Option<String>) -> Result<Self, NoRegion> {
        let region = match region {
            Some(region) => Region::new(region),
            None => instance_aws::region_from_environment().await.ok_or(NoRegion::WithoutFile)?,
        };
        let retries = RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_BACKOFF)
            .with_max_backoff(LONGEST_BACKOFF);
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT_DEADLINE).read_timeout(ATTEMPT_DEADLINE).build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(instance_aws::http_client(instance_aws::has_certificates()))
            .region(region.clone())
            .retry_config(retries)
            .timeout_config(timeouts)
            .load()
            .await;
        let config = match config.credentials_provider() {
            Some(found) => {
                let credentials = SharedCredentialsProvider::new(Checked(AwsCliFallback(found)));
                config.into_builder().credentials_provider(credentials).build()
            }
            None => config,
        };
        macro_rules! client {
            ($service:ident) => {
                $service::Client::from_conf(
                    $service::config::Builder::from(&config).interceptor(PolicyGuard).build(),
                )
            };
        }
        Ok(Self {
            ec2: client!(aws_sdk_ec2),
            elbv2: client!(aws_sdk_elasticloadbalancingv2),
            iam: client!(aws_sdk_iam),
            quotas: client!(aws_sdk_servicequotas),
            s3: client!(aws_sdk_s3),
            ssm: client!(aws_sdk_ssm),
            sts: client!(aws_sdk_sts),
            region: region.to_string(),
            credentials: config.credentials_provider(),
        })
    }
}

/// No region is known.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum NoRegion {
    /// The command takes no fleet file.
    #[error("no region is known; give --region, or set AWS_REGION or the profile's region")]
    WithoutFile,
    /// The fleet file can name it.
    #[error(
        "no region is known; give --region, or set AWS_REGION, the profile's region, or region in the fleet file"
    )]
    WithFile,
}

/// Refuses what the printed operator policy does not list, before it is sent: so the policy names
/// every call that this program can make. Tells [`look`] what is called, and where.
#[derive(Debug)]
struct PolicyGuard;

impl Intercept for PolicyGuard {
    fn name(&self) -> &'static str {
        "PolicyGuard"
    }

    // Not sooner: a client's interceptors run once before the operation has said its name.
    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match config.load::<Metadata>() {
            Some(call) if policy::allows_call(call.service(), call.name()) => {
                look::names_action(call.service(), call.name());
                Ok(())
            }
            Some(call) => Err(format!(
                "{} {} is missing in the list of calls (policy/calls.rs)",
                call.service(),
                call.name()
            )
            .into()),
            None => Err("a call without a name".into()),
        }
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        look::is_sent_to(context.request().uri());
        Ok(())
    }
}
