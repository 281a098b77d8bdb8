//! The policies that `bootstrap policy` prints are enough, and no more: as moto enforces them, which
//! looks at actions alone, and as AWS would decide about every call and what depends on it.

use serde_json::{Value, json};
use tests::account::{Account, Agents, Context, Document, Need, Options, protect_balancer, protect_instance};

/// A policy that `bootstrap` prints.
async fn printed(account: &Account, arguments: &[&str]) -> Value {
    account.ok(&[&["policy"], arguments].concat()).await.json()
}

fn document(policy: &Value) -> Document {
    Document::parse(&policy.to_string())
}

fn statements(policy: &Value) -> &Vec<Value> {
    policy["Statement"].as_array().expect("statements")
}

fn texts(value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    value.as_array().map_or_else(|| vec![text(value)], |all| all.iter().map(text).collect())
}

/// Everything that an operator does with a fleet.
async fn operate(account: &Account, environment: &[(&str, &str)]) {
    let package = account.package();
    let run = async |arguments: &[&str]| {
        let command = environment
            .iter()
            .fold(account.bootstrap(arguments), |command, (name, value)| command.env(name, value));
        command.run().await.success();
    };
    run(&["plan", "clusters", "--deb", &package]).await;
    run(&["launch", "clusters", "--deb", &package, "--yes"]).await;
    run(&["launch", "clusters", "--deb", &package, "--yes"]).await;
    run(&["status", "clusters"]).await;
    run(&["list"]).await;
    run(&["scale", "clusters", "cluster1=6", "cluster2=3", "--yes"]).await;

    assert!(account.ask("ec2", "CreateKeyPair", &[("KeyName", "ops")]).await.ok());
    let changed = account.file("changed.toml", CHANGED);
    run(&["launch", &changed, "--deb", &package, "--yes"]).await;
    // What the console of an instance says is read when it does not become healthy.
    account.set(|options| options.agents = Agents::Never);
    let more = ["scale", "clusters", "cluster1=3", "--timeout", "5s", "--yes"];
    let command = environment.iter().fold(account.bootstrap(&more), |command, (n, v)| command.env(n, v));
    command.run().await.exits(3);
    account.set(|options| options.agents = Agents::Healthy);
    protect_instance(account).await;
    protect_balancer(account).await;
    run(&["destroy", "clusters", "--force", "--yes"]).await;
}

/// `clusters`, changed in everything that can be changed while it is there.
const CHANGED: &str = r#"
name = "clusters"
region = "us-east-1"
image = "ubuntu-22.04"
zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
deregistration-delay = "30s"
key-pair = "ops"

[health-check]
interval = "10s"

[security]
allow = ["203.0.113.0/24"]

[tags]
Project = "x"

[[group]]
name = "cluster1"
type = "t3.micro"
count = 2
weight = 3

[[group]]
name = "cluster3"
type = "t3.micro"
"#;

#[tokio::test]
async fn moto_lets_the_operator_do_everything_with_the_actions_of_the_policy() {
    let account = Account::start(Options::strict()).await;
    let mut policy = printed(&account, &["operator", "clusters"]).await;
    // moto matches no Resource but this one, and reads no Condition.
    for statement in policy["Statement"].as_array_mut().expect("statements") {
        statement["Resource"] = json!("*");
        statement.as_object_mut().expect("an object").remove("Condition");
    }
    let (key, secret) = account.user("operator", &policy.to_string()).await;
    let keys = [("AWS_ACCESS_KEY_ID", key.as_str()), ("AWS_SECRET_ACCESS_KEY", secret.as_str())];
    operate(&account, &keys).await;
}

/// What an operator's work needed, all of it granted by the printed policy, in an account that never
/// had a balancer.
async fn needs_of_the_operator(account: &Account) -> (Value, Vec<Need>) {
    let policy = printed(account, &["operator", "clusters", "--account", "123456789012"]).await;
    account.set(|options| {
        options.policy = Some(document(&policy));
        options.had_balancers = false;
    });
    operate(account, &[]).await;
    (policy, account.needs().await)
}

#[tokio::test]
async fn the_operators_policy_is_enough_and_each_action_in_it_is_needed() {
    let account = Account::start(Options::strict()).await;
    let (policy, needs) = needs_of_the_operator(&account).await;
    let whole = document(&policy);
    assert!(needs.len() > 50 && needs.iter().all(|need| need.is_met_by(&whole)));

    let mut idle = Vec::new();
    for (number, statement) in statements(&policy).iter().enumerate() {
        for action in texts(&statement["Action"]) {
            let mut less = policy.clone();
            let left: Vec<String> =
                texts(&statement["Action"]).into_iter().filter(|other| *other != action).collect();
            match left.as_slice() {
                [] => drop(less["Statement"].as_array_mut().expect("statements").remove(number)),
                _ => less["Statement"][number]["Action"] = json!(left),
            }
            let less = document(&less);
            if needs.iter().all(|need| need.is_met_by(&less)) {
                idle.push(format!("{}: {action}", statement["Sid"]));
            }
        }
    }
    idle.retain(|action| !RARELY.iter().any(|(rare, _)| action.ends_with(rare)));
    assert_eq!(idle, Vec::<String>::new(), "these actions are never needed");
}

/// Actions that this work does not come to, and when they are needed.
const RARELY: [(&str, &str); 2] = [
    ("s3:ListBucketMultipartUploads", "a bucket is not empty although nothing is listed in it"),
    ("s3:AbortMultipartUpload", "that is because of an upload that somebody began by hand"),
];

/// What the file of a small fleet says beside its groups, and what has to be there before.
const KINDS: [&str; 5] = [
    "instance-profile = \"mine\"\n\n[package]\nin-image = true\n",
    "key-pair = \"ops\"\n\n[security]\nallow = [\"203.0.113.0/24\"]\n\n[tags]\nProject = \"x\"\n",
    "[package]\nurl = \"http://127.0.0.1:9/agent.deb\"\nsha256 = \"SUM\"\n",
    "[package]\napt = \"deb http://127.0.0.1:9/debian stable main\"\nkey = \"repository.asc\"\n",
    "port = 8080\ninstance-profile = \"mine\"\n",
];

#[tokio::test]
async fn each_kind_of_fleet_is_launched_changed_and_destroyed_with_the_policy_printed_for_its_file() {
    let account = Account::start(Options::strict()).await;
    let deb = account.package();
    account.file(
        "repository.asc",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nbQ==\n-----END PGP PUBLIC KEY BLOCK-----\n",
    );
    for kind in KINDS {
        account.reset(Options::strict()).await;
        assert!(account.ask("ec2", "CreateKeyPair", &[("KeyName", "ops")]).await.ok());
        let trust = json!({ "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": { "Service": "ec2.amazonaws.com" }, "Action": "sts:AssumeRole",
        }] });
        let trust = trust.to_string();
        for (action, parameters) in [
            ("CreateRole", &[("RoleName", "mine"), ("AssumeRolePolicyDocument", trust.as_str())][..]),
            ("CreateInstanceProfile", &[("InstanceProfileName", "mine")]),
            ("AddRoleToInstanceProfile", &[("InstanceProfileName", "mine"), ("RoleName", "mine")]),
        ] {
            assert!(account.ask("iam", action, parameters).await.ok(), "{action}");
        }
        let group = |count: &str| {
            let kind = kind.replace("SUM", &"0".repeat(64));
            let groups = format!(
                "[[group]]\nname = \"numbers\"\ntype = \"t3.micro\"\ncount = {count}\npaths = false\n"
            );
            let head = "name = \"kind\"\nregion = \"us-east-1\"\nimage = \"ubuntu-22.04\"\nzones = [\"us-east-1a\", \"us-east-1b\"]\n";
            account.file("kind.toml", format!("{head}{kind}\n{groups}"))
        };
        let file = group("2");
        let policy = printed(&account, &["operator", &file, "--account", "123456789012"]).await;
        // What an administrator gives the agents of a fleet that makes no role of its own.
        let agents = printed(&account, &["agent", &file]).await.to_string();
        let given = [("RoleName", "mine"), ("PolicyName", "agent"), ("PolicyDocument", agents.as_str())];
        assert!(account.ask("iam", "PutRolePolicy", &given).await.ok());
        account.set(|options| options.policy = Some(document(&policy)));
        let launch = if kind.contains("[package]") {
            vec!["launch", &file, "--timeout", "20s"]
        } else {
            vec!["launch", &file, "--timeout", "20s", "--deb", &deb]
        };
        account.ok(&launch).await;
        account.ok(&launch).await;
        account.ok(&["status", "kind"]).await;
        account.ok(&["scale", "kind", "numbers=3", "--yes"]).await;
        group("1");
        account.ok(&[&launch[..], &["--yes"]].concat()).await;
        account.ok(&["destroy", "kind", "--yes"]).await;
        let whole = document(&policy);
        let unmet: Vec<Need> =
            account.needs().await.into_iter().filter(|need| !need.is_met_by(&whole)).collect();
        assert!(unmet.is_empty(), "{kind}: {unmet:?}");
    }
}

#[tokio::test]
async fn the_operators_policy_of_one_fleet_is_of_no_use_for_another() {
    let account = Account::start(Options::strict()).await;
    let (_, needs) = needs_of_the_operator(&account).await;
    let other =
        printed(&account, &["operator", "clusters", "--name", "other", "--account", "123456789012"]).await;
    let other = document(&other);
    // Looking is allowed to everyone; what creates, changes or deletes is not.
    let writes = |need: &&Need| {
        let action = need.permission.rsplit(':').next().unwrap_or_default();
        !["Describe", "Get", "List"].into_iter().any(|verb| action.starts_with(verb))
    };
    let shared = ["subnet/", "image/", "key-pair/", "vpc/", "aws-service-role/"];
    let allowed: Vec<&Need> = needs
        .iter()
        .filter(writes)
        .filter(|need| !shared.into_iter().any(|kind| need.resource.contains(kind)))
        .filter(|need| need.is_met_by(&other))
        .collect();
    assert_eq!(allowed, Vec::<&Need>::new());

    // And so such a policy launches nothing.
    account.reset(Options { policy: Some(other), ..Options::strict() }).await;
    let refused = account.run(&["launch", "clusters", "--in-image", "--yes"]).await.exits(1);
    refused.says("not authorized to perform");
}

#[tokio::test]
async fn the_agents_policy_lets_an_agent_into_its_own_target_groups_and_no_other() {
    let account = Account::start(Options::strict()).await;
    let policy = printed(&account, &["agent", "clusters", "--account", "123456789012"]).await;
    let whole = document(&policy);
    let group = |name: &str| {
        format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{name}/0123456789abcdef")
    };
    let none = Context::new();
    for action in ["RegisterTargets", "DeregisterTargets"] {
        let action = format!("elasticloadbalancing:{action}");
        for ours in ["clusters-cluster1", "clusters-cluster2"] {
            assert!(whole.allows(&action, &group(ours), &none));
        }
        for theirs in ["other-cluster1", "clusters-cluster3", "clusters-cluster1-x"] {
            assert!(!whole.allows(&action, &group(theirs), &none), "{theirs}");
        }
    }
    let mut asked = Vec::new();
    for statement in statements(&policy) {
        assert_eq!(statement["Effect"], "Allow");
        asked.extend(texts(&statement["Action"]));
    }
    asked.sort();
    let wanted = [
        "ec2:DescribeTags",
        "elasticloadbalancing:DeregisterTargets",
        "elasticloadbalancing:DescribeTargetGroupAttributes",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:RegisterTargets",
    ];
    assert_eq!(asked, wanted, "what the agent calls, and nothing else");
}
