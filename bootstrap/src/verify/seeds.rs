//! Numbers stored at each instance, and read through the balancer: what a seed fleet's grader does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::http::Client;
use super::paths::{is_number, needed, requests, share};
use super::report::{Failure, Instance, VerifyTarget, few};
use crate::fleet::Root;

/// A number that was replaced.
struct SavedSeed {
    id: String,
    url: String,
    number: String,
}

/// Stores a number of its own at each instance, reads all of them through the balancer, and puts back
/// what was stored before.
pub(super) async fn through_the_balancer(client: &Client, target: &VerifyTarget) -> Result<String, Failure> {
    let saved = Mutex::new(Vec::new());
    let outcome = tokio::select! {
        outcome = store_and_read(client, target, &saved) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure {
            expected: "to finish".to_owned(),
            seen: "interrupted".to_owned(),
            cure: "run verify again".to_owned(),
        }),
    };
    let saved = saved.into_inner().unwrap_or_else(PoisonError::into_inner);
    let restored = restore(client, saved).await;
    // That a number is lost is worse than that it could not be read.
    restored.and(outcome)
}

async fn store_and_read(
    client: &Client,
    target: &VerifyTarget,
    saved: &Mutex<Vec<SavedSeed>>,
) -> Result<String, Failure> {
    let is_seed =
        |name: &str| target.groups.iter().any(|group| group.name == name && group.root == Root::Seed);
    let mut numbers: BTreeMap<String, &Instance> = BTreeMap::new();
    for instance in target.instances.iter().filter(|instance| is_seed(&instance.group)) {
        // Different ones, so that each says where it was read.
        let number = loop {
            let number = fastrand::u64(1 << 32..).to_string();
            if !numbers.contains_key(&number) {
                break number;
            }
        };
        store(client, instance, &number, saved).await?;
        numbers.insert(number, instance);
    }
    let stored = numbers.len();
    let shared = |name: &str| target.sharing().any(|group| group.name == name);
    let readable = numbers.values().filter(|instance| shared(&instance.group)).count();
    if readable == 0 {
        return Ok(format!(
            "{stored} numbers stored, but none read: the listener's weights send no request to their instances"
        ));
    }
    let others = target.sharing().any(|group| group.root == Root::Health);
    let most = requests(readable, share(target, |group| group.root == Root::Seed));
    let mut answered = BTreeSet::new();
    let asked = client.ask("/", most, |answer| {
        if answer.status == 200 && numbers.contains_key(&answer.body) {
            answered.insert(answer.body);
            return Ok(answered.len() >= needed(readable));
        }
        if answer.status == 200 && others && answer.body == "Healthy!" {
            return Ok(false);
        }
        let cure = if answer.status == 200 && is_number(&answer.body) {
            "an instance of another fleet answers, or someone stored another number meanwhile: run `bootstrap status`"
                .to_owned()
        } else {
            answer.cure()
        };
        Err(Failure {
            expected: "200 and one of the stored numbers, digits only".to_owned(),
            seen: answer.shown(),
            cure,
        })
    });
    let asked = asked.await?;
    if answered.len() < needed(readable) {
        let missing = numbers
            .iter()
            .filter(|(number, instance)| !answered.contains(*number) && shared(&instance.group));
        let missing: Vec<_> = missing.map(|(_, instance)| instance.id.as_str()).collect();
        return Err(Failure {
            expected: format!("the numbers of {} instances", needed(readable)),
            seen: format!("{} answered {asked} requests, but not {}", answered.len(), few(&missing)),
            cure: "`bootstrap status` shows their target states".to_owned(),
        });
    }
    Ok(format!(
        "{} of {stored} stored numbers read through the load balancer in {asked} requests; the previous numbers \
         are restored",
        answered.len()
    ))
}

/// Stores a number at an instance, and notes what it replaces before it does.
async fn store(
    client: &Client,
    instance: &Instance,
    number: &str,
    saved: &Mutex<Vec<SavedSeed>>,
) -> Result<(), Failure> {
    let id = &instance.id;
    let Some(address) = instance.address else {
        return Err(Failure {
            expected: format!("a public address of {id}"),
            seen: "it has none".to_owned(),
            cure: "launch into subnets that give public addresses: each instance is asked directly"
                .to_owned(),
        });
    };
    let unreachable = |seen: String| Failure {
        expected: format!("an answer from {id} at {address}"),
        seen,
        cure: format!(
            "security.allow must include this machine, and security.ports must include {}",
            address.port()
        ),
    };
    let former = client.get(&format!("http://{address}/seed")).await.map_err(unreachable)?;
    if former.status != 200 || !is_number(&former.body) {
        return Err(Failure {
            expected: format!("200 and a number from {id}"),
            seen: former.shown(),
            cure: format!("`journalctl -u instance-agent` on {id} shows why"),
        });
    }
    let url = format!("http://{address}/");
    let former = SavedSeed { id: id.clone(), url: url.clone(), number: former.body };
    saved.lock().unwrap_or_else(PoisonError::into_inner).push(former);
    let answer = client.post(&url, number).await.map_err(unreachable)?;
    if answer.status != 200 || answer.body != number {
        return Err(Failure {
            expected: format!("200 and {number:?} from {id} after storing it"),
            seen: answer.shown(),
            cure: format!("`journalctl -u instance-agent` on {id} shows why"),
        });
    }
    Ok(())
}

/// Puts the numbers back; tries all, and tells the first that could not be.
async fn restore(client: &Client, saved: Vec<SavedSeed>) -> Result<(), Failure> {
    let mut first = Ok(());
    for SavedSeed { id, url, number } in saved {
        let seen = match client.post(&url, &number).await {
            Ok(answer) if answer.status == 200 && answer.body == number => continue,
            Ok(answer) => answer.shown(),
            Err(error) => error,
        };
        first = first.and(Err(Failure {
            expected: format!("to restore the number of {id}"),
            seen,
            cure: format!("store it by hand: curl -d '{{\"num\": {number}}}' {url}"),
        }));
    }
    first
}
