//! IAM policy documents, read as AWS reads them: what is not allowed is refused, and a Deny wins.

use std::collections::BTreeMap;

use serde_json::Value;

/// What conditions are about: keys such as `aws:RequestTag/name`, each with its values.
pub type Context = BTreeMap<String, Vec<String>>;

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    allow: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    /// `StringEquals`, perhaps with `ForAllValues:` before and `IfExists` behind it.
    operator: String,
    key: String,
    values: Vec<String>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Panics
    /// What it holds is not understood: a test that let it pass would show nothing.
    pub fn parse(text: &str) -> Self {
        let document: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(document["Version"], "2012-10-17", "{text}");
        let statements = match &document["Statement"] {
            Value::Array(statements) => statements.clone(),
            one => vec![one.clone()],
        };
        Self { statements: statements.iter().map(Statement::read).collect() }
    }

    /// Whether it allows this on this resource.
    pub fn allows(&self, action: &str, resource: &str, context: &Context) -> bool {
        let (mut allowed, mut denied) = (false, false);
        for statement in &self.statements {
            if statement.applies(action, resource, context) {
                allowed |= statement.allow;
                denied |= !statement.allow;
            }
        }
        allowed && !denied
    }
}

impl Statement {
    fn read(value: &Value) -> Self {
        for key in value.as_object().expect("a statement").keys() {
            assert!(["Sid", "Effect", "Action", "Resource", "Condition"].contains(&key.as_str()), "{key}");
        }
        let mut conditions = Vec::new();
        for (operator, keys) in value["Condition"].as_object().into_iter().flatten() {
            for (key, values) in keys.as_object().expect("keys") {
                let condition =
                    Condition { operator: operator.clone(), key: key.clone(), values: texts(values) };
                conditions.push(condition);
            }
        }
        let allow = match value["Effect"].as_str() {
            Some("Allow") => true,
            Some("Deny") => false,
            other => panic!("Effect: {other:?}"),
        };
        let (actions, resources) = (texts(&value["Action"]), texts(&value["Resource"]));
        Self { allow, actions, resources, conditions }
    }

    fn applies(&self, action: &str, resource: &str, context: &Context) -> bool {
        // Names of actions are the same in any case; ARNs are not.
        let action = action.to_lowercase();
        self.actions.iter().any(|pattern| matches(&pattern.to_lowercase(), &action))
            && self.resources.iter().any(|pattern| matches(pattern, resource))
            && self.conditions.iter().all(|condition| condition.holds(context))
    }
}

impl Condition {
    fn holds(&self, context: &Context) -> bool {
        let (all, rest) = match self.operator.strip_prefix("ForAllValues:") {
            Some(rest) => (true, rest),
            None => (false, self.operator.strip_prefix("ForAnyValue:").unwrap_or(&self.operator)),
        };
        let (operator, if_exists) = match rest.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (rest, false),
        };
        let found =
            context.iter().find(|(key, _)| key.eq_ignore_ascii_case(&self.key)).map(|(_, values)| values);
        if operator == "Null" {
            return self.values == [found.is_none().to_string()];
        }
        let compare: fn(&str, &str) -> bool = match operator {
            "StringEquals" | "StringNotEquals" | "ArnEquals" => |wanted, value| wanted == value,
            "StringEqualsIgnoreCase" | "Bool" => |wanted, value| wanted.eq_ignore_ascii_case(value),
            "StringLike" | "StringNotLike" | "ArnLike" => matches,
            other => panic!("the condition {other} is not understood"),
        };
        let negated = operator.contains("Not");
        let one = |value: &String| self.values.iter().any(|wanted| compare(wanted, value)) != negated;
        match found {
            None => all || if_exists || negated,
            Some(values) if all => values.iter().all(one),
            Some(values) => values.iter().any(one),
        }
    }
}

/// One text, or a list of them.
fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => {
            assert!(!text.contains("${"), "variables are not understood: {text}");
            text.clone()
        }
        Value::Bool(flag) => flag.to_string(),
        other => panic!("not a text: {other}"),
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => vec![text(one)],
    }
}

/// Whether a text is of this pattern, in which `*` stands for anything and `?` for any one character.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star stood, and how far it reached.
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, reached)) => {
                    (p, t) = (at + 1, reached + 1);
                    star = Some((at, reached + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(pairs: &[(&str, &[&str])]) -> Context {
        pairs
            .iter()
            .map(|(key, values)| ((*key).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()))
            .collect()
    }

    fn document(statement: Value) -> Document {
        Document::parse(&serde_json::json!({ "Version": "2012-10-17", "Statement": statement }).to_string())
    }

    #[test]
    fn stars_reach_over_anything_and_question_marks_over_one() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("a*b*c", "axxbyybc"), ("a?c", "abc"), ("x/*/*", "x/y/z/1")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a?c", "ac"), ("a*c", "abd"), ("", "a"), ("targetgroup/a/*", "targetgroup/ab/1")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn what_no_statement_allows_is_refused_and_a_deny_wins() {
        let policy = document(serde_json::json!([
            { "Effect": "Allow", "Action": ["ec2:Run*", "iam:PassRole"], "Resource": "arn:a/*" },
            { "Effect": "Deny", "Action": "ec2:*", "Resource": "arn:a/secret" },
        ]));
        let none = Context::new();
        assert!(policy.allows("ec2:RunInstances", "arn:a/1", &none));
        assert!(policy.allows("ec2:runinstances", "arn:a/1", &none));
        assert!(!policy.allows("ec2:RunInstances", "arn:b/1", &none));
        assert!(!policy.allows("ec2:RunInstances", "arn:a/secret", &none));
        assert!(!policy.allows("ec2:CreateTags", "arn:a/1", &none));
    }

    #[test]
    fn conditions_hold_as_in_aws() {
        let holds = |operator: &str, values: Value, context: &Context| {
            let condition = serde_json::json!({ operator: { "aws:RequestTag/fleet": values } });
            document(serde_json::json!({ "Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition }))
                .allows("a:B", "*", context)
        };
        let blue = context(&[("aws:requesttag/fleet", &["blue"])]);
        let two = context(&[("aws:RequestTag/fleet", &["blue", "red"])]);
        let none = Context::new();
        assert!(holds("StringEquals", "blue".into(), &blue));
        assert!(!holds("StringEquals", "red".into(), &blue));
        assert!(!holds("StringEquals", "blue".into(), &none));
        assert!(holds("StringEqualsIfExists", "blue".into(), &none));
        assert!(holds("StringNotEquals", "blue".into(), &none));
        assert!(!holds("StringNotEquals", "blue".into(), &blue));
        assert!(holds("StringLike", "bl*".into(), &blue));
        assert!(holds("ForAllValues:StringEquals", serde_json::json!(["blue", "red"]), &two));
        assert!(!holds("ForAllValues:StringEquals", "blue".into(), &two));
        assert!(holds("ForAllValues:StringEquals", "blue".into(), &none));
        assert!(holds("ForAnyValue:StringEquals", "red".into(), &two));
        assert!(!holds("ForAnyValue:StringEquals", "red".into(), &none));
        assert!(holds("Null", "true".into(), &none));
        assert!(!holds("Null", "true".into(), &blue));
    }
}
