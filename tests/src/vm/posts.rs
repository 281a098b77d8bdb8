//! Clients that POST numbers until the machine is gone, and what may be found of that afterwards.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wire::Wire;

/// Running clients.
pub struct Posts {
    clients: JoinSet<()>,
    history: Arc<Mutex<History>>,
    acknowledged: watch::Receiver<usize>,
}

impl Posts {
    /// Starts clients, each with a connection that it keeps. No two numbers are the same, and none
    /// is one of another `round`.
    pub fn start(address: SocketAddr, clients: usize, round: usize) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let (counter, acknowledged) = watch::channel(0);
        let mut set = JoinSet::new();
        for client in 0..clients {
            let (history, counter) = (Arc::clone(&history), counter.clone());
            set.spawn(async move {
                let Ok(mut wire) = Wire::connect(address).await else { return };
                for turn in 1.. {
                    // Of any length, so that some of them take several sectors.
                    let zeros = "0".repeat(turn * 37 % 4_000);
                    let number = format!("1{round:03}{client:03}{turn:06}{zeros}");
                    let post = lock(&history).begin(&number);
                    match wire.post(&number).await {
                        Ok(answer) => answer.is(200, &number),
                        // The machine is gone, or the connection with it.
                        Err(_) => return,
                    }
                    lock(&history).acknowledge(post);
                    counter.send_modify(|count| *count += 1);
                }
            });
        }
        Self { clients: set, history, acknowledged }
    }

    /// Waits until this many have been acknowledged; the clients go on.
    pub async fn until_acknowledged(&mut self, count: usize) {
        let reached = self.acknowledged.wait_for(|now| *now >= count);
        let reached = tokio::time::timeout(super::COMMAND, reached).await;
        assert!(matches!(reached, Ok(Ok(_))), "the clients stand still");
    }

    /// Waits until every client has lost its connection, and returns what they did.
    pub async fn lost(mut self) -> History {
        let all = async {
            while let Some(client) = self.clients.join_next().await {
                client.expect("only 200 with the number, or nothing");
            }
        };
        tokio::time::timeout(super::COMMAND, all).await.expect("their connections end");
        std::mem::take(&mut *lock(&self.history))
    }
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was sent and what was acknowledged, in the order in which the clients saw it.
#[derive(Debug, Default)]
pub struct History {
    posts: Vec<Post>,
    events: usize,
}

#[derive(Debug)]
struct Post {
    number: String,
    begun: usize,
    acknowledged: Option<usize>,
}

impl History {
    fn begin(&mut self, number: &str) -> usize {
        self.events += 1;
        self.posts.push(Post { number: number.to_owned(), begun: self.events, acknowledged: None });
        self.posts.len() - 1
    }

    fn acknowledge(&mut self, post: usize) {
        self.events += 1;
        self.posts[post].acknowledged = Some(self.events);
    }

    /// How many were acknowledged, and how many were sent in vain.
    pub fn counts(&self) -> (usize, usize) {
        let acknowledged = self.posts.iter().filter(|post| post.acknowledged.is_some()).count();
        (acknowledged, self.posts.len() - acknowledged)
    }

    /// The acknowledged number that is lost, if the seed is `found` after the cut and was `before`
    /// at the first POST. A seed that was never sent counts as such a loss too.
    pub fn lost(&self, before: &str, found: &str) -> Option<&str> {
        // Until when other POSTs could come before this one: its acknowledgement, if there was one.
        let until = match self.posts.iter().find(|post| post.number == found) {
            Some(post) => post.acknowledged.unwrap_or(usize::MAX),
            None if found == before => 0,
            None => return Some("the number before it, for one that was never sent"),
        };
        // One that began only then came after it, and would have taken its place.
        let overwriting = |post: &&Post| post.acknowledged.is_some() && post.begun > until;
        self.posts.iter().find(overwriting).map(|post| post.number.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_lost_when_an_earlier_one_is_found_in_its_place() {
        let mut history = History::default();
        assert_eq!(history.lost("0", "0"), None, "nothing was sent");
        let first = history.begin("1");
        assert_eq!(history.lost("0", "0"), None, "nothing was acknowledged");
        assert_eq!(history.lost("0", "1"), None, "stored, and the answer lost");
        history.acknowledge(first);
        assert_eq!(history.lost("0", "0"), Some("1"));
        let (second, third) = (history.begin("2"), history.begin("3"));
        history.acknowledge(third);
        assert_eq!(history.lost("0", "1"), Some("3"));
        assert_eq!(history.lost("0", "2"), None, "it may have come after the third");
        history.acknowledge(second);
        assert_eq!(history.lost("0", "2"), None, "nor do acknowledgements tell the order");
        assert_eq!(history.lost("0", "3"), None);
        assert!(history.lost("0", "4").is_some(), "never sent");
        assert_eq!(history.counts(), (3, 0));
    }
}
