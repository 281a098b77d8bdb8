//! Checks credentials before they are sent.

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};

/// Passes on the credentials of another provider, or an error if they contain an invalid character: the SDK panics at
/// characters that no header may contain, such as a carriage return from an editor.
#[derive(Debug)]
pub struct Checked<P>(pub P);

/// A key or token with an invalid character.
#[derive(Debug, thiserror::Error)]
#[error("{part} has an invalid character at position {place}: set it again, without spaces or line breaks")]
struct InvalidCredential {
    part: &'static str,
    /// Counted from 1.
    place: usize,
}

impl<P: ProvideCredentials> ProvideCredentials for Checked<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let found = self.0.provide_credentials().await?;
            check(&found)?;
            Ok(found)
        })
    }
}

fn check(credentials: &Credentials) -> Result<(), CredentialsError> {
    for (part, text) in [
        ("the access key id", credentials.access_key_id()),
        ("the secret access key", credentials.secret_access_key()),
        ("the session token", credentials.session_token().unwrap_or_default()),
    ] {
        if let Some(index) = text.chars().position(|c| !c.is_ascii_graphic()) {
            return Err(CredentialsError::invalid_configuration(InvalidCredential {
                part,
                place: index + 1,
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_key_with_a_carriage_return_is_refused_by_its_place_and_not_shown() {
        let good = ["AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCY=", "token=="];
        let check = |[id, secret, token]: [&str; 3]| {
            check(&Credentials::new(id, secret, Some(token.to_owned()), None, "test"))
        };
        assert!(check(good).is_ok());
        for (place, part) in
            ["the access key id", "the secret access key", "the session token"].iter().enumerate()
        {
            let mut bad = good;
            let broken = format!("{}\r", good[place]);
            bad[place] = &broken;
            let said = check(bad).unwrap_err().source().unwrap().to_string();
            let expected = format!("{part} has an invalid character at position {}:", broken.len());
            assert!(said.starts_with(&expected), "{said}");
            assert!(!said.contains(good[place]), "{said}");
        }
    }
}
