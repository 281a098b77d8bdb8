//! A web server with a few files in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

type Shelf = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// The server; it ends when this is dropped.
pub struct Files {
    address: SocketAddr,
    shelf: Shelf,
    task: AbortHandle,
}

impl Drop for Files {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Files {
    /// Serves nothing yet.
    pub async fn serve(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("it is bound");
        let shelf = Shelf::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&shelf))).abort_handle();
        Self { address, shelf, task }
    }

    /// Serves these bytes under this name, instead of others if there were any, and returns the URL.
    pub fn put(&self, name: &str, bytes: impl Into<Bytes>) -> String {
        let path = format!("/{name}");
        let url = format!("http://{}{path}", self.address);
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).insert(path, bytes.into());
        url
    }
}

async fn accept(listener: TcpListener, shelf: Shelf) {
    while let Ok((stream, _)) = listener.accept().await {
        let shelf = Arc::clone(&shelf);
        // A client that goes away is its own matter.
        tokio::spawn(async move { answer(stream, &shelf).await.ok() });
    }
}

/// One request for each connection.
async fn answer(stream: TcpStream, shelf: &Shelf) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request).await?;
    let mut field = String::new();
    while stream.read_line(&mut field).await? > "\r\n".len() {
        field.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let found = shelf.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Bytes::new()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}
