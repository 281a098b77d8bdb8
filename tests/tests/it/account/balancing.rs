//! Balancers, target groups, and the agents that register.

use tests::account::{Agents, Element, Options};

use super::place::{AGENT, ELB, Parameters, Place, forwarding, joining};

#[tokio::test]
async fn a_balancer_needs_two_zones_and_names_are_taken_once() {
    let place = Place::with(Options { provisioning: 1, ..Options::prompt() }).await;
    let group = place.group("balancer").await;
    let (a, b) = (place.subnets[0].1.as_str(), place.subnets[1].1.as_str());
    let balancer = |subnets: [&'static str; 2], ids: [String; 2]| {
        let [first, second] = ids;
        vec![("Name", "one".to_owned()), (subnets[0], first), (subnets[1], second)]
    };
    let asked = balancer(["Subnets.member.1", "Subnets.member.2"], [a.to_owned(), a.to_owned()]);
    let asked: Parameters<'_> = asked.iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert_eq!(place.code(ELB, "CreateLoadBalancer", &asked).await, "ValidationError");
    let asked = [
        ("Name", "one"),
        ("Subnets.member.1", a),
        ("Subnets.member.2", b),
        ("SecurityGroups.member.1", group.as_str()),
    ];
    let first = place.ok(ELB, "CreateLoadBalancer", &asked).await;
    let arn = |made: &Element| made.find("LoadBalancerArn").expect("an ARN").text.clone();
    let state = async || {
        let found = place.ok(ELB, "DescribeLoadBalancers", &[("Names.member.1", "one")]).await;
        found.find("State").expect("a state").say("Code").to_owned()
    };
    assert_eq!((state().await, state().await), ("provisioning".to_owned(), "active".to_owned()));
    // Again with the same settings is the same; with others an error.
    assert_eq!(arn(&place.ok(ELB, "CreateLoadBalancer", &asked).await), arn(&first));
    let other = [asked[0], asked[1], asked[2]];
    assert_eq!(place.code(ELB, "CreateLoadBalancer", &other).await, "DuplicateLoadBalancerName");
    let target_group = [("Name", "tg"), ("Protocol", "HTTP"), ("Port", "80"), ("VpcId", place.vpc.as_str())];
    let group = place.target_group("tg").await;
    assert_eq!(place.target_group("tg").await, group);
    let other = [target_group[0], target_group[1], ("Port", "81"), target_group[3]];
    assert_eq!(place.code(ELB, "CreateTargetGroup", &other).await, "DuplicateTargetGroupName");
    let listener = place.listener(&arn(&first), &group).await;
    assert_eq!(place.listener(&arn(&first), &group).await, listener);
    let mut other = forwarding("", &group);
    let first = arn(&first);
    other[0] = ("LoadBalancerArn", &first);
    other.push(("Tags.member.1.Key", "a"));
    other.push(("Tags.member.1.Value", "b"));
    assert_eq!(place.code(ELB, "CreateListener", &other).await, "DuplicateListener");
}

#[tokio::test]
async fn names_that_are_not_there_are_errors() {
    let place = Place::prompt().await;
    let group = place.group("g").await;
    place.balancer(&group).await;
    place.target_group("there").await;
    let names = |first, second| [("Names.member.1", first), ("Names.member.2", second)];
    assert_eq!(
        place.code(ELB, "DescribeLoadBalancers", &names("balancer", "gone")).await,
        "LoadBalancerNotFound"
    );
    assert_eq!(
        place.code(ELB, "DescribeLoadBalancers", &[("Names.member.1", "gone")]).await,
        "LoadBalancerNotFound"
    );
    assert_eq!(place.code(ELB, "DescribeTargetGroups", &names("there", "gone")).await, "TargetGroupNotFound");
    let many: Vec<String> = (1..=21).map(|n| format!("ResourceArns.member.{n}")).collect();
    let many: Parameters<'_> =
        many.iter().map(|name| (name.as_str(), "arn:aws:elasticloadbalancing:x")).collect();
    assert_eq!(place.code(ELB, "DescribeTags", &many).await, "ValidationError");
    let wrong = [
        ("Name", "tagged"),
        ("Protocol", "HTTP"),
        ("Port", "80"),
        ("VpcId", &place.vpc),
        ("Tags.member.1.Key", "k"),
        ("Tags.member.1.Value", "{}"),
    ];
    assert_eq!(place.code(ELB, "CreateTargetGroup", &wrong).await, "ValidationError");
}

#[tokio::test]
async fn a_target_group_stays_while_a_listener_uses_it_and_shortly_after() {
    let place = Place::with(Options { lingering_use: 1, ..Options::prompt() }).await;
    let group = place.group("g").await;
    let (balancer, used) = (place.balancer(&group).await, place.target_group("used").await);
    place.listener(&balancer, &used).await;
    let delete = [("TargetGroupArn", used.as_str())];
    let balancers = async || {
        let found = place.ok(ELB, "DescribeTargetGroups", &[("Names.member.1", "used")]).await;
        found.find("LoadBalancerArns").expect("a list").children.len()
    };
    assert_eq!(balancers().await, 1);
    assert_eq!(place.code(ELB, "DeleteTargetGroup", &delete).await, "ResourceInUse");
    place.ok(ELB, "DeleteLoadBalancer", &[("LoadBalancerArn", &balancer)]).await;
    assert_eq!(balancers().await, 0);
    assert_eq!(place.code(ELB, "DeleteTargetGroup", &delete).await, "ResourceInUse");
    place.ok(ELB, "DeleteTargetGroup", &delete).await;
    place.ok(ELB, "DeleteTargetGroup", &delete).await;
}

#[tokio::test]
async fn agents_register_what_their_tags_name_once_it_runs() {
    let place = Place::with(Options { pending: 1, initial: 1, draining: 1, ..Options::prompt() }).await;
    place.role("agent", &AGENT).await;
    let launched = place.run(&joining("one", "agent")).await;
    // The group comes later than the instance: the agent tries until it is there.
    let group = place.target_group("one").await;
    let not_in_use = ("unused".to_owned(), "Target.NotInUse".to_owned());
    assert_eq!(place.health(&group).await, [not_in_use]);
    let balancer = place.balancer(&place.group("g").await).await;
    place.listener(&balancer, &group).await;
    let state = async || place.health(&group).await.into_iter().map(|(state, _)| state).collect::<Vec<_>>();
    assert_eq!(state().await, ["initial"]);
    assert_eq!(state().await, ["healthy"]);
    place.account.set(|options| {
        options.agents = Agents::Unhealthy("Target.Timeout".to_owned(), "Request timed out".to_owned())
    });
    assert_eq!(place.health(&group).await, [("unhealthy".to_owned(), "Target.Timeout".to_owned())]);
    place.ok("ec2", "TerminateInstances", &[("InstanceId.1", &launched[0])]).await;
    assert_eq!(state().await, ["draining"]);
    assert_eq!(state().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_without_the_right_role_never_registers() {
    let place = Place::prompt().await;
    let group = place.target_group("one").await;
    place.role("register", &["elasticloadbalancing:RegisterTargets"]).await;
    place.run(&joining("one", "register")).await;
    let mut without = joining("one", "");
    without.retain(|(key, _)| *key != "IamInstanceProfile.Name");
    place.run(&without).await;
    assert_eq!(place.health(&group).await, []);
    place.role("agent", &AGENT).await;
    place.account.set(|options| options.agents = Agents::Never);
    place.run(&joining("one", "agent")).await;
    assert_eq!(place.health(&group).await, []);
    place.account.set(|options| options.agents = Agents::Healthy);
    assert_eq!(place.health(&group).await.len(), 1);
    // AWS does not mind the end of what never was.
    let target = [("TargetGroupArn", group.as_str()), ("Targets.member.1.Id", "i-0123456789abcdef0")];
    place.ok(ELB, "DeregisterTargets", &target).await;
}
