//! `verify` against fleets of real agents behind the strict local balancer: right ones, and each way
//! in which one can be wrong.

use std::net::TcpListener;

use bootstrap::AgentProcess;
use bootstrap::fleet::{Group, Root};
use bootstrap::verify::{Failure, Instance, Report, VerifyTarget, verify};
use local_cloud::{BalancerSpec, Forward, HealthCheck, Rule, TargetGroupSpec, TargetState};
use tests::{Bed, BedOptions, Machine, PORT, group};

/// An instance of a group, and its agent.
struct Member {
    group: &'static str,
    machine: Machine,
    agent: AgentProcess,
}

fn cluster(name: &str) -> Group {
    Group {
        name: name.to_owned(),
        instance_type: "t3.micro".to_owned(),
        count: 1,
        weight: 1,
        root: Root::Health,
        paths: true,
    }
}

fn numbers(name: &str) -> Group {
    Group { root: Root::Seed, paths: false, ..cluster(name) }
}

/// A bed with these target groups, and instances of them that serve.
async fn bed(specs: Vec<TargetGroupSpec>, groups: &[Group], members: &[&'static str]) -> (Bed, Vec<Member>) {
    let mut bed = Bed::with(BedOptions { groups: specs, ..BedOptions::default() }).await;
    let mut started = Vec::new();
    for name in members {
        let wanted = groups.iter().find(|group| group.name == *name).unwrap();
        let mut spec = bed.spec();
        spec.tags.clear();
        let spec = spec
            .tag(instance_contract::tags::TARGET_GROUP, *name)
            .tag(instance_contract::tags::ROOT, wanted.root.as_str());
        let spec = if wanted.paths { spec.tag(instance_contract::tags::CLUSTER, *name) } else { spec };
        let machine = bed.machine(spec).await;
        let agent = machine.start();
        started.push(Member { group: name, machine, agent });
    }
    (bed, started)
}

async fn healthy_bed(groups: &[Group], members: &[&'static str]) -> (Bed, Vec<Member>) {
    let specs = groups.iter().map(|wanted| group(&wanted.name)).collect();
    let (bed, members) = bed(specs, groups, members).await;
    for member in &members {
        bed.until_target(member.group, &member.machine, TargetState::Healthy).await;
    }
    (bed, members)
}

/// What is known of the fleet, as a command would learn it from AWS.
fn target(bed: &Bed, groups: &[Group], members: &[Member]) -> VerifyTarget {
    let instances = members.iter().map(|member| {
        let id = member.machine.instance.id();
        let health = bed.cloud.health_of(member.group, id, PORT);
        let unhealthy = (health.state != TargetState::Healthy)
            .then(|| format!("{} ({})", health.state, health.reason.unwrap_or_default()));
        let address = Some(member.machine.command.listen);
        Instance { id: id.to_owned(), group: member.group.to_owned(), address, unhealthy }
    });
    VerifyTarget { url: bed.balancer.url(), instances: instances.collect(), groups: groups.to_vec() }
}

async fn verified(target: &VerifyTarget) -> Report {
    let mut told = Vec::new();
    let report = verify(target, |check| told.push(check.to_string())).await;
    let lines: Vec<_> = report.checks.iter().map(ToString::to_string).collect();
    assert_eq!(told, lines, "each check is told when it is done");
    report
}

fn passed(report: &Report, what: &str) -> String {
    let check = report.checks.iter().find(|check| check.what == what);
    check.and_then(|check| check.result.clone().ok()).unwrap_or_else(|| panic!("{what}: {report:?}"))
}

fn failed(report: &Report, what: &str) -> Failure {
    let check = report.checks.iter().find(|check| check.what == what);
    check.and_then(|check| check.result.clone().err()).unwrap_or_else(|| panic!("{what}: {report:?}"))
}

#[tokio::test]
async fn a_fleet_of_clusters_that_is_right_passes_every_check() {
    let groups = [cluster("cluster1"), cluster("cluster2")];
    let (bed, members) = healthy_bed(&groups, &["cluster1", "cluster1", "cluster2"]).await;
    let report = verified(&target(&bed, &groups, &members)).await;
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(passed(&report, "targets"), "3 of 3 are healthy");
    assert_eq!(passed(&report, "/"), "20 of 20 answered \"Healthy!\"");
    assert!(passed(&report, "/cluster1").starts_with("2 of 2 instances answered in "), "{report:?}");
    assert!(passed(&report, "/cluster2").starts_with("1 of 1 instances answered in "), "{report:?}");
    assert_eq!(passed(&report, "unknown path"), "5 of 5 answered 404");
    let json = report.to_json();
    assert_eq!((json["ok"].as_bool(), json["checks"].as_array().unwrap().len()), (Some(true), 6));
    assert!(bed.balancer.requests() < 200, "{} requests", bed.balancer.requests());
}

#[tokio::test]
async fn a_rule_that_leads_to_the_wrong_group_is_found() {
    let groups = [cluster("cluster1"), cluster("cluster2")];
    let (bed, members) = healthy_bed(&groups, &["cluster1", "cluster2"]).await;
    let [one, two] = ["cluster1", "cluster2"].map(|name| bed.arn(name));
    let rules = [("cluster1", two, 1), ("cluster2", one, 2)].map(|(name, arn, priority)| Rule {
        priority,
        paths: vec![format!("/{name}"), format!("/{name}/*")],
        forward: Forward::to(arn),
    });
    let default = Forward::weighted([(one.to_owned(), 1), (two.to_owned(), 1)]);
    let spec = BalancerSpec { rules: rules.into(), ..BalancerSpec::new("swapped", default) };
    let swapped = bed.cloud.create_balancer(spec).await.unwrap();
    let wrong = VerifyTarget { url: swapped.url(), ..target(&bed, &groups, &members) };
    let report = verified(&wrong).await;
    assert!(!report.is_ok());
    for what in ["/cluster1", "/cluster2"] {
        let failure = failed(&report, what);
        assert_eq!(failure.expected, "200 and \"Instance ID is responding now!\"");
        assert!(failure.seen.starts_with("404 "), "{failure:?}");
        assert!(
            failure.cure.contains("launch the fleet again, which repairs the rules and the instances' tags"),
            "{failure:?}"
        );
    }
    passed(&report, "/");
    passed(&report, "unknown path");
}

#[tokio::test]
async fn instances_of_another_group_or_of_nobody_are_named() {
    let groups = [cluster("cluster1"), cluster("cluster2")];
    let (bed, members) = healthy_bed(&groups, &["cluster1", "cluster1", "cluster2"]).await;
    let right = target(&bed, &groups, &members);
    let id = &right.instances[0].id;

    let mut wrong = right.clone();
    wrong.instances[0].group = "cluster2".to_owned();
    let failure = failed(&verified(&wrong).await, "/cluster1");
    assert_eq!(failure.expected, "an instance of cluster1");
    assert_eq!(failure.seen, format!("{id} of cluster2 answered"));

    let mut wrong = right.clone();
    wrong.instances.remove(0);
    let failure = failed(&verified(&wrong).await, "/cluster1");
    assert_eq!(failure.seen, format!("{id:?} answered, which is not an instance of this fleet"));

    let mut wrong = right.clone();
    wrong.instances.pop();
    assert_eq!(failed(&verified(&wrong).await, "targets").seen, "cluster2 has none");
}

#[tokio::test]
async fn an_instance_that_stopped_is_missed() {
    let groups = [cluster("cluster1")];
    let (bed, mut members) = healthy_bed(&groups, &["cluster1", "cluster1"]).await;
    members[1].agent.kill();
    members[1].agent.wait().await.unwrap();
    bed.until_target("cluster1", &members[1].machine, TargetState::Unhealthy).await;
    let id = members[1].machine.instance.id();
    let report = verified(&target(&bed, &groups, &members)).await;
    let failure = failed(&report, "targets");
    assert!(failure.seen.starts_with(&format!("{id} is unhealthy (Target.")), "{failure:?}");
    let failure = failed(&report, "/cluster1");
    assert_eq!(failure.expected, "answers of 2 instances");
    assert_eq!(failure.seen, format!("1 answered 31 requests, but not {id}"));
    passed(&report, "/");
}

#[tokio::test]
async fn a_balancer_that_fails_open_does_not_look_healthy() {
    let groups = [cluster("cluster1")];
    let nobody = group("cluster1");
    let check = HealthCheck { path: "/no-such-path".to_owned(), ..nobody.health_check.clone() };
    let specs = vec![TargetGroupSpec { health_check: check, ..nobody }];
    let (bed, members) = bed(specs, &groups, &["cluster1"]).await;
    bed.until_target("cluster1", &members[0].machine, TargetState::Unhealthy).await;
    let report = verified(&target(&bed, &groups, &members)).await;
    assert!(!report.is_ok());
    let failure = failed(&report, "targets");
    let said = "Target.ResponseCodeMismatch); with no healthy target the load balancer sends requests to all of them";
    assert!(failure.seen.ends_with(said), "{failure:?}");
    passed(&report, "/");
    passed(&report, "/cluster1");
}

#[tokio::test]
async fn numbers_stored_at_each_instance_are_read_through_the_balancer_and_put_back() {
    let groups = [numbers("numbers")];
    let (bed, members) = healthy_bed(&groups, &["numbers", "numbers"]).await;
    let long = format!("-{}", "9".repeat(4300));
    let url = members[0].machine.url("/");
    let post = bed.client().post(&url).body(format!("{{\"num\": {long}}}")).send().await.unwrap();
    assert_eq!(post.status(), 200);
    let report = verified(&target(&bed, &groups, &members)).await;
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(passed(&report, "/"), "20 of 20 answered a number");
    let found = passed(&report, "seeds");
    assert!(found.starts_with("2 of 2 stored numbers read through the load balancer in "), "{found}");
    assert_eq!(bed.get(&url).await, (200, long));
    assert_eq!(bed.get(&members[1].machine.url("/seed")).await, (200, "0".to_owned()));
}

#[tokio::test]
async fn numbers_are_put_back_also_when_they_cannot_be_read() {
    let groups = [numbers("numbers")];
    let (bed, mut members) = healthy_bed(&groups, &["numbers", "numbers"]).await;
    let url = members[0].machine.url("/");
    bed.client().post(&url).body("{\"num\": 41}").send().await.unwrap();

    // A balancer that leads to others alone: their numbers are not the stored ones.
    let others = healthy_bed(&groups, &["numbers"]).await;
    let elsewhere = VerifyTarget { url: others.0.balancer.url(), ..target(&bed, &groups, &members) };
    let failure = failed(&verified(&elsewhere).await, "seeds");
    assert_eq!(failure.expected, "200 and one of the stored numbers, digits only");
    assert_eq!(failure.seen, "200 \"0\"");
    assert_eq!(bed.get(&url).await, (200, "41".to_owned()));

    members[1].agent.kill();
    members[1].agent.wait().await.unwrap();
    let failure = failed(&verified(&target(&bed, &groups, &members)).await, "seeds");
    let address = members[1].machine.command.listen;
    let id = members[1].machine.instance.id();
    assert_eq!(failure.expected, format!("an answer from {id} at {address}"));
    assert!(failure.cure.contains("security.allow"), "{failure:?}");
    assert_eq!(bed.get(&url).await, (200, "41".to_owned()));

    let mut hidden = target(&bed, &groups, &members);
    hidden.instances[1].address = None;
    let failure = failed(&verified(&hidden).await, "seeds");
    assert_eq!(failure.expected, format!("a public address of {id}"));
    assert_eq!(bed.get(&url).await, (200, "41".to_owned()));
}

#[tokio::test]
async fn health_and_seed_groups_behind_one_balancer_are_both_seen() {
    let groups = [cluster("cluster1"), numbers("numbers")];
    let (bed, members) = healthy_bed(&groups, &["cluster1", "numbers"]).await;
    let right = target(&bed, &groups, &members);
    let report = verified(&right).await;
    assert!(report.is_ok(), "{report:?}");
    assert!(passed(&report, "/").starts_with("health and seed groups answered in "), "{report:?}");
    assert!(passed(&report, "seeds").starts_with("1 of 1 stored numbers read"), "{report:?}");

    // All of the weight on the clusters, by hand: the numbers are never seen.
    let spec = BalancerSpec::new("one", Forward::to(bed.arn("cluster1")));
    let one = bed.cloud.create_balancer(spec).await.unwrap();
    let report = verified(&VerifyTarget { url: one.url(), ..right }).await;
    let failure = failed(&report, "/");
    assert_eq!(failure.seen, "only answers of root = \"health\" in 30 requests");
    assert_eq!(failed(&report, "seeds").expected, "the numbers of 1 instances");
}

#[tokio::test]
async fn nothing_more_is_asked_of_a_balancer_that_does_not_answer() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let groups = vec![cluster("cluster1")];
    let instance =
        Instance { id: "i-0".to_owned(), group: "cluster1".to_owned(), address: None, unhealthy: None };
    let target = VerifyTarget { url: format!("http://{free}"), groups, instances: vec![instance] };
    let report = verified(&target).await;
    assert_eq!(report.checks.len(), 2, "{report:?}");
    passed(&report, "targets");
    let failure = failed(&report, "load balancer");
    assert!(
        failure.seen.contains("refuses the connection") && failure.cure.contains("balancer-allow"),
        "{failure:?}"
    );
}
