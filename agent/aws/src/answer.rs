//! Accepts only complete HTTP answers of a sane size.

use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// The longest answer of the instance metadata service.
const LONGEST_METADATA: usize = 1 << 20;
/// The longest answer of a service: several times EC2's answer for a thousand instances.
const LONGEST: usize = 32 << 20;
/// Time limit of an answer, from its first byte to its last.
const DEADLINE: Duration = Duration::from_secs(30);

/// The lifetime of a session token of the metadata service, in seconds.
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The longest lifetime that the service gives: six hours.
const LONGEST_TOKEN_TTL: u64 = 21_600;

/// Why an answer was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The body is too long.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The body was not complete in time.
    #[error("the answer did not end within {} s", .0.as_secs())]
    Late(Duration),
    /// XML whose root element is not closed: a parser would take missing elements for absent ones.
    #[error("the answer is incomplete")]
    BrokenOff,
}

/// The text for an error status without an AWS error code. AWS gives a code for each of its errors, so this comes from a
/// proxy or gateway, or from a fault in front of the service.
pub fn nameless(status: u16) -> String {
    let name = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    format!("status {status} {} without an AWS error code", name.unwrap_or("(unknown)"))
}

pub(crate) async fn whole(
    mut response: HttpResponse,
    is_metadata: bool,
) -> Result<HttpResponse, ConnectorError> {
    let longest = if is_metadata { LONGEST_METADATA } else { LONGEST };
    let body = Limited::new(response.take_body(), longest).collect();
    // An I/O error: callers that retry these retry this too.
    let no_answer = |why: NoAnswer| ConnectorError::io(why.into());
    let body = tokio::time::timeout(DEADLINE, body).await.map_err(|_| no_answer(NoAnswer::Late(DEADLINE)))?;
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => no_answer(NoAnswer::TooLong(longest)),
        None => ConnectorError::io(error),
    })?;
    let body = body.to_bytes();
    if !is_metadata && breaks_off(&body) {
        return Err(no_answer(NoAnswer::BrokenOff));
    }
    // The SDK adds it to the current time, which panics on overflow.
    let ttl = response.headers().get(TOKEN_TTL).and_then(|seconds| seconds.parse::<u64>().ok());
    if ttl.is_some_and(|seconds| seconds > LONGEST_TOKEN_TTL) {
        response.headers_mut().insert(TOKEN_TTL, LONGEST_TOKEN_TTL.to_string());
    }
    *response.body_mut() = SdkBody::from(body);
    Ok(response)
}

/// Whether `body` begins as XML and does not end with its root's closing tag.
fn breaks_off(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    if !body.starts_with(b"<") {
        return false;
    }
    let Some(root) = root(body) else { return true };
    let Some(inside) = body.strip_suffix(b">") else { return true };
    let closed = inside.trim_ascii_end().strip_suffix(root).is_some_and(|rest| rest.ends_with(b"</"));
    // `<root/>` is all there is.
    let empty =
        inside.strip_suffix(b"/").is_some_and(|rest| rest.iter().rposition(|b| *b == b'<') == start(body));
    !closed && !empty
}

/// The name of the root element; `None` if it has not begun.
fn root(body: &[u8]) -> Option<&[u8]> {
    let name = body.get(start(body)? + 1..)?;
    let length = name.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'))?;
    name.get(..length)
}

/// Where the root element begins, after declaration, comments and document type.
fn start(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += body.get(at..)?.iter().position(|b| *b == b'<')?;
        let rest = body.get(at..)?;
        let end: &[u8] = match rest.get(1)? {
            b'?' => b"?>",
            b'!' if rest.starts_with(b"<!--") => b"-->",
            b'!' => b">",
            _ => return Some(at),
        };
        at += rest.windows(end.len()).position(|window| window == end)?;
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;

    fn response(body: impl Into<SdkBody>) -> HttpResponse {
        HttpResponse::new(StatusCode::try_from(200).unwrap(), body.into())
    }

    fn why(error: &ConnectorError) -> Option<NoAnswer> {
        std::error::Error::source(error)?.downcast_ref::<NoAnswer>().copied()
    }

    #[test]
    fn xml_is_whole_when_its_root_is_closed() {
        for whole in [
            "<a></a>",
            "<a><b>1</b></a >\n",
            "<?xml version=\"1.0\"?>\n<!-- <b> --><a x=\"1\"><b/></a>",
            "<a/>",
            "<a x=\"1\" />",
            "<!DOCTYPE html><html><body>no</body></html>",
            "",
            "{\"a\": 1}",
            "plain text",
        ] {
            assert!(!breaks_off(whole.as_bytes()), "{whole}");
        }
    }

    #[test]
    fn wherever_xml_is_cut_it_breaks_off() {
        let whole = "<?xml version=\"1.0\"?><!-- x --><Answer xmlns=\"y\"><List><Answered/></List></Answer>";
        for cut in 1..whole.len() {
            assert!(breaks_off(&whole.as_bytes()[..cut]), "{}", &whole[..cut]);
        }
    }

    #[tokio::test]
    async fn what_breaks_off_or_never_ends_is_no_answer() {
        let error = whole(response("<a><b>"), false).await.unwrap_err();
        assert_eq!((why(&error), error.is_io()), (Some(NoAnswer::BrokenOff), true));
        let error = whole(response(vec![b'x'; LONGEST_METADATA + 1]), true).await.unwrap_err();
        assert_eq!(why(&error), Some(NoAnswer::TooLong(LONGEST_METADATA)));
        let answer = whole(response("<a><b/></a>"), false).await.unwrap();
        assert_eq!(answer.body().bytes(), Some(b"<a><b/></a>".as_slice()));
    }

    #[tokio::test]
    async fn a_session_token_lives_for_six_hours_at_most() {
        for (told, taken) in [("60", "60"), ("21600", "21600"), ("18446744073709551615", "21600")] {
            let mut token = response("token");
            token.headers_mut().insert(TOKEN_TTL, told);
            let token = whole(token, true).await.unwrap();
            assert_eq!(token.headers().get(TOKEN_TTL), Some(taken));
        }
    }
}
