//! What `verify` asks about, and what it found.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::fleet::Group;

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
    pub(super) fn ids(&self, group: &str) -> BTreeSet<&str> {
        let of = self.instances.iter().filter(|instance| instance.group == group);
        of.map(|instance| instance.id.as_str()).collect()
    }

    /// The groups that share in what no rule takes.
    pub(super) fn sharing(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.weight > 0 && !self.ids(&group.name).is_empty())
    }
}

/// The first five of a list, and how many more there are.
pub(super) fn few<T: AsRef<str>>(items: &[T]) -> String {
    const FEW: usize = 5;
    let shown: Vec<&str> = items.iter().take(FEW).map(AsRef::as_ref).collect();
    match items.len().saturating_sub(FEW) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
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

    #[test]
    fn five_of_a_long_list_are_named() {
        assert_eq!(few(&["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(few(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
