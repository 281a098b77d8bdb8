//! Requests, each on a new connection: a load balancer may keep one connection on one target.

use std::time::Duration;

use instance_contract::Failure as NoAnswer;
use tokio::task::JoinSet;

use super::report::Failure;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all the requests of one check may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Requests on their way at a time.
const CONCURRENT: usize = 8;
/// Bytes of an answer that are read; the longest right one is a number of 4,301.
const MAX_BODY: usize = 16 * 1024;

/// Asks a load balancer.
#[derive(Clone)]
pub(super) struct Client {
    client: reqwest::Client,
    url: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answer {
    /// For people: the status and the beginning of the body.
    pub(super) fn shown(&self) -> String {
        let mut body: String = self.body.chars().take(80).collect();
        if body.len() < self.body.len() {
            body.push('…');
        }
        format!("{} {body:?}", self.status)
    }

    /// What to do about an answer that is not as expected.
    pub(super) fn cure(&self) -> String {
        let cure = match self.status {
            502 | 504 => "an instance does not answer: `bootstrap status` shows which",
            503 => "no target accepts requests: `bootstrap status` shows why",
            404 => {
                "the request reached the wrong instance: launch the fleet again, which repairs the rules and the \
                 instances' tags"
            }
            200 => {
                "launch the fleet again, which repairs the tags that select the answer; if that does not help, \
                 another program answers at this address"
            }
            _ => "`bootstrap status` shows the fleet; another program may answer at this address",
        };
        cure.to_owned()
    }
}

impl Client {
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let client = reqwest::Client::builder()
            // The answer must come from the fleet: no proxy, no redirection.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build();
        match client {
            Ok(client) => Ok(Self { client, url: url.trim_end_matches('/').to_owned() }),
            Err(error) => Err(Failure {
                expected: "an HTTP client".to_owned(),
                seen: causes(error),
                cure: "cannot create one".to_owned(),
            }),
        }
    }

    /// The balancer's URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Checks that anything answers at all, so that one check reports it, not each.
    pub(super) async fn reaches(&self) -> Result<String, Failure> {
        match self.get(&self.url("/")).await {
            Ok(_) => Ok(format!("{} answers", self.url)),
            Err(error) => Err(Failure {
                expected: format!("an answer from {}", self.url),
                seen: error,
                cure: "the name of a new load balancer takes some minutes to resolve everywhere; \
                 security.balancer-allow must include this machine"
                    .to_owned(),
            }),
        }
    }

    /// One GET.
    ///
    /// # Errors
    /// Why nothing came back.
    pub(super) async fn get(&self, url: &str) -> Result<Answer, String> {
        read(self.client.get(url)).await
    }

    /// Stores a number.
    ///
    /// # Errors
    /// Why nothing came back.
    pub(super) async fn post(&self, url: &str, number: &str) -> Result<Answer, String> {
        read(self.client.post(url).body(format!("{{\"num\": {number}}}"))).await
    }

    /// Gets a path until `look` has seen enough (`true`), `most` times at the most; returns how many
    /// answers it saw.
    ///
    /// # Errors
    /// What `look` found wrong, or that no answer came.
    pub(super) async fn ask(
        &self,
        path: &str,
        most: usize,
        mut look: impl FnMut(Answer) -> Result<bool, Failure>,
    ) -> Result<usize, Failure> {
        let url = self.url(path);
        let asking = async {
            let mut asked = JoinSet::new();
            let (mut sent, mut seen) = (0, 0);
            while seen < most {
                while sent < most && asked.len() < CONCURRENT {
                    let (client, url) = (self.clone(), url.clone());
                    asked.spawn(async move { client.get(&url).await });
                    sent += 1;
                }
                let Some(Ok(answer)) = asked.join_next().await else {
                    break;
                };
                let answer = answer.map_err(|seen| Failure {
                    expected: "an answer to every request".to_owned(),
                    seen,
                    cure: "`bootstrap status` shows the fleet; after a network problem run verify again"
                        .to_owned(),
                })?;
                seen += 1;
                if look(answer)? {
                    break;
                }
            }
            Ok(seen)
        };
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| {
            Err(Failure {
                expected: format!("answers within {} s", DEADLINE.as_secs()),
                seen: "the answers took longer".to_owned(),
                cure: "`bootstrap status` shows the fleet".to_owned(),
            })
        })
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let mut response = request.send().await.map_err(causes)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(causes)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            break;
        }
    }
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Why nothing came back, in one line.
fn causes(error: reqwest::Error) -> String {
    let url = error.url().map_or_else(String::new, ToString::to_string);
    NoAnswer::of(&url, &error.without_url()).why
}
