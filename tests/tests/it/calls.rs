//! How many calls a launch makes, and how many of them one after another: with two seconds
//! added to each, what comes after what is what has to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tests::account::{Account, Call, Options, chain};

/// The account at its best, and each call so far away that what a busy machine adds is little beside it.
fn distant() -> Options {
    Options { latency: Duration::from_secs(2), ..Options::prompt() }
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

/// A row of the table in docs/aws.md: calls by name, and what they are for.
struct Row {
    calls: BTreeMap<String, usize>,
    purpose: String,
}

/// The table of the calls of a launch that hands the package over. Each row's sum has to be what it says.
fn documented() -> Vec<Row> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/aws.md");
    let docs = std::fs::read_to_string(docs).expect("the documentation");
    let lines = docs.lines().skip_while(|line| !line.starts_with("| a new `launch clusters`"));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, names, count, _, purpose] = cells[..] else {
            panic!("five columns: {line}");
        };
        let mut calls = BTreeMap::new();
        for name in names.split(", ") {
            let (times, name) = name.split_once(" × ").unwrap_or(("1", name));
            let times: usize = times.parse().expect("a number");
            *calls.entry(name.trim_matches('`').to_owned()).or_default() += times;
        }
        assert_eq!(calls.values().sum::<usize>().to_string(), count, "{line}");
        Row { calls, purpose: purpose.to_owned() }
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn launching_clusters_makes_the_calls_that_are_justified_and_ten_of_them_in_a_row_at_the_most() {
    let account = Account::start(distant()).await;
    let package = account.package();
    let planned = account.ok(&["plan", "clusters", "--deb", &package, "--output", "json"]).await.json();
    account.clear();
    account.ok(&["launch", "clusters", "--deb", &package, "--yes"]).await;
    let calls = account.calls();
    let failed: Vec<&Call> = calls.iter().filter(|call| call.status >= 400 && !call.is_read()).collect();
    assert!(failed.is_empty(), "{failed:?}");

    // What changes something is what `plan` has said, by IAM's names.
    let changes: Vec<Call> = calls.iter().filter(|call| !call.is_read()).cloned().collect();
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
    for name in planned["steps"].as_array().unwrap().iter().flat_map(|step| step["calls"].as_array().unwrap())
    {
        let name = name.as_str().unwrap().replace("PutBucketPublicAccessBlock", "PutPublicAccessBlock");
        if !name.contains(":Describe") {
            *said.entry(name).or_default() += 1;
        }
    }
    assert_eq!(counted(&changes), said, "what was called, and what `plan` says");

    let row = chain(&calls);
    assert!(row.len() <= 10, "{} in a row: {row:?}", row.len());

    let rows = documented();
    let mut justified: BTreeMap<String, usize> = BTreeMap::new();
    for (name, count) in rows.iter().flat_map(|row| &row.calls) {
        *justified.entry(name.clone()).or_default() += count;
    }
    assert_eq!(counted(&calls), justified, "what was called, and what docs/aws.md says");

    let purposes = ["script", "preflight", "role", "package", "safety", "report"];
    assert!(rows.iter().all(|row| purposes.contains(&row.purpose.as_str())));
    let script = rows.iter().filter(|row| row.purpose == "script");
    let script: usize = script.flat_map(|row| row.calls.values()).sum();
    assert!(script <= SCRIPT, "{script} calls that a script would need");
}

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
