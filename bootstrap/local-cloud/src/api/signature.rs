//! Who signed a call, by its Signature Version 4.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hyper::header::{AUTHORIZATION, HeaderMap};

use crate::api::query::ApiError;
use crate::model::ids::timestamp;
use crate::model::state::State;

/// How far a request's date may be off.
const MAX_SKEW: Duration = Duration::from_secs(300);

/// Which API a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Elastic Load Balancing, version 2015-12-01.
    Elbv2,
    /// EC2.
    Ec2,
}

impl Service {
    /// The service's name in credential scopes and IAM actions.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Elbv2 => "elasticloadbalancing",
            Self::Ec2 => "ec2",
        }
    }
}

/// Who signed a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Operator,
    Instance(String),
}

/// What a Signature Version 4 `Authorization` header says.
struct Signature<'a> {
    access_key: &'a str,
    /// Date, region, service, terminator.
    scope: [&'a str; 4],
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Signature<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let mut fields = BTreeMap::new();
        for field in header.strip_prefix("AWS4-HMAC-SHA256 ")?.split(',') {
            let (name, value) = field.trim().split_once('=')?;
            fields.insert(name, value);
        }
        let parts: Vec<&str> = fields.get("Credential")?.split('/').collect();
        let [access_key, scope @ ..] = parts.as_slice() else {
            return None;
        };
        Some(Self {
            access_key,
            scope: scope.try_into().ok()?,
            signed: fields.get("SignedHeaders")?.split(';').collect(),
            signature: fields.get("Signature")?,
        })
    }
}

/// Finds who signed. The signature itself is not computed, everything around it is checked.
pub(crate) fn authenticate(state: &State, service: Service, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(authorization) = header(AUTHORIZATION.as_str()) else {
        let text = "Request is missing Authentication Token";
        return Err(ApiError::new(403, "MissingAuthenticationToken", text));
    };
    let incomplete = |text: &str| ApiError::bad("IncompleteSignature", text);
    let mismatch = |text: String| ApiError::new(403, "SignatureDoesNotMatch", text);
    let signature = Signature::parse(authorization)
        .filter(|s| s.signature.len() == 64 && s.signature.bytes().all(|b| b.is_ascii_hexdigit()))
        .ok_or_else(|| incomplete("The Authorization header is not a Signature Version 4 one"))?;

    let wall = SystemTime::now();
    let token = header("x-amz-security-token");
    let unknown = || match service {
        Service::Elbv2 => ApiError::new(
            403,
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        ),
        Service::Ec2 => {
            ApiError::new(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
        }
    };
    let (caller, credentials) = if signature.access_key == state.operator.access_key {
        (Caller::Operator, &state.operator)
    } else {
        let mut issued = state.instances.values().flat_map(|instance| {
            let caller = Caller::Instance(instance.id.clone());
            instance.credentials.iter().map(move |issued| (caller.clone(), issued))
        });
        issued.find(|(_, issued)| issued.access_key == signature.access_key).ok_or_else(unknown)?
    };
    if token != credentials.session_token.as_deref() {
        return Err(unknown());
    }
    if !credentials.are_valid(wall) {
        let text = "The security token included in the request is expired";
        return Err(match service {
            Service::Elbv2 => ApiError::new(403, "ExpiredToken", text),
            Service::Ec2 => ApiError::bad("RequestExpired", text),
        });
    }

    let date = header("x-amz-date").unwrap_or_default();
    let [day, region, scoped_service, end] = signature.scope;
    if region != state.options.region || scoped_service != service.name() || end != "aws4_request" {
        let expected = (state.options.region.as_str(), service.name());
        return Err(mismatch(format!(
            "Credential should be scoped to region '{}', service '{}' and 'aws4_request', not '{region}', '{scoped_service}' and '{end}'.",
            expected.0, expected.1
        )));
    }
    // Dates without punctuation sort as text.
    let compact = |time| timestamp(time).replace(['-', ':'], "");
    if date < compact(wall - MAX_SKEW).as_str()
        || date > compact(wall + MAX_SKEW).as_str()
        || !date.starts_with(day)
    {
        let text = format!("Signature expired or not yet current: {date}");
        return Err(mismatch(text));
    }
    let mut needed = vec!["host", "x-amz-date"];
    needed.extend(token.map(|_| "x-amz-security-token"));
    match needed.iter().find(|name| !signature.signed.contains(name)) {
        Some(name) => Err(mismatch(format!("The header '{name}' must be signed"))),
        None => Ok(caller),
    }
}
