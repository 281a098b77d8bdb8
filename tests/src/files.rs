//! A web server with a few files in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use local_cloud::{full, serve};
use tokio::net::TcpListener;
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
        let served = Arc::clone(&shelf);
        let handler = move |request: Request<Incoming>, _| {
            // With the query, which is part of a name.
            let path = request.uri().to_string();
            let found = served.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
            let status = if found.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let mut answer = Response::new(full(found.unwrap_or_default()));
            *answer.status_mut() = status;
            std::future::ready(Ok(answer))
        };
        let task = tokio::spawn(serve(listener, handler)).abort_handle();
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
