//! Launches, states and volumes.

use tests::account::{Element, Options};

use super::place::{Place, ids, instances, joining};

#[tokio::test]
async fn one_client_token_launches_once() {
    let place = Place::prompt().await;
    let token = [("ClientToken", "token-1"), ("MinCount", "2"), ("MaxCount", "2")];
    let first = place.run(&token).await;
    assert_eq!(first.len(), 2);
    assert_eq!(place.run(&token).await, first, "the same token launched again");
    let other = place.launch(&[("ClientToken", "token-1"), ("InstanceType", "m4.large")]);
    assert_eq!(place.code("ec2", "RunInstances", &other).await, "IdempotentParameterMismatch");
    assert_ne!(place.run(&[("ClientToken", "token-2")]).await, first);

    let by_token = [("Filter.1.Name", "client-token"), ("Filter.1.Value.1", "token-1")];
    let found = instances(&place.ok("ec2", "DescribeInstances", &by_token).await);
    let found: Vec<(&str, &str)> =
        found.iter().map(|item| (item.say("instanceId"), item.say("clientToken"))).collect();
    assert_eq!(found, [(first[0].as_str(), "token-1"), (first[1].as_str(), "token-1")]);

    // Terminated, they are still what the token launched.
    let terminate = [("InstanceId.1", first[0].as_str()), ("InstanceId.2", first[1].as_str())];
    place.ok("ec2", "TerminateInstances", &terminate).await;
    for (old, told) in [(true, "pending"), (false, "terminated")] {
        place.account.set(|options| options.old_answers = old);
        let again = place.ok("ec2", "RunInstances", &place.launch(&token)).await;
        assert_eq!(ids(&again), first);
        let state = |item: &Element| item.say("instanceState/name").to_owned();
        assert_eq!(again.list("instancesSet").iter().map(state).collect::<Vec<_>>(), [told, told]);
    }

    let long = "x".repeat(65);
    let long = place.launch(&[("ClientToken", &long)]);
    assert_eq!(place.code("ec2", "RunInstances", &long).await, "InvalidParameterValue");
}

#[tokio::test]
async fn a_launch_is_all_or_nothing_and_bounded_by_capacity_quota_and_offer() {
    let place = Place::prompt().await;
    place.account.set(|options| {
        options.capacity.insert("us-east-1a".to_owned(), 3);
        options.vcpu_quota = 10;
    });
    let two = [("MinCount", "2"), ("MaxCount", "2")];
    let four = place.launch(&[("MinCount", "4"), ("MaxCount", "4")]);
    assert_eq!(place.code("ec2", "RunInstances", &four).await, "InsufficientInstanceCapacity");
    assert_eq!(place.states(&[]).await, Vec::<String>::new(), "something was launched all the same");
    assert_eq!(place.run(&two).await.len(), 2);
    assert_eq!(place.code("ec2", "RunInstances", &place.launch(&two)).await, "InsufficientInstanceCapacity");
    let partly = place.run(&[("MinCount", "1"), ("MaxCount", "4")]).await;
    assert_eq!(partly.len(), 1, "there was room for one more");
    // The other zone has room, and the account has vCPUs for two more.
    let other = place.subnets[1].1.as_str();
    let three = place.launch(&[("SubnetId", other), ("MinCount", "3"), ("MaxCount", "3")]);
    assert_eq!(place.code("ec2", "RunInstances", &three).await, "VcpuLimitExceeded");
    place.run(&[("SubnetId", other), ("MinCount", "2"), ("MaxCount", "2")]).await;

    let (_, zone_e) = place.subnets.iter().find(|(zone, _)| zone == "us-east-1e").expect("it has six zones");
    let not_there = place.launch(&[("SubnetId", zone_e), ("InstanceType", "t3.micro")]);
    assert_eq!(place.code("ec2", "RunInstances", &not_there).await, "Unsupported");
    place.account.set(|options| options.vcpu_quota = 100);
    let unknown = place.launch(&[("SubnetId", other), ("ImageId", "ami-00000000000000000")]);
    assert_eq!(place.code("ec2", "RunInstances", &unknown).await, "InvalidAMIID.NotFound");
}

#[tokio::test]
async fn a_launch_is_refused_for_what_the_metadata_cannot_hold() {
    let place = Place::prompt().await;
    let mut tagged = joining("group", "");
    tagged.retain(|(key, _)| *key != "IamInstanceProfile.Name");
    place.run(&tagged).await;
    tagged[1] = ("TagSpecification.1.Tag.1.Key", "with space");
    assert_eq!(place.code("ec2", "RunInstances", &place.launch(&tagged)).await, "InvalidParameterValue");
    // Where tags are not published, such a key is fine.
    tagged.retain(|(key, _)| *key != "MetadataOptions.InstanceMetadataTags");
    place.run(&tagged).await;

    use base64::Engine;
    let data = |length| base64::engine::general_purpose::STANDARD.encode("x".repeat(length));
    let (fits, does_not) = (data(16_384), data(16_385));
    place.run(&[("UserData", &fits)]).await;
    let refused = place.launch(&[("UserData", &does_not)]);
    assert_eq!(place.code("ec2", "RunInstances", &refused).await, "InvalidParameterValue");
}

#[tokio::test]
async fn a_root_volume_takes_the_size_of_the_image() {
    let place = Place::prompt().await;
    let disk =
        [("BlockDeviceMapping.1.DeviceName", "/dev/sda1"), ("BlockDeviceMapping.1.Ebs.Encrypted", "true")];
    place.run(&disk).await;
    let volumes = place.ok("ec2", "DescribeVolumes", &[]).await;
    assert_eq!(volumes.list("volumeSet").len(), 1);
    assert_eq!(volumes.list("volumeSet")[0].say("encrypted"), "true");
}

#[tokio::test]
async fn instances_take_their_time_to_run_and_to_end() {
    let place = Place::with(Options { pending: 2, shutting_down: 2, ..Options::prompt() }).await;
    let launched = place.ok("ec2", "RunInstances", &place.launch(&[])).await;
    assert_eq!(launched.list("instancesSet")[0].say("instanceState/name"), "pending");
    assert_eq!(place.states(&[]).await, ["pending"]);
    assert_eq!(place.states(&[]).await, ["running"]);
    let id = ids(&launched).remove(0);
    place.ok("ec2", "TerminateInstances", &[("InstanceId.1", &id)]).await;
    let only = |state| [("Filter.1.Name", "instance-state-name"), ("Filter.1.Value.1", state)];
    assert_eq!(place.states(&only("terminated")).await, Vec::<String>::new());
    assert_eq!(place.states(&only("shutting-down")).await, ["shutting-down"]);
    assert_eq!(place.states(&only("shutting-down")).await, ["shutting-down"]);
    assert_eq!(place.states(&only("shutting-down")).await, Vec::<String>::new());
    assert_eq!(place.states(&only("terminated")).await, ["terminated"]);
}

#[tokio::test]
async fn a_new_instance_is_not_shown_at_once_but_its_token_knows_it() {
    let place = Place::with(Options { unseen_instances: 1, ..Options::prompt() }).await;
    let token = [("ClientToken", "token")];
    let first = place.run(&token).await;
    assert_eq!(place.states(&[]).await, Vec::<String>::new());
    assert_eq!(place.run(&token).await, first);
    assert_eq!(place.states(&[]).await, ["running"]);
}
