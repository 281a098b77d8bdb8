//! Two commands on one fleet at the same time: each ends, and none undoes unseen what the other does.

use rustix::process::{Signal, kill_process};
use tests::account::{Fault, Options, Small, Trouble, differences, without_ids};

const ELB: &str = "elasticloadbalancing";

#[tokio::test]
async fn one_destroy_ends_what_a_launch_makes_after_it_was_looked_for() {
    let small = Small::with(Options::prompt()).await;
    let empty = without_ids(&small.account.snapshot().await);
    let elb = |action: &str| format!("{ELB}:{action}");
    // The call of the launch that takes effect late, and the call of the destroy that it comes with.
    for (late, nth, with, lives) in [
        ("ec2:RunInstances".to_owned(), 4, "ec2:TerminateInstances", false),
        ("ec2:RunInstances".to_owned(), 4, "ec2:TerminateInstances", true),
        (elb("CreateLoadBalancer"), 1, "ec2:TerminateInstances", false),
        (elb("CreateTargetGroup"), 2, "ec2:DeleteSecurityGroup", false),
        ("iam:CreateRole".to_owned(), 1, "ec2:DeleteSecurityGroup", false),
        ("s3:PutObject".to_owned(), 1, "ec2:DeleteSecurityGroup", false),
    ] {
        small.account.reset(Options::prompt()).await;
        small.account.fault(Fault::nth(&late, nth, Trouble::Wait));
        let launching = small.account.bootstrap(&small.launching()).start();
        small.account.held().await;
        if with == "ec2:TerminateInstances" {
            let instances = async || {
                let calls = small.account.calls();
                let launched =
                    calls.iter().filter(|call| call.action == "RunInstances" && call.ended.is_some());
                (launched.count() >= 3).then_some(())
            };
            assert!(tests::eventually(instances).await.is_some(), "{:?}", small.account.names());
        }
        let launching = if lives {
            Some(launching)
        } else {
            kill_process(launching.pid(), Signal::KILL).expect("it runs");
            launching.end().await;
            None
        };
        small.account.fault(Fault::nth(with, 1, Trouble::Wait));
        let destroying = small.account.bootstrap(&["destroy", "small", "--yes"]).start();
        small.account.holds(2).await;
        small.account.release();
        let destroyed = destroying.end().await.success();
        if let Some(launching) = launching {
            launching.end().await.exits(1);
        }
        let left = differences(&empty, &without_ids(&small.account.snapshot().await));
        assert_eq!(left, Vec::<String>::new(), "{late}: {}", destroyed.stderr);
    }
}
