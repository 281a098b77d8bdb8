//! A call of a launch takes effect while the fleet is destroyed, one call after another.

use rustix::process::Signal;

use super::Extent;
use crate::account::{Fault, Options, Small, Trouble, differences, without_ids};
use crate::eventually;

const ELB: &str = "elasticloadbalancing";

/// One destroy ends what a launch makes after the destroy has looked for it.
pub async fn late_calls(extent: Extent) {
    let small = Small::with(Options::prompt()).await;
    let empty = without_ids(&small.account.snapshot().await);
    let elb = |action: &str| format!("{ELB}:{action}");
    // The call of the launch that takes effect late, and the call of the destroy that it comes with.
    let cases = [
        ("ec2:RunInstances".to_owned(), 4, "ec2:TerminateInstances", false),
        ("ec2:RunInstances".to_owned(), 4, "ec2:TerminateInstances", true),
        (elb("CreateLoadBalancer"), 1, "ec2:TerminateInstances", false),
        (elb("CreateTargetGroup"), 2, "ec2:DeleteSecurityGroup", false),
        ("iam:CreateRole".to_owned(), 1, "ec2:DeleteSecurityGroup", false),
        ("s3:PutObject".to_owned(), 1, "ec2:DeleteSecurityGroup", false),
    ];
    for (late, nth, with, lives) in extent.of(cases, 1) {
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
            assert!(eventually(instances).await.is_some(), "{:?}", small.account.names());
        }
        let launching = if lives {
            Some(launching)
        } else {
            launching.signal(Signal::KILL);
            launching.end().await;
            None
        };
        small.account.fault(Fault::nth(with, 1, Trouble::Wait));
        let destroying = small.account.bootstrap(&["destroy", "small", "--yes"]).start();
        small.account.holds(2).await;
        small.account.release();
        let destroyed = destroying.end().await.success();
        if let Some(launching) = launching {
            // What it meets first, an instance that is terminated or something that is gone, is chance.
            let ended = launching.end().await;
            assert!(matches!(ended.status, Some(1 | 3)), "{ended:?}");
        }
        let left = differences(&empty, &without_ids(&small.account.snapshot().await));
        assert_eq!(left, Vec::<String>::new(), "{late}: {}", destroyed.stderr);
    }
}
