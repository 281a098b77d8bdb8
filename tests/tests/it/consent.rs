//! Other people's money: what costs more than before is shown and asked for, and what somebody has protected stays.

use tests::account::{
    Account, Agents, AwsError, Fault, Options, Ran, Small, Trouble, protect_balancer, protect_instance,
};
use tests::terminal;

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
    ran.says("and add 21 instances").says("19 × t3.micro");
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
        ran.says("nothing was changed: load balancer small has deletion protection")
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
    assert!(!ran.stderr.contains("again to finish"), "that would not: {}", ran.stderr);
    ran.says(&format!("{id} has termination protection, so nothing was deleted"))
        .says("`bootstrap destroy small --region us-east-1 --force`");
    small.account.ok(&["destroy", "small", "--yes", "--force"]).await;
    small.account.ok(&["list"]).await.says("no fleets in us-east-1");
}

#[tokio::test]
async fn a_stopped_instance_is_told_first_and_none_is_launched_in_its_place() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let id = small.healthy("red").await.pop_first().expect("one");
    small.foreign("ec2", "StopInstances", &[("InstanceId.1", &id)]).await;
    for command in [&small.launching()[..], &["plan", &small.file], &["scale", "small", "blue=3", "--yes"]] {
        let ran = refused(&small.account, command, 1).await;
        ran.says(&format!(
            "nothing was changed: {id} is stopped: start it (`aws ec2 start-instances --region us-east-1 --instance-ids {id}`)"
        ));
    }
    small.foreign("ec2", "TerminateInstances", &[("InstanceId.1", &id)]).await;
    small.launch().await.success();
    assert!(!small.healthy("red").await.contains(&id));
}

#[tokio::test]
async fn a_launch_that_ends_early_says_why_once_what_is_billed_and_the_two_commands_that_lead_on() {
    let small = Small::with(Options { agents: Agents::Never, ..Options::prompt() }).await;
    let launch = ["launch", small.file.as_str(), "--deb", &small.package, "--timeout", "3s"];
    let ran = small.account.run(&launch).await.exits(3);
    assert_eq!(ran.stderr.matches("not healthy within 3s").count(), 1, "{}", ran.stderr);
    let told = format!(
        "created resources remain, up to 4 instances run and are billed: `bootstrap {} --region us-east-1` continues, `bootstrap destroy small --region us-east-1` deletes them\n",
        launch.join(" ")
    );
    assert!(ran.stderr.ends_with(&told), "{}", ran.stderr);

    // A step that fails, and one that is refused before anything runs.
    let small = Small::with(Options::prompt()).await;
    let denied = AwsError::denied("elasticloadbalancing", "CreateLoadBalancer", "*");
    small.account.fault(Fault::every("elasticloadbalancing:CreateLoadBalancer", Trouble::Fail(denied)));
    let ran = small.launch().await.exits(1);
    assert_eq!(ran.stderr.matches("cannot create the load balancer").count(), 1, "{}", ran.stderr);
    ran.says("`bootstrap destroy small --region us-east-1` deletes them");
}

#[tokio::test]
async fn on_a_terminal_a_question_is_asked_and_only_yes_changes_anything() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    for (command, question) in [
        (&["scale", "small", "red=12"][..], "Change fleet small and add 10 instances? [y/N]"),
        (&["destroy", "small"], "Destroy fleet small in us-east-1? [y/N]"),
    ] {
        let before = small.account.snapshot().await;
        for (typed, told) in [
            ("n\n", "bootstrap: not confirmed; nothing was changed"),
            ("\n", "bootstrap: not confirmed; nothing was changed"),
        ] {
            let (person, program) = terminal();
            rustix::io::write(&person, typed.as_bytes()).unwrap();
            let ran = small.account.bootstrap(command).stdin(program).run().await.exits(1);
            ran.says(question).says(told);
            assert_eq!(small.account.snapshot().await, before, "{command:?} {typed:?}");
        }
        let (person, program) = terminal();
        rustix::io::write(&person, b"y\n").unwrap();
        small.account.bootstrap(command).stdin(program).run().await.success().says(question);
        assert_ne!(small.account.snapshot().await, before);
    }
    small.account.ok(&["list"]).await.says("no fleets in us-east-1");
}
