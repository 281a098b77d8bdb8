//! Groups and zones that others take the place of.

use super::*;

#[test]
fn a_group_that_is_no_more_loses_its_requests_before_its_instances() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.groups.pop();
    let plan = plan(&wanted, &launched(&stored));
    let share = step(&plan, |action| *action == Action::SetDefault);
    let rule = step(&plan, |action| matches!(action, Action::DeleteRule { .. }));
    let end = step(&plan, |action| matches!(action, Action::TerminateInstances { ids } if ids.len() == 4));
    let group = step(&plan, |action| matches!(action, Action::DeleteTargetGroup { .. }));
    for (later, earlier) in [(end, share), (end, rule), (group, share), (group, rule), (group, end)] {
        assert!(comes_after(&plan, later, earlier), "{:#?}", titles(&plan));
    }
}

#[test]
fn a_group_of_another_name_takes_over_only_when_it_is_healthy() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.groups[1].name = "cluster3".to_owned();
    let plan = plan(&wanted, &launched(&stored));
    let known =
        step(&plan, |action| matches!(action, Action::AddUnweighted { new, .. } if new == &["cluster3"]));
    let wait = step(&plan, |action| *action == Action::WaitHealthy);
    assert!(comes_after(&plan, wait, known), "{:#?}", titles(&plan));
    for later in [
        step(&plan, |action| *action == Action::SetDefault),
        step(&plan, |action| matches!(action, Action::DeleteRule { .. })),
        step(&plan, |action| matches!(action, Action::TerminateInstances { ids } if ids.len() == 4)),
        step(&plan, |action| matches!(action, Action::DeleteTargetGroup { .. })),
    ] {
        assert!(comes_after(&plan, later, wait), "{:#?}", titles(&plan));
    }
}

/// A fleet of three groups with these names.
fn three(names: [&str; 3], paths: bool) -> Fleet {
    let mut fleet = clusters();
    let group = fleet.groups[1].clone();
    let groups = names.map(|name| Group { name: name.to_owned(), paths, ..group.clone() });
    fleet.groups = groups.into();
    fleet
}

#[test]
fn a_listener_never_shares_out_among_more_groups_than_aws_allows() {
    let have = launched(&three(["a", "b", "c"], true));
    let plan = plan(&three(["d", "e", "f"], true), &have);
    for step in &plan.steps {
        if let Action::AddUnweighted { there, new } = &step.action {
            assert!(there.len() + new.len() <= 5, "{:#?}", titles(&plan));
        }
    }
    // They are probed all the same: their rules make them known.
    let wait = step(&plan, |action| *action == Action::WaitHealthy);
    let rules: Vec<_> = (0..plan.steps.len())
        .filter(|n| matches!(plan.steps[*n].action, Action::CreateRule { .. }))
        .collect();
    assert_eq!(rules.len(), 3);
    assert!(rules.iter().all(|rule| comes_after(&plan, wait, *rule)));
    assert!(comes_after(&plan, step(&plan, |action| *action == Action::SetDefault), wait));
}

#[test]
fn groups_that_a_listener_has_no_room_for_are_refused_before_anything_is_done() {
    let have = launched(&three(["a", "b", "c"], false));
    let error =
        launch_plan(&desired(&three(["d", "e", "f"], false)), &have, &|also| policy(also)).unwrap_err();
    let told = "the listener forwards to 3 target groups, and AWS allows 5, so d, e, f cannot be added beside them; launch a file with fewer groups first, then this one";
    assert_eq!(error, told);
    // Two steps lead there.
    let two = Fleet { groups: three(["a", "b", "c"], false).groups[..2].to_vec(), ..clusters() };
    assert!(launch_plan(&desired(&two), &have, &|also| policy(also)).is_ok());
    assert!(
        launch_plan(&desired(&three(["d", "e", "f"], false)), &launched(&two), &|also| policy(also)).is_ok()
    );
}

#[test]
fn agents_may_leave_a_group_that_goes_until_it_is_gone() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.groups[1].name = "cluster3".to_owned();
    let mut have = launched(&stored);
    let both = vec!["clusters-cluster2".to_owned()];
    let narrows = Action::PutRolePolicy { also: Vec::new() };
    let change = plan(&wanted, &have);
    let widened = step(&change, |action| *action == Action::PutRolePolicy { also: both.clone() });
    let narrowed = step(&change, |action| *action == narrows);
    let gone = step(&change, |action| matches!(action, Action::DeleteTargetGroup { .. }));
    assert!(comes_after(&change, narrowed, gone) && comes_after(&change, gone, widened));

    // Interrupted after the first, it is not done again; interrupted before the last, that is.
    have.role.as_mut().unwrap().policy = Some(policy(&both));
    let puts = |plan: &Plan| {
        let steps = plan.steps.iter().map(|step| &step.action);
        steps.filter(|action| matches!(action, Action::PutRolePolicy { .. })).cloned().collect::<Vec<_>>()
    };
    assert_eq!(puts(&plan(&wanted, &have)), std::slice::from_ref(&narrows));
    let mut have = launched(&wanted);
    have.role.as_mut().unwrap().policy = Some(policy(&both));
    assert_eq!(puts(&plan(&wanted, &have)), [narrows]);
}

#[test]
fn a_balancer_leaves_a_zone_only_when_others_serve() {
    let stored = clusters();
    let mut wanted = clusters();
    wanted.zones = vec!["us-east-1c".to_owned(), "us-east-1d".to_owned()];
    let plan = plan(&wanted, &launched(&stored));
    let set =
        |plan: &Plan, count| step(plan, |a| matches!(a, Action::SetZones(zones) if zones.len() == count));
    let wait = step(&plan, |action| *action == Action::WaitHealthy);
    assert!(comes_after(&plan, wait, set(&plan, 4)) && comes_after(&plan, set(&plan, 2), wait));
}
