//! Credentials: those that the SDK finds, else those of an awscli login session.
//!
//! A user of `aws sso login` or `aws login` has awscli, which can export its session's credentials. So bootstrap
//! needs no SDK clients for these services. The agent would contain them too, as both programs are built with one set of
//! features.

use std::error::Error;
use std::time::Duration;

use aws_config::credential_process::CredentialProcessProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider, future};
use instance_contract::innermost;

const AWSCLI: &str = "aws configure export-credentials --format process";

/// awscli is slow to start, and may have to renew the session.
const DEADLINE: Duration = Duration::from_secs(30);

/// The SDK's own credentials, else awscli's.
#[derive(Debug)]
pub(super) struct AwsCliFallback(pub(super) SharedCredentialsProvider);

impl ProvideCredentials for AwsCliFallback {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.find())
    }
}

impl AwsCliFallback {
    async fn find(&self) -> Result {
        let error = match self.0.provide_credentials().await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if let Some(why) = failure_of_process(&error) {
            return Err(CredentialsError::provider_error(why));
        }
        let awscli = CredentialProcessProvider::new(AWSCLI.to_owned());
        match tokio::time::timeout(DEADLINE, awscli.provide_credentials()).await {
            Ok(Ok(found)) => Ok(found),
            Err(_) => Err(CredentialsError::provider_timed_out(DEADLINE)),
            // There is no session: what the SDK said is all there is to say.
            Ok(Err(_)) if matches!(error, CredentialsError::CredentialsNotLoaded(_)) => Err(error),
            // The profile is one of a session, of which awscli knows what is wrong.
            Ok(Err(of_awscli)) => Err(CredentialsError::provider_error(awscli_message(&of_awscli))),
        }
    }
}

/// What a message says of a profile's own command.
pub(super) const PROCESS: &str = "the credential_process of the profile";

/// Why the profile's own command had none, in its own words. `None` where none was run.
fn failure_of_process(error: &CredentialsError) -> Option<String> {
    let told = innermost(error);
    let (_, told) = told.split_once("external process")?;
    if let Some((status, said)) = told.split_once(". Stderr: ") {
        let line = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason given");
        let status = status.trim_start_matches(" exited with code exit status: ");
        return Some(format!("{PROCESS} failed with status {status}: {line}"));
    }
    let why = told.trim_start_matches([':', ',', ' ']);
    Some(format!("{PROCESS} failed: {why}"))
}

/// Why awscli had no credentials, in one line.
fn awscli_message(error: &CredentialsError) -> String {
    let told = error.source().map(ToString::to_string).unwrap_or_default();
    // What the library says of the process, then what the process said.
    let (_, said) = told.split_once("Stderr: ").unwrap_or(("", &told));
    if said.contains("not found") || said.contains("Invalid choice") {
        return "the profile uses a login session, for which bootstrap needs awscli version 2 on PATH"
            .to_owned();
    }
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no reason given");
    format!("awscli returned no credentials for the profile: {line}")
}
