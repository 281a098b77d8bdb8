//! `verify`: checks a fleet from outside, with requests through its load balancer.
//!
//! | file | holds |
//! | --- | --- |
//! | `report.rs` | what is asked about, and what was found |
//! | `http.rs` | requests, each on a connection of its own, and what came back |
//! | `paths.rs` | what paths answer |
//! | `seeds.rs` | numbers stored at each instance and read through the balancer |
//!
//! Its input is plain data: it makes no calls to AWS. A 200 through the load balancer does not prove that a target is
//! healthy, since a balancer without healthy targets sends requests to all of them. So the input contains the target
//! health of each instance.

use crate::fleet::Root;
use http::Client;
use report::few;

pub use report::{Check, Failure, Instance, Report, VerifyTarget};

mod http;
mod paths;
mod report;
mod seeds;

/// Runs all checks in turn, and reports each when it is done. Restores the numbers that it replaced, also when it is
/// interrupted.
pub async fn verify(target: &VerifyTarget, mut tell: impl FnMut(&Check)) -> Report {
    let mut report = Report { url: target.url.clone(), checks: Vec::new() };
    let mut note = |what: &str, result: Result<String, Failure>| {
        let check = Check { what: what.to_owned(), result };
        tell(&check);
        let went_well = check.result.is_ok();
        report.checks.push(check);
        went_well
    };
    let client = match Client::new(&target.url) {
        Ok(client) => client,
        Err(failure) => {
            note("load balancer", Err(failure));
            return report;
        }
    };
    note("targets", healthy(target));
    if !note("load balancer", client.reaches().await) {
        return report;
    }
    note("/", paths::root(&client, target).await);
    for group in target.groups.iter().filter(|group| group.paths) {
        note(&format!("/{}", group.name), paths::cluster(&client, target, group).await);
    }
    note("unknown path", paths::unknown(&client).await);
    if target.groups.iter().any(|group| group.root == Root::Seed) {
        note("seeds", seeds::through_the_balancer(&client, target).await);
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
            cure: "launch the fleet again, which launches the missing instances".to_owned(),
        });
    }
    if reasons.is_empty() {
        return Ok(format!("{all} of {all} are healthy"));
    }
    // Without one healthy target the answers below say nothing: the balancer then asks them all.
    let open = if reasons.len() == all {
        "; with no healthy target the load balancer sends requests to all of them"
    } else {
        ""
    };
    Err(Failure {
        expected: format!("{all} healthy targets"),
        seen: format!("{}{open}", few(&reasons)),
        cure: "`bootstrap status` shows why and what to do".to_owned(),
    })
}
