//! Checks before anything is created that the instances' package can be downloaded.

use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::http::{Request, Response};
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use instance_contract::Failure;

use crate::fleet::{Package, public_address};

const DEADLINE: Duration = Duration::from_secs(15);
const REDIRECTS: usize = 5;
/// What a Debian package begins with.
const MAGIC: &[u8] = b"!<arch>\n";

/// Why a package would not reach an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    /// The server has answered, and it is not there.
    #[error("the package's server answers {status} for {address}; check the address")]
    Refused {
        /// Without what may be a secret in it.
        address: String,
        /// The HTTP status.
        status: u16,
    },
    /// It is there, but something else.
    #[error("{0} is not a Debian package; give the address of the .deb file itself")]
    NoPackage(String),
    /// There was no answer, here.
    #[error("cannot reach {address} from this machine: {why}; check the address and the network")]
    NoAnswer {
        /// Without what may be a secret in it.
        address: String,
        /// What happened.
        why: String,
    },
}

/// Asks for the first bytes of a package, or for an apt repository's list of contents. A package that
/// comes from elsewhere is not asked for.
///
/// # Errors
/// It is not there, or nobody answered.
pub(crate) async fn reachable(package: &Package) -> Result<(), Unreachable> {
    let asking = async {
        match package {
            Package::InImage | Package::Deb { .. } => Ok(()),
            Package::Url { url, .. } => {
                let mut body = get(url).await?.into_body();
                let mut start = Vec::new();
                while start.len() < MAGIC.len() {
                    match body.frame().await {
                        Some(Ok(frame)) => start.extend_from_slice(&frame.into_data().unwrap_or_default()),
                        Some(Err(error)) => return Err(no_answer(url, &*error)),
                        None => break,
                    }
                }
                if start.starts_with(MAGIC) {
                    Ok(())
                } else {
                    Err(Unreachable::NoPackage(public_address(url).to_owned()))
                }
            }
            Package::Apt { line, .. } => {
                let Some(folder) = index_folder(line) else { return Ok(()) };
                match get(&format!("{folder}/InRelease")).await {
                    // The form that older repositories have.
                    Err(Unreachable::Refused { status: 404, .. }) => get(&format!("{folder}/Release")).await,
                    asked => asked,
                }
                .map(|_| ())
            }
        }
    };
    let address = match package {
        Package::Url { url, .. } => public_address(url).to_owned(),
        Package::Apt { line, .. } => line.clone(),
        Package::InImage | Package::Deb { .. } => String::new(),
    };
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(result) => result,
        Err(_) => {
            Err(Unreachable::NoAnswer { address, why: format!("no answer in {} s", DEADLINE.as_secs()) })
        }
    }
}

fn no_answer(url: &str, error: &(dyn std::error::Error + 'static)) -> Unreachable {
    Unreachable::NoAnswer { address: public_address(url).to_owned(), why: Failure::of(url, error).why }
}

/// Where the index is that an apt source line names; `None` if it is not on the web.
fn index_folder(line: &str) -> Option<String> {
    let rest = line.strip_prefix("deb ")?.trim_start();
    let place = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1,
        None => rest,
    };
    let mut words = place.split_whitespace();
    let (url, suite) = (words.next()?.trim_end_matches('/'), words.next()?);
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return None;
    }
    // A suite that is a folder is below the address itself.
    match suite.strip_suffix('/') {
        Some("." | "") => Some(url.to_owned()),
        Some(folder) => Some(format!("{url}/{folder}")),
        None => Some(format!("{url}/dists/{suite}")),
    }
}

async fn get(url: &str) -> Result<Response<SdkBody>, Unreachable> {
    let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).build();
    let mut next = url.to_owned();
    for _ in 0..=REDIRECTS {
        let mut request = Request::new(SdkBody::empty());
        let invalid = |error: &(dyn std::error::Error + 'static)| no_answer(url, error);
        request.set_uri(next.as_str()).map_err(|error| invalid(&error))?;
        // Servers that know no ranges answer with everything, which is then not read.
        request.headers_mut().insert("range", format!("bytes=0-{}", MAGIC.len() - 1));
        request.headers_mut().insert("user-agent", "instance-bootstrap");
        let response = connector.call(request).await.map_err(|error| invalid(&error))?;
        let status = response.status().as_u16();
        match (status, response.headers().get("location")) {
            (200 | 206, _) => return Ok(response),
            (301 | 302 | 303 | 307 | 308, Some(location)) => next = redirected(&next, location),
            _ => return Err(Unreachable::Refused { address: public_address(url).to_owned(), status }),
        }
    }
    Err(Unreachable::NoAnswer {
        address: public_address(url).to_owned(),
        why: "too many redirects".to_owned(),
    })
}

/// Where a redirection leads: to another server, or elsewhere on the same.
fn redirected(from: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let server = from.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    format!("{server}/{}", location.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that answers one request after another with these, and its address.
    async fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn url(url: String) -> Package {
        Package::Url { url, sha256: String::new() }
    }

    #[tokio::test]
    async fn a_package_is_there_when_its_first_bytes_are_a_packages() {
        let ok = answer("206 Partial Content", "!<arch>\n");
        let found = "302 Found\r\nLocation: /elsewhere";
        let address = server(vec![answer(found, ""), ok]).await;
        assert_eq!(reachable(&url(format!("{address}/x.deb?key=secret"))).await, Ok(()));

        let page = answer("200 OK", "<html>log in first</html>");
        let address = server(vec![page]).await;
        let error = reachable(&url(format!("{address}/x.deb?key=secret"))).await.unwrap_err();
        assert_eq!(error, Unreachable::NoPackage(format!("{address}/x.deb")));
    }

    #[tokio::test]
    async fn a_refusal_and_no_answer_are_told_apart_and_show_no_signature() {
        let address = server(vec![answer("403 Forbidden", "")]).await;
        let error = reachable(&url(format!("{address}/x.deb?key=secret"))).await.unwrap_err();
        assert_eq!(error, Unreachable::Refused { address: format!("{address}/x.deb"), status: 403 });

        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error =
            reachable(&url(format!("http://{nobody}/x.deb?key=secret"))).await.unwrap_err().to_string();
        assert!(error.contains("cannot reach") && error.contains("refuses the connection"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn of_a_repository_either_form_of_the_list_is_enough() {
        let address = server(vec![answer("404 Not Found", ""), answer("200 OK", "Origin: x")]).await;
        let package = Package::Apt { line: format!("deb {address} stable main"), key: String::new() };
        assert_eq!(reachable(&package).await, Ok(()));
    }

    #[test]
    fn an_apt_source_names_its_index() {
        for (line, folder) in [
            ("deb https://h/debian/ stable main", Some("https://h/debian/dists/stable")),
            ("deb [arch=amd64] http://h ./", Some("http://h")),
            ("deb http://h bookworm/", Some("http://h/bookworm")),
            ("deb s3://h stable main", None),
        ] {
            assert_eq!(index_folder(line).as_deref(), folder);
        }
    }
}
