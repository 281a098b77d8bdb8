//! What paths answer, asked until every instance that should was heard.

use std::collections::BTreeSet;

use super::http::{Answer, Asker};
use super::report::{Failure, VerifyTarget};
use crate::fleet::{Group, Root};

/// Beyond this many instances, half of them are enough: hearing the last one takes too many requests.
const HEARD_ALL: usize = 100;
/// Requests of one check.
const MOST: usize = 1500;
/// What a health group answers on `/`.
const HEALTHY: &str = "Healthy!";

/// How many of these many have to be heard.
pub(super) fn wanted(all: usize) -> usize {
    if all <= HEARD_ALL { all } else { all / 2 }
}

/// Requests until each of so many is heard even from a balancer that picks by chance: at fifteen each
/// one is missed once in a million times. `share` is how much of all requests they get.
pub(super) fn requests(all: usize, share: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let requests = (15.0 * wanted(all) as f64 / share.max(0.01)).ceil() as usize;
    requests.clamp(20, MOST)
}

/// How much of what no rule takes goes to these groups.
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
pub(super) async fn root(asker: &Asker, target: &VerifyTarget) -> Result<String, Failure> {
    let kinds: BTreeSet<&str> = target.sharing().map(|group| group.root.as_str()).collect();
    let expected = match (kinds.contains("health"), kinds.contains("seed")) {
        (true, true) => "200 and \"Healthy!\" or a number, both of them at times",
        (false, true) => "200 and a number",
        _ => "200 and \"Healthy!\"",
    };
    let rarest = kinds.iter().map(|kind| share(target, |group| group.root.as_str() == *kind));
    let most = requests(1, rarest.fold(1.0, f64::min));
    let mut heard = BTreeSet::new();
    let asked = asker.ask("/", most, |answer| {
        let kind = match answer.body.as_str() {
            HEALTHY => Root::Health,
            text if is_number(text) => Root::Seed,
            _ => return Err(otherwise(expected, &answer)),
        };
        if answer.status != 200 || !kinds.contains(kind.as_str()) {
            return Err(otherwise(expected, &answer));
        }
        heard.insert(kind.as_str());
        // With one kind all the requests are made: a bad target among good ones would show.
        Ok(kinds.len() > 1 && heard.len() == kinds.len())
    });
    let asked = asked.await?;
    if heard.len() < kinds.len() {
        return Err(Failure {
            expected: expected.to_owned(),
            seen: format!(
                "only those of root = {:?} in {asked} requests",
                heard.into_iter().next().unwrap_or("")
            ),
            cure:
                "the listener's weights are not the fleet's, or targets are not healthy: `bootstrap status`"
                    .to_owned(),
        });
    }
    Ok(match (kinds.len(), kinds.contains("seed")) {
        (1, false) => format!("{asked} of {asked} answered \"Healthy!\""),
        (1, true) => format!("{asked} of {asked} answered a number"),
        _ => format!("both kinds of group answered in {asked} requests"),
    })
}

/// A cluster's path leads to its instances and to no others, each of which answers.
pub(super) async fn cluster(asker: &Asker, target: &VerifyTarget, group: &Group) -> Result<String, Failure> {
    let own = target.ids(&group.name);
    let expected = "200 and \"Instance ID is responding now!\"";
    let mut heard: BTreeSet<String> = BTreeSet::new();
    let wanted = wanted(own.len());
    let mut looked = 0;
    let mut look = |answer: Answer| {
        let text = answer.body.strip_prefix("Instance ");
        let id = text.and_then(|text| text.strip_suffix(" is responding now!"));
        let id = id.filter(|_| answer.status == 200).ok_or_else(|| otherwise(expected, &answer))?;
        if !own.contains(id) {
            return Err(stranger(target, group, id));
        }
        heard.insert(id.to_owned());
        looked += 1;
        // Also when all have answered: a stranger among them would show.
        Ok(heard.len() >= wanted && looked >= requests(1, 1.0))
    };
    // What is below the path is the cluster's as well.
    asker.ask(&format!("/{}/below", group.name), 1, &mut look).await?;
    let asked = asker.ask(&format!("/{}", group.name), requests(own.len(), 1.0), &mut look).await? + 1;
    if heard.len() < wanted {
        let missing: Vec<_> = own.into_iter().filter(|id| !heard.contains(*id)).take(10).collect();
        return Err(Failure {
            expected: format!("answers of {wanted} instances"),
            seen: format!("of {} in {asked} requests, none of {}", heard.len(), missing.join(", ")),
            cure: "`bootstrap status` says what the balancer thinks of them".to_owned(),
        });
    }
    Ok(format!("{} of {} instances answered in {asked} requests", heard.len(), own.len()))
}

fn stranger(target: &VerifyTarget, group: &Group, id: &str) -> Failure {
    let expected = format!("an instance of {}", group.name);
    let of = target.instances.iter().find(|instance| instance.id == id);
    match of {
        Some(instance) => Failure {
            expected,
            seen: format!("{id} of {} answered", instance.group),
            cure: "the instance is registered with a target group that is not its own, or tagged with the wrong \
                   cluster: `bootstrap status`"
                .to_owned(),
        },
        None => Failure {
            expected,
            seen: format!("{id:?} answered, which is none of this fleet's instances"),
            cure: "somebody registered it with the fleet's target group: deregister it there".to_owned(),
        },
    }
}

/// Nothing answers where nothing should.
pub(super) async fn unknown(asker: &Asker) -> Result<String, Failure> {
    let asked = asker.ask("/verify/no-such-path", 5, |answer| match answer.status {
        404 => Ok(false),
        _ => Err(Failure {
            expected: "404".to_owned(),
            seen: answer.shown(),
            cure: "something other than the agent answers, or a rule leads there that is not the fleet's"
                .to_owned(),
        }),
    });
    Ok(format!("{} of 5 answered 404", asked.await?))
}

fn otherwise(expected: &str, answer: &Answer) -> Failure {
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
        assert_eq!((wanted(9), wanted(100), wanted(1000)), (9, 100, 500));
        assert_eq!((requests(1, 1.0), requests(5, 1.0), requests(5, 0.5)), (20, 75, 150));
        assert_eq!((requests(1000, 1.0), requests(5, 0.0)), (MOST, MOST));
    }
}
