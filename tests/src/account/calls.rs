//! The record of calls, and what it says about whoever made them.

use std::collections::BTreeMap;
use std::time::Instant;

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Call {
    /// `ec2`, `elasticloadbalancing`, ...
    pub service: String,
    /// `RunInstances`, ...
    pub action: String,
    /// What was asked.
    pub parameters: BTreeMap<String, String>,
    /// When its request had come.
    pub began: Instant,
    /// When its answer went; `None` while it has none.
    pub ended: Option<Instant>,
    /// The HTTP status; 0 without an answer.
    pub status: u16,
    /// The error's code; empty if it worked.
    pub code: String,
}

impl Call {
    /// `service:Action`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }

    /// Whether it only looked.
    pub fn is_read(&self) -> bool {
        is_read(&self.action)
    }
}

/// Whether an action only looks.
pub fn is_read(action: &str) -> bool {
    ["Describe", "Get", "List", "Head"].into_iter().any(|verb| action.starts_with(verb))
}

/// The length of the longest chain of calls in which each began after the one before had ended:
/// with a latency that is added to each call, what cannot be had faster.
pub fn depth(calls: &[Call]) -> usize {
    chain(calls).len()
}

/// The names of the calls in one of the longest chains.
pub fn chain(calls: &[Call]) -> Vec<String> {
    let mut sorted: Vec<&Call> = calls.iter().filter(|call| call.ended.is_some()).collect();
    sorted.sort_by_key(|call| call.began);
    // For each call the longest chain that ends with it: its length, and the call before.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(sorted.len());
    for (n, call) in sorted.iter().enumerate() {
        let before = (0..n).filter(|&m| sorted[m].ended.is_some_and(|ended| ended <= call.began));
        let before = before.max_by_key(|&m| best[m].0);
        best.push((1 + before.map_or(0, |m| best[m].0), before));
    }
    let mut at = (0..best.len()).max_by_key(|&n| best[n].0);
    let mut names = Vec::new();
    while let Some(n) = at {
        names.push(sorted[n].name());
        at = best[n].1;
    }
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_longest_chain_goes_by_time_and_not_by_number() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let call = |action: &str, began, ended| Call {
            service: "ec2".to_owned(),
            action: action.to_owned(),
            parameters: BTreeMap::new(),
            began: at(began),
            ended: Some(at(ended)),
            status: 200,
            code: String::new(),
        };
        let calls =
            [call("A", 0, 10), call("B", 1, 30), call("C", 11, 20), call("D", 31, 40), call("E", 25, 60)];
        assert_eq!(depth(&calls), 3);
        assert_eq!(chain(&calls), ["ec2:A", "ec2:C", "ec2:D"]);
        assert_eq!(depth(&[]), 0);
    }
}
