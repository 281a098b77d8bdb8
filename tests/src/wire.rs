//! An HTTP client that shows what is on the wire: one connection, no retries, no pool.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::SOON;

/// One connection.
pub struct Wire(BufReader<TcpStream>);

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head as it came, without the empty line.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A connection that asks for the seed so many times and reads no answer.
pub async fn reads_nothing(server: SocketAddr, requests: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = soon(socket.connect(server)).await.expect("somebody listens");
    let asked = "GET /seed HTTP/1.1\r\nHost: x\r\n\r\n".repeat(requests);
    // Others may have had it dropped meanwhile.
    let _ = soon(stream.write_all(asked.as_bytes())).await;
    stream
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        soon(async { Ok(Self(BufReader::new(TcpStream::connect(address).await?))) }).await
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        soon(self.0.get_mut().write_all(bytes.as_ref())).await
    }

    /// Reads one answer to its end.
    ///
    /// # Errors
    /// The connection ends before, or no answer comes.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        soon(async {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if self.0.read_line(&mut head).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            head.truncate(head.len() - 4);
            let wrong = || io::Error::other(format!("not an answer: {head}"));
            let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(wrong)?;
            let length = field(&head, "content-length").and_then(|length| length.parse().ok());
            // An interim answer has no body and no length.
            let length = if status < 200 { 0 } else { length.ok_or_else(wrong)? };
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await?;
            Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), head })
        })
        .await
    }

    /// `GET`s a path.
    ///
    /// # Errors
    /// As [`Wire::answer`].
    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await?;
        self.answer().await
    }

    /// `POST`s a number to `/seed`.
    ///
    /// # Errors
    /// As [`Wire::answer`].
    pub async fn post(&mut self, number: &str) -> io::Result<Answer> {
        let body = format!("{{\"num\": {number}}}");
        let length = body.len();
        // In one piece, so that a trace shows it in one piece.
        self.send(format!("POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await?;
        self.answer().await
    }

    /// Waits until the peer closes; anything else it sends is an error.
    ///
    /// # Errors
    /// The peer sends something, or resets.
    pub async fn closed(&mut self) -> io::Result<()> {
        let more = soon(async { self.0.fill_buf().await.map(<[u8]>::to_vec) }).await?;
        if more.is_empty() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&more))) }
    }

    /// Whether nothing has come since the last answer, and the connection stands.
    pub fn is_silent(&self) -> bool {
        let mut byte = [0];
        self.0.buffer().is_empty()
            && self
                .0
                .get_ref()
                .try_read(&mut byte)
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Answer {
    /// A field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// Asserts status and body.
    pub fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body), "{}", self.head);
    }

    /// Asserts an error: its status, and one line that says this.
    pub fn refuses(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.contains(part) && !self.body.contains('\n'), "no {part:?} in {self:?}");
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

async fn soon<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
