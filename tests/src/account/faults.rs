//! What a test makes go wrong.

use tokio::sync::watch;

use super::answer::AwsError;
use super::request::Request;

/// One kind of trouble with one call.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which calls, as `service:Action`; either may be `*`.
    pub call: String,
    /// From which of those calls on, from 1.
    pub from: usize,
    /// How many calls.
    pub times: usize,
    /// What happens.
    pub trouble: Trouble,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is refused, and changes nothing.
    Fail(AwsError),
    /// It takes effect, and the connection ends without an answer.
    Lose,
    /// It takes effect, and is never answered; the test is told.
    Hold,
    /// It takes effect only when the test lets it, which is told.
    Wait,
}

impl Fault {
    /// The n-th call of this kind, from 1, and no other.
    pub fn nth(call: &str, n: usize, trouble: Trouble) -> Self {
        Self { call: call.to_owned(), from: n, times: 1, trouble }
    }

    /// Every call of this kind.
    pub fn every(call: &str, trouble: Trouble) -> Self {
        Self { call: call.to_owned(), from: 1, times: usize::MAX, trouble }
    }

    fn is_of(&self, request: &Request) -> bool {
        let (service, action) = self.call.split_once(':').expect("service:Action");
        let matches = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        matches(service, &request.service) && matches(action, &request.action)
    }
}

/// The faults that are set, and how often each was met.
pub(super) struct Faults {
    set: Vec<(Fault, usize)>,
    /// How many calls were held.
    pub(super) held: watch::Sender<usize>,
    /// Whether those that wait may take effect.
    pub(super) released: watch::Sender<bool>,
    fired: usize,
    calls: usize,
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            set: Vec::new(),
            held: watch::Sender::new(0),
            released: watch::Sender::new(false),
            fired: 0,
            calls: 0,
        }
    }

    pub(super) fn add(&mut self, fault: Fault) {
        self.set.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        (self.set, self.fired, self.calls) = (Vec::new(), 0, 0);
        self.held.send_replace(0);
        self.released.send_replace(false);
    }

    pub(super) fn fired(&self) -> usize {
        self.fired
    }

    /// What happens to this call.
    pub(super) fn meet(&mut self, request: &Request, throttle: bool) -> Option<Trouble> {
        self.calls += 1;
        if throttle && self.calls.is_multiple_of(2) {
            return Some(Trouble::Fail(AwsError::throttled(&request.service)));
        }
        let mut trouble = None;
        for (fault, met) in self.set.iter_mut().filter(|(fault, _)| fault.is_of(request)) {
            *met += 1;
            if *met >= fault.from && *met - fault.from < fault.times && trouble.is_none() {
                trouble = Some(fault.trouble.clone());
            }
        }
        self.fired += usize::from(trouble.is_some());
        trouble
    }
}
