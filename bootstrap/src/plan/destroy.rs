//! The plan of a destroy: delete everything, in the order that AWS requires.

use super::inventory::{Bucket, Inventory, TargetGroup};
use super::steps::{Action, Plan, instances_of, listed};
use crate::fleet::names::Names;

/// What takes the fleet down. Empty if nothing is there. `protected`: the balancer's deletion protection is to be lifted.
pub(crate) fn destroy_plan(have: &Inventory, names: &Names, protected: bool) -> Plan {
    let mut plan = Plan::default();
    let alive: Vec<_> = have.instances.iter().filter(|i| !i.is_dead()).map(|i| i.id.clone()).collect();
    let lingering: Vec<_> = have.instances.iter().filter(|i| !i.is_gone()).map(|i| i.id.clone()).collect();
    let terminated = (!alive.is_empty()).then(|| {
        let title = format!("terminate {}: {}", instances_of(alive.len()), listed(&alive));
        plan.add(Action::TerminateInstances { ids: alive }, title, [])
    });
    // One that is protected refuses them all, and AWS tells only now. Then nothing else is touched.
    let balancer = have.balancer.as_ref().map(|found| {
        let name = names.balancer();
        let mut before = terminated;
        if protected {
            let lift = Action::LiftDeletionProtection { arn: found.arn.clone() };
            before = Some(plan.add(
                lift,
                format!("remove the deletion protection of load balancer {name}"),
                before,
            ));
        }
        let title = format!("delete load balancer {name} with its listener and rules");
        plan.add(Action::DeleteBalancer { arn: found.arn.clone() }, title, before)
    });
    // AWS refuses to delete what a listener of somebody else uses, for as long as it does.
    let unused = |group: &&TargetGroup| group.other_balancers(&names.balancer()).next().is_none();
    for group in have.target_groups.iter().filter(unused) {
        let action = Action::DeleteTargetGroup { arn: group.arn.clone(), name: group.name.clone() };
        plan.add(action, format!("delete target group {}", group.name), balancer);
    }
    let ended = (!lingering.is_empty()).then(|| {
        let title = format!("wait for the termination of {}", instances_of(lingering.len()));
        plan.add(Action::WaitTerminated { ids: lingering }, title, terminated)
    });
    if have.role.as_ref().is_some_and(|role| role.profile || role.policy.is_some()) {
        let title = format!("delete instance profile and role {}", names.role());
        plan.add(Action::DeleteRole, title, ended);
    }
    if matches!(have.bucket, Some(Bucket::Untagged | Bucket::Ours)) {
        plan.add(Action::DeleteBucket, "empty and delete the package's bucket", ended);
    }
    // The balancer's last: a rule of the instances' group refers to it. And the instances' after all
    // else, as it holds the definition.
    let mut before: Vec<_> = ended.into_iter().chain(balancer).collect();
    if let Some(group) = &have.instances_group {
        let title = format!("delete security group {}", names.instances_group());
        before.push(plan.add(Action::DeleteSecurityGroup { id: group.id.clone() }, title, before.clone()));
    }
    if let Some(group) = &have.balancer_group {
        let title = format!("delete security group {}", names.balancer_group());
        plan.add(Action::DeleteSecurityGroup { id: group.id.clone() }, title, before);
    }
    plan
}
