use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::inventory::{
    Balancer, Bucket, IngressRule, Instance, Inventory, Listener, Role, Rule, SecurityGroup, Source,
    TargetGroup,
};
use super::steps::Step;
use super::*;
use crate::fleet::names::Names;
use crate::fleet::tagging;
use crate::fleet::{Desired, Fleet, Group};

mod exchange;

fn clusters() -> Fleet {
    let mut fleet = Fleet::parse("clusters", Fleet::built_in("clusters").unwrap()).unwrap();
    fleet.package = Some(crate::fleet::Package::InImage);
    fleet
}

/// The ARN of the fleet's balancer.
const BALANCER: &str =
    "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/clusters/50dc6c495c0c9188";

fn names() -> Names {
    Names::new("clusters", "us-east-1")
}

fn desired(fleet: &Fleet) -> Desired {
    Desired::new(fleet.clone(), names())
}

fn policy(also: &[String]) -> Value {
    json!({ "allow": "what agents need", "also": also })
}

/// An account in which a fleet's plan was carried out.
fn launched(fleet: &Fleet) -> Inventory {
    let groups = fleet.groups.iter();
    let target_groups: Vec<_> = groups
        .map(|group| TargetGroup {
            arn: format!("arn:{}", fleet.target_group(group)),
            name: fleet.target_group(group),
            port: fleet.port,
            health: fleet.health_check.clone(),
            delay: Some(fleet.deregistration_delay.as_secs()),
            balancers: vec![BALANCER.to_owned()],
        })
        .collect();
    let weights = target_groups.iter().zip(&fleet.groups);
    let mut default: Vec<_> = weights.map(|(found, group)| (found.arn.clone(), group.weight)).collect();
    default.sort();
    let rules = fleet.groups.iter().zip(&target_groups).zip(1..).filter(|((group, _), _)| group.paths);
    let rules = rules.map(|((group, found), priority)| Rule {
        arn: format!("arn:rule-{}", group.name),
        priority,
        paths: group.rule_paths().into_iter().collect(),
        target_group: Some(found.arn.clone()),
    });
    let cidr = |cidr: &str, first, last| IngressRule { first, last, from: Source::Cidr(cidr.to_owned()) };
    let mut open: BTreeSet<_> = [22, 80, 443].map(|port| cidr("0.0.0.0/0", port, port)).into();
    open.insert(IngressRule { first: 80, last: 80, from: Source::Balancer });
    let desired = desired(fleet);
    let common = desired.tags.clone();
    let group = |id: &str, tags: tagging::Tags, ingress| {
        Some(SecurityGroup { id: id.to_owned(), vpc: "vpc-1".to_owned(), tags, ingress })
    };
    let mut anchor = common.clone();
    anchor.extend(tagging::definition_tags(&desired.definition));
    anchor.insert(tagging::SETTLED.to_owned(), desired.digest.clone());
    let instances = fleet.groups.iter().flat_map(|group| {
        (0..group.count).map(|slot| instance(fleet, group, slot, usize::from(slot) % fleet.zones.len()))
    });
    Inventory {
        balancer_group: group("sg-balancer", common, [cidr("0.0.0.0/0", 0, u16::MAX)].into()),
        instances_group: group("sg-instances", anchor, open),
        balancer: Some(Balancer {
            arn: BALANCER.to_owned(),
            dns_name: "clusters.example.com".to_owned(),
            state: "active".to_owned(),
            reason: None,
            zones: fleet.zones.iter().cloned().collect(),
            security_groups: vec!["sg-balancer".to_owned()],
        }),
        listener: Some(Listener { arn: "arn:listener".to_owned(), port: fleet.port, default }),
        rules: rules.collect(),
        target_groups,
        instances: instances.collect(),
        unhealthy: BTreeSet::new(),
        role: Some(Role { profile: true, in_profile: true, policy: Some(policy(&[])) }),
        bucket: Some(Bucket::Absent),
    }
}

fn instance(fleet: &Fleet, group: &Group, slot: u16, zone: usize) -> Instance {
    Instance {
        id: format!("i-{}-{slot}", group.name),
        state: "running".to_owned(),
        reason: None,
        zone: fleet.zones[zone].clone(),
        public_address: None,
        private_address: None,
        launched: 1000,
        index: 0,
        tags: desired(fleet).instance_tags(group, &[slot]),
    }
}

fn nothing() -> Inventory {
    Inventory { role: Some(Role::default()), bucket: Some(Bucket::Absent), ..Inventory::default() }
}

fn plan(wanted: &Fleet, have: &Inventory) -> Plan {
    let plan = launch_plan(&desired(wanted), have, &|also| policy(also)).unwrap();
    for (number, step) in plan.steps.iter().enumerate() {
        assert!(step.after.iter().all(|before| *before < number), "{step:?}");
    }
    plan
}

fn titles(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.title.as_str()).collect()
}

/// The number of the step that does this.
fn step(plan: &Plan, wanted: impl Fn(&Action) -> bool) -> usize {
    plan.steps.iter().position(|step| wanted(&step.action)).unwrap()
}

/// Whether one step comes after another, directly or not.
fn comes_after(plan: &Plan, later: usize, earlier: usize) -> bool {
    plan.steps[later].after.iter().any(|before| *before == earlier || comes_after(plan, *before, earlier))
}

/// Calls in a row.
fn depth(plan: &Plan) -> usize {
    let mut depths: Vec<usize> = Vec::new();
    for step in &plan.steps {
        let before = step.after.iter().map(|before| depths[*before]).max();
        depths.push(before.unwrap_or_default() + 1);
    }
    depths.into_iter().max().unwrap_or_default()
}

#[test]
fn a_new_fleet_takes_23_calls_at_most_7_deep() {
    let plan = plan(&clusters(), &nothing());
    let calls: usize = plan.steps.iter().map(|step| step.action.calls().len()).sum();
    assert_eq!((calls, depth(&plan)), (23, 7), "{:#?}", titles(&plan));
    let runs: Vec<_> = titles(&plan).into_iter().filter(|title| title.starts_with("launch")).collect();
    assert_eq!(
        runs,
        [
            "launch 3 × m4.large of cluster1 in us-east-1a",
            "launch 2 × m4.large of cluster1 in us-east-1b",
            "launch 2 × t2.large of cluster2 in us-east-1a",
            "launch 2 × t2.large of cluster2 in us-east-1b",
        ]
    );
}

#[test]
fn instances_come_after_their_group_profile_policy_and_package() {
    let mut fleet = clusters();
    let file = Some("agent.deb".into());
    fleet.package = Some(crate::fleet::Package::Deb { file, sha256: "0".repeat(64) });
    let plan = plan(&fleet, &nothing());
    let run = step(&plan, |action| matches!(action, Action::RunInstances { .. }));
    for before in [
        step(&plan, |action| *action == Action::CreateSecurityGroup(Side::Instances)),
        step(&plan, |action| matches!(action, Action::PutRolePolicy { .. })),
        step(&plan, |action| *action == Action::AddRole),
        step(&plan, |action| *action == Action::Upload),
        step(&plan, |action| *action == Action::CreateTargetGroup("cluster1".to_owned())),
    ] {
        assert!(comes_after(&plan, run, before), "{}", plan.steps[before].title);
    }
}

#[test]
fn the_plan_of_a_fleet_that_is_as_wanted_is_empty() {
    let fleet = clusters();
    assert_eq!(titles(&plan(&fleet, &launched(&fleet))), Vec::<&str>::new());
}

#[test]
fn a_launch_that_was_not_completed_is_waited_for_and_settled() {
    let fleet = clusters();
    let mut have = launched(&fleet);
    have.instances_group.as_mut().unwrap().tags.remove(tagging::SETTLED);
    let plan = plan(&fleet, &have);
    let actions: Vec<_> = plan.steps.iter().map(|step| &step.action).collect();
    assert_eq!(actions, [&Action::WaitHealthy, &Action::Confirm, &Action::Settle]);
}

#[test]
fn only_the_difference_is_made() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.security.allow = vec!["192.0.2.0/24".to_owned()];
    wanted.deregistration_delay = std::time::Duration::from_secs(60);
    wanted.groups[0].weight = 3;
    let plan = plan(&wanted, &launched(&stored));
    assert_eq!(
        titles(&plan),
        [
            "store the fleet's new definition",
            "open clusters-instances to TCP 22 from 192.0.2.0/24, TCP 80 from 192.0.2.0/24, TCP 443 from 192.0.2.0/24",
            "close clusters-instances to TCP 22 from 0.0.0.0/0, TCP 80 from 0.0.0.0/0, TCP 443 from 0.0.0.0/0",
            "set the deregistration delay of clusters-cluster1 to 60 s",
            "set the deregistration delay of clusters-cluster2 to 60 s",
            "wait until all 9 instances are healthy",
            "check that no other command has changed the fleet",
            "set the listener's weights: cluster1 weight 3, cluster2 weight 1",
            "tag the fleet as complete",
        ]
    );
    assert!((1..plan.steps.len()).all(|later| comes_after(&plan, later, 0)), "the definition is first");
}

#[test]
fn a_lost_instance_is_launched_again_in_its_zone() {
    let fleet = clusters();
    let mut have = launched(&fleet);
    have.instances[3].state = "terminated".to_owned();
    let plan = plan(&fleet, &have);
    let slots = vec![3];
    let wanted = Action::RunInstances { group: "cluster1".to_owned(), zone: "us-east-1b".to_owned(), slots };
    assert_eq!(plan.steps[0].action, wanted);
    assert_eq!(plan.steps_that(Effect::Delete).count(), 0);
}

#[test]
fn scaling_down_terminates_the_highest_slots() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.set_count("cluster1", 3).unwrap();
    let plan = plan(&wanted, &launched(&stored));
    let deleted: Vec<_> = plan.steps_that(Effect::Delete).map(|step| step.title.as_str()).collect();
    assert_eq!(deleted, ["terminate 2 instances (surplus): i-cluster1-3, i-cluster1-4"]);
}

#[test]
fn scaling_down_terminates_what_does_not_run_or_is_not_healthy_first() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.set_count("cluster1", 3).unwrap();
    let mut have = launched(&stored);
    have.instances[0].state = "stopped".to_owned();
    have.unhealthy.insert("i-cluster1-2".to_owned());
    let smaller = plan(&wanted, &have);
    let deleted: Vec<_> = smaller.steps_that(Effect::Delete).map(|step| step.title.as_str()).collect();
    assert_eq!(deleted, ["terminate 2 instances (surplus): i-cluster1-2, i-cluster1-0"]);
    assert_eq!(smaller.launched("cluster1"), 0);

    // What stays are three in slots 1, 3 and 4: that is as wanted, and a fourth fills the first gap.
    have.instances.retain(|i| !deleted[0].contains(&i.id));
    let anchor = launched(&wanted).instances_group;
    have.instances_group = anchor;
    assert!(plan(&wanted, &have).is_empty());
    wanted.set_count("cluster1", 4).unwrap();
    let zone = "us-east-1a".to_owned();
    let fourth = Action::RunInstances { group: "cluster1".to_owned(), zone, slots: vec![0] };
    step(&plan(&wanted, &have), |action| *action == fourth);
}

#[test]
fn what_is_to_be_replaced_serves_until_the_end_however_much_of_it_there_is() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.groups[1].instance_type = "t3.large".to_owned();
    // Half of the new ones were launched before a launch was killed.
    let mut have = launched(&stored);
    let new = launched(&wanted).instances.into_iter().filter(|i| i.id.contains("cluster2")).take(2);
    have.instances.extend(new.map(|i| Instance { id: format!("{}-new", i.id), ..i }));
    let plan = plan(&wanted, &have);
    assert_eq!(plan.launched("cluster2"), 2);
    let end = step(&plan, |action| matches!(action, Action::TerminateInstances { ids } if ids.len() == 4));
    assert!(comes_after(&plan, end, step(&plan, |action| *action == Action::WaitHealthy)));
    assert_eq!(plan.steps_that(Effect::Delete).count(), 1, "{:#?}", titles(&plan));
}

#[test]
fn an_instance_of_another_type_is_replaced_only_when_the_new_ones_are_healthy() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.groups[1].instance_type = "t3.large".to_owned();
    let plan = plan(&wanted, &launched(&stored));
    assert_eq!((plan.launched("cluster1"), plan.launched("cluster2")), (0, 4));
    let wait = step(&plan, |action| *action == Action::WaitHealthy);
    let end = step(&plan, |action| matches!(action, Action::TerminateInstances { ids } if ids.len() == 4));
    let settle = step(&plan, |action| *action == Action::Settle);
    assert!(comes_after(&plan, end, wait) && comes_after(&plan, settle, end));
}

#[test]
fn the_slots_of_one_call_fit_into_a_tag() {
    let mut fleet = clusters();
    fleet.set_count("cluster1", 1000).unwrap();
    for step in plan(&fleet, &nothing()).steps {
        if let Action::RunInstances { slots, .. } = step.action {
            let tags = desired(&fleet).instance_tags(&fleet.groups[0], &slots);
            assert!(tags.values().all(|value| value.chars().count() <= 256));
        }
    }
}

#[test]
fn nothing_goes_before_a_look_whether_another_command_has_changed_the_fleet() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.groups[0].instance_type = "t3.large".to_owned();
    wanted.groups[1].name = "cluster3".to_owned();
    wanted.zones = vec!["us-east-1a".to_owned(), "us-east-1c".to_owned()];
    let mut have = launched(&stored);
    have.instances.extend((10..20).map(|slot| instance(&stored, &stored.groups[0], slot, 0)));
    let plan = plan(&wanted, &have);
    let looks: Vec<_> = (0..plan.steps.len()).filter(|n| plan.steps[*n].action == Action::Confirm).collect();
    let goes = |step: &Step| {
        step.action.effect() == Effect::Delete || matches!(step.action, Action::SetDefault | Action::Settle)
    };
    let going: Vec<_> = (0..plan.steps.len()).filter(|n| goes(&plan.steps[*n])).collect();
    assert!(going.len() >= 6, "{:#?}", titles(&plan));
    for later in going {
        assert!(looks.iter().any(|look| comes_after(&plan, later, *look)), "{}", plan.steps[later].title);
    }
}

#[test]
fn instances_whose_target_group_is_gone_are_not_forgotten() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.groups.pop();
    let mut have = launched(&wanted);
    have.instances.extend(launched(&stored).instances.into_iter().filter(|i| i.id.contains("cluster2")));
    let plan = plan(&wanted, &have);
    let deleted: Vec<_> = plan.steps_that(Effect::Delete).map(|step| step.title.as_str()).collect();
    assert_eq!(deleted.len(), 1, "{deleted:?}");
    assert!(deleted[0].starts_with("terminate 4 instances (of no group)"), "{deleted:?}");
}

#[test]
fn two_instances_in_one_slot_leave_the_older_one() {
    let fleet = clusters();
    let mut have = launched(&fleet);
    let mut twin = have.instances[0].clone();
    twin.id = "i-twin".to_owned();
    twin.launched += 1;
    have.instances.insert(0, twin);
    let plan = plan(&fleet, &have);
    assert_eq!(plan.steps[1].title, "terminate 1 instance (surplus): i-twin");
}

#[test]
fn instances_that_bootstrap_did_not_launch_are_left_to_who_did() {
    let fleet = clusters();
    let mut have = launched(&fleet);
    let mut other = have.instances[0].clone();
    other.id = "i-scaled".to_owned();
    other.tags.remove(tagging::SLOTS);
    have.instances.push(other);
    assert!(plan(&fleet, &have).is_empty());
    let plan = destroy_plan(&have, &names(), false);
    assert!(plan.steps[0].title.contains("i-scaled"), "{:#?}", titles(&plan));
}

#[test]
fn what_someone_opened_by_hand_in_a_way_bootstrap_never_does_stays_open() {
    let fleet = clusters();
    let mut have = launched(&fleet);
    let by_hand = IngressRule { first: 9100, last: 9100, from: Source::Other("sg-monitoring".to_owned()) };
    have.instances_group.as_mut().unwrap().ingress.insert(by_hand);
    assert!(plan(&fleet, &have).is_empty());
}

#[test]
fn a_rule_that_someone_made_by_hand_stays() {
    let fleet = clusters();
    let mut have = launched(&fleet);
    for (priority, paths) in [(8, &["/admin"][..]), (9, &["/a", "/b"])] {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let arn = have.target_groups[0].arn.clone();
        have.rules.push(Rule { arn: "arn:by-hand".to_owned(), priority, paths, target_group: Some(arn) });
    }
    assert!(plan(&fleet, &have).is_empty());
}

#[test]
fn new_tags_are_set_on_what_is_there() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.tags.insert("Project".to_owned(), "x".to_owned());
    let plan = plan(&wanted, &launched(&stored));
    let Action::Tag { resources, arns } = &plan.steps[1].action else {
        panic!("{:#?}", titles(&plan));
    };
    assert_eq!((resources.len(), arns.len()), (11, 3));
}

#[test]
fn a_target_groups_port_cannot_change() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.port = 8080;
    let error = launch_plan(&desired(&wanted), &launched(&stored), &|also| policy(also)).unwrap_err();
    assert!(error.starts_with("the target group clusters-cluster1 has port 80"), "{error}");
}

#[test]
fn a_fleet_goes_in_the_order_that_aws_needs() {
    let fleet = clusters();
    let mut have = launched(&fleet);
    have.bucket = Some(Bucket::Ours);
    have.instances[0].state = "shutting-down".to_owned();
    let plan = destroy_plan(&have, &names(), false);
    let balancer = step(&plan, |action| matches!(action, Action::DeleteBalancer { .. }));
    let terminate =
        step(&plan, |action| matches!(action, Action::TerminateInstances { ids } if ids.len() == 8));
    let ended = step(&plan, |action| matches!(action, Action::WaitTerminated { ids } if ids.len() == 9));
    let target_group = step(&plan, |action| matches!(action, Action::DeleteTargetGroup { .. }));
    let delete = |id: &str| step(&plan, |a| *a == Action::DeleteSecurityGroup { id: id.to_owned() });
    let (instances, balancers) = (delete("sg-instances"), delete("sg-balancer"));
    for (later, earlier) in [
        (target_group, balancer),
        // A protected instance refuses them all: then nothing else is touched.
        (balancer, terminate),
        (ended, terminate),
        (instances, ended),
        (balancers, instances),
        (balancers, balancer),
        (step(&plan, |action| *action == Action::DeleteRole), ended),
    ] {
        assert!(comes_after(&plan, later, earlier), "{:#?}", titles(&plan));
    }
    step(&plan, |action| *action == Action::DeleteBucket);
    let forced = destroy_plan(&have, &names(), true);
    let lifted = step(&forced, |action| matches!(action, Action::LiftDeletionProtection { .. }));
    let balancer = step(&forced, |action| matches!(action, Action::DeleteBalancer { .. }));
    assert!(comes_after(&forced, balancer, lifted), "{:#?}", titles(&forced));
    have.target_groups[0].balancers = vec![BALANCER.replace("clusters", "other")];
    let kept = destroy_plan(&have, &names(), false);
    let told = titles(&kept).concat();
    assert!(
        !told.contains("target group clusters-cluster1") && told.contains("target group clusters-cluster2")
    );
    assert!(destroy_plan(&nothing(), &names(), false).is_empty());
}
