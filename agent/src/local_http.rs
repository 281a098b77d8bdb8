//! One HTTP request on this machine: to the agent's own health path or to the admin socket.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Far above every expected answer.
const LONGEST_BODY: usize = 1 << 20;

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("invalid request: {0}")]
    Request(#[from] http::Error),
    #[error("{0}")]
    Connect(io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// It is incomplete or too long.
    #[error("cannot read the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// Connects, sends a request without a body, and reads the whole answer, all within `limit`.
pub(crate) async fn request<S>(
    connect: impl Future<Output = io::Result<S>>,
    method: Method,
    host: &str,
    path: &str,
    limit: Duration,
) -> Result<Answer, RequestError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("instance-agent/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let stream = connect.await.map_err(RequestError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let answer = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer, LONGEST_BODY).collect().await.map_err(RequestError::Body)?;
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Ok(Answer { status, body })
        };
        // The connection ends when its sender is dropped. The sender reports its errors too.
        tokio::join!(answer, connection).0
    };
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(RequestError::Late(limit)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// What a request gets from a peer that answers `bytes` and then closes; and what it was asked.
    async fn exchange(bytes: &[u8]) -> (Result<Answer, RequestError>, String) {
        let (near, mut far) = duplex(4 << 20);
        let peer = async {
            let mut asked = vec![0; 1024];
            let length = far.read(&mut asked).await.unwrap();
            far.write_all(bytes).await.unwrap();
            drop(far);
            String::from_utf8(asked[..length].to_vec()).unwrap()
        };
        tokio::join!(request(async { Ok(near) }, Method::GET, "127.0.0.1:80", "/health", LIMIT), peer)
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end() {
        let (answer, asked) =
            exchange(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\ndraining").await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "draining"));
        assert!(asked.starts_with("GET /health HTTP/1.1\r\nhost: 127.0.0.1:80\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn what_is_not_http_or_broken_off_or_endless_is_no_answer() {
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'x'; LONGEST_BODY + 1]].concat();
        for (bytes, expected) in [
            (b"SSH-2.0\r\n".as_slice(), "no answer: "),
            (b"", "no answer: "),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf", "cannot read the answer: "),
            (&endless, "cannot read the answer: "),
        ] {
            let error = exchange(bytes).await.0.err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_not_waited_for() {
        let (near, _far) = duplex(1024);
        let error = request(async { Ok(near) }, Method::GET, "agent", "/status", LIMIT).await.err().unwrap();
        assert_eq!(error.to_string(), "no answer within 5 s");
    }
}
