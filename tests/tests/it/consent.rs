//! Other people's money: what costs more than before is shown and asked for, and what somebody has protected stays.

use tests::account::{Account, Options, Ran, Small, protect_balancer, protect_instance};

/// Runs a command that is refused without any change.
async fn refused(account: &Account, arguments: &[&str], status: i32) -> Ran {
    let before = account.snapshot().await;
    account.clear();
    let ran = account.run(arguments).await.exits(status);
    let changes: Vec<_> = account.calls().into_iter().filter(|call| !call.is_read()).collect();
    assert!(changes.iter().all(|call| call.status >= 400), "{changes:?}");
    assert_eq!(account.snapshot().await, before);
    ran
}

#[tokio::test]
async fn more_instances_of_a_fleet_that_is_there_are_shown_with_their_price_and_asked_for() {
    let small = Small::with(Options::prompt()).await;
    let launched = small.account.ok(&["launch", &small.file, "--deb", &small.package]).await;
    launched.says("$0.2064 an hour at the On-Demand prices of us-east-1 on 2026-02-09");

    let ran = refused(&small.account, &["scale", "small", "red=12"], 2).await;
    ran.says("10 × t3.micro")
        .says("vCPU")
        .says("$0.1040 an hour")
        .says("There is no terminal to ask on: give --yes; nothing was changed");
    small.account.ok(&["scale", "small", "red=3", "--yes"]).await;

    // In a file too, and by --count.
    let more = small.changed(&[("count = 2", "count = 3")]);
    refused(&small.account, &["launch", &more], 2).await;
    refused(&small.account, &["launch", &small.file, "--count", "blue=9"], 2).await;
}

#[tokio::test]
async fn a_new_fleet_of_up_to_twenty_instances_is_launched_as_typed_and_a_larger_one_is_asked_for() {
    let small = Small::with(Options { vcpu_quota: 500, ..Options::prompt() }).await;
    let launch = ["launch", small.file.as_str(), "--in-image", "--count"];
    let ran = refused(&small.account, &[&launch[..], &["red=19"]].concat(), 2).await;
    ran.says("with 21 instances more than before").says("19 × t3.micro");
    small.account.ok(&[&launch[..], &["red=18"]].concat()).await;
}

#[tokio::test]
async fn what_was_agreed_to_before_is_finished_and_repaired_without_a_question() {
    let small = Small::with(Options::prompt()).await;
    let launch = ["launch", small.file.as_str(), "--in-image"];
    // Interrupted before any instance was there.
    small.account.set(|options| {
        options.capacity = ["us-east-1a", "us-east-1b"].map(|zone| (zone.to_owned(), 0)).into();
    });
    small.account.run(&launch).await.exits(1);
    small.account.set(|options| options.capacity.clear());
    small.account.ok(&launch).await;
    // Instances that died.
    let died: Vec<String> = small.healthy("red").await.into_iter().collect();
    for id in &died {
        small.foreign("ec2", "TerminateInstances", &[("InstanceId.1", id)]).await;
    }
    small.account.ok(&launch).await;
    assert!(small.healthy("red").await.iter().all(|id| !died.contains(id)));
}

#[tokio::test]
async fn a_protected_load_balancer_stays_with_all_that_is_behind_it_until_force_is_given() {
    let small = Small::with(Options::strict()).await;
    small.launch().await.success();
    protect_balancer(&small.account).await;
    for command in [&["destroy", "small", "--yes"][..], &["plan", "small", "--destroy"]] {
        let ran = refused(&small.account, command, 1).await;
        ran.says("nothing was changed: load balancer small is protected from deletion")
            .says("`bootstrap destroy small --region us-east-1 --force`");
    }
    small.account.ok(&["destroy", "small", "--yes", "--force"]).await;
    small.account.ok(&["list"]).await.says("no fleets in us-east-1");
}

#[tokio::test]
async fn a_protected_instance_stays_with_all_of_its_fleet_until_force_is_given() {
    let small = Small::with(Options::strict()).await;
    small.launch().await.success();
    let id = protect_instance(&small.account).await;
    let ran = refused(&small.account, &["destroy", "small", "--yes"], 1).await;
    ran.says(&format!("{id} is protected from termination, so nothing else was touched"))
        .says("`bootstrap destroy small --region us-east-1 --force`");
    small.account.ok(&["destroy", "small", "--yes", "--force"]).await;
    small.account.ok(&["list"]).await.says("no fleets in us-east-1");
}
