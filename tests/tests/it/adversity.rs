//! What AWS and other people put in the way: each is waited for, gone around, or refused with a line
//! that says what to do; and what is someone else's is never touched.

use std::collections::BTreeMap;
use std::io::Read;

use rustix::process::Signal;
use tests::account::{ACCOUNT, Agents, Fault, IMAGE, Options, Small, Trouble, differences, without_ids};
use tests::sweep::{Extent, signals::ctrl_c};

const ELB: &str = "elasticloadbalancing";

#[tokio::test]
async fn throttling_on_every_second_call_only_takes_longer() {
    let place = Small::with(Options::prompt()).await;
    let empty = without_ids(&place.account.snapshot().await);
    let usual = place.usual().await;
    place.account.set(|options| options.throttle = true);
    place.launch().await.success();
    place.is(&usual).await;
    let throttled = place.account.calls().iter().filter(|call| !call.code.is_empty()).count();
    assert!(throttled > 10, "only {throttled} calls were throttled");
    place.destroy().await.success();
    place.is(&empty).await;
}

#[tokio::test]
async fn what_takes_long_to_appear_and_to_go_is_waited_for() {
    let slow = Options {
        pending: 12,
        shutting_down: 4,
        provisioning: 4,
        invisible_profiles: 3,
        invisible_groups: 2,
        invisible_roles: 2,
        lingering_interfaces: 3,
        lingering_use: 3,
        draining: 3,
        initial: 3,
        ..Options::strict()
    };
    let place = Small::with(Options::prompt()).await;
    let empty = without_ids(&place.account.snapshot().await);
    let usual = place.usual().await;
    place.account.reset(slow).await;
    place.launch().await.success();
    place.is(&usual).await;
    let met: Vec<String> = place.account.calls().into_iter().map(|call| call.code).collect();
    for code in ["InvalidParameterValue", "InvalidGroup.NotFound", "InvalidSecurityGroup", "NoSuchEntity"] {
        assert!(met.iter().any(|other| other == code), "{code} never came: {met:?}");
    }
    place.account.clear();
    place.destroy().await.success();
    place.is(&empty).await;
    let met: Vec<String> = place.account.calls().into_iter().map(|call| call.code).collect();
    for code in ["DependencyViolation", "ResourceInUse"] {
        assert!(met.iter().any(|other| other == code), "{code} never came: {met:?}");
    }
}

#[tokio::test]
async fn a_target_group_that_somebody_elses_listener_uses_is_named_and_the_rest_is_deleted() {
    let place = Small::with(Options::prompt()).await;
    place.launch().await.success();
    let cli = place.account.cli().await;
    let subnets = cli.ok(&["ec2", "describe-subnets"]).await["Subnets"].clone();
    let subnet = |number: usize| subnets[number]["SubnetId"].as_str().unwrap().to_owned();
    let (a, b) = (subnet(0), subnet(1));
    let made = ["elbv2", "create-load-balancer", "--name", "other", "--subnets", &a, &b];
    let made = cli.ok(&made).await;
    let balancer = made["LoadBalancers"][0]["LoadBalancerArn"].as_str().unwrap();
    let groups = cli.ok(&["elbv2", "describe-target-groups"]).await;
    let group = &groups["TargetGroups"][0];
    let action = format!("Type=forward,TargetGroupArn={}", group["TargetGroupArn"].as_str().unwrap());
    let listener = ["--protocol", "HTTP", "--port", "8080", "--default-actions", &action];
    let create = ["elbv2", "create-listener", "--load-balancer-arn", balancer];
    let create = [&create[..], &listener].concat();
    let refused = cli.error(&create).await;
    assert!(refused.contains("TargetGroupAssociationLimit"), "{refused}");
    let listed = cli.ok(&["elbv2", "describe-load-balancers", "--names", "small"]).await;
    let own = listed["LoadBalancers"][0]["LoadBalancerArn"].as_str().unwrap();
    cli.ok(&["elbv2", "delete-load-balancer", "--load-balancer-arn", own]).await;
    cli.ok(&create).await;

    let name = group["TargetGroupName"].as_str().unwrap();
    let used = "the listener on port 8080 of load balancer other";
    let before = place.account.snapshot().await;
    place.launch().await.exits(1).says("nothing was changed").says(&format!(
        "target group {name} belongs to another load balancer: {used} uses it; delete that listener or rule, or change"
    ));
    assert_eq!(place.account.snapshot().await, before);
    for round in ["everything else is there", "it alone is left"] {
        let destroyed = place.destroy().await.exits(1);
        let told = destroyed
            .stderr
            .find(&format!("cannot delete target group {name}: {used}, which does not belong to"));
        let left = destroyed.stderr.find("still carry the tag of fleet small");
        assert!(told.is_some() && told < left, "{round}: {}", destroyed.stderr);
    }
    let left = cli.ok(&["elbv2", "describe-target-groups"]).await;
    assert_eq!(left["TargetGroups"].as_array().unwrap().len(), 1);
    let left = cli.ok(&["elbv2", "describe-load-balancers"]).await;
    assert_eq!(left["LoadBalancers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_zone_without_capacity_is_gone_around_and_said() {
    let place = Small::with(Options::prompt()).await;
    place.account.set(|options| {
        options.capacity.insert("us-east-1b".to_owned(), 0);
    });
    let launched = place.launch().await.success();
    launched.says("us-east-1b");
    assert_eq!(place.zones().await, BTreeMap::from([("us-east-1a".to_owned(), 4)]));
    // It stays so: they fill their slots, wherever they are.
    place.account.clear();
    place.account.set(|options| options.capacity.clear());
    place.launch().await.success();
    assert_eq!(place.zones().await, BTreeMap::from([("us-east-1a".to_owned(), 4)]));
    place.destroy().await.success();
    assert_eq!(place.zones().await, BTreeMap::new());
}

#[tokio::test]
async fn capacity_in_no_zone_is_an_error_that_leaves_what_a_launch_can_finish() {
    let place = Small::with(Options::prompt()).await;
    let usual = place.usual().await;
    place.account.set(|options| {
        options.capacity = ["us-east-1a", "us-east-1b"].map(|zone| (zone.to_owned(), 0)).into();
    });
    place.launch().await.exits(1).says("InsufficientInstanceCapacity");
    place.account.set(|options| options.capacity.clear());
    place.launch().await.success();
    place.is(&usual).await;
}

#[tokio::test]
async fn what_has_our_names_and_not_our_tag_is_refused_and_never_touched() {
    let place = Small::with(Options::prompt()).await;
    let role = format!("instance-agent-small-{}", "us-east-1");
    let bucket = format!("instance-agent-small-{ACCOUNT}-us-east-1");
    for (what, name) in [
        ("target group", "small-blue"),
        ("balancer", "small"),
        ("group", "small-instances"),
        ("group", "small-balancer"),
        ("role", role.as_str()),
        ("profile", role.as_str()),
        ("bucket", bucket.as_str()),
    ] {
        place.account.reset(Options::prompt()).await;
        let subnets = place.account.ask("ec2", "DescribeSubnets", &[]).await.xml();
        let mut of_zone: Vec<(&str, &str)> = subnets
            .list("subnetSet")
            .iter()
            .map(|item| (item.say("availabilityZone"), item.say("subnetId")))
            .collect();
        of_zone.sort_unstable();
        let vpc = subnets.list("subnetSet")[0].say("vpcId");
        let trust = r#"{"Version":"2012-10-17","Statement":[]}"#;
        match what {
            "target group" => {
                let asked = [("Name", name), ("Protocol", "HTTP"), ("Port", "80"), ("VpcId", vpc)];
                place.foreign(ELB, "CreateTargetGroup", &asked).await;
            }
            "balancer" => {
                let asked =
                    [("Name", name), ("Subnets.member.1", of_zone[0].1), ("Subnets.member.2", of_zone[1].1)];
                place.foreign(ELB, "CreateLoadBalancer", &asked).await;
                // Looked at once, it is active in moto; until then it would differ by itself.
                place.foreign(ELB, "DescribeLoadBalancers", &[]).await;
            }
            "group" => {
                let asked = [("GroupName", name), ("GroupDescription", "not of the fleet"), ("VpcId", vpc)];
                place.foreign("ec2", "CreateSecurityGroup", &asked).await;
            }
            "role" => {
                place
                    .foreign("iam", "CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", trust)])
                    .await;
            }
            "profile" => {
                place.foreign("iam", "CreateInstanceProfile", &[("InstanceProfileName", name)]).await;
            }
            _ => {
                let cli = place.account.witness().await;
                cli.ok(&["s3api", "create-bucket", "--bucket", name]).await;
                let file = place.account.file("theirs", "theirs");
                cli.ok(&["s3api", "put-object", "--bucket", name, "--key", "theirs", "--body", &file]).await;
            }
        }
        let before = place.account.snapshot().await;
        let launched = place.launch().await.exits(1).says(name);
        launched.says("instance-agent:fleet");
        // Refused before anything was made.
        assert_eq!(
            differences(&before, &place.account.snapshot().await),
            Vec::<String>::new(),
            "{what} {name}"
        );
        let destroyed = place.destroy().await;
        assert!(matches!(destroyed.status, Some(0 | 1)), "{destroyed:?}");
        assert_eq!(
            differences(&before, &place.account.snapshot().await),
            Vec::<String>::new(),
            "{what} {name}"
        );
    }
}

#[tokio::test]
async fn another_fleets_resources_of_the_same_name_are_refused_too() {
    let place = Small::with(Options::prompt()).await;
    let subnets = place.account.ask("ec2", "DescribeSubnets", &[]).await.xml();
    let vpc = subnets.list("subnetSet")[0].say("vpcId");
    let asked = [
        ("Name", "small-blue"),
        ("Protocol", "HTTP"),
        ("Port", "80"),
        ("VpcId", vpc),
        ("Tags.member.1.Key", "instance-agent:fleet"),
        ("Tags.member.1.Value", "other"),
    ];
    place.foreign(ELB, "CreateTargetGroup", &asked).await;
    let before = place.account.snapshot().await;
    place.launch().await.exits(1).says("small-blue").says("other");
    assert_eq!(differences(&before, &place.account.snapshot().await), Vec::<String>::new());
}

#[tokio::test]
async fn instances_that_cannot_become_healthy_end_the_wait_with_the_reason() {
    let place = Small::with(Options::prompt()).await;
    let never = |options: &mut Options| options.agents = Agents::Never;
    place.account.set(never);
    let launching = [&place.launching()[..], &["--timeout", "5s"]].concat();
    place.account.run(&launching).await.exits(3).says("register");
    // They come after all: the same command finishes it.
    place.account.set(|options| options.agents = Agents::Healthy);
    place.launch().await.success();
    place.destroy().await.success();

    place.account.reset(Options::prompt()).await;
    let reason = ("Target.Timeout".to_owned(), "Request timed out".to_owned());
    place.account.set(|options| options.agents = Agents::Unhealthy(reason.0, reason.1));
    place.account.run(&launching).await.exits(3).says("Target.Timeout");
    place.destroy().await.success();
}

#[tokio::test]
async fn ctrl_c_at_any_moment_leaves_what_launch_finishes_and_destroy_removes() {
    ctrl_c(Extent::Short).await;
}

#[tokio::test]
async fn a_quota_that_is_too_small_is_found_before_anything_is_made() {
    let place = Small::with(Options { vcpu_quota: 7, ..Options::prompt() }).await;
    let before = place.account.snapshot().await;
    place.launch().await.exits(1).says("7").says("8").says("vCPU");
    assert_eq!(differences(&before, &place.account.snapshot().await), Vec::<String>::new());
    place.account.set(|options| options.vcpu_quota = 8);
    place.launch().await.success();
}

#[tokio::test]
async fn an_instance_that_was_terminated_by_hand_is_launched_again() {
    let place = Small::with(Options::strict()).await;
    let usual = place.usual().await;
    place.launch().await.success();
    let snapshot = place.account.snapshot().await;
    let victim = snapshot["instances"][0]["instanceId"].as_str().expect("an id").to_owned();
    let terminated = place.account.ask_front("ec2", "TerminateInstances", &[("InstanceId.1", &victim)]).await;
    assert!(terminated.is_some_and(|answer| answer.ok()));
    place.launch().await.success();
    place.is(&usual).await;
    assert_eq!(IMAGE, snapshot["instances"][0]["imageId"]);
}

#[tokio::test]
async fn an_instance_that_ended_right_after_its_launch_is_not_taken_for_a_new_one() {
    let place = Small::with(Options::prompt()).await;
    let in_image = ["launch", &place.file, "--in-image", "--yes"];
    place.account.ok(&in_image).await;
    let usual = without_ids(&place.account.snapshot().await);
    place.account.reset(Options::prompt()).await;
    place.account.fault(Fault::nth("ec2:RunInstances", 1, Trouble::Hold));
    let running = place.account.bootstrap(&in_image).start();
    place.account.held().await;
    running.signal(Signal::KILL);
    running.end().await;
    place.account.quiet().await;
    place.account.clear();
    let snapshot = place.account.snapshot().await;
    let launched = snapshot["instances"].as_array().expect("a list");
    for instance in launched {
        let id = instance["instanceId"].as_str().expect("an id");
        place.foreign("ec2", "TerminateInstances", &[("InstanceId.1", id)]).await;
    }
    // AWS gives the answer that got lost, in which they begin to run.
    place.account.ok(&in_image).await.says("have ended; launching others");
    place.is(&usual).await;
}

#[tokio::test]
async fn a_question_is_answered_by_no_yes_or_ctrl_c() {
    let place = Small::with(Options::prompt()).await;
    let empty = without_ids(&place.account.snapshot().await);
    place.launch().await.success();
    let before = place.account.snapshot().await;
    for (answer, status, told) in [
        (None, 1, "interrupted; nothing was changed"),
        (Some("\n"), 1, "not confirmed; nothing was changed"),
        (Some("yes\n"), 0, ""),
    ] {
        let (typed, read) = tests::terminal();
        let mut remarks = tempfile::NamedTempFile::new().unwrap();
        let asking = place.account.bootstrap(&["destroy", "small", "--output", "json"]);
        let asking = asking.stdin(read).stderr(remarks.reopen().unwrap()).start();
        let mut said = String::new();
        let asked = tests::eventually(async || {
            remarks.read_to_string(&mut said).unwrap();
            said.ends_with("Destroy fleet small in us-east-1? [y/N] ").then_some(())
        });
        assert!(asked.await.is_some(), "{said}");
        match answer {
            Some(answer) => drop(rustix::io::write(&typed, answer.as_bytes()).unwrap()),
            None => asking.signal(Signal::INT),
        }
        let ended = asking.end().await.exits(status);
        if status != 0 {
            assert_eq!(ended.json()["error"], told);
            assert_eq!(differences(&before, &place.account.snapshot().await), Vec::<String>::new());
        }
    }
    place.is(&empty).await;
}

#[tokio::test]
async fn a_look_that_hangs_can_be_given_up() {
    let place = Small::with(Options::prompt()).await;
    place.launch().await.success();
    place.account.fault(Fault::every("ec2:DescribeInstances", Trouble::Hold));
    // A single look ends as any program does, by the signal; a watch ends when one has seen enough.
    for (held, (arguments, status)) in
        [(&["status", "small"][..], None), (&["status", "small", "--watch"], Some(0))].into_iter().enumerate()
    {
        let looking = place.account.bootstrap(arguments).start();
        place.account.holds(held + 1).await;
        looking.signal(Signal::TERM);
        assert_eq!(looking.end().await.status, status, "{arguments:?}");
    }
}
