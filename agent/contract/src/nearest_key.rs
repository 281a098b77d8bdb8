//! "Did you mean …?"

/// How similar two keys have to be, from 0 (nothing in common) to 1 (equal).
const SIMILAR: f64 = 0.75;

/// The key of `known` that a misspelt `text` probably means; `None` if none is similar enough.
///
/// Upper case counts as lower case, and `_` as `-`, the separator of all our keys. The measure is
/// Jaro-Winkler similarity: it tolerates exchanged and missing letters and prefers an equal beginning, so that
/// the first word of a longer key finds it.
///
/// ```
/// use instance_contract::nearest;
///
/// let known = ["listen", "drain-quiet", "root"];
/// assert_eq!(nearest("listn", known), Some("listen"));
/// assert_eq!(nearest("DRAIN_QUITE", known), Some("drain-quiet"));
/// assert_eq!(nearest("port", known), None);
/// ```
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|key| (strsim::jaro_winkler(key, &text), key))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_lead_to_the_key_and_other_words_nowhere() {
        let known =
            ["region", "zones", "type", "deregistration-delay", "drain-quiet", "drain-timeout", "key"];
        for (text, expected) in [
            ("regoin", Some("region")),
            ("zone", Some("zones")),
            ("typ", Some("type")),
            ("Type", Some("type")),
            ("tpye", Some("type")),
            ("deregistration-dealy", Some("deregistration-delay")),
            ("DEREGISTRATION_DELAY", Some("deregistration-delay")),
            ("drain-time", Some("drain-timeout")),
            ("drain_quit", Some("drain-quiet")),
            ("", None),
            ("zzz", None),
            ("subnet", None),
            ("vpc", None),
        ] {
            assert_eq!(nearest(text, known), expected, "{text}");
        }
        assert_eq!(nearest("type", []), None);
    }
}
