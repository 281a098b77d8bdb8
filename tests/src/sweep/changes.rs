//! A fleet becomes another, and is killed at one call after another.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use super::Extent;
use crate::account::{Fault, Options, Small, Trouble, differences, without_ids};

const ELB: &str = "elasticloadbalancing";

/// How many instances each group is to have.
pub const COUNT: usize = 2;

/// Targets are not healthy at once, so that what does not wait for them is seen.
pub fn slow_targets() -> Options {
    Options { initial: 3, ..Options::prompt() }
}

/// Every call that takes something away from whoever is served. The first change of the listener only
/// makes new groups known, and the first of the zones only adds some, unless that was `done` before.
fn taking_away(done: &[String]) -> Vec<Fault> {
    let first = |call: &String| if done.contains(call) { 1 } else { 2 };
    let twice = [elb("ModifyListener"), elb("SetSubnets")].map(|call| (first(&call), call));
    let once = ["ec2:TerminateInstances".to_owned(), elb("DeleteRule"), elb("DeleteTargetGroup")];
    let all = once.map(|call| (1, call)).into_iter().chain(twice);
    all.map(|(from, call)| Fault { from, ..Fault::every(&call, Trouble::Wait) }).collect()
}

fn elb(action: &str) -> String {
    format!("{ELB}:{action}")
}

/// A snapshot without the priorities of rules, which follow from those that were there.
fn without_priorities(value: &Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.iter().map(without_priorities).collect()),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(key, _)| *key != "Priority");
            Value::Object(fields.map(|(key, value)| (key.clone(), without_priorities(value))).collect())
        }
        other => other.clone(),
    }
}

/// What a launch of this file makes where nothing is.
pub async fn usual(small: &Small, file: &str) -> Value {
    // Another order: arrays are sorted with the priorities in them.
    without_ids(&without_priorities(&small.usual_of(file).await))
}

/// Asserts that the account is like this, but for ids and priorities.
pub async fn is(small: &Small, wanted: &Value) {
    let found = without_priorities(&small.account.snapshot().await);
    assert_eq!(differences(wanted, &without_ids(&found)), Vec::<String>::new());
}

/// Changes the fleet to what this file says, and looks in the moment before anything is taken away;
/// then lets it come to its end. `done` are the calls of an attempt before.
pub async fn change(small: &Small, file: &str, done: &[String], look: impl AsyncFnOnce()) {
    small.account.clear();
    taking_away(done).into_iter().for_each(|fault| small.account.fault(fault));
    let running = small.account.bootstrap(&small.launching_file(file)).start();
    small.account.held().await;
    look().await;
    small.account.release();
    running.end().await.success();
}

/// Begins the change, and kills it while it waits for the answer to this call. The calls it made.
async fn killed_at(small: &Small, file: &str, call: &str, nth: usize) -> Vec<String> {
    small.account.clear();
    small.account.fault(Fault::nth(call, nth, Trouble::Hold));
    let running = small.account.bootstrap(&small.launching_file(file)).start();
    small.account.held().await;
    running.signal(Signal::KILL);
    running.end().await;
    small.account.quiet().await;
    let names = small.account.names();
    small.account.clear();
    names
}

/// A change of type that is killed is finished by the next launch.
pub async fn type_change_is_killed(extent: Extent) {
    let small = Small::with(slow_targets()).await;
    let other_type = small.changed(&[("t2.large", "m5.large")]);
    let wanted = usual(&small, &other_type).await;
    let cases = [
        ("ec2:CreateTags", 1),
        ("ec2:RunInstances", 1),
        ("ec2:RunInstances", 2),
        ("elasticloadbalancing:DescribeTargetHealth", 2),
        ("ec2:TerminateInstances", 1),
    ];
    for (call, nth) in extent.of(cases, 1) {
        small.account.reset(slow_targets()).await;
        small.launch().await.success();
        let old = small.healthy("blue").await;
        killed_at(&small, &other_type, call, nth).await;
        let ended = call == "ec2:TerminateInstances";
        if ended {
            small.account.run(&small.launching_file(&other_type)).await.success();
        } else {
            change(&small, &other_type, &[], async || {
                let now = small.healthy("blue").await;
                assert!(now.is_superset(&old) && now.len() == 2 * COUNT, "{call} {nth}: {now:?}, {old:?}");
            })
            .await;
        }
        let new = small.healthy("blue").await;
        assert!(new.len() == COUNT && new.is_disjoint(&old), "{call} {nth}: {new:?}, {old:?}");
        is(&small, &wanted).await;
    }
}

/// Another group and another zone take over when they are healthy, also when that was killed before.
pub async fn group_and_zone_change(extent: Extent) {
    let small = Small::with(slow_targets()).await;
    let moved = small.changed(&[("\"red\"", "\"green\""), ("us-east-1b", "us-east-1c")]);
    let wanted = usual(&small, &moved).await;
    let cases = [
        None,
        Some(("elasticloadbalancing:ModifyListener", 1)),
        Some(("elasticloadbalancing:SetSubnets", 1)),
        Some(("ec2:RunInstances", 2)),
    ];
    for killed in extent.of(cases, 2) {
        small.account.reset(slow_targets()).await;
        small.launch().await.success();
        let (blue, red) = (small.healthy("blue").await, small.healthy("red").await);
        let done = match killed {
            Some((call, nth)) => killed_at(&small, &moved, call, nth).await,
            None => Vec::new(),
        };
        change(&small, &moved, &done, async || {
            let now = small.healthy("blue").await;
            assert!(now.is_superset(&blue) && now.len() == COUNT + 1, "{killed:?}: {now:?}, {blue:?}");
            assert_eq!(small.healthy("red").await, red, "{killed:?}: the old group serves");
            assert_eq!(small.healthy("green").await.len(), COUNT, "{killed:?}: and so does the new one");
            let roles = small.account.snapshot().await["roles"].to_string();
            for group in ["blue", "red", "green"] {
                assert!(
                    roles.contains(&format!("targetgroup/small-{group}/")),
                    "{killed:?}: {group} may leave"
                );
            }
        })
        .await;
        assert_eq!(small.healthy("red").await, BTreeSet::new(), "{killed:?}");
        let zones: Vec<_> = small.zones().await.into_keys().collect();
        assert_eq!(zones, ["us-east-1a", "us-east-1c"], "{killed:?}");
        is(&small, &wanted).await;
    }
}

/// A change that is killed while it takes something away is finished by the next launch.
pub async fn taking_away_is_killed(extent: Extent) {
    let small = Small::with(Options::prompt()).await;
    let moved = small.changed(&[("\"red\"", "\"green\""), ("us-east-1b", "us-east-1c")]);
    let wanted = usual(&small, &moved).await;
    let cases = [
        (elb("ModifyListener"), 2),
        (elb("DeleteRule"), 1),
        ("ec2:TerminateInstances".to_owned(), 1),
        (elb("DeleteTargetGroup"), 1),
        (elb("SetSubnets"), 2),
    ];
    for (call, nth) in extent.of(cases, 1) {
        small.account.reset(Options::prompt()).await;
        small.launch().await.success();
        killed_at(&small, &moved, &call, nth).await;
        small.account.run(&small.launching_file(&moved)).await.success();
        is(&small, &wanted).await;
    }
}
