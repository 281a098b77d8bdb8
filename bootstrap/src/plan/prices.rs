//! What common instance types cost. Of others nothing is guessed.

use std::collections::BTreeMap;
use std::fmt;

/// Where and when the prices held: On-Demand, Linux. They differ from region to region.
const REGION: &str = "us-east-1";
const DATE: &str = "2026-02-09";

/// Ten-thousandths of a dollar an hour, by family and size.
const PRICES: &[(&str, &[(&str, u32)])] = &[
    (
        "t2",
        &[("nano", 58), ("micro", 116), ("small", 230), ("medium", 464), ("large", 928), ("xlarge", 1856)],
    ),
    (
        "t3",
        &[("nano", 52), ("micro", 104), ("small", 208), ("medium", 416), ("large", 832), ("xlarge", 1664)],
    ),
    (
        "t3a",
        &[("nano", 47), ("micro", 94), ("small", 188), ("medium", 376), ("large", 752), ("xlarge", 1504)],
    ),
    (
        "t4g",
        &[("nano", 42), ("micro", 84), ("small", 168), ("medium", 336), ("large", 672), ("xlarge", 1344)],
    ),
    ("m4", &[("large", 1000), ("xlarge", 2000), ("2xlarge", 4000), ("4xlarge", 8000)]),
    ("m5", &[("large", 960), ("xlarge", 1920), ("2xlarge", 3840), ("4xlarge", 7680)]),
    ("m5a", &[("large", 860), ("xlarge", 1720), ("2xlarge", 3440), ("4xlarge", 6880)]),
    ("c5", &[("large", 850), ("xlarge", 1700), ("2xlarge", 3400), ("4xlarge", 6800)]),
    ("c6i", &[("large", 850), ("xlarge", 1700), ("2xlarge", 3400), ("4xlarge", 6800)]),
    ("c6g", &[("medium", 340), ("large", 680), ("xlarge", 1360), ("2xlarge", 2720), ("4xlarge", 5440)]),
    ("c7g", &[("medium", 363), ("large", 725), ("xlarge", 1450), ("2xlarge", 2900), ("4xlarge", 5800)]),
];

/// What instances cost an hour, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Price {
    /// Of those whose price is known, in ten-thousandths of a dollar.
    known: u64,
    /// How many instances of each other type there are.
    unknown: BTreeMap<String, usize>,
}

impl Price {
    /// Of these types, each with its number of instances.
    pub(crate) fn of<'a>(instances: impl IntoIterator<Item = (&'a str, usize)>) -> Self {
        let mut price = Self::default();
        for (name, count) in instances.into_iter().filter(|(_, count)| *count > 0) {
            match lookup(name) {
                Some(each) => price.known += u64::from(each) * u64::try_from(count).unwrap_or(u64::MAX),
                None => *price.unknown.entry(name.to_owned()).or_default() += count,
            }
        }
        price
    }

    /// For programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "usd": format!("{}.{:04}", self.known / 10_000, self.known % 10_000),
            "region": REGION,
            "date": DATE,
            "not_known": self.unknown,
        })
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known > 0 {
            let (dollars, rest) = (self.known / 10_000, self.known % 10_000);
            write!(f, "${dollars}.{rest:04} an hour at the On-Demand prices of {REGION} on {DATE}")?;
        }
        if !self.unknown.is_empty() {
            let unknown: Vec<_> =
                self.unknown.iter().map(|(name, count)| format!("{count} × {name}")).collect();
            let separator = if self.known > 0 { "; " } else { "" };
            write!(f, "{separator}price not known for {}", unknown.join(", "))?;
        }
        Ok(())
    }
}

fn lookup(instance_type: &str) -> Option<u32> {
    let (family, size) = instance_type.split_once('.')?;
    let (_, sizes) = PRICES.iter().find(|(name, _)| *name == family)?;
    sizes.iter().find(|(name, _)| *name == size).map(|(_, price)| *price)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_prices_are_added_up_and_others_are_named() {
        let price = |instances: &[(&str, usize)]| Price::of(instances.iter().copied()).to_string();
        assert_eq!(
            price(&[("t2.large", 4), ("t3.micro", 5)]),
            "$0.4232 an hour at the On-Demand prices of us-east-1 on 2026-02-09"
        );
        assert_eq!(price(&[("t3.micro", 0), ("p9.huge", 2)]), "price not known for 2 × p9.huge");
        assert_eq!(
            price(&[("t3.micro", 1000), ("t3.metal", 1), ("odd", 1)]),
            "$10.4000 an hour at the On-Demand prices of us-east-1 on 2026-02-09; price not known for 1 × odd, 1 × t3.metal"
        );
        assert_eq!(price(&[]), "");
    }
}
