//! A small fleet of two groups in an account of its own, and what tests ask about it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Account, Options, Ran, differences, without_ids};

/// The fleet's file.
pub const SMALL: &str = r#"
name = "small"
region = "us-east-1"
image = "ami-08c40ec9ead489470"
zones = ["us-east-1a", "us-east-1b"]

[[group]]
name = "blue"
type = "t2.large"
count = 2

[[group]]
name = "red"
type = "t3.micro"
count = 2
"#;

/// The same with one instance.
pub const SMALLEST: &str = r#"
name = "small"
region = "us-east-1"
image = "ami-08c40ec9ead489470"
zones = ["us-east-1a", "us-east-1b"]

[[group]]
name = "blue"
type = "t3.micro"
count = 1
"#;

/// An account, and the file of the fleet.
pub struct Small {
    /// Where it is launched.
    pub account: Account,
    /// The fleet's file.
    pub file: String,
    /// A package of the agent.
    pub package: String,
}

impl Small {
    /// In an account with these options.
    pub async fn with(options: Options) -> Self {
        let account = Account::start(options).await;
        let (file, package) = (account.file("small.toml", SMALL), account.package());
        Self { account, file, package }
    }

    /// Writes another file of the same fleet, in which these texts are others.
    pub fn changed(&self, changes: &[(&str, &str)]) -> String {
        let text = changes.iter().fold(SMALL.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        self.account.file("changed.toml", text)
    }

    /// The arguments that launch it.
    pub fn launching(&self) -> [&str; 5] {
        self.launching_file(&self.file)
    }

    /// The arguments that launch it from another file.
    pub fn launching_file<'a>(&'a self, file: &'a str) -> [&'a str; 5] {
        ["launch", file, "--deb", &self.package, "--yes"]
    }

    /// Launches it.
    pub async fn launch(&self) -> Ran {
        self.account.run(&self.launching()).await
    }

    /// Destroys it.
    pub async fn destroy(&self) -> Ran {
        self.account.run(&["destroy", "small", "--yes"]).await
    }

    /// What a launch makes in an account where nothing is in the way. The account is new afterwards.
    pub async fn usual(&self) -> Value {
        self.usual_of(&self.file).await
    }

    /// As [`Small::usual`], with another file.
    pub async fn usual_of(&self, file: &str) -> Value {
        self.account.run(&self.launching_file(file)).await.success();
        let usual = without_ids(&self.account.snapshot().await);
        self.account.reset(Options::prompt()).await;
        usual
    }

    /// Asserts that the account is like this, but for ids.
    pub async fn is(&self, wanted: &Value) {
        let found = without_ids(&self.account.snapshot().await);
        assert_eq!(differences(wanted, &found), Vec::<String>::new());
    }

    /// How many instances that are not terminated are in each zone.
    pub async fn zones(&self) -> BTreeMap<String, usize> {
        let snapshot = self.account.snapshot().await;
        let mut zones = BTreeMap::new();
        for instance in snapshot["instances"].as_array().expect("a list") {
            let zone = instance["placement"]["availabilityZone"].as_str().expect("a zone").to_owned();
            *zones.entry(zone).or_default() += 1;
        }
        zones
    }

    /// The ARN of a group's target group, if there is one.
    pub async fn target_group(&self, group: &str) -> Option<String> {
        let asked = [("Names.member.1", format!("small-{group}"))];
        let asked = [(asked[0].0, asked[0].1.as_str())];
        let found = self.account.ask("elasticloadbalancing", "DescribeTargetGroups", &asked).await;
        if !found.ok() {
            return None;
        }
        Some(found.xml().find("TargetGroupArn")?.text.clone())
    }

    /// The instances of a group that the balancer sends requests to.
    pub async fn healthy(&self, group: &str) -> BTreeSet<String> {
        let Some(arn) = self.target_group(group).await else {
            return BTreeSet::new();
        };
        let asked = [("TargetGroupArn", arn.as_str())];
        let found = self.account.ask_front("elasticloadbalancing", "DescribeTargetHealth", &asked).await;
        let found = found.expect("an answer").xml();
        let found = found.list("DescribeTargetHealthResult/TargetHealthDescriptions").iter();
        let healthy = found.filter(|item| item.say("TargetHealth/State") == "healthy");
        healthy.map(|item| item.say("Target/Id").to_owned()).collect()
    }

    /// Makes something as someone else would, who knows nothing of fleets.
    pub async fn foreign(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> super::Element {
        let made = self.account.ask_front(service, action, parameters).await.expect("an answer");
        assert!(made.ok(), "{action}: {}", String::from_utf8_lossy(&made.body));
        made.xml()
    }
}
