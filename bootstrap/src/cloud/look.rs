//! Read-only calls to AWS: a terminal shows what they wait for, and commands that change nothing have a deadline.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use crate::output::WaitLine;

/// How long a look may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// After this a terminal shows what is waited for.
const SILENCE: Duration = Duration::from_millis(400);
/// What is waited for is looked up this often.
const TICK: Duration = Duration::from_millis(250);

/// A read-only command that got no answer in time.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried}: {why} within {} s; check the route, the security groups and firewalls, or name a proxy in \
         HTTPS_PROXY", DEADLINE.as_secs())]
pub(crate) struct TooLong {
    tried: String,
    why: String,
}

/// A call under way.
#[derive(Debug)]
struct Call {
    /// Completes "cannot …".
    tried: String,
    /// Scheme and host; empty until it is sent: it waits for credentials.
    server: RefCell<String>,
    /// Such as `ec2:RunInstances`.
    action: RefCell<Option<String>>,
}

tokio::task_local! {
    /// The call that is being polled.
    static CURRENT: Rc<Call>;
}

thread_local! {
    /// The calls under way, the oldest first. All run on one thread.
    static UNDER_WAY: RefCell<Vec<Rc<Call>>> = const { RefCell::new(Vec::new()) };
}

/// Ends with the call it was made for.
struct Registered(Rc<Call>);

impl Drop for Registered {
    fn drop(&mut self) {
        UNDER_WAY.with_borrow_mut(|calls| calls.retain(|call| !Rc::ptr_eq(call, &self.0)));
    }
}

/// Makes a call that looks show; `tried` completes "cannot …".
pub(super) async fn call<T>(tried: &str, sent: impl Future<Output = T>) -> T {
    let call = Call { tried: tried.to_owned(), server: RefCell::default(), action: RefCell::default() };
    let call = Registered(Rc::new(call));
    UNDER_WAY.with_borrow_mut(|calls| calls.push(call.0.clone()));
    CURRENT.scope(call.0.clone(), sent).await
}

/// Asks something other than AWS, at this URL, so that looks show it; `tried` completes "cannot …".
pub(crate) async fn asking<T>(url: &str, tried: &str, sent: impl Future<Output = T>) -> T {
    call(tried, async {
        is_sent_to(url);
        sent.await
    })
    .await
}

/// The call that is being polled is this one of AWS's.
pub(super) fn names_action(service: &str, name: &str) {
    let _ = CURRENT.try_with(|call| call.action.replace(Some(format!("{}:{name}", service.to_lowercase()))));
}

/// The call that is being polled as IAM names it; right for EC2, whose name is one word.
pub(super) fn action() -> Option<String> {
    CURRENT.try_with(|call| call.action.borrow().clone()).ok().flatten()
}

/// The call that is being polled is sent to this URL.
pub(super) fn is_sent_to(url: &str) {
    let server = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let _ = CURRENT.try_with(|call| call.server.replace(server));
}

/// Looks for a command that changes nothing, which a person may well give again: as [`waiting`], but for a minute at
/// most.
///
/// # Errors
/// It has not ended by then.
pub(crate) async fn look<T>(looking: impl Future<Output = T>) -> Result<T, TooLong> {
    let mut looking = std::pin::pin!(waiting(looking));
    // What it waits for is known as long as it is there.
    timeout(DEADLINE, looking.as_mut()).await.map_err(|_| too_long())
}

/// Shows on a terminal what is waited for, and for how long.
pub(crate) async fn waiting<T>(looking: impl Future<Output = T>) -> T {
    // In a box: the compiler would follow commands and looks too deep into each other.
    let mut looking = Box::pin(looking);
    let mut line = None;
    loop {
        let wait = if line.is_none() { SILENCE } else { TICK };
        if let Ok(found) = timeout(wait, looking.as_mut()).await {
            return found;
        }
        line.get_or_insert_with(WaitLine::new).says(&waits_for());
    }
}

fn waits_for() -> String {
    UNDER_WAY.with_borrow(|calls| match calls.first() {
        None => String::new(),
        Some(call) => match &**call.server.borrow() {
            "" => format!("for credentials, to {}", call.tried),
            server => format!("for {server}, to {}", call.tried),
        },
    })
}

fn too_long() -> TooLong {
    UNDER_WAY.with_borrow(|calls| match calls.first() {
        None => TooLong { tried: "look".to_owned(), why: "no answer came".to_owned() },
        Some(call) => {
            let why = match &**call.server.borrow() {
                "" => "no credentials came".to_owned(),
                server => format!("{server} does not answer"),
            };
            TooLong { tried: call.tried.clone(), why }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_gets_no_answer_ends_after_a_minute_and_says_of_whom() {
        let hangs = async |url: &str| {
            call("list the load balancers", async {
                if !url.is_empty() {
                    is_sent_to(url);
                }
                std::future::pending::<()>().await;
            })
            .await;
        };
        let begun = tokio::time::Instant::now();
        let said = look(hangs("http://127.0.0.1:5000/?Action=x")).await.unwrap_err().to_string();
        assert!(begun.elapsed() < DEADLINE + TICK);
        let expected =
            "cannot list the load balancers: http://127.0.0.1:5000 does not answer within 60 s; check ";
        assert!(said.starts_with(expected), "{said}");
        let said = look(hangs("")).await.unwrap_err().to_string();
        assert!(
            said.starts_with("cannot list the load balancers: no credentials came within 60 s; "),
            "{said}"
        );
        UNDER_WAY.with_borrow(|calls| assert!(calls.is_empty(), "what ended is not waited for"));
    }
}
