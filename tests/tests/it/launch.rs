//! `bootstrap launch` and `destroy` in an AWS account: what is there afterwards is what the two
//! set-ups are made of, tag by tag, as someone else's client sees it; and then nothing is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tests::account::{ACCOUNT, Account, IMAGE, NEWER_IMAGE, Options, differences, without_ids};
use tests::outside::AwsCli;

/// Tags by key, of EC2's and ELBv2's JSON.
fn tags(of: &Value) -> BTreeMap<String, String> {
    let tags = of.as_array().expect("a list of tags").iter();
    tags.map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect()
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

#[track_caller]
fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

/// The only one.
#[track_caller]
fn one(value: &Value) -> &Value {
    assert_eq!(list(value).len(), 1, "{value}");
    &value[0]
}

/// All that there is of instances, those alone that are alive.
async fn instances(cli: &AwsCli) -> Vec<Value> {
    let alive = ["ec2", "describe-instances", "--filters", "Name=instance-state-name,Values=pending,running"];
    let found = cli.ok(&alive).await;
    list(&found["Reservations"])
        .iter()
        .flat_map(|reservation| list(&reservation["Instances"]).clone())
        .collect()
}

/// What a group lets in: ports and from where, other groups by name.
fn openings(group: &Value, names: &BTreeMap<String, String>) -> BTreeSet<(i64, i64, String)> {
    let mut all = BTreeSet::new();
    for rule in list(&group["IpPermissions"]) {
        assert_eq!(rule["IpProtocol"], "tcp");
        let port = |key: &str| rule[key].as_i64().expect("a port");
        let cidrs = list(&rule["IpRanges"]).iter().map(|range| text(&range["CidrIp"]));
        let groups =
            list(&rule["UserIdGroupPairs"]).iter().map(|pair| names[&text(&pair["GroupId"])].clone());
        all.extend(cidrs.chain(groups).map(|from| (port("FromPort"), port("ToPort"), from)));
    }
    all
}

/// The fleet as awscli sees it.
struct Seen {
    cli: AwsCli,
    instances: Vec<Value>,
    groups: BTreeMap<String, Value>,
    group_names: BTreeMap<String, String>,
    balancer: Value,
    target_groups: BTreeMap<String, Value>,
}

impl Seen {
    async fn of(account: &Account) -> Self {
        let cli = account.witness().await;
        let instances = instances(&cli).await;
        let found = cli.ok(&["ec2", "describe-security-groups"]).await;
        let groups: BTreeMap<String, Value> = list(&found["SecurityGroups"])
            .iter()
            .map(|group| (text(&group["GroupName"]), group.clone()))
            .collect();
        let group_names =
            groups.iter().map(|(name, group)| (text(&group["GroupId"]), name.clone())).collect();
        let found = cli.ok(&["elbv2", "describe-load-balancers"]).await;
        let balancer = one(&found["LoadBalancers"]).clone();
        let found = cli.ok(&["elbv2", "describe-target-groups"]).await;
        let target_groups =
            list(&found["TargetGroups"]).iter().map(|g| (text(&g["TargetGroupName"]), g.clone()));
        let target_groups = target_groups.collect();
        Self { cli, instances, groups, group_names, balancer, target_groups }
    }

    fn arn(&self, group: &str) -> String {
        text(&self.target_groups[group]["TargetGroupArn"])
    }

    async fn tags_of(&self, arn: &str) -> BTreeMap<String, String> {
        let found = self.cli.ok(&["elbv2", "describe-tags", "--resource-arns", arn]).await;
        tags(&one(&found["TagDescriptions"])["Tags"])
    }

    /// What is the same for every instance of a fleet, whatever it is.
    async fn every_instance(&self, fleet: &str, image: &str) {
        let volumes = self.cli.ok(&["ec2", "describe-volumes"]).await;
        let volumes: BTreeMap<String, &Value> =
            list(&volumes["Volumes"]).iter().map(|volume| (text(&volume["VolumeId"]), volume)).collect();
        assert_eq!(volumes.len(), self.instances.len());
        for instance in &self.instances {
            assert_eq!(instance["ImageId"], image);
            let group = one(&instance["SecurityGroups"]);
            assert_eq!(group["GroupName"], format!("{fleet}-instances"));
            let metadata = &instance["MetadataOptions"];
            assert_eq!(metadata["HttpTokens"], "required", "IMDSv2");
            assert_eq!(metadata["HttpEndpoint"], "enabled");
            assert_eq!(metadata["InstanceMetadataTags"], "enabled");
            let disk = one(&instance["BlockDeviceMappings"]);
            assert_eq!(disk["DeviceName"], instance["RootDeviceName"]);
            assert_eq!(disk["Ebs"]["DeleteOnTermination"], true);
            let volume = volumes[&text(&disk["Ebs"]["VolumeId"])];
            assert_eq!(volume["Encrypted"], true);
            assert_eq!(tags(&volume["Tags"])["instance-agent:fleet"], fleet);
        }
    }

    /// The instances of a target group: type, and how many in each zone; their tags are exactly these.
    fn members(&self, group: &str, wanted: &[(&str, &str)]) -> (BTreeSet<String>, BTreeMap<String, usize>) {
        let of_group =
            |instance: &&Value| tags(&instance["Tags"]).get("Name").is_some_and(|name| name == group);
        let (mut types, mut zones, mut slots) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        for instance in self.instances.iter().filter(of_group) {
            types.insert(text(&instance["InstanceType"]));
            *zones.entry(text(&instance["Placement"]["AvailabilityZone"])).or_default() += 1;
            let mut found = tags(&instance["Tags"]);
            // How bootstrap knows them again: which they are, and what they were launched as.
            let batch: Vec<u16> = found["instance-agent:slots"]
                .split(' ')
                .map(|slot| slot.parse().expect("a number"))
                .collect();
            let index =
                usize::try_from(instance["AmiLaunchIndex"].as_u64().expect("a number")).expect("small");
            assert!(slots.insert(batch[index]), "two in one slot");
            assert!(
                found.remove("instance-agent:slots").is_some()
                    && found.remove("instance-agent:launched-for").as_deref() == Some(group)
                    && found.remove("instance-agent:revision").is_some()
            );
            let wanted = wanted.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            assert_eq!(found, wanted.chain([("Name".to_owned(), group.to_owned())]).collect());
        }
        let count = u16::try_from(slots.len()).expect("few");
        assert_eq!(slots, (0..count).collect());
        (types, zones)
    }

    /// Group and weight of a forward action.
    fn shares(&self, action: &Value) -> BTreeMap<String, i64> {
        assert_eq!(action["Type"], "forward");
        let name = |arn: &str| {
            let found = self.target_groups.iter().find(|(_, group)| group["TargetGroupArn"] == arn);
            found.expect("it exists").0.clone()
        };
        match action["ForwardConfig"]["TargetGroups"].as_array() {
            Some(groups) => {
                let share = |group: &Value| {
                    (name(&text(&group["TargetGroupArn"])), group["Weight"].as_i64().unwrap_or(1))
                };
                groups.iter().map(share).collect()
            }
            None => [(name(&text(&action["TargetGroupArn"])), 1)].into(),
        }
    }

    /// The listener, which is the only one, and the rules beside its default.
    async fn listener(&self) -> (Value, Vec<Value>) {
        let balancer = text(&self.balancer["LoadBalancerArn"]);
        let found = self.cli.ok(&["elbv2", "describe-listeners", "--load-balancer-arn", &balancer]).await;
        let listener = one(&found["Listeners"]).clone();
        let arn = text(&listener["ListenerArn"]);
        let found = self.cli.ok(&["elbv2", "describe-rules", "--listener-arn", &arn]).await;
        let rules = list(&found["Rules"]).iter().filter(|rule| rule["IsDefault"] != true).cloned().collect();
        (listener, rules)
    }

    /// That a target group is what every one of them is, and that its targets are its instances, healthy.
    async fn target_group(&self, fleet: &str, name: &str, port: i64) {
        let group = &self.target_groups[name];
        let wanted = json!({
            "Protocol": "HTTP", "ProtocolVersion": "HTTP1", "Port": port, "IpAddressType": "ipv4",
            "TargetType": "instance", "HealthCheckEnabled": true, "HealthCheckProtocol": "HTTP",
            "HealthCheckPort": "traffic-port", "HealthCheckPath": "/", "HealthCheckIntervalSeconds": 30,
            "HealthCheckTimeoutSeconds": 5, "HealthyThresholdCount": 5, "UnhealthyThresholdCount": 2,
            "Matcher": { "HttpCode": "200" }, "VpcId": self.balancer["VpcId"],
        });
        for (key, value) in wanted.as_object().expect("an object") {
            assert_eq!(&group[key], value, "{name}: {key}");
        }
        let arn = self.arn(name);
        assert_eq!(self.tags_of(&arn).await, [("instance-agent:fleet".to_owned(), fleet.to_owned())].into());
        let found =
            self.cli.ok(&["elbv2", "describe-target-group-attributes", "--target-group-arn", &arn]).await;
        assert_eq!(tags(&found["Attributes"])["deregistration_delay.timeout_seconds"], "300");
        let found = self.cli.ok(&["elbv2", "describe-target-health", "--target-group-arn", &arn]).await;
        let targets: BTreeSet<String> = list(&found["TargetHealthDescriptions"])
            .iter()
            .map(|target| {
                assert_eq!(
                    (&target["TargetHealth"]["State"], &target["Target"]["Port"]),
                    (&json!("healthy"), &json!(port))
                );
                text(&target["Target"]["Id"])
            })
            .collect();
        let named = |instance: &&Value| tags(&instance["Tags"])["instance-agent:target-group"] == name;
        let members =
            self.instances.iter().filter(named).map(|instance| text(&instance["InstanceId"])).collect();
        assert_eq!(targets, members);
    }

    /// That the balancer is the fleet's, and what every one of them is.
    async fn balanced(&self, fleet: &str) {
        let balancer = &self.balancer;
        let wanted = [
            ("LoadBalancerName", fleet),
            ("Scheme", "internet-facing"),
            ("Type", "application"),
            ("IpAddressType", "ipv4"),
        ];
        for (key, value) in wanted {
            assert_eq!(balancer[key], value);
        }
        let zones: BTreeSet<String> =
            list(&balancer["AvailabilityZones"]).iter().map(|zone| text(&zone["ZoneName"])).collect();
        assert_eq!(zones, ["us-east-1a", "us-east-1b"].map(str::to_owned).into());
        let group = one(&balancer["SecurityGroups"]).as_str().expect("an id");
        assert_eq!(self.group_names[group], format!("{fleet}-balancer"));
        let ours = BTreeMap::from([("instance-agent:fleet".to_owned(), fleet.to_owned())]);
        assert_eq!(self.tags_of(&text(&balancer["LoadBalancerArn"])).await, ours);
        let (listener, rules) = self.listener().await;
        for arn in [&listener["ListenerArn"]].into_iter().chain(rules.iter().map(|rule| &rule["RuleArn"])) {
            assert_eq!(self.tags_of(&text(arn)).await, ours);
        }
    }

    /// Role, profile and policy: the least, and of nobody else.
    async fn role(&self, fleet: &str, groups: &[&str]) {
        let name = format!("instance-agent-{fleet}-us-east-1");
        let found = self.cli.ok(&["iam", "get-instance-profile", "--instance-profile-name", &name]).await;
        let role = one(&found["InstanceProfile"]["Roles"]);
        assert_eq!(role["RoleName"], name);
        let trust = &role["AssumeRolePolicyDocument"]["Statement"][0];
        assert_eq!(trust["Principal"]["Service"], "ec2.amazonaws.com");
        for instance in &self.instances {
            let profile = format!("arn:aws:iam::{ACCOUNT}:instance-profile/{name}");
            // moto gives a launch's profile to its first instance alone.
            if instance["AmiLaunchIndex"] == 0 {
                assert_eq!(instance["IamInstanceProfile"]["Arn"], profile);
            }
        }
        let found = self.cli.ok(&["iam", "list-role-policies", "--role-name", &name]).await;
        let policy = text(one(&found["PolicyNames"]));
        let found =
            self.cli.ok(&["iam", "get-role-policy", "--role-name", &name, "--policy-name", &policy]).await;
        let mut writes = BTreeMap::new();
        for statement in list(&found["PolicyDocument"]["Statement"]) {
            let texts = |value: &Value| {
                value.as_array().map_or_else(|| vec![text(value)], |all| all.iter().map(text).collect())
            };
            for action in texts(&statement["Action"]) {
                if !action.contains(":Describe") {
                    writes.insert(action, texts(&statement["Resource"]));
                }
            }
        }
        let arns: Vec<String> = groups
            .iter()
            .map(|group| format!("arn:aws:elasticloadbalancing:us-east-1:{ACCOUNT}:targetgroup/{group}/*"))
            .collect();
        let actions = ["elasticloadbalancing:DeregisterTargets", "elasticloadbalancing:RegisterTargets"];
        assert_eq!(writes, actions.map(|action| (action.to_owned(), arns.clone())).into());
        let attached = self.cli.ok(&["iam", "list-attached-role-policies", "--role-name", &name]).await;
        assert_eq!(attached["AttachedPolicies"], json!([]));
    }
}

fn counts<const N: usize>(zones: [(&str, usize); N]) -> BTreeMap<String, usize> {
    zones.map(|(zone, count)| (zone.to_owned(), count)).into()
}

fn openings_of(all: &[(i64, i64, &str)]) -> BTreeSet<(i64, i64, String)> {
    all.iter().map(|(from, to, source)| (*from, *to, (*source).to_owned())).collect()
}

/// That the account is as it was before; what is terminated does not count.
async fn is_as_before(account: &Account, before: &Value) {
    let after = account.snapshot().await;
    assert_eq!(differences(&without_ids(before), &without_ids(&after)), Vec::<String>::new());
}

#[tokio::test]
async fn launch_clusters_makes_the_first_set_up_and_destroy_leaves_nothing_of_it() {
    let account = Account::start(Options::strict()).await;
    let before = account.snapshot().await;
    let program = account.installed("usr", &["amd64", "arm64"]);
    account.bootstrap_at(&program, &["launch", "clusters"]).run().await.success();

    let seen = Seen::of(&account).await;
    assert_eq!(seen.instances.len(), 9);
    seen.every_instance("clusters", IMAGE).await;
    for (cluster, kind, zones) in [
        ("cluster1", "m4.large", counts([("us-east-1a", 3), ("us-east-1b", 2)])),
        ("cluster2", "t2.large", counts([("us-east-1a", 2), ("us-east-1b", 2)])),
    ] {
        let group = format!("clusters-{cluster}");
        let wanted = [
            ("instance-agent:fleet", "clusters"),
            ("instance-agent:cluster", cluster),
            ("instance-agent:target-group", group.as_str()),
            ("instance-agent:root", "health"),
        ];
        assert_eq!(seen.members(&group, &wanted), ([kind.to_owned()].into(), zones));
        seen.target_group("clusters", &group, 80).await;
    }
    assert_eq!(seen.target_groups.len(), 2);

    let names: Vec<&String> = seen.groups.keys().collect();
    assert_eq!(names, ["clusters-balancer", "clusters-instances", "default"]);
    let anywhere = "0.0.0.0/0";
    let open = [(22, 22, anywhere), (80, 80, anywhere), (443, 443, anywhere), (80, 80, "clusters-balancer")];
    assert_eq!(openings(&seen.groups["clusters-instances"], &seen.group_names), openings_of(&open));
    let open = openings(&seen.groups["clusters-balancer"], &seen.group_names);
    assert_eq!(open, openings_of(&[(0, 65_535, anywhere)]));
    for name in ["clusters-instances", "clusters-balancer"] {
        let group = &seen.groups[name];
        assert_eq!(tags(&group["Tags"])["instance-agent:fleet"], "clusters");
        // Out to anywhere, as AWS has it in a new group.
        let out = one(&group["IpPermissionsEgress"]);
        assert_eq!((&out["IpProtocol"], &one(&out["IpRanges"])["CidrIp"]), (&json!("-1"), &json!(anywhere)));
    }

    seen.balanced("clusters").await;
    let (listener, rules) = seen.listener().await;
    assert_eq!((&listener["Port"], &listener["Protocol"]), (&json!(80), &json!("HTTP")));
    let equal = [("clusters-cluster1".to_owned(), 1), ("clusters-cluster2".to_owned(), 1)];
    assert_eq!(seen.shares(one(&listener["DefaultActions"])), equal.into());
    let rule = |rule: &Value| {
        let condition = one(&rule["Conditions"]);
        assert_eq!(condition["Field"], "path-pattern");
        let paths: BTreeSet<String> =
            list(&condition["PathPatternConfig"]["Values"]).iter().map(text).collect();
        (paths, seen.shares(one(&rule["Actions"])))
    };
    let found: BTreeSet<_> = rules.iter().map(rule).collect();
    let wanted = ["cluster1", "cluster2"].map(|cluster| {
        let paths = [format!("/{cluster}"), format!("/{cluster}/*")];
        (BTreeSet::from(paths), BTreeMap::from([(format!("clusters-{cluster}"), 1)]))
    });
    assert_eq!(found, wanted.into());
    seen.role("clusters", &["clusters-cluster1", "clusters-cluster2"]).await;

    let bucket = format!("instance-agent-clusters-{ACCOUNT}-us-east-1");
    let found = seen.cli.ok(&["s3api", "list-objects-v2", "--bucket", &bucket]).await;
    let key = text(&one(&found["Contents"])["Key"]);
    assert!(key.starts_with("instance-agent_") && key.ends_with(".deb"), "{key}");
    let found = seen.cli.ok(&["s3api", "get-public-access-block", "--bucket", &bucket]).await;
    let blocked = found["PublicAccessBlockConfiguration"].as_object().expect("an object");
    assert_eq!(blocked.values().filter(|value| **value == true).count(), 4, "{blocked:?}");

    account.ok(&["destroy", "clusters", "--yes"]).await;
    is_as_before(&account, &before).await;
}

#[tokio::test]
async fn launch_seed_makes_the_second_set_up_and_destroy_leaves_nothing_of_it() {
    let account = Account::start(Options::strict()).await;
    let before = account.snapshot().await;
    account.ok(&["launch", "seed", "--in-image", "--yes"]).await;

    let seen = Seen::of(&account).await;
    assert_eq!(seen.instances.len(), 2);
    seen.every_instance("seed", NEWER_IMAGE).await;
    let group = text(&seen.target_groups.values().next().expect("one")["TargetGroupName"]);
    let wanted = [
        ("instance-agent:fleet", "seed"),
        ("instance-agent:target-group", group.as_str()),
        ("instance-agent:root", "seed"),
    ];
    let zones = counts([("us-east-1a", 1), ("us-east-1b", 1)]);
    assert_eq!(seen.members(&group, &wanted), (["t3.micro".to_owned()].into(), zones));
    seen.target_group("seed", &group, 80).await;
    assert_eq!(seen.target_groups.len(), 1);
    let open = openings(&seen.groups["seed-instances"], &seen.group_names);
    assert!(open.contains(&(80, 80, "0.0.0.0/0".to_owned())), "HTTP from anywhere: {open:?}");
    seen.balanced("seed").await;
    let (listener, rules) = seen.listener().await;
    assert_eq!(rules, Vec::<Value>::new());
    assert_eq!(seen.shares(one(&listener["DefaultActions"])), [(group.clone(), 1)].into());
    seen.role("seed", &[&group]).await;
    assert_eq!(seen.cli.ok(&["s3api", "list-buckets"]).await["Buckets"], json!([]));

    account.ok(&["destroy", "seed", "--yes"]).await;
    is_as_before(&account, &before).await;
}

#[tokio::test]
async fn two_fleets_in_one_account_do_not_touch_each_other() {
    let account = Account::start(Options::strict()).await;
    let launch = async |name: &str| {
        account.ok(&["launch", "seed", "--name", name, "--in-image", "--yes"]).await;
    };
    launch("one").await;
    let alone = account.snapshot().await;
    launch("two").await;
    account.ok(&["destroy", "two", "--yes"]).await;
    let after = account.snapshot().await;
    assert_eq!(differences(&alone, &after), Vec::<String>::new());
    account.ok(&["destroy", "one", "--yes"]).await;
    // And again after the end: the dead instances are no reason to think that they are there.
    launch("one").await;
    assert_eq!(
        differences(&without_ids(&alone), &without_ids(&account.snapshot().await)),
        Vec::<String>::new()
    );
}
