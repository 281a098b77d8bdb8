//! The endpoint of the query protocol: who calls, whether they may, and how errors are written.
//!
//! Order as on AWS: authentication, throttle, permission, then the action itself.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use crate::api::query::{ApiError, Params};
use crate::api::signature::{Caller, Service, authenticate};
use crate::api::xml::Xml;
use crate::api::{ec2, elbv2};
use crate::http::{Body, full};
use crate::model::faults::{Call, Fault};
use crate::model::ids::request_id;
use crate::model::state::{Shared, State};
use crate::model::throttle::ActionClass;

/// Largest request body. The largest real one, a thousand targets, is smaller.
const MAX_BODY: usize = 256 * 1024;

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
    let (result, fault) = shared.update(|state, now| {
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
        let fault = state.fault(&action).filter(|_| caller.is_ok()).cloned();
        (result, fault)
    });
    if fault == Some(Fault::LoseAnswer) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(match result {
        Ok(mut xml) => {
            if fault == Some(Fault::BreakOff) {
                xml.truncate(xml.len() / 2);
            }
            xml_response(StatusCode::OK, xml)
        }
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
    let class = match service {
        Service::Ec2 => ActionClass::Ec2Describe,
        Service::Elbv2 if action.starts_with("Describe") => ActionClass::Describe,
        Service::Elbv2 => ActionClass::Change,
    };
    if !state.take_call(class, now) {
        return Err(match service {
            Service::Elbv2 => ApiError::bad("Throttling", "Rate exceeded"),
            Service::Ec2 => ApiError::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        });
    }
    match state.fault(action) {
        None | Some(Fault::LoseAnswer | Fault::BreakOff) => {}
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
