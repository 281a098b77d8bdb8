//! A fleet that is there becomes another: what is new comes first and takes over when it is healthy,
//! what is old goes then, and what is not the fleet's stays. Also when the change is interrupted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tests::account::{Agents, IMAGE, Options, Small, differences};
use tests::sweep::Extent;
use tests::sweep::changes::{self, COUNT, change, is, slow_targets, usual};

const ELB: &str = "elasticloadbalancing";

#[tokio::test]
async fn instances_of_another_type_come_first_and_take_over_when_they_are_healthy() {
    let small = Small::with(slow_targets()).await;
    let other_type = small.changed(&[("t2.large", "m5.large")]);
    let wanted = usual(&small, &other_type).await;
    small.account.reset(slow_targets()).await;
    small.launch().await.success();
    let (old, red) = (small.healthy("blue").await, small.healthy("red").await);
    assert_eq!(old.len(), COUNT);
    change(&small, &other_type, &[], async || {
        let now = small.healthy("blue").await;
        assert!(now.is_superset(&old), "the old ones serve: {now:?}, {old:?}");
        assert_eq!(now.len(), 2 * COUNT, "and so do the new ones: {now:?}");
    })
    .await;
    let new = small.healthy("blue").await;
    assert!(new.len() == COUNT && new.is_disjoint(&old), "{new:?}, {old:?}");
    assert_eq!(small.healthy("red").await, red, "what did not change stays");
    is(&small, &wanted).await;
}

#[tokio::test]
async fn a_change_of_type_that_is_killed_is_finished_by_the_next_launch() {
    changes::type_change_is_killed(Extent::Short).await;
}

#[tokio::test]
async fn another_group_and_another_zone_take_over_when_they_are_healthy() {
    changes::group_and_zone_change(Extent::Short).await;
}

#[tokio::test]
async fn an_exchange_that_is_killed_while_it_takes_away_is_finished_by_the_next_launch() {
    changes::taking_away_is_killed(Extent::Short).await;
}

#[tokio::test]
async fn another_listener_and_a_rule_made_by_hand_stay() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let found = small.foreign(ELB, "DescribeLoadBalancers", &[]).await;
    let balancer = found.find("LoadBalancerArn").expect("an ARN").text.clone();
    let listeners = async || {
        let found = small.foreign(ELB, "DescribeListeners", &[("LoadBalancerArn", &balancer)]).await;
        let found = found.list("DescribeListenersResult/Listeners").iter();
        let mut found: Vec<(String, String)> =
            found.map(|item| (item.say("Port").to_owned(), item.say("ListenerArn").to_owned())).collect();
        found.sort();
        found
    };
    // Theirs comes first in every list: the fleet's own is made again after it.
    let own = listeners().await.remove(0).1;
    small.foreign(ELB, "DeleteListener", &[("ListenerArn", &own)]).await;
    let blue = small.target_group("blue").await.expect("a target group");
    let forward =
        [("DefaultActions.member.1.Type", "forward"), ("DefaultActions.member.1.TargetGroupArn", &blue)];
    let theirs =
        [&[("LoadBalancerArn", balancer.as_str()), ("Protocol", "HTTP"), ("Port", "8080")], &forward[..]];
    small.foreign(ELB, "CreateListener", &theirs.concat()).await;
    small.launch().await.success();
    let both = listeners().await;
    assert_eq!(both.iter().map(|(port, _)| port.as_str()).collect::<Vec<_>>(), ["80", "8080"]);

    // One for a path, and one that is told from the fleet's by more than its path.
    for (priority, values) in [("40", &["/admin"][..]), ("41", &["/a", "/b"])] {
        for (_, listener) in &both {
            let keys: Vec<String> = (1..=values.len())
                .map(|n| format!("Conditions.member.1.PathPatternConfig.Values.member.{n}"))
                .collect();
            let mut asked = vec![
                ("ListenerArn", listener.as_str()),
                ("Priority", priority),
                ("Conditions.member.1.Field", "path-pattern"),
                ("Actions.member.1.Type", "forward"),
                ("Actions.member.1.TargetGroupArn", blue.as_str()),
            ];
            asked.extend(keys.iter().map(String::as_str).zip(values.iter().copied()));
            small.foreign(ELB, "CreateRule", &asked).await;
        }
    }
    let rules = async |listener: &str| {
        let found = small.foreign(ELB, "DescribeRules", &[("ListenerArn", listener)]).await;
        let found = found.list("DescribeRulesResult/Rules").iter();
        found.map(|rule| rule.say("Priority").to_owned()).collect::<BTreeSet<_>>()
    };
    let all = |more: &[&str]| ["40", "41", "default"].iter().chain(more).map(|p| (*p).to_owned()).collect();
    small.launch().await.success();
    let changed = small.changed(&[("\"red\"", "\"green\""), ("t2.large", "m5.large")]);
    small.account.run(&small.launching_file(&changed)).await.success();
    assert_eq!(listeners().await, both);
    let with_own: BTreeSet<String> = all(&["1", "3"]);
    assert_eq!(rules(&both[0].1).await, with_own, "the fleet's own listener");
    let untouched: BTreeSet<String> = all(&[]);
    assert_eq!(rules(&both[1].1).await, untouched, "the other listener");
}

#[tokio::test]
async fn tags_that_differ_in_nothing_but_case_are_refused_before_anything_is_asked() {
    let small = Small::with(Options::prompt()).await;
    let tags = "[tags]\nProject = \"x\"\nproject = \"y\"\n\n[[group]]\nname = \"blue\"";
    let file = small.changed(&[("[[group]]\nname = \"blue\"", tags)]);
    let refused = small.account.run(&small.launching_file(&file)).await.exits(1);
    refused.says(
        "changed.toml:9: tags.project: differs from tag Project in upper and lower case only: delete one",
    );
    assert_eq!(small.account.names(), Vec::<String>::new());
}

#[tokio::test]
async fn instances_that_others_launched_do_not_count_as_healthy() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let status = async || small.account.run(&["status", "small", "--output", "json"]).await;
    let counts = |json: &Value| (json["wanted"].as_u64(), json["healthy"].as_u64());
    let before = status().await.exits(0).json();
    assert_eq!(counts(&before), (Some(4), Some(4)));
    // Somebody scales by hand, with the fleet's tags and groups.
    let own = before["instances"][0].clone();
    let subnets = small.account.ask("ec2", "DescribeSubnets", &[]).await.xml();
    let asked = [
        ("ImageId", IMAGE),
        ("InstanceType", "t2.large"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("SubnetId", subnets.list("subnetSet")[0].say("subnetId")),
        ("IamInstanceProfile.Name", "instance-agent-small-us-east-1"),
        ("MetadataOptions.InstanceMetadataTags", "enabled"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "instance-agent:fleet"),
        ("TagSpecification.1.Tag.1.Value", "small"),
        ("TagSpecification.1.Tag.2.Key", "instance-agent:target-group"),
        ("TagSpecification.1.Tag.2.Value", "small-blue"),
    ];
    small.foreign("ec2", "RunInstances", &asked).await;
    assert_eq!(small.healthy("blue").await.len(), COUNT + 1);
    let with_other = status().await.exits(0).json();
    assert_eq!(counts(&with_other), (Some(4), Some(4)), "{with_other:#}");
    assert_eq!(with_other["instances"].as_array().map(Vec::len), Some(5), "but it is shown");

    // A launch leaves it alone, and does not say what it has not looked at.
    let tags = "[tags]\nProject = \"x\"\n\n[[group]]\nname = \"blue\"";
    let file = small.changed(&[("[[group]]\nname = \"blue\"", tags)]);
    let launched = [&small.launching_file(&file)[..], &["--output", "json"]].concat();
    let launched = small.account.run(&launched).await.success().json();
    let states: BTreeMap<_, _> = launched["instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|shown| (shown["id"].as_str().expect("an id").to_owned(), shown["target_state"].clone()))
        .collect();
    let all = tagged(&small).await;
    assert_eq!(states.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    for (id, tags) in &all {
        let is_own = tags.contains_key("instance-agent:slots");
        assert_eq!(tags.contains_key("Project"), is_own, "{tags:?}");
        assert_eq!(states[id], if is_own { "healthy" } else { "-" });
    }

    // It does not take the place of one of the fleet's own.
    small.account.set(|options| options.agents = Agents::Never);
    let victim = own["id"].as_str().expect("an id");
    small.foreign("ec2", "TerminateInstances", &[("InstanceId.1", victim)]).await;
    let without_own = status().await.exits(3).json();
    assert_eq!(counts(&without_own), (Some(4), Some(3)), "{without_own:#}");
    let again = [&small.launching_file(&file)[..], &["--timeout", "3s"]].concat();
    small.account.run(&again).await.exits(3).says("has not registered yet");
}

#[tokio::test]
async fn of_fewer_instances_those_stay_that_run_and_are_healthy() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let snapshot = small.account.snapshot().await;
    let first_of = |group: &str| {
        let instances = snapshot["instances"].as_array().expect("a list").iter();
        let is_first = |instance: &&Value| {
            instance.to_string().contains(&format!("small-{group}"))
                && instance["placement"]["availabilityZone"] == "us-east-1a"
        };
        instances.clone().find(is_first).expect("one")["instanceId"].as_str().expect("an id").to_owned()
    };
    // Those of the first slots, which would stay if all were well.
    let (stopped, unregistered) = (first_of("blue"), first_of("red"));
    small.foreign("ec2", "StopInstances", &[("InstanceId.1", &stopped)]).await;
    small
        .account
        .run(&["status", "small"])
        .await
        .exits(3)
        .says("start the instance (`aws ec2 start-instances`)");
    let red = small.target_group("red").await.expect("a target group");
    let target = [("TargetGroupArn", red.as_str()), ("Targets.member.1.Id", &unregistered)];
    small.foreign(ELB, "DeregisterTargets", &target).await;
    small.account.set(|options| options.draining = 0);
    small
        .account
        .run(&["status", "small"])
        .await
        .exits(3)
        .says("`instance-agent resume` if someone has drained it");
    let scaled = small.account.ok(&["scale", "small", "blue=1", "red=1", "--yes"]).await;
    scaled.says("terminate 2 instances (surplus)");
    let left = small.account.snapshot().await;
    let left: Vec<&str> = left["instances"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|instance| instance["instanceId"].as_str().expect("an id"))
        .collect();
    assert!(left.len() == 2 && !left.contains(&stopped.as_str()) && !left.contains(&unregistered.as_str()));
    small.account.ok(&["status", "small"]).await.says("2 of 2 instances are healthy");
    // One more fills the gap, and not a slot above.
    small.account.ok(&["scale", "small", "blue=2", "--yes"]).await;
    assert_eq!(
        small.zones().await.into_iter().collect::<Vec<_>>(),
        [("us-east-1a".to_owned(), 1), ("us-east-1b".to_owned(), 2)]
    );
}

/// The instances that carry the tag of the fleet, by id, with their tags.
async fn tagged(small: &Small) -> BTreeMap<String, BTreeMap<String, String>> {
    let found = small.account.ask("ec2", "DescribeInstances", &[]).await.xml();
    let reservations = found.list("reservationSet").iter();
    let items = reservations.flat_map(|reservation| reservation.list("instancesSet"));
    let lives = items.filter(|item| item.say("instanceState/name") == "running");
    lives.map(|item| (item.say("instanceId").to_owned(), item.tags("tagSet").into_iter().collect())).collect()
}

#[tokio::test]
async fn an_instance_that_an_operator_takes_out_by_its_tag_stays_the_fleets() {
    let small = Small::with(Options::prompt()).await;
    let quick = "[health-check]\ninterval = \"5s\"\ntimeout = \"2s\"\n\n[[group]]\nname = \"blue\"";
    let file = small.changed(&[("[[group]]\nname = \"blue\"", quick)]);
    let launching = small.launching_file(&file);
    small.account.run(&launching).await.success();
    let before = tagged(&small).await;
    let id = before.keys().next().expect("one").clone();
    for groups in ["small-blue small-red", ""] {
        let tag = [
            ("ResourceId.1", id.as_str()),
            ("Tag.1.Key", instance_contract::tags::TARGET_GROUP),
            ("Tag.1.Value", groups),
        ];
        small.foreign("ec2", "CreateTags", &tag).await;
        small.account.clear();
        small.account.run(&launching).await.success().says("nothing to do");
        let names = small.account.names();
        assert!(
            !names
                .iter()
                .any(|name| name.ends_with(":RunInstances") || name.ends_with(":TerminateInstances"))
        );
    }
    // The agent leaves its group: the launch waits for it, and takes nothing else for it.
    for group in ["blue", "red"] {
        let arn = small.target_group(group).await.expect("a target group");
        let target = [("TargetGroupArn", arn.as_str()), ("Targets.member.1.Id", &id)];
        small.account.ask_front(ELB, "DeregisterTargets", &target).await;
    }
    small.account.set(|options| options.draining = 0);
    let again = [&launching[..], &["--timeout", "3s"]].concat();
    let ran = small.account.run(&again).await.exits(3);
    ran.says(&format!("{id} has not registered yet; it may still boot; if not, run `instance-agent status`"));
    assert_eq!(
        tagged(&small).await.into_keys().collect::<Vec<_>>(),
        before.keys().cloned().collect::<Vec<_>>()
    );

    // It has had all the time of a launch: this one does not spend its own on it.
    small.account.set(|options| options.age = Duration::from_secs(901));
    let cure = "run `instance-agent status` on it, and `instance-agent resume` if someone has drained it";
    let status = small.account.run(&["status", "small"]).await.exits(3);
    assert!(status.stderr.contains(&format!("{id}: {cure}")), "{}", status.stderr);
    let told = format!(
        "bootstrap: launched more than 15 min ago, but not registered with its target group for 85 s: {id}; {cure}"
    );
    let ran = small.account.bootstrap(&[&launching[..], &["--output", "json"]].concat()).start();
    let ran = ran.end_within(Duration::from_secs(240)).await.exits(3);
    assert_eq!(ran.stderr.matches("waits  ").count(), 1, "the same reason is told once: {}", ran.stderr);
    assert_eq!(ran.stderr.lines().last(), Some(told.as_str()), "{}", ran.stderr);
    assert_eq!(format!("bootstrap: {}", ran.json()["error"].as_str().expect("a reason")), told);
}

#[tokio::test]
async fn what_instances_answer_is_put_right_where_someone_has_changed_their_tags() {
    let small = Small::with(Options::prompt()).await;
    let without = small.changed(&[("name = \"red\"", "name = \"red\"\npaths = false")]);
    small.account.run(&small.launching_file(&without)).await.success();
    let wanted = small.account.snapshot().await;
    let of = |all: &BTreeMap<String, BTreeMap<String, String>>, name: &str| {
        all.iter().find(|(_, tags)| tags["Name"] == name).map(|(id, _)| id.clone()).expect("one of it")
    };
    let all = tagged(&small).await;
    let (blue, red) = (of(&all, "small-blue"), of(&all, "small-red"));
    for (id, key, value) in [
        (&blue, instance_contract::tags::CLUSTER, "red"),
        (&blue, instance_contract::tags::ROOT, "seed"),
        (&red, instance_contract::tags::CLUSTER, "blue"),
    ] {
        let tag = [("ResourceId.1", id.as_str()), ("Tag.1.Key", key), ("Tag.1.Value", value)];
        small.foreign("ec2", "CreateTags", &tag).await;
    }
    let plan = small.account.ok(&[&["plan"], &small.launching_file(&without)[1..4]].concat()).await.stdout;
    for (id, group) in [(&blue, "blue"), (&red, "red")] {
        assert!(
            plan.contains(&format!("repair the cluster and root tags of 1 instance of {group}: {id}")),
            "{plan}"
        );
    }
    small.account.run(&small.launching_file(&without)).await.success();
    assert_eq!(differences(&wanted, &small.account.snapshot().await), Vec::<String>::new());
}

#[tokio::test]
async fn instances_that_answer_no_path_are_replaced_when_their_group_gets_one() {
    let small = Small::with(Options::prompt()).await;
    let without = small.changed(&[("name = \"blue\"", "name = \"blue\"\npaths = false")]);
    small.account.run(&small.launching_file(&without)).await.success();
    let cluster = |tags: &BTreeMap<String, String>| tags.get(instance_contract::tags::CLUSTER).cloned();
    let of_blue = |all: BTreeMap<String, BTreeMap<String, String>>| {
        all.into_iter().filter(|(_, tags)| tags["Name"] == "small-blue").collect::<BTreeMap<_, _>>()
    };
    let before = of_blue(tagged(&small).await);
    assert!(before.values().all(|tags| cluster(tags).is_none()));
    small.launch().await.success();
    let after = of_blue(tagged(&small).await);
    assert!(after.len() == COUNT && after.keys().all(|id| !before.contains_key(id)));
    assert!(after.values().all(|tags| cluster(tags).as_deref() == Some("blue")));
}

/// A newer version stores keys that this one does not know: nothing is changed without them, but all can be deleted.
#[tokio::test]
async fn a_definition_of_a_newer_version_asks_for_an_upgrade() {
    let small = Small::with(Options::prompt()).await;
    let empty = small.account.snapshot().await;
    small.launch().await.success();
    let found = small.account.ask("ec2", "DescribeSecurityGroups", &[]).await.xml();
    let mut groups = found.list("securityGroupInfo").iter();
    let group = groups.find(|group| group.say("groupName") == "small-instances").expect("the group");
    let key = "instance-agent:definition-1";
    let tags: BTreeMap<String, String> = group.tags("tagSet").into_iter().collect();
    let newer = tags[key].replacen("\"image\"", "\"media\"", 1);
    assert_ne!(newer, tags[key]);
    let tag = [("ResourceId.1", group.say("groupId")), ("Tag.1.Key", key), ("Tag.1.Value", &newer)];
    small.foreign("ec2", "CreateTags", &tag).await;
    let before = small.account.snapshot().await;
    let told = format!(
        "the fleet's stored definition was written by a bootstrap newer than this one, {} (unknown field `media`): \
         upgrade bootstrap",
        env!("CARGO_PKG_VERSION")
    );
    for command in [&["plan", &small.file][..], &["scale", "small", "blue=1", "--yes"]] {
        small.account.run(command).await.exits(1).says(&told);
    }
    small.launch().await.exits(1).says(&told);
    assert_eq!(differences(&before, &small.account.snapshot().await), Vec::<String>::new());
    small.destroy().await.success();
    assert_eq!(differences(&empty, &small.account.snapshot().await), Vec::<String>::new());
}
