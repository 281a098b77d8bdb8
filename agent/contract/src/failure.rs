//! Why a request got no answer.

use std::error::Error;
use std::io;

/// Why a request got no answer: a sentence with the address, and what to do if that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Failure {
    /// Such as `http://127.0.0.1:5000 refuses the connection`.
    pub why: String,
    /// What to do about it.
    pub cure: Option<&'static str>,
}

/// The causes that have a sentence of their own.
#[derive(Clone, Copy)]
enum Cause {
    Refused,
    UnknownName,
    Late,
    Unreachable,
    Closed,
    NoTls,
    Certificate,
}

/// Texts of library errors that have no type to match.
const WORDS: [(&str, Cause); 9] = [
    ("dns error", Cause::UnknownName),
    ("failed to lookup address", Cause::UnknownName),
    ("timeout occurred", Cause::Late),
    ("timed out", Cause::Late),
    ("closed before message completed", Cause::Closed),
    ("handshake eof", Cause::Closed),
    ("corrupt message", Cause::NoTls),
    ("certificate", Cause::Certificate),
    ("UnknownIssuer", Cause::Certificate),
];

impl Failure {
    /// From the URL of a request and its error. Only the server's part of the URL is shown.
    #[must_use]
    pub fn of(url: &str, error: &(dyn Error + 'static)) -> Self {
        let server = server(url);
        let (mut cause, mut text) = (None, String::new());
        let mut next = Some(error);
        while let Some(error) = next {
            text = error.to_string();
            // The SDK prints the whole request after it.
            if let Some((_, rest)) = text.split_once("failed to apply endpoint `") {
                return Self::of_endpoint(rest.split('`').next().unwrap_or_default());
            }
            let named = || WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, cause)| *cause);
            cause = error.downcast_ref().and_then(of_io).or_else(named).or(cause);
            next = error.source();
        }
        let network = "check the route, the security groups and firewalls, or name a proxy in HTTPS_PROXY";
        let (why, cure) = match cause {
            Some(Cause::Refused) => (
                format!("{server} refuses the connection"),
                "check the endpoint: no program listens there, or a firewall refuses",
            ),
            Some(Cause::UnknownName) => (
                format!("the name in {server} does not resolve"),
                "check the region's name, the endpoint and this machine's DNS",
            ),
            Some(Cause::Late) => {
                let within = text
                    .rsplit_once(" after ")
                    .map_or("in time".to_owned(), |(_, time)| format!("within {time}"));
                (format!("{server} does not answer {within}"), network)
            }
            Some(Cause::Unreachable) => (format!("{server} is unreachable"), network),
            Some(Cause::Closed) => (
                format!("{server} closed the connection without an answer"),
                "try again; check proxies and firewalls",
            ),
            Some(Cause::NoTls) => {
                (format!("{server} does not speak TLS"), "check the endpoint's port, or write http://")
            }
            Some(Cause::Certificate) => (
                format!("the certificate of {server} is not trusted: {text}"),
                "check this machine's clock and CA certificates, and proxies on the way",
            ),
            None => return Self { why: format!("{server}: {text}"), cure: None },
        };
        Self { why, cure: Some(cure) }
    }

    fn of_endpoint(endpoint: &str) -> Self {
        let cure = "write it as https://HOST or http://HOST:PORT, in AWS_ENDPOINT_URL or the profile";
        Self { why: format!("the endpoint {endpoint:?} is no URL"), cure: Some(cure) }
    }
}

/// The text of the innermost cause: the outer errors often only say that there is one.
#[must_use]
pub fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn of_io(error: &io::Error) -> Option<Cause> {
    use io::ErrorKind;
    Some(match error.kind() {
        ErrorKind::ConnectionRefused => Cause::Refused,
        ErrorKind::TimedOut => Cause::Late,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Cause::Unreachable,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Cause::Closed,
        _ => return None,
    })
}

/// Scheme, host and port: the other parts may contain secrets.
fn server(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    match (scheme, host) {
        (_, "") => "the server".to_owned(),
        ("", host) => host.to_owned(),
        (scheme, host) => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error of a library, with its causes.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<dyn Error>>);

    fn chain(texts: &[&'static str], innermost: Option<io::Error>) -> Box<dyn Error> {
        let mut error: Option<Box<dyn Error>> = innermost.map(Into::into);
        for text in texts.iter().rev() {
            error = Some(Box::new(Told(text, error)));
        }
        error.unwrap()
    }

    #[test]
    fn each_failure_names_the_address_the_reason_and_the_cure() {
        use io::ErrorKind;
        let kind = |kind: ErrorKind| Some(io::Error::from(kind));
        let connect = ["dispatch failure", "io error", "client error (Connect)", "tcp connect error"];
        let dumped = "failed to apply endpoint `127.0.0.1:5000` to request `Request { body: SdkBody { … } }`";
        let cases: [(&[&str], Option<io::Error>, &str, &str); 13] = [
            (
                &connect,
                kind(ErrorKind::ConnectionRefused),
                "https://h:1 refuses the connection",
                "check the endpoint",
            ),
            (
                &["client error (Connect)", "dns error"],
                None,
                "the name in https://h:1 does not resolve",
                "DNS",
            ),
            (
                &["dns error"],
                Some(io::Error::other("failed to lookup address information: Try again")),
                "the name in https://h:1 does not resolve",
                "region's name",
            ),
            (
                &["timeout", "HTTP connect timeout occurred after 5s"],
                None,
                "https://h:1 does not answer within 5s",
                "HTTPS_PROXY",
            ),
            (&["operation timed out"], None, "https://h:1 does not answer in time", "route"),
            (&connect, kind(ErrorKind::TimedOut), "https://h:1 does not answer in time", "route"),
            (&connect, kind(ErrorKind::NetworkUnreachable), "https://h:1 is unreachable", "route"),
            (
                &["io error"],
                kind(ErrorKind::ConnectionReset),
                "https://h:1 closed the connection",
                "try again",
            ),
            (
                &["connection closed before message completed"],
                None,
                "https://h:1 closed the connection",
                "try again",
            ),
            (
                &["client error (Connect)", "received corrupt message of type InvalidContentType"],
                None,
                "https://h:1 does not speak TLS",
                "http://",
            ),
            (
                &["client error (Connect)", "invalid peer certificate: UnknownIssuer"],
                None,
                "the certificate of https://h:1 is not trusted: invalid peer certificate: UnknownIssuer",
                "CA certificates",
            ),
            (
                &["other", dumped, "endpoint must contain scheme"],
                None,
                "the endpoint \"127.0.0.1:5000\" is no URL",
                "https://HOST",
            ),
            (&["io error", "the answer is incomplete"], None, "https://h:1: the answer is incomplete", ""),
        ];
        for (texts, innermost, why, cure) in cases {
            let failure = Failure::of("https://me:secret@h:1/path?signature=x", &*chain(texts, innermost));
            assert!(failure.why.starts_with(why), "{failure:?}");
            assert!(failure.cure.unwrap_or_default().contains(cure), "{failure:?}");
            assert_eq!(failure.cure.is_none(), cure.is_empty(), "{failure:?}");
            assert!(!failure.why.contains("secret") && !failure.why.contains("signature"), "{failure:?}");
        }
    }
}
