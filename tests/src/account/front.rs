//! The proxy itself: one port for all services. Each call is recorded, meets its faults, and is
//! answered by the account's rules.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use local_cloud::{Body, serve};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::answer::AwsError;
use super::calls::Call;
use super::faults::{Faults, Trouble};
use super::options::Options;
use super::request::Request;
use super::state::State;

pub(super) struct Front {
    pub(super) options: Mutex<Options>,
    pub(super) faults: Mutex<Faults>,
    pub(super) calls: Mutex<Vec<Call>>,
    /// How many calls are being answered.
    pub(super) busy: watch::Sender<usize>,
    /// How many calls may have changed something.
    pub(super) changes: watch::Sender<u64>,
    /// One call at a time changes the account, so that what is looked at does not change meanwhile.
    pub(super) state: tokio::sync::Mutex<State>,
}

impl Front {
    /// Listens until the returned task is dropped.
    pub(super) async fn serve(self: &Arc<Self>, address: SocketAddr) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("an address");
        let front = Arc::clone(self);
        let mut task = JoinSet::new();
        task.spawn(serve(listener, move |request, _| Arc::clone(&front).call(request)));
        (address, task)
    }

    async fn call(self: Arc<Self>, request: hyper::Request<Incoming>) -> io::Result<hyper::Response<Body>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let Some(request) = Request::read(head.method, head.uri, head.headers, body) else {
            let error =
                AwsError::new(403, "MissingAuthenticationToken", "Request is missing Authentication Token");
            return Ok(error.answer("ec2").response());
        };
        // A task of its own: a client that is killed does not take back what it has asked for.
        let answered = tokio::spawn(self.answered(request)).await;
        answered.map_err(io::Error::other)?
    }

    async fn answered(self: Arc<Self>, request: Request) -> io::Result<hyper::Response<Body>> {
        let number = self.begins(&request);
        self.busy.send_modify(|busy| *busy += 1);
        let (latency, throttle) = {
            let options = self.options.lock().expect("not poisoned");
            (options.latency, options.throttle)
        };
        tokio::time::sleep(latency).await;
        let trouble = self.faults.lock().expect("not poisoned").meet(&request, throttle);
        if trouble == Some(Trouble::Wait) {
            let mut released = {
                let faults = self.faults.lock().expect("not poisoned");
                faults.held.send_modify(|held| *held += 1);
                faults.released.subscribe()
            };
            // The sender lives as long as the front.
            let _ = released.wait_for(|released| *released).await;
        }
        let answer = match &trouble {
            Some(Trouble::Fail(error)) => error.answer(&request.service),
            _ => {
                let mut state = self.state.lock().await;
                let before = self.options.lock().expect("not poisoned").clone();
                state.options = before.clone();
                let answer = state.answer(&request).await;
                // What the rules used up stays used up. A test may have set other options meanwhile: those hold.
                let mut options = self.options.lock().expect("not poisoned");
                options.take_over_use(&before, &state.options);
                answer
            }
        };
        self.busy.send_modify(|busy| *busy -= 1);
        if !request.is_read() {
            self.changes.send_modify(|changes| *changes += 1);
        }
        match trouble {
            Some(Trouble::Lose) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Trouble::Hold) => {
                self.faults.lock().expect("not poisoned").held.send_modify(|held| *held += 1);
                // The client's end is what ends it: nobody reads this answer.
                std::future::pending::<()>().await;
            }
            Some(Trouble::Fail(_) | Trouble::Wait) | None => {}
        }
        let mut calls = self.calls.lock().expect("not poisoned");
        if let Some(call) = calls.get_mut(number) {
            (call.ended, call.status, call.code) = (Some(Instant::now()), answer.status, answer.code());
        }
        Ok(answer.response())
    }

    /// Records a call; its number.
    fn begins(&self, request: &Request) -> usize {
        let mut calls = self.calls.lock().expect("not poisoned");
        calls.push(Call {
            service: request.service.clone(),
            action: request.action.clone(),
            parameters: request.parameters.clone().into_iter().collect::<BTreeMap<_, _>>(),
            began: Instant::now(),
            ended: None,
            status: 0,
            code: String::new(),
        });
        calls.len() - 1
    }
}
