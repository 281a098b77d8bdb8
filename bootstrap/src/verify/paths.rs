//! Checks the answers of paths, with requests until every expected instance has answered.

use std::collections::BTreeSet;

use super::http::{Answer, Client};
use super::report::{Failure, VerifyTarget, few};
use crate::fleet::{Group, Root};

/// Beyond this many instances half of them are enough: reaching the last one takes too many requests.
const ALL_UP_TO: usize = 100;
/// Requests of one check.
const MAX_REQUESTS: usize = 1500;
/// What a health group answers on `/`.
const HEALTHY: &str = "Healthy!";

/// How many of so many instances have to answer.
pub(super) fn needed(all: usize) -> usize {
    if all <= ALL_UP_TO { all } else { all / 2 }
}

/// Requests until each of so many has answered even from a balancer that picks by chance: at fifteen each
/// one is missed once in a million times. `share` is how much of all requests they get.
pub(super) fn requests(all: usize, share: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let requests = (15.0 * needed(all) as f64 / share.max(0.01)).ceil() as usize;
    requests.clamp(20, MAX_REQUESTS)
}

/// These groups' share of the requests that no rule matches.
pub(super) fn share(target: &VerifyTarget, of: impl Fn(&Group) -> bool) -> f64 {
    let weigh = |group: &Group| f64::from(group.weight);
    let all: f64 = target.sharing().map(weigh).sum();
    target.sharing().filter(|group| of(group)).map(weigh).sum::<f64>() / all.max(1.0)
}

/// Whether a text is a number as the agent shows it.
pub(super) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `/` says which kind of group answered, not which group.
pub(super) async fn root(client: &Client, target: &VerifyTarget) -> Result<String, Failure> {
    let kinds: BTreeSet<&str> = target.sharing().map(|group| group.root.as_str()).collect();
    let expected = match (kinds.contains("health"), kinds.contains("seed")) {
        (true, true) => "200, with \"Healthy!\" in some answers and a number in others",
        (false, true) => "200 and a number",
        _ => "200 and \"Healthy!\"",
    };
    let rarest = kinds.iter().map(|kind| share(target, |group| group.root.as_str() == *kind));
    let most = requests(1, rarest.fold(1.0, f64::min));
    let mut answered = BTreeSet::new();
    let asked = client.ask("/", most, |answer| {
        let kind = match answer.body.as_str() {
            HEALTHY => Root::Health,
            text if is_number(text) => Root::Seed,
            _ => return Err(unexpected(expected, &answer)),
        };
        if answer.status != 200 || !kinds.contains(kind.as_str()) {
            return Err(unexpected(expected, &answer));
        }
        answered.insert(kind.as_str());
        // With one kind all the requests are made: a bad target among good ones would show.
        Ok(kinds.len() > 1 && answered.len() == kinds.len())
    });
    let asked = asked.await?;
    if answered.len() < kinds.len() {
        return Err(Failure {
            expected: expected.to_owned(),
            seen: format!(
                "only answers of root = {:?} in {asked} requests",
                answered.into_iter().next().unwrap_or("")
            ),
            cure:
                "the listener's weights differ from the fleet's, or targets are not healthy: run `bootstrap status`"
                    .to_owned(),
        });
    }
    Ok(match (kinds.len(), kinds.contains("seed")) {
        (1, false) => format!("{asked} of {asked} answered \"Healthy!\""),
        (1, true) => format!("{asked} of {asked} answered a number"),
        _ => format!("health and seed groups answered in {asked} requests"),
    })
}

/// A cluster's path leads to its instances and to no others, each of which answers.
pub(super) async fn cluster(
    client: &Client,
    target: &VerifyTarget,
    group: &Group,
) -> Result<String, Failure> {
    let own = target.ids(&group.name);
    let expected = "200 and \"Instance ID is responding now!\"";
    let mut answered: BTreeSet<String> = BTreeSet::new();
    let wanted = needed(own.len());
    let mut looked = 0;
    let mut look = |answer: Answer| {
        let text = answer.body.strip_prefix("Instance ");
        let id = text.and_then(|text| text.strip_suffix(" is responding now!"));
        let id = id.filter(|_| answer.status == 200).ok_or_else(|| unexpected(expected, &answer))?;
        if !own.contains(id) {
            return Err(wrong_instance(target, group, id));
        }
        answered.insert(id.to_owned());
        looked += 1;
        // Also when all have answered: a stranger among them would show.
        Ok(answered.len() >= wanted && looked >= requests(1, 1.0))
    };
    // What is below the path is the cluster's as well.
    client.ask(&format!("/{}/below", group.name), 1, &mut look).await?;
    let asked = client.ask(&format!("/{}", group.name), requests(own.len(), 1.0), &mut look).await? + 1;
    if answered.len() < wanted {
        let missing: Vec<_> = own.into_iter().filter(|id| !answered.contains(*id)).collect();
        return Err(Failure {
            expected: format!("answers of {wanted} instances"),
            seen: format!("{} answered {asked} requests, but not {}", answered.len(), few(&missing)),
            cure: "`bootstrap status` shows their target states".to_owned(),
        });
    }
    Ok(format!("{} of {} instances answered in {asked} requests", answered.len(), own.len()))
}

fn wrong_instance(target: &VerifyTarget, group: &Group, id: &str) -> Failure {
    let expected = format!("an instance of {}", group.name);
    let of = target.instances.iter().find(|instance| instance.id == id);
    match of {
        Some(instance) => Failure {
            expected,
            seen: format!("{id} of {} answered", instance.group),
            cure: "the instance is registered with the wrong target group, or tagged with the wrong cluster: run \
             `bootstrap status`"
                .to_owned(),
        },
        None => Failure {
            expected,
            seen: format!("{id:?} answered, which is not an instance of this fleet"),
            cure: "someone registered it with the fleet's target group: deregister it".to_owned(),
        },
    }
}

/// Nothing answers where nothing should.
pub(super) async fn unknown(client: &Client) -> Result<String, Failure> {
    let asked = client.ask("/verify/no-such-path", 5, |answer| match answer.status {
        404 => Ok(false),
        _ => Err(Failure {
            expected: "404".to_owned(),
            seen: answer.shown(),
            cure: "another program answers, or a listener rule that is not the fleet's forwards this path"
                .to_owned(),
        }),
    });
    Ok(format!("{} of 5 answered 404", asked.await?))
}

fn unexpected(expected: &str, answer: &Answer) -> Failure {
    Failure { expected: expected.to_owned(), seen: answer.shown(), cure: answer.cure() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_with_a_sign_at_most() {
        for right in ["0", "-7", &"9".repeat(4300)] {
            assert!(is_number(right), "{right}");
        }
        for wrong in ["", "-", "+1", "1.0", "\"1\"", "1\n", "Healthy!"] {
            assert!(!is_number(wrong), "{wrong}");
        }
    }

    #[test]
    fn requests_are_enough_for_the_last_instance_and_bounded() {
        assert_eq!((needed(9), needed(100), needed(1000)), (9, 100, 500));
        assert_eq!((requests(1, 1.0), requests(5, 1.0), requests(5, 0.5)), (20, 75, 150));
        assert_eq!((requests(1000, 1.0), requests(5, 0.0)), (MAX_REQUESTS, MAX_REQUESTS));
    }
}
