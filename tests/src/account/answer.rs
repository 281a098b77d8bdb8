//! Answers, and AWS's errors in the words of each service's protocol.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use local_cloud::{Body, full};

use super::xml::Element;

/// An answer to a call.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    pub(super) headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What AWS refuses a call with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    /// The HTTP status.
    pub status: u16,
    /// AWS's code.
    pub code: String,
    /// AWS's message.
    pub message: String,
}

impl AwsError {
    /// An error that is the client's own.
    pub fn client(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// An error of any status.
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    /// How this service says that it is asked too often.
    pub fn throttled(service: &str) -> Self {
        match service {
            "ec2" => Self::new(503, "RequestLimitExceeded", "Request limit exceeded."),
            "s3" => Self::new(503, "SlowDown", "Please reduce your request rate."),
            "ssm" => Self::client("ThrottlingException", "Rate exceeded"),
            "servicequotas" => Self::client("TooManyRequestsException", "Rate exceeded"),
            _ => Self::client("Throttling", "Rate exceeded"),
        }
    }

    /// How this service says that the caller may not.
    pub fn denied(service: &str, permission: &str, resource: &str) -> Self {
        let message = format!(
            "User: arn:aws:iam::123456789012:user/operator is not authorized to perform: {permission} on \
             resource: {resource} because no identity-based policy allows the {permission} action"
        );
        match service {
            "ec2" => Self::new(403, "UnauthorizedOperation", message),
            "ssm" | "servicequotas" => Self::client("AccessDeniedException", message),
            _ => Self::new(403, "AccessDenied", message),
        }
    }

    /// As the service writes it.
    pub(super) fn answer(&self, service: &str) -> Answer {
        let code = Element::text("Code", self.code.as_str());
        let message = Element::text("Message", self.message.as_str());
        let id = "00000000-0000-4000-8000-000000000000";
        let document = match service {
            "ssm" | "servicequotas" => {
                let body = serde_json::json!({ "__type": self.code, "message": self.message });
                return Answer::new(self.status, "application/x-amz-json-1.1", body.to_string());
            }
            "ec2" => {
                let error = Element::of("Error", vec![code, message]);
                let errors = Element::of("Errors", vec![error]);
                Element::of("Response", vec![errors, Element::text("RequestID", id)])
            }
            "s3" => Element::of("Error", vec![code, message, Element::text("RequestId", id)]),
            _ => {
                let error = Element::of("Error", vec![Element::text("Type", "Sender"), code, message]);
                Element::of("ErrorResponse", vec![error, Element::text("RequestId", id)])
            }
        };
        Answer::new(self.status, "text/xml", document.document())
    }
}

impl Answer {
    /// A whole answer.
    pub(super) fn new(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().expect("a value"));
        Self { status, headers, body: body.into() }
    }

    /// A document in answer to a call that worked.
    pub(super) fn document(element: &Element) -> Self {
        Self::new(200, "text/xml", element.document())
    }

    /// Whether the call worked.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The document; an empty one if it is none.
    pub fn xml(&self) -> Element {
        Element::parse(std::str::from_utf8(&self.body).unwrap_or_default()).unwrap_or_default()
    }

    /// The error's code; empty if it is none.
    pub fn code(&self) -> String {
        if self.ok() {
            return String::new();
        }
        if let Ok(error) = serde_json::from_slice::<serde_json::Value>(&self.body) {
            let code = error["__type"].as_str().unwrap_or_default();
            return code.rsplit('#').next().unwrap_or_default().to_owned();
        }
        self.xml().find("Code").map(|code| code.text.clone()).unwrap_or_default()
    }

    /// The same call's answer with another document.
    pub(super) fn with(mut self, document: &Element) -> Self {
        self.body = document.document().into();
        self.headers.remove(CONTENT_LENGTH);
        self
    }

    pub(super) fn response(self) -> hyper::Response<Body> {
        let mut response = hyper::Response::new(full(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).expect("a status");
        *response.headers_mut() = self.headers;
        // hyper says the length itself; that of a HEAD's answer is the object's.
        response.headers_mut().remove(TRANSFER_ENCODING);
        response
    }
}
