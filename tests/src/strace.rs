//! What a traced agent asked of the kernel, and in which order.

use std::ffi::OsString;

use crate::eventually;
use crate::solo::{Running, Solo};

/// A system call begins or ends. strace stops the caller at both and writes them down one by one,
/// so their order is the order in which they happened, over all threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It begins: the kernel has not acted on it yet.
    Enter,
    /// It has returned.
    Exit,
}

/// One line of the trace, or one half of it.
#[derive(Clone, Debug)]
pub struct Event {
    /// The thread.
    pub thread: String,
    /// Begin or end.
    pub edge: Edge,
    /// The call's name.
    pub call: String,
    /// Arguments, as far as they are known then.
    pub text: String,
    /// What it returned.
    pub result: Option<String>,
}

impl Event {
    /// Whether this is the successful end of a call that makes a file's contents durable.
    pub fn is_durable(&self) -> bool {
        self.call == "fdatasync" && self.edge == Edge::Exit && self.result.as_deref() == Some("0")
    }

    /// Whether this is the beginning of sending something with this in it.
    pub fn sends(&self, part: &str) -> bool {
        let sends = ["write", "writev", "sendto", "sendmsg"].contains(&self.call.as_str());
        sends && self.edge == Edge::Enter && self.text.contains(part)
    }
}

/// Everything that shows how a number gets from a client to the disk and back.
pub const DURABILITY: &str = "pwrite64,fdatasync,fsync,read,recvfrom,write,writev,sendto,sendmsg";

/// Makes the next start a traced one, of these calls.
pub fn trace(solo: &mut Solo, calls: &str) {
    let file = solo.path("trace");
    let calls = format!("trace={calls}");
    // -D: the agent stays the test's own child.
    let mut wrapper = ["strace", "-D", "-f", "-s", "1000", "-e", &calls, "-o"].map(OsString::from).to_vec();
    wrapper.push(file.into_os_string());
    solo.wrapper = wrapper;
}

/// Ends the agent, and returns everything that was traced.
pub async fn finish(solo: &Solo, agent: &mut Running) -> Vec<Event> {
    let pid = agent.pid().to_string();
    agent.stop(solo).await;
    let whole = async || {
        let text = std::fs::read_to_string(solo.path("trace")).ok()?;
        text.lines()
            .filter_map(split)
            .any(|(thread, rest)| thread == pid && rest.starts_with("+++ "))
            .then_some(text)
    };
    let text = eventually(whole).await.expect("strace writes to the end");
    parse(&text)
}

/// A line's thread, padded to a column, and the rest.
fn split(line: &str) -> Option<(&str, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    Some((thread, rest.trim_start()))
}

fn parse(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    for (thread, rest) in text.lines().filter_map(split) {
        let result = || rest.rsplit_once(" = ").map(|(_, result)| result.to_owned());
        let event = |edge, call: &str, result| Event {
            thread: thread.to_owned(),
            edge,
            call: call.to_owned(),
            text: rest.to_owned(),
            result,
        };
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let call = resumed.split(' ').next().unwrap_or_default();
            events.push(event(Edge::Exit, call, result()));
        } else if let Some((call, _)) = rest.split_once('(') {
            events.push(event(Edge::Enter, call, None));
            if !rest.ends_with("<unfinished ...>") {
                events.push(event(Edge::Exit, call, result()));
            }
        }
    }
    events
}
