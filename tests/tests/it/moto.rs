//! Outside checks: the agent's calls against someone else's ELBv2 and EC2 (moto), with someone
//! else's client (awscli) as the witness, and our local cloud's answers read by that client.
//!
//! moto is not AWS everywhere (no draining, healthy at once): see docs/development.md.

use local_cloud::InstanceSpec;
use serde_json::{Value, json};
use tests::outside::{AwsCli, Moto};
use tests::{Bed, Machine, PORT, ended};

/// A machine that is one of moto's instances: metadata and credentials of the bed, calls to moto.
async fn machine(bed: &mut Bed, moto: &Moto, number: usize, spec: InstanceSpec) -> Machine {
    let spec = InstanceSpec { id: Some(moto.instance(number).to_owned()), ..spec };
    let mut machine = bed.machine(spec).await;
    for (name, value) in &mut machine.command.environment {
        if name.starts_with("AWS_ENDPOINT_URL_") {
            moto.endpoint().clone_into(value);
        }
    }
    machine
}

/// The targets of a group as awscli shows them: id, port and state.
async fn targets(cli: &AwsCli, arn: &str) -> Vec<(String, u64, String)> {
    let shown = cli.ok(&["elbv2", "describe-target-health", "--target-group-arn", arn]).await;
    let target = |shown: &Value| {
        let (target, health) = (&shown["Target"], &shown["TargetHealth"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&target["Id"]), target["Port"].as_u64().unwrap(), text(&health["State"]))
    };
    shown["TargetHealthDescriptions"].as_array().unwrap().iter().map(target).collect()
}

async fn until_registered(machine: &Machine, groups: usize) {
    let healthy = |status: &Value| {
        let states = status["target_groups"].as_array().unwrap();
        states.iter().filter(|group| group["state"] == "healthy").count() == groups
    };
    machine.until_status("healthy in moto", healthy).await;
}

#[tokio::test]
async fn an_agent_registers_stays_and_leaves() {
    let moto = Moto::start(&["--listen-port", &PORT.to_string()]).await;
    let (cli, mut bed) = (moto.cli().await, Bed::start().await);
    let groups = ["cluster1", "cluster2"].map(|name| moto.arn(name).to_owned());
    // One by its name, one by its ARN.
    let tag = format!("cluster1 {}", groups[1]);
    let spec = bed.spec().tag(instance_contract::tags::TARGET_GROUP, tag);
    let machine = machine(&mut bed, &moto, 0, spec).await;
    let id = moto.instance(0);
    let mut agent = machine.start();
    until_registered(&machine, 2).await;
    let registered = vec![(id.to_owned(), u64::from(PORT), "healthy".to_owned())];
    for arn in &groups {
        assert_eq!(targets(&cli, arn).await, registered);
    }

    agent.kill();
    ended(&mut agent, &machine).await;
    let mut agent = machine.start();
    until_registered(&machine, 2).await;
    let asked = |action: &str| {
        let mut calls: Vec<_> = moto
            .calls(action)
            .into_iter()
            .map(|call| {
                let of = |name: &str| call.get(name).cloned().unwrap_or_default();
                (of("TargetGroupArn"), of("Targets.member.1.Id"), of("Targets.member.1.Port"))
            })
            .collect();
        calls.sort();
        calls
    };
    let once_each = groups.each_ref().map(|arn| (arn.clone(), id.to_owned(), PORT.to_string()));
    assert_eq!(asked("RegisterTargets"), once_each, "the restarted agent looked, and left it at that");

    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success(), "{}", machine.log());
    assert_eq!(asked("DeregisterTargets"), once_each, "what was registered, with its port");
    for arn in &groups {
        assert_eq!(targets(&cli, arn).await, []);
    }
    assert!(bed.cloud.calls().is_empty(), "every call went to moto");
    moto.stop().await;
}

#[tokio::test]
async fn tags_come_from_ec2_where_the_metadata_publish_none() {
    let tags = [
        format!("{}=cluster1", instance_contract::tags::TARGET_GROUP),
        format!("{}=blue", instance_contract::tags::CLUSTER),
    ];
    let moto = Moto::start(&["--tag", &tags[0], "--tag", &tags[1], "--listen-port", "8080"]).await;
    let mut bed = Bed::start().await;
    // What the bed knows of the tags is not shown, and is not what moto knows.
    let spec = InstanceSpec { publishes_tags: false, ..bed.spec() };
    let machine = machine(&mut bed, &moto, 1, spec).await;
    let _agent = machine.start();
    until_registered(&machine, 1).await;
    let expected = format!("Instance {} is responding now!", moto.instance(1));
    assert_eq!(bed.get(&machine.url("/blue")).await, (200, expected));
    let shown = targets(&moto.cli().await, moto.arn("cluster1")).await;
    assert_eq!(shown, [(moto.instance(1).to_owned(), u64::from(PORT), "healthy".to_owned())]);
    assert_eq!(moto.calls("DescribeTags").len(), 1);
    moto.stop().await;
}

#[tokio::test]
async fn an_ip_group_gets_the_private_address_and_an_unknown_group_is_told_with_its_cure() {
    let moto = Moto::start(&["--target-type", "ip", "--instances", "1"]).await;
    let mut bed = Bed::start().await;
    let spec = bed.spec().tag(instance_contract::tags::TARGET_GROUP, "nowhere cluster1");
    let machine = machine(&mut bed, &moto, 0, spec).await;
    let mut agent = machine.start();
    let status = machine
        .until_status("both groups", |status| {
            let groups = &status["target_groups"];
            !groups[0]["problem"].is_null() && groups[1]["state"] == "healthy"
        })
        .await;
    let unknown = &status["target_groups"][0];
    assert!(unknown["problem"].as_str().unwrap().contains("TargetGroupNotFound"), "{unknown}");
    assert!(unknown["cure"].as_str().unwrap().contains("create the target group"), "{unknown}");
    machine.until_logged("create the target group").await;

    let (cli, arn) = (moto.cli().await, moto.arn("cluster1"));
    let address = machine.instance.address().to_string();
    assert_eq!(targets(&cli, arn).await, [(address, u64::from(PORT), "healthy".to_owned())]);
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success(), "{}", machine.log());
    assert_eq!(targets(&cli, arn).await, []);
    moto.stop().await;
}

#[tokio::test]
async fn the_shipped_policy_is_enough_for_the_agent_and_allows_no_more() {
    let policy = include_str!("../../../packaging/iam/agent.json");
    // moto matches resources against `*` alone, see docs/development.md.
    let mut policy: Value = serde_json::from_str(policy).unwrap();
    let mut allowed = Vec::new();
    for statement in policy["Statement"].as_array_mut().unwrap() {
        statement["Resource"] = json!("*");
        allowed.extend(statement["Action"].as_array().unwrap().clone());
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let tag = format!("{}=cluster1", instance_contract::tags::TARGET_GROUP);
    let moto = Moto::start(&[
        "--enforce-iam",
        "--policy",
        file.to_str().unwrap(),
        "--tag",
        &tag,
        "--listen-port",
        &PORT.to_string(),
    ])
    .await;
    let mut bed = Bed::start().await;
    let spec = InstanceSpec { publishes_tags: false, ..bed.spec() };
    let mut machine = machine(&mut bed, &moto, 0, spec).await;
    for (name, made) in
        [("AWS_ACCESS_KEY_ID", "access_key_id"), ("AWS_SECRET_ACCESS_KEY", "secret_access_key")]
    {
        machine.command.environment.push((name.into(), moto.made[made].as_str().unwrap().into()));
    }
    let mut agent = machine.start();
    until_registered(&machine, 1).await;
    agent.terminate();
    assert!(ended(&mut agent, &machine).await.success(), "{}", machine.log());
    let log = machine.log();
    assert!(!log.contains("AccessDenied") && !log.contains("UnauthorizedOperation"), "{log}");
    for action in allowed {
        let action = action.as_str().unwrap().split(':').next_back().unwrap();
        assert!(!moto.calls(action).is_empty(), "{action} is allowed and never called");
    }
    moto.stop().await;
}

#[tokio::test]
async fn awscli_understands_the_local_clouds_load_balancing() {
    let (bed, machine, _agent) = Bed::healthy().await;
    let operator = bed.cloud.operator();
    let cli = AwsCli::new(&bed.cloud.endpoint_url(), &operator.access_key, &operator.secret_key).await;
    let id = machine.instance.id();

    let groups = cli.ok(&["elbv2", "describe-target-groups", "--names", "cluster1"]).await;
    let group = &groups["TargetGroups"][0];
    let arn = group["TargetGroupArn"].as_str().unwrap();
    assert_eq!(group["TargetType"], "instance");
    assert_eq!(group["Port"], PORT);
    assert_eq!(group["HealthCheckPath"], "/health");
    assert_eq!(group["HealthyThresholdCount"], 2);
    assert_eq!(group["Matcher"], json!({"HttpCode": "200"}));
    assert_eq!(group["LoadBalancerArns"], json!([bed.balancer.arn()]));
    let attributes = ["elbv2", "describe-target-group-attributes", "--target-group-arn", arn];
    let attributes = cli.ok(&attributes).await;
    let delay = json!({"Key": "deregistration_delay.timeout_seconds", "Value": "300"});
    assert!(attributes["Attributes"].as_array().unwrap().contains(&delay), "{attributes}");

    let healthy = (id.to_owned(), u64::from(PORT), "healthy".to_owned());
    assert_eq!(targets(&cli, arn).await, [healthy]);
    let other_port = format!("Id={id},Port=9");
    let change =
        |action: &'static str| ["elbv2", action, "--target-group-arn", arn, "--targets", &other_port];
    assert_eq!(cli.ok(&change("register-targets")).await, Value::Null);
    assert_eq!(targets(&cli, arn).await.len(), 2);
    assert_eq!(cli.ok(&change("deregister-targets")).await, Value::Null);
    let shown = cli.ok(&["elbv2", "describe-target-health", "--target-group-arn", arn]).await;
    let leaving = &shown["TargetHealthDescriptions"][1];
    assert_eq!(leaving["TargetHealth"]["State"], "draining");
    assert_eq!(leaving["TargetHealth"]["Reason"], "Target.DeregistrationInProgress");
    assert!(leaving["TargetHealth"]["Description"].is_string(), "{leaving}");

    let balancers = cli.ok(&["elbv2", "describe-load-balancers"]).await;
    let balancer = &balancers["LoadBalancers"][0];
    assert_eq!(balancer["LoadBalancerArn"], bed.balancer.arn());
    assert_eq!(balancer["State"], json!({"Code": "active"}));
    assert_eq!(balancer["AvailabilityZones"].as_array().unwrap().len(), 2);
    let listeners = cli.ok(&["elbv2", "describe-listeners", "--load-balancer-arn", bed.balancer.arn()]).await;
    let listener = &listeners["Listeners"][0];
    assert_eq!(listener["Port"], bed.balancer.address().port());
    assert_eq!(listener["DefaultActions"][0]["Type"], "forward");
    let listener = listener["ListenerArn"].as_str().unwrap();
    let rules = cli.ok(&["elbv2", "describe-rules", "--listener-arn", listener]).await;
    let [rule, default] = rules["Rules"].as_array().unwrap().as_slice() else { panic!("{rules}") };
    assert_eq!((&rule["Priority"], &rule["IsDefault"]), (&json!("1"), &json!(false)));
    let paths = &rule["Conditions"][0]["PathPatternConfig"]["Values"];
    assert_eq!(paths, &json!(["/cluster1", "/cluster1/*"]));
    let weighted = &rule["Actions"][0]["ForwardConfig"]["TargetGroups"];
    assert_eq!(weighted, &json!([{"TargetGroupArn": arn, "Weight": 1}]));
    assert_eq!((&default["Priority"], &default["IsDefault"]), (&json!("default"), &json!(true)));

    let missing = cli.error(&["elbv2", "describe-target-groups", "--names", "missing"]).await;
    assert!(missing.contains("(TargetGroupNotFound) when calling the DescribeTargetGroups"), "{missing}");
    let stranger = AwsCli::new(&bed.cloud.endpoint_url(), "AKIASTRANGER", "x").await;
    let refused = stranger.error(&["elbv2", "describe-target-groups"]).await;
    assert!(refused.contains("(InvalidClientTokenId)"), "{refused}");
}

#[tokio::test]
async fn awscli_understands_the_local_clouds_tags() {
    let mut bed = Bed::start().await;
    let machine = bed.machine(bed.spec().tag("note", "a < b & \"c\"")).await;
    let operator = bed.cloud.operator();
    let cli = AwsCli::new(&bed.cloud.endpoint_url(), &operator.access_key, &operator.secret_key).await;
    let filter = format!("Name=resource-id,Values={}", machine.instance.id());
    let shown = cli.ok(&["ec2", "describe-tags", "--filters", &filter]).await;
    let tag = |key: &str, value: &str| {
        json!({
            "Key": key, "Value": value, "ResourceType": "instance", "ResourceId": machine.instance.id(),
        })
    };
    let expected = [
        tag(instance_contract::tags::CLUSTER, "cluster1"),
        tag(instance_contract::tags::TARGET_GROUP, "cluster1"),
        tag("note", "a < b & \"c\""),
    ];
    assert_eq!(shown["Tags"], json!(expected));
    let stranger = AwsCli::new(&bed.cloud.endpoint_url(), "AKIASTRANGER", "x").await;
    let refused = stranger.error(&["ec2", "describe-tags"]).await;
    assert!(refused.contains("(AuthFailure)"), "{refused}");
}
