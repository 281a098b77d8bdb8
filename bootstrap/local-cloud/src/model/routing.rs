//! Which target group a request goes to: path rules first, then the weighted default.

/// Where a rule or a listener's default sends requests: target group ARNs with weights 0 to 999.
#[derive(Clone, Debug)]
pub struct Forward {
    groups: Vec<Weighted>,
}

#[derive(Clone, Debug)]
struct Weighted {
    arn: String,
    weight: i64,
    credit: i64,
}

impl Forward {
    /// To one group.
    pub fn to(arn: impl Into<String>) -> Self {
        Self::weighted([(arn.into(), 1)])
    }

    /// To several groups by weight.
    pub fn weighted(groups: impl IntoIterator<Item = (String, u16)>) -> Self {
        let groups =
            groups.into_iter().map(|(arn, weight)| Weighted { arn, weight: i64::from(weight), credit: 0 });
        Self { groups: groups.collect() }
    }

    /// The groups with their weights.
    pub fn groups(&self) -> impl Iterator<Item = (&str, i64)> {
        self.groups.iter().map(|g| (g.arn.as_str(), g.weight))
    }

    /// The group of the next request. Each group earns its weight in every round and the richest
    /// pays for all: any run of requests is split as evenly as the weights allow, with no chance
    /// in it, so that 900 requests over two equal groups are 450 and 450.
    pub(crate) fn next(&mut self) -> Option<String> {
        let total: i64 = self.groups.iter().map(|group| group.weight).sum();
        for group in &mut self.groups {
            group.credit += group.weight;
        }
        // Of equals the first: max_by_key would take the last.
        let richest = self
            .groups
            .iter_mut()
            .filter(|group| group.weight > 0)
            .reduce(|best, group| if group.credit > best.credit { group } else { best })?;
        richest.credit -= total;
        Some(richest.arn.clone())
    }
}

/// A listener rule: requests whose path matches one of the patterns go its way.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Lower comes first; each of a listener's rules has its own.
    pub priority: u16,
    /// Path patterns: `*` is any text, `?` any one character, case matters.
    pub paths: Vec<String>,
    /// Where the requests go.
    pub forward: Forward,
}

impl Rule {
    /// Whether the rule is for this path.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| matches(pattern.as_bytes(), path.as_bytes()))
    }
}

/// Matches a whole text against a pattern. On a mismatch the last `*` takes one character more,
/// which is all the backtracking such patterns need.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, t) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_exactly() {
        let split = |weights: &[u16], requests: usize| {
            let groups = weights.iter().enumerate();
            let mut forward = Forward::weighted(groups.map(|(i, &w)| (i.to_string(), w)));
            let mut counts = vec![0; weights.len()];
            for _ in 0..requests {
                if let Some(arn) = forward.next() {
                    counts[arn.parse::<usize>().unwrap()] += 1;
                }
            }
            counts
        };
        assert_eq!(split(&[1, 1], 900), [450, 450]);
        assert_eq!(split(&[1, 1], 7), [4, 3]);
        assert_eq!(split(&[5, 4], 900), [500, 400]);
        assert_eq!(split(&[3, 0, 1], 8), [6, 0, 2]);
        assert_eq!(split(&[0, 0], 8), [0, 0]);
    }

    #[test]
    fn paths_match_by_segment() {
        let rule = Rule {
            priority: 1,
            paths: vec!["/cluster1".to_owned(), "/cluster1/*".to_owned()],
            forward: Forward::to("a"),
        };
        for path in ["/cluster1", "/cluster1/", "/cluster1/x/y"] {
            assert!(rule.matches(path), "{path}");
        }
        for path in ["/", "/cluster1x", "/cluster", "/Cluster1", "/a/cluster1", "/cluster2"] {
            assert!(!rule.matches(path), "{path}");
        }
        assert!(matches(b"/a*c?e", b"/abbcbcde"));
        assert!(!matches(b"/a*c?e", b"/abbcbcdef"));
        assert!(matches(b"*", b""));
    }
}
