//! `verify`: whether a fleet does what it is for, asked from outside, through its load balancer.
//!
//! | file | holds |
//! | --- | --- |
//! | `http.rs` | requests, each on a connection of its own, and what came back |
//! | `paths.rs` | what paths answer |
//! | `seeds.rs` | numbers stored at each instance and read through the balancer |
//!
//! What it is told is plain data: it asks AWS nothing. A 200 through the balancer does not prove
//! that a target is healthy, for a balancer whose targets are all unhealthy sends requests to all of
//! them; so the balancer's opinion of each target is part of what it is told.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::fleet::{Group, Root};
use http::Asker;

mod http;
mod paths;
mod seeds;

/// What is verified.
#[derive(Clone, Debug)]
pub struct VerifyTarget {
    /// The balancer's URL, without a slash at the end.
    pub url: String,
    /// The fleet's groups.
    pub groups: Vec<Group>,
    /// Its instances.
    pub instances: Vec<Instance>,
}

/// An instance of the fleet.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its group's name.
    pub group: String,
    /// Where it serves, for requests past the balancer; `None` if it cannot be reached from here.
    pub address: Option<SocketAddr>,
    /// Why the balancer does not call it healthy; `None` if it does.
    pub unhealthy: Option<String>,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// What: `targets`, a path, `seeds`.
    pub what: String,
    /// What was found, in a few words.
    pub result: Result<String, Failure>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What should be.
    pub expected: String,
    /// What is.
    pub seen: String,
    /// What to do.
    pub cure: String,
}

/// Everything that was looked at.
#[derive(Clone, Debug)]
pub struct Report {
    /// The balancer's URL.
    pub url: String,
    /// In the order in which it was done.
    pub checks: Vec<Check>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(found) => write!(f, "ok      {}: {found}", self.what),
            Err(Failure { expected, seen, cure }) => {
                write!(f, "FAILED  {}: expected {expected}; {seen}; {cure}", self.what)
            }
        }
    }
}

impl Report {
    /// Whether all is as it should be.
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.result.is_ok())
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let checks = self.checks.iter().map(|check| match &check.result {
            Ok(found) => json!({ "check": check.what, "ok": true, "found": found }),
            Err(Failure { expected, seen, cure }) => json!({
                "check": check.what, "ok": false, "expected": expected, "seen": seen, "cure": cure,
            }),
        });
        json!({ "url": self.url, "ok": self.is_ok(), "checks": checks.collect::<Vec<_>>() })
    }
}

impl VerifyTarget {
    /// The ids of a group's instances.
    fn ids(&self, group: &str) -> BTreeSet<&str> {
        let of = self.instances.iter().filter(|instance| instance.group == group);
        of.map(|instance| instance.id.as_str()).collect()
    }

    /// The groups that share in what no rule takes.
    fn sharing(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.weight > 0 && !self.ids(&group.name).is_empty())
    }
}

/// Looks at everything, one after the other, and tells each check when it is done. Numbers that it
/// stores on the way are put back as they were, also when it is interrupted.
pub async fn verify(target: &VerifyTarget, mut tell: impl FnMut(&Check)) -> Report {
    let mut report = Report { url: target.url.clone(), checks: Vec::new() };
    let mut note = |what: &str, result: Result<String, Failure>| {
        let check = Check { what: what.to_owned(), result };
        tell(&check);
        let went_well = check.result.is_ok();
        report.checks.push(check);
        went_well
    };
    let asker = match Asker::new(&target.url) {
        Ok(asker) => asker,
        Err(failure) => {
            note("load balancer", Err(failure));
            return report;
        }
    };
    note("targets", healthy(target));
    if !note("load balancer", asker.reaches().await) {
        return report;
    }
    note("/", paths::root(&asker, target).await);
    for group in target.groups.iter().filter(|group| group.paths) {
        note(&format!("/{}", group.name), paths::cluster(&asker, target, group).await);
    }
    note("unknown path", paths::unknown(&asker).await);
    if target.groups.iter().any(|group| group.root == Root::Seed) {
        note("seeds", seeds::through_the_balancer(&asker, target).await);
    }
    report
}

/// Whether the balancer calls every target healthy.
fn healthy(target: &VerifyTarget) -> Result<String, Failure> {
    let reasons: Vec<_> = target
        .instances
        .iter()
        .filter_map(|instance| Some(format!("{} is {}", instance.id, instance.unhealthy.as_ref()?)))
        .collect();
    let all = target.instances.len();
    let empty = target.groups.iter().find(|group| target.ids(&group.name).is_empty());
    if let Some(group) = empty {
        return Err(Failure {
            expected: "instances in every group".to_owned(),
            seen: format!("{} has none", group.name),
            cure: "`bootstrap launch` launches what is missing".to_owned(),
        });
    }
    if reasons.is_empty() {
        return Ok(format!("{all} of {all} are healthy"));
    }
    // Without one healthy target the answers below say nothing: the balancer then asks them all.
    let open = match reasons.len() == all {
        true => ", so that the balancer sends requests to all of them all the same",
        false => "",
    };
    Err(Failure {
        expected: format!("{all} healthy targets"),
        seen: format!("{}{open}", reasons.join(", ")),
        cure: "`bootstrap status` says why and what to do".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line() {
        let right = Check { what: "/cluster1".to_owned(), result: Ok("5 of 5 instances".to_owned()) };
        assert_eq!(right.to_string(), "ok      /cluster1: 5 of 5 instances");
        let failure = Failure { expected: "404".to_owned(), seen: "200".to_owned(), cure: "look".to_owned() };
        let wrong = Check { what: "unknown path".to_owned(), result: Err(failure) };
        assert_eq!(wrong.to_string(), "FAILED  unknown path: expected 404; 200; look");
        let report = Report { url: "http://x".to_owned(), checks: vec![right, wrong] };
        assert_eq!(
            report.to_json(),
            json!({
                "url": "http://x",
                "ok": false,
                "checks": [
                    { "check": "/cluster1", "ok": true, "found": "5 of 5 instances" },
                    { "check": "unknown path", "ok": false, "expected": "404", "seen": "200", "cure": "look" },
                ],
            })
        );
    }
}
