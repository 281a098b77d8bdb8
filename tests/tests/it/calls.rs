//! How many calls a launch makes, and how many of them one after another: with a tenth of a second
//! added to each, what comes after what is what has to.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::account::{Account, Call, Options, chain};

/// The account at its best, and each call a tenth of a second away.
fn distant() -> Options {
    Options { latency: Duration::from_millis(100), ..Options::prompt() }
}

fn counted(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        *counts.entry(call.name()).or_default() += 1;
    }
    counts
}

/// What a plain script does for the same fleet, where security groups, instances, groups and the rest are
/// made by hand: the least.
const SCRIPT: usize = 18;

#[tokio::test]
async fn launching_clusters_takes_few_calls_and_ten_of_them_in_a_row_at_the_most() {
    let account = Account::start(distant()).await;
    let package = account.package();
    account.ok(&["launch", "clusters", "--deb", &package, "--yes"]).await;
    let calls = account.calls();
    let counts = counted(&calls);
    let failed: Vec<&Call> = calls.iter().filter(|call| call.status >= 400 && !call.is_read()).collect();
    assert!(failed.is_empty(), "{failed:?}");

    let row = chain(&calls);
    assert!(row.len() <= 10, "{} in a row: {row:?}", row.len());

    // Preflight looks before anything is made; role, profile and bucket are what a script would
    // have had from elsewhere. docs/aws.md says what each call is for.
    let extra = |name: &&String| {
        ["iam:", "s3:", "ssm:", "sts:", "servicequotas:"].into_iter().any(|service| name.starts_with(service))
            || PREFLIGHT.contains(&name.as_str())
    };
    let script: usize = counts.iter().filter(|(name, _)| !extra(name)).map(|(_, count)| count).sum();
    assert!(script <= SCRIPT, "{script} calls, not counting preflight and IAM: {counts:#?}");
    for (name, count) in counts.iter().filter(|(name, _)| extra(name)) {
        // What is there already, what was launched, and the addresses of the report.
        let most = if name == "ec2:DescribeInstances" { 3 } else { 2 };
        assert!(*count <= most, "{name} {count} times: {counts:#?}");
    }
}

/// The looks that find what would fail before anything is created, and what is there already.
const PREFLIGHT: [&str; 8] = [
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeSecurityGroups",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeLoadBalancers",
];

#[tokio::test]
async fn launching_again_takes_eight_looks_and_changes_nothing() {
    let account = Account::start(Options::prompt()).await;
    let package = account.package();
    for arguments in [
        vec!["launch", "clusters", "--deb", &package, "--yes"],
        vec!["launch", "seed", "--in-image", "--yes"],
    ] {
        account.ok(&arguments).await;
        let before = account.snapshot().await;
        account.clear();
        account.ok(&arguments).await;
        let calls = account.calls();
        assert!(calls.len() <= 8, "{} calls: {:?}", calls.len(), counted(&calls));
        assert!(calls.iter().all(Call::is_read), "{:?}", counted(&calls));
        assert_eq!(account.snapshot().await, before);
    }
}
