//! Failed calls: what was tried, AWS's code and message, and the cure.

use std::error::Error as _;
use std::fmt;
use std::time::SystemTime;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use instance_aws::nameless;
use instance_contract::{Failure, innermost, one_line};

use super::clock::clock_error;
use super::look;

/// What AWS says is shown to this length, in characters.
const LONGEST: usize = 2000;

const LOG_IN: &str = "run `aws configure`, `aws login` or `aws sso login`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY";
const CORRECT_PROCESS: &str = "run that command by hand, then correct the profile";

/// What EC2 puts before a text that only AWS can read.
const ENCODED: &str = "Encoded authorization failure message: ";
const DECODE: &str = "`bootstrap policy operator` prints the permissions this program needs; `aws sts \
    decode-authorization-message --encoded-message TEXT` says more, with the whole text from CloudTrail";

/// Whether AWS may mean the time at which the request was signed.
fn is_of_signature(code: &str) -> bool {
    matches!(
        code,
        "RequestExpired"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "AuthFailure"
            | "RequestInTheFuture"
    )
}

/// A message with no more than the beginning of what is encoded in it, and whether something is.
fn without_encoded(message: &str) -> (String, bool) {
    let Some((before, encoded)) = message.split_once(ENCODED) else { return (message.to_owned(), false) };
    // What EC2 says without naming the action.
    let action = look::action().filter(|_| !before.contains("to perform: "));
    let action = action.map_or_else(String::new, |action| format!("({action}) "));
    (format!("{before}{action}{ENCODED}{}", one_line(encoded, 16)), true)
}

/// A call that did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct CallError {
    /// Completes "cannot …": `create the security group clusters-balancer`.
    tried: String,
    /// AWS's code; `None` where no answer came.
    code: Option<String>,
    /// AWS's message, or the causes.
    message: String,
    /// What to do, where the failure itself says that.
    cure: Option<String>,
}

/// Makes one call; `tried` completes "cannot …".
///
/// # Errors
/// What AWS answered, or that it did not.
pub(crate) async fn call<T, E>(
    tried: impl Into<String>,
    sent: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, CallError>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let tried = tried.into();
    let failed = tried.clone();
    // In a box: what the SDK does for one call is tens of kilobytes, and many are made at once.
    let sent = Box::pin(sent);
    look::call(&tried, async { sent.await.map_err(|error| CallError::new(failed, &error)) }).await
}

/// Success also if the resource was deleted before.
pub(super) fn ok_if_absent<T>(result: Result<T, CallError>) -> Result<(), CallError> {
    none_if_absent(result).map(|_| ())
}

/// `None` if the resource does not exist.
pub(super) fn none_if_absent<T>(result: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match result {
        Err(error) if error.is_not_found() => Ok(None),
        result => result.map(Some),
    }
}

impl std::error::Error for CallError {}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tried.is_empty() {
            write!(f, "cannot {}: ", self.tried)?;
        }
        if let Some(code) = &self.code {
            write!(f, "{code}: ")?;
        }
        write!(f, "{}", self.message.trim_end_matches('.'))?;
        match self.cure.as_deref().or_else(|| self.cure_of_code()) {
            Some(cure) => write!(f, "; {cure}"),
            None => Ok(()),
        }
    }
}

impl CallError {
    fn new<E>(tried: String, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if let Some(code) = error.code() {
            let code = one_line(code, LONGEST);
            let message = error.message().unwrap_or("no message");
            let date = error.raw_response().and_then(|response| response.headers().get("date"));
            let clock = date.filter(|_| is_of_signature(&code));
            let clock = clock.and_then(|date| clock_error(date, SystemTime::now()));
            let cure =
                clock.map(|clock| format!("{clock}: set it, for example with `timedatectl set-ntp true`"));
            let (message, decode) = without_encoded(message);
            let cure = cure.or_else(|| decode.then(|| DECODE.to_owned()));
            return Self { tried, message: one_line(&message, LONGEST), code: Some(code), cure };
        }
        let status = error.raw_response().map(HttpResponse::status).filter(|status| !status.is_success());
        if let Some(status) = status {
            return Self { tried, code: None, message: nameless(status.as_u16()), cure: None };
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            match error.downcast_ref::<CredentialsError>() {
                // The list of places that were looked at says less than the cure.
                Some(CredentialsError::CredentialsNotLoaded(_)) => {
                    let message = match std::env::var("AWS_PROFILE") {
                        Ok(profile) if !profile.is_empty() => {
                            let profile = one_line(&profile, LONGEST);
                            format!(
                                "the profile {profile}, which AWS_PROFILE names, does not exist or has no credentials"
                            )
                        }
                        _ => "there are no AWS credentials".to_owned(),
                    };
                    // Which call came first says nothing: all of them need credentials.
                    return Self { tried: String::new(), code: None, message, cure: Some(LOG_IN.to_owned()) };
                }
                Some(error) => {
                    let message = one_line(&format!("no credentials: {}", innermost(error)), LONGEST);
                    let cure =
                        if message.contains(super::credentials::PROCESS) { CORRECT_PROCESS } else { LOG_IN };
                    return Self { tried, code: None, message, cure: Some(cure.to_owned()) };
                }
                None => {}
            }
            if let Some(failure) = error.downcast_ref::<Failure>() {
                return Self::unanswered(tried, failure);
            }
            cause = error.source();
        }
        Self::unanswered(tried, &Failure::of("", error))
    }

    fn unanswered(tried: String, failure: &Failure) -> Self {
        let cure = failure.cure.map(str::to_owned);
        Self { tried, code: None, message: one_line(&failure.why, LONGEST), cure }
    }

    /// Whether no credentials were found, or none that could be used.
    pub(crate) fn lacks_credentials(&self) -> bool {
        self.cure.as_deref() == Some(LOG_IN)
    }

    /// AWS's code, such as `DependencyViolation`; empty where no answer came.
    pub(crate) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }

    /// AWS's message.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the resource asked for is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        let code = self.code();
        code.ends_with("NotFound")
            || code.ends_with(".NotFound")
            || code.ends_with("NotFoundException")
            || matches!(code, "NoSuchEntity" | "NoSuchBucket" | "NoSuchKey" | "NoSuchResource")
    }

    /// Whether a resource of that name is there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        let code = self.code();
        code.ends_with(".Duplicate")
            || code.starts_with("Duplicate")
            || matches!(code, "EntityAlreadyExists" | "BucketAlreadyOwnedByYou" | "PriorityInUse")
    }

    /// Whether AWS refuses because something that was just made is not visible everywhere yet. By
    /// code and message: the same codes also mean mistakes that no waiting cures.
    pub(crate) fn is_not_visible_yet(&self) -> bool {
        match self.code() {
            "InvalidParameterValue" => {
                self.message.contains("IAM Instance Profile") || self.message.contains("iamInstanceProfile")
            }
            "InvalidGroup.NotFound" | "InvalidSecurityGroup" => true,
            "InvalidInstanceID.NotFound" => true,
            "NoSuchEntity" | "NoSuchBucket" => true,
            "LoadBalancerNotFound" | "TargetGroupNotFound" | "ListenerNotFound" => true,
            // IAM: the role or profile is still being changed elsewhere.
            "ConcurrentModification" => true,
            // S3: the bucket is still being made or taken down.
            "OperationAborted" => true,
            _ => false,
        }
    }

    /// Why the call is retried, for people.
    pub(crate) fn reason_to_wait(&self) -> String {
        if self.is_not_visible_yet() {
            format!("AWS does not show the new resource everywhere yet ({})", self.code())
        } else {
            format!("{}: {}", self.code(), self.message())
        }
    }

    /// Whether something still uses what is to be deleted.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(
            self.code(),
            "DependencyViolation" | "ResourceInUse" | "DeleteConflict" | "InvalidGroup.InUse"
        ) || self.code() == "BucketNotEmpty"
    }

    /// Whether these credentials lack the permission.
    pub(crate) fn is_denied(&self) -> bool {
        self.code().starts_with("AccessDenied") || self.code() == "UnauthorizedOperation"
    }

    /// Whether the instances of this call are not terminated since one is protected from it; AWS names it.
    pub(crate) fn is_protected(&self) -> bool {
        self.code() == "OperationNotPermitted" && self.message.contains("disableApiTermination")
    }

    /// What a person can do about it, where that is known.
    fn cure_of_code(&self) -> Option<&'static str> {
        Some(match self.code() {
            "" => "check the network, the region's name and the endpoint",
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                "`bootstrap policy operator` prints the permissions this program needs"
            }
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
                "log in again: the credentials have expired"
            }
            "AuthFailure"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidAccessKeyId"
            | "IncompleteSignature" => {
                "check the credentials, that this region is enabled in the account, and this machine's clock"
            }
            "OptInRequired" => "enable this region, or this service, in the account",
            "VcpuLimitExceeded" | "InstanceLimitExceeded" => {
                "ask for more in the Service Quotas console, or lower the groups' counts"
            }
            "InsufficientInstanceCapacity" => "try other zones, another type, or later",
            "TooManyLoadBalancers"
            | "TooManyTargetGroups"
            | "SecurityGroupLimitExceeded"
            | "LimitExceeded"
            | "TooManyBuckets" => "delete what is not needed, or ask for more in the Service Quotas console",
            "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "SlowDown" => "the account makes too many calls: run the command again later",
            "DependencyViolation" | "ResourceInUse" => {
                "remove what still uses it, then run the command again"
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    #[test]
    fn an_answer_without_a_code_is_told_by_its_status() {
        let response = HttpResponse::new(503.try_into().unwrap(), SdkBody::from("<html></html>"));
        let error = SdkError::service_error(ErrorMetadata::builder().build(), response);
        let said = CallError::new("list the load balancers".to_owned(), &error).to_string();
        let expected =
            "cannot list the load balancers: status 503 Service Unavailable without an AWS error code; ";
        assert!(said.starts_with(expected), "{said}");
    }
    fn refused(code: &str, message: &str, date: Option<&str>) -> String {
        let mut response = HttpResponse::new(400.try_into().unwrap(), SdkBody::empty());
        if let Some(date) = date {
            response.headers_mut().insert("date", date.to_owned());
        }
        let error = ErrorMetadata::builder().code(code).message(message).build();
        CallError::new("look".to_owned(), &SdkError::service_error(error, response)).to_string()
    }

    #[test]
    fn a_wrong_clock_is_told_from_an_expired_session() {
        let date = |ago: Duration| {
            let time = aws_smithy_types::DateTime::from(SystemTime::now() - ago);
            time.fmt(aws_smithy_types::date_time::Format::HttpDate).unwrap()
        };
        for code in ["RequestExpired", "SignatureDoesNotMatch", "AuthFailure"] {
            let said = refused(code, "m", Some(&date(Duration::from_secs(3600))));
            assert!(said.contains("; this machine's clock is 60 min ahead of that of AWS ("), "{said}");
            assert!(said.ends_with("): set it, for example with `timedatectl set-ntp true`"), "{said}");
        }
        for date in [None, Some(&*date(Duration::ZERO))] {
            let said = refused("RequestExpired", "m", date);
            assert!(said.ends_with("log in again: the credentials have expired"), "{said}");
        }
    }

    #[test]
    fn an_encoded_message_is_shortened_and_how_to_decode_it_is_said() {
        let message =
            format!("You are not authorized to perform this operation. {ENCODED}{}", "x".repeat(600));
        let said = refused("UnauthorizedOperation", &message, None);
        assert!(said.contains("message: xxxxxxxxxxxxxxx…; "), "{said}");
        assert!(said.contains("`bootstrap policy operator`"), "{said}");
        assert!(said.contains("`aws sts decode-authorization-message "), "{said}");
    }
}
