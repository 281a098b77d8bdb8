//! Two commands on one fleet at the same time: each ends, and none undoes unseen what the other does.

use std::time::Duration;

use serde_json::json;
use tests::account::{Agents, Fault, Options, Small, Trouble, differences, without_ids};
use tests::sweep::{Extent, together::late_calls};

#[tokio::test]
async fn one_destroy_ends_what_a_launch_makes_after_it_was_looked_for() {
    late_calls(Extent::Short).await;
}

#[tokio::test]
async fn a_launch_that_another_one_overtakes_stops_and_takes_nothing_away() {
    let small = Small::with(Options::prompt()).await;
    let other_type = small.changed(&[("t2.large", "m5.large")]);
    let wanted = small.usual_of(&other_type).await;
    small.account.set(|options| options.agents = Agents::Never);
    let first = small.account.bootstrap(&small.launching()).start();
    let waits = async |times: usize| {
        let looks = async || {
            let calls = small.account.names();
            (calls.iter().filter(|name| name.ends_with(":DescribeTargetHealth")).count() >= times)
                .then_some(())
        };
        assert!(tests::eventually(looks).await.is_some(), "{:?}", small.account.names());
    };
    waits(2).await;
    small.account.clear();
    small.account.fault(Fault::every("ec2:TerminateInstances", Trouble::Wait));
    let second = small.account.bootstrap(&small.launching_file(&other_type)).start();
    let stored = async || small.account.names().contains(&"ec2:CreateTags".to_owned()).then_some(());
    assert!(tests::eventually(stored).await.is_some(), "{:?}", small.account.names());
    small.account.set(|options| options.agents = Agents::Healthy);

    let first = first.end().await.exits(1);
    let told = "bootstrap: another command changed the definition of fleet small meanwhile, so this one stops; \
                to apply this one all the same, run it again when the other has ended";
    assert_eq!(first.stderr.lines().last(), Some(told), "{}", first.stderr);
    small.account.held().await;
    small.account.release();
    second.end().await.success();
    small.is(&wanted).await;
}

#[tokio::test]
async fn of_two_first_launches_at_once_the_one_whose_definition_is_not_stored_stops() {
    let small = Small::with(Options::prompt()).await;
    let other_type = small.changed(&[("t2.large", "m5.large")]);
    let wanted = small.usual().await;
    for nth in [1, 2] {
        small.account.fault(Fault::nth("ec2:CreateSecurityGroup", nth, Trouble::Wait));
    }
    let late = small.account.bootstrap(&small.launching_file(&other_type)).start();
    small.account.holds(2).await;
    small.launch().await.success();
    small.account.release();
    late.end().await.exits(1).says("another command changed the definition of fleet small meanwhile");
    small.is(&wanted).await;
}

#[tokio::test]
async fn a_launch_whose_fleet_is_destroyed_meanwhile_says_so() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let changed = small.changed(&[("count = 2", "count = 1")]);
    small.account.clear();
    small.account.fault(Fault::nth("ec2:DescribeSecurityGroups", 2, Trouble::Wait));
    let changing = small.account.bootstrap(&small.launching_file(&changed)).start();
    small.account.held().await;
    small.destroy().await.success();
    small.account.release();
    changing.end().await.exits(1).says("fleet small was destroyed meanwhile, so this launch stops");
}

#[tokio::test]
async fn a_launch_that_waits_for_what_a_destroy_has_deleted_does_not_wait_for_long() {
    let small = Small::with(Options::prompt()).await;
    let empty = without_ids(&small.account.snapshot().await);
    small.account.fault(Fault::every("ec2:RunInstances", Trouble::Wait));
    let launching = small.account.bootstrap(&small.launching()).start();
    // One for each group and zone.
    small.account.holds(4).await;
    small.destroy().await.success();
    small.account.release();
    let ended = launching.end_within(Duration::from_secs(60)).await.exits(1);
    ended.says("fleet small was destroyed meanwhile, so this launch stops");
    small.destroy().await.success();
    let left = differences(&empty, &without_ids(&small.account.snapshot().await));
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn a_destroy_that_found_nothing_takes_what_has_come_to_be_when_it_looks_once_more() {
    let small = Small::with(Options::prompt()).await;
    let empty = without_ids(&small.account.snapshot().await);
    // Only the search by tag at the end looks for volumes.
    small.account.fault(Fault::nth("ec2:DescribeVolumes", 1, Trouble::Wait));
    let destroying = small.account.bootstrap(&["destroy", "small", "--yes", "--output", "json"]).start();
    small.account.held().await;
    small.launch().await.success();
    small.account.release();
    let result = destroying.end().await.success().json();
    assert_eq!((&result["found"], &result["left"]), (&json!(true), &json!([])), "{result:#}");
    let left = differences(&empty, &without_ids(&small.account.snapshot().await));
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn a_destroy_takes_out_of_the_way_what_was_put_there_since_it_looked() {
    let small = Small::with(Options::prompt()).await;
    let empty = without_ids(&small.account.snapshot().await);
    let name = "instance-agent-small-us-east-1";
    let role = ("RoleName", name);
    let in_profile = [role, ("InstanceProfileName", name)];
    let document = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:DescribeTags","Resource":"*"}]}"#;
    let own = [role, ("PolicyName", "instance-agent"), ("PolicyDocument", document)];
    // What is not there when it is looked for, and is when the deletion comes.
    for (delete, absent, asked) in [
        ("iam:DeleteInstanceProfile", "RemoveRoleFromInstanceProfile", &in_profile[..]),
        ("iam:DeleteRole", "DeleteRolePolicy", &own[..]),
    ] {
        small.account.reset(Options::prompt()).await;
        small.launch().await.success();
        small.foreign("iam", absent, asked).await;
        small.account.fault(Fault::nth(delete, 1, Trouble::Wait));
        let destroying = small.account.bootstrap(&["destroy", "small", "--yes"]).start();
        small.account.held().await;
        let put = if absent == "DeleteRolePolicy" { "PutRolePolicy" } else { "AddRoleToInstanceProfile" };
        small.foreign("iam", put, asked).await;
        small.account.release();
        let destroyed = destroying.end().await.success();
        assert!(destroyed.stderr.contains("DeleteConflict"), "{}", destroyed.stderr);
        let left = differences(&empty, &without_ids(&small.account.snapshot().await));
        assert_eq!(left, Vec::<String>::new(), "{delete}");
    }
}
