//! `bootstrap list`.

use serde_json::json;
use tests::account::{Account, Agents, AwsError, Fault, Options, SMALL, Small, Trouble};

#[tokio::test]
async fn list_shows_the_fleets_of_all_regions_and_names_one_that_does_not_answer() {
    let account = Account::start(Options::prompt()).await;
    let everywhere = ["list", "--all-regions"];
    let ran = account.ok(&everywhere).await;
    assert!(ran.stdout.starts_with("no fleets in ") && ran.stdout.ends_with(" regions\n"), "{}", ran.stdout);
    let file = account.file("small.toml", SMALL);
    account.ok(&["launch", &file, "--in-image", "--yes"]).await;
    // Also where no region is known.
    let ran = account.bootstrap(&everywhere).without("AWS_REGION").run().await.success();
    let mut rows = ran.stdout.lines();
    assert!(rows.next().is_some_and(|row| row.starts_with("REGION ")), "{}", ran.stdout);
    assert!(rows.next().is_some_and(|row| row.starts_with("us-east-1  small ")), "{}", ran.stdout);
    assert_eq!(rows.next(), None, "{}", ran.stdout);
    let json = account.ok(&["list", "--all-regions", "--output", "json"]).await.json();
    let regions = json["regions"].as_array().unwrap();
    assert!(regions.len() > 5, "{json}");
    let fleets = |region: &str| regions.iter().find(|it| it["region"] == region).unwrap()["fleets"].clone();
    assert_eq!((&fleets("us-east-1")[0]["fleet"], &fleets("eu-west-1")), (&json!("small"), &json!([])));

    let denied = Trouble::Fail(AwsError::client("UnauthorizedOperation", "You are not authorized"));
    account.fault(Fault::nth("ec2:DescribeSecurityGroups", 1, denied));
    let ran = account.run(&everywhere).await.exits(1);
    assert!(ran.stdout.contains("small"), "{}", ran.stdout);
    assert!(ran.stderr.contains(": cannot "), "{}", ran.stderr);
    account.run(&["list", "--all-regions", "--region", "us-east-1"]).await.exits(2);
}

#[tokio::test]
async fn list_shows_which_fleets_are_unfinished_or_unhealthy_and_how_old_they_are() {
    let small = Small::with(Options { agents: Agents::Never, ..Options::prompt() }).await;
    small.account.run(&["launch", &small.file, "--in-image", "--timeout", "2s"]).await.exits(3);
    let ran = small.account.ok(&["list"]).await;
    let row: Vec<&str> = ran
        .stdout
        .lines()
        .nth(1)
        .unwrap()
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect();
    assert_eq!(row[..3], ["small", "unfinished", "0 of 4"], "{}", ran.stdout);
    assert!(row[3].ends_with(" s") || row[3].ends_with(" min"), "{}", ran.stdout);
    ran.says("finishes it, `bootstrap destroy small --region us-east-1` deletes the fleet");
    small.destroy().await.success();

    small.account.set(|options| options.agents = Agents::Healthy);
    small.launch().await.success();
    let told = small.account.ok(&["list"]).await.stdout;
    assert!(told.contains("healthy") && told.contains("4 of 4") && told.lines().count() == 2, "{told}");
    let id = small.healthy("red").await.pop_first().expect("one");
    small.foreign("ec2", "StopInstances", &[("InstanceId.1", &id)]).await;
    let json = small.account.ok(&["list", "--output", "json"]).await.json();
    let fleet = &json["fleets"][0];
    assert_eq!(
        (&fleet["state"], &fleet["healthy"], &fleet["wanted"]),
        (&json!("unhealthy"), &json!(3), &json!(4))
    );
    small.account.ok(&["list"]).await.says("`bootstrap status small --region us-east-1` shows why");
}
