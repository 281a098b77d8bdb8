//! The endpoint of the query protocol: who calls, whether they may, and how errors are written.
//!
//! Order as on AWS: authentication, throttle, permission, then the action itself.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::{ec2, elbv2};
use crate::api::xml::Xml;
use crate::cloud::{Call, Fault, Shared, State};
use crate::http::{Body, full};
use crate::model::ids::{request_id, timestamp};
use crate::model::throttle::ActionClass;

/// Largest request body. The largest real one, a thousand targets, is smaller.
const MAX_BODY: usize = 256 * 1024;

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

    fn class(self, action: &str) -> ActionClass {
        match self {
            Self::Ec2 => ActionClass::Ec2Describe,
            Self::Elbv2 if action.starts_with("Describe") => ActionClass::Describe,
            Self::Elbv2 => ActionClass::Change,
        }
    }
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: u16,
    code: String,
    message: String,
}

impl ApiError {
    /// An error with a status of its own.
    pub(crate) fn new(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    /// The caller's mistake.
    pub(crate) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// An action that the service does not have, or this one does not play.
    pub(crate) fn invalid_action(action: &str) -> Self {
        let text = format!("The action {action} is not valid for this web service.");
        Self::bad("InvalidAction", text)
    }
}

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    /// From a form body.
    pub(crate) fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// A parameter that may be absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that must be there.
    pub(crate) fn require(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            let text = format!("A value for the parameter {name} is missing");
            ApiError::bad("ValidationError", text)
        })
    }

    /// A port that may be absent.
    pub(crate) fn port(&self, name: &str) -> Result<Option<u16>, ApiError> {
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
        match self.get(name) {
            None => Ok(None),
            Some(text) => port(text).map(Some).ok_or_else(|| {
                let text = format!("Port '{text}' is not between 1 and 65535");
                ApiError::bad("ValidationError", text)
            }),
        }
    }

    /// All parameters but `Action` and `Version`, sorted by name.
    pub(crate) fn arguments(&self) -> Vec<(String, String)> {
        let arguments = self.0.iter().filter(|(name, _)| !["Action", "Version"].contains(&name.as_str()));
        arguments.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The values of `prefix.1`, `prefix.2`, … in this order.
    pub(crate) fn list(&self, prefix: &str) -> Vec<&str> {
        let name = |n| format!("{prefix}.{n}");
        let numbers = self.indices(prefix).into_iter();
        numbers.filter_map(|n| self.get(&name(n))).collect()
    }

    /// The numbers that follow `prefix.`, sorted.
    pub(crate) fn indices(&self, prefix: &str) -> Vec<u32> {
        let rests = self.0.keys().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix('.'));
        let mut numbers: Vec<u32> = rests.filter_map(|rest| rest.split('.').next()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Refuses parameters that the action does not read: ignoring one would hide a mistake.
    /// In `known`, `N` stands for any number.
    pub(crate) fn allow(&self, known: &[&str]) -> Result<(), ApiError> {
        for key in self.0.keys() {
            let general: Vec<&str> =
                key.split('.').map(|part| if part.parse::<u32>().is_ok() { "N" } else { part }).collect();
            let general = general.join(".");
            if !["Action", "Version"].contains(&key.as_str()) && !known.contains(&general.as_str()) {
                let text = format!("The local cloud does not know the parameter {key}");
                return Err(ApiError::bad("ValidationError", text));
            }
        }
        Ok(())
    }
}

/// Who signed a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Caller {
    Operator,
    Instance(String),
}

/// Answers one request and logs it; an error where a fault loses the answer.
pub(crate) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            let error = ApiError::new(413, "RequestEntityTooLarge", "The request is too large");
            return Ok(error_response(Service::Elbv2, &error));
        }
    };
    let params = Params::parse(&body);
    let service = match params.get("Version") {
        Some(elbv2::VERSION) => Service::Elbv2,
        Some(ec2::VERSION) => Service::Ec2,
        other => {
            let text = format!("No service here has the version {other:?}");
            return Ok(error_response(Service::Elbv2, &ApiError::bad("InvalidAction", text)));
        }
    };
    let action = params.get("Action").unwrap_or_default().to_owned();
    let (result, lost) = shared.update(|state, now| {
        let caller = if head.method == Method::POST && head.uri.path() == "/" {
            authenticate(state, service, &head.headers)
        } else {
            let text = "Only POST to / is understood by the local cloud";
            Err(ApiError::bad("InvalidAction", text))
        };
        let result =
            caller.clone().and_then(|caller| perform(state, service, &action, &params, &caller, now));
        let call = Call {
            at: now - state.started,
            time: SystemTime::now(),
            action: action.clone(),
            instance: match caller {
                Ok(Caller::Instance(ref id)) => Some(id.clone()),
                _ => None,
            },
            parameters: params.arguments(),
            error: result.as_ref().err().map(|error| error.code.clone()),
        };
        state.log_call(call);
        // A stranger's call is refused before the action is looked at: its answer is not lost.
        let lost = caller.is_ok() && state.fault(&action) == Some(&Fault::LoseAnswer);
        (result, lost)
    });
    if lost {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(match result {
        Ok(xml) => xml_response(StatusCode::OK, xml),
        Err(error) => error_response(service, &error),
    })
}

fn perform(
    state: &mut State,
    service: Service,
    action: &str,
    params: &Params,
    caller: &Caller,
    now: Instant,
) -> Result<String, ApiError> {
    if !state.take_call(service.class(action), now) {
        return Err(match service {
            Service::Elbv2 => ApiError::bad("Throttling", "Rate exceeded"),
            Service::Ec2 => ApiError::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        });
    }
    match state.fault(action) {
        None | Some(Fault::LoseAnswer) => {}
        Some(Fault::Deny) => return Err(denied(state, service, action, caller)),
        Some(Fault::Fail(status)) => {
            let text = "The request failed inside the service";
            return Err(ApiError::new(*status, "InternalFailure", text));
        }
        Some(Fault::Error(code)) => {
            return Err(ApiError::bad(code, "A fault was set for this action"));
        }
    }
    match service {
        Service::Elbv2 => elbv2::perform(state, action, params, now),
        Service::Ec2 => ec2::perform(state, action, params),
    }
}

fn denied(state: &State, service: Service, action: &str, caller: &Caller) -> ApiError {
    let account = &state.options.account;
    let user = match caller {
        Caller::Operator => format!("arn:aws:iam::{account}:user/operator"),
        Caller::Instance(id) => {
            let role = state.instances.get(id).and_then(|i| i.spec.role.as_deref());
            let role = role.unwrap_or("none");
            format!("arn:aws:sts::{account}:assumed-role/{role}/{id}")
        }
    };
    let action = format!("{}:{action}", service.name());
    let text = format!(
        "User: {user} is not authorized to perform: {action} because no identity-based policy allows the {action} action"
    );
    match service {
        Service::Elbv2 => ApiError::new(403, "AccessDenied", text),
        Service::Ec2 => ApiError::new(
            403,
            "UnauthorizedOperation",
            format!("You are not authorized to perform this operation. {text}"),
        ),
    }
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
fn authenticate(state: &State, service: Service, headers: &HeaderMap) -> Result<Caller, ApiError> {
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

fn xml_response(status: StatusCode, xml: String) -> Response<Body> {
    let mut response = Response::new(full(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{xml}")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

fn error_response(service: Service, error: &ApiError) -> Response<Body> {
    let details = |xml: &mut Xml| {
        if service == Service::Elbv2 {
            xml.text("Type", if error.status < 500 { "Sender" } else { "Receiver" });
        }
        xml.text("Code", &error.code);
        xml.text("Message", &error.message);
    };
    let xml = match service {
        Service::Elbv2 => Xml::document("ErrorResponse", elbv2::NAMESPACE, |xml| {
            xml.element("Error", details);
            xml.text("RequestId", request_id());
        }),
        Service::Ec2 => {
            let mut xml = Xml::default();
            xml.element("Response", |xml| {
                xml.element("Errors", |xml| xml.element("Error", details));
                xml.text("RequestID", request_id());
            });
            xml.into_string()
        }
    };
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    xml_response(status, xml)
}
