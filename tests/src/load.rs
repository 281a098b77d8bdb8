//! Clients that keep asking, and count what they get.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

/// What a client asks, again and again.
#[derive(Clone, Debug)]
pub enum Ask {
    /// `GET` this path.
    Get(&'static str),
    /// `POST` ever higher numbers to this path.
    Post(&'static str),
}

/// Running clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: JoinSet<()>,
}

/// What the clients got.
#[derive(Debug)]
pub struct Report {
    /// Requests answered with 200.
    pub answered: u64,
    /// Every other outcome, in a line each.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts clients that keep their connections and others that make a new one for each request.
    pub fn start(base: &str, asks: &[Ask]) -> Self {
        Self::start_paced(base, asks, Duration::ZERO)
    }

    /// The same with this pause after each request, so that others get their turn.
    pub fn start_paced(base: &str, asks: &[Ask], pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let failures = Arc::new(Mutex::default());
        let mut clients = JoinSet::new();
        for ask in asks {
            for idle_connections in [0, 4] {
                let client = reqwest::Client::builder()
                    .no_proxy()
                    .pool_max_idle_per_host(idle_connections)
                    .build()
                    .expect("a client");
                let (stop, sent, failures) = (stop.clone(), sent.clone(), Arc::clone(&failures));
                clients.spawn(keep_asking(client, base.to_owned(), ask.clone(), pause, stop, sent, failures));
            }
        }
        Self { stop, sent, failures, clients }
    }

    /// Waits until this many further requests have been answered with 200.
    pub async fn until_answered(&self, further: u64) {
        let from = self.sent.load(Ordering::Relaxed);
        let answered = async || (self.sent.load(Ordering::Relaxed) >= from + further).then_some(());
        assert!(crate::eventually(answered).await.is_some(), "the load stands still");
    }

    /// Every outcome so far that is not a 200.
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("not poisoned").clone()
    }

    /// Stops the clients after their current request.
    pub async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        let failures = std::mem::take(&mut *self.failures.lock().expect("not poisoned"));
        Report { answered: self.sent.load(Ordering::Relaxed), failures }
    }
}

async fn keep_asking(
    client: reqwest::Client,
    base: String,
    ask: Ask,
    pause: Duration,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
) {
    let mut failed = 0;
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) && failed < 1000 {
        number += 1;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let request = match ask {
            Ask::Get(path) => client.get(format!("{base}{path}")),
            Ask::Post(path) => client.post(format!("{base}{path}")).body(format!("{{\"num\": {number}}}")),
        };
        let outcome = async {
            let answer = request.send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        };
        let failure = match outcome.await {
            Ok((status, _)) if status.is_success() => {
                sent.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Ok((status, body)) => format!("{ask:?}: {status}: {body}"),
            Err(error) => format!("{ask:?}: {error:?}"),
        };
        failed += 1;
        failures.lock().expect("not poisoned").push(failure);
    }
}
