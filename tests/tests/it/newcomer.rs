//! The first hour with `bootstrap` in an AWS account: whatever is missing or wrong is told in a line
//! that leads to the cure, with the right exit status, and before anything was changed. And what
//! `plan`, `list` and `status` show.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tests::account::{
    ARM_IMAGE, Account, Agents, AwsError, Document, Fault, Options, Ran, SMALL, Small, Trouble, differences,
};
use tests::launch::Launch;

/// Runs a command that has to fail with this status, these words, and without any change.
async fn refused(account: &Account, arguments: &[&str], status: i32, words: &[&str]) -> Ran {
    let before = account.snapshot().await;
    let ran = account.run(arguments).await;
    untouched(account, &before).await;
    told(ran, status, words)
}

fn told(ran: Ran, status: i32, words: &[&str]) -> Ran {
    let mut ran = ran.exits(status);
    for word in words {
        ran = ran.says(word);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

async fn untouched(account: &Account, before: &Value) {
    let changes: Vec<_> = account.calls().into_iter().filter(|call| !call.is_read()).collect();
    assert!(changes.is_empty(), "{changes:?}");
    assert_eq!(differences(before, &account.snapshot().await), Vec::<String>::new());
}

#[tokio::test]
async fn without_credentials_it_says_how_to_get_some() {
    let account = Account::start(Options::prompt()).await;
    let before = account.snapshot().await;
    for command in [&["plan", "clusters", "--in-image"][..], &["status"], &["destroy", "--yes"], &["list"]] {
        let ran = account.bootstrap(command).without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
        let cure = "or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        let ran = told(ran.run().await, 1, &["there are no AWS credentials", cure]);
        let hint = "`bootstrap fleets check clusters` shows the fleet without AWS\n";
        assert_eq!(ran.stderr.starts_with(hint), command[0] == "plan", "{}", ran.stderr);
        assert!(ran.stderr.lines().count() <= 2, "{}", ran.stderr);
    }
    let list = account.bootstrap(&["list"]).without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let misspelt = "the profile produktion, which AWS_PROFILE names, does not exist or has no credentials";
    told(list.env("AWS_PROFILE", "produktion").run().await, 1, &[misspelt]);
    assert_eq!(account.names(), Vec::<String>::new());
    untouched(&account, &before).await;
}

/// `bootstrap list` with a profile as `aws configure sso` writes it, and an awscli that does this. It
/// is played, as the pinned one is of version 1, which has no sessions.
async fn with_session(account: &Account, awscli: Option<&str>) -> Ran {
    let config = account.file(
        "config",
        "[profile team]\nsso_session = team\nsso_account_id = 123456789012\nsso_role_name = operator\n\
         [sso-session team]\nsso_start_url = https://team.invalid/start\nsso_region = us-east-1\n",
    );
    let programs = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/sh", programs.path().join("sh")).unwrap();
    if let Some(awscli) = awscli {
        let program = programs.path().join("aws");
        let asked = "team configure export-credentials --format process";
        let script = format!("#!/bin/sh\n[ \"$AWS_PROFILE $*\" = '{asked}' ] || exit 252\n{awscli}\n");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let command = account.bootstrap(&["list"]).without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    let command = command.env("AWS_CONFIG_FILE", &config).env("AWS_PROFILE", "team");
    command.env("PATH", programs.path().to_str().unwrap()).run().await
}

#[tokio::test]
async fn who_is_logged_in_by_awscli_needs_nothing_else() {
    let account = Account::start(Options::prompt()).await;
    let key = "{\"Version\": 1, \"AccessKeyId\": \"ASIAOFASESSION\", \"SecretAccessKey\": \"secret\", \
               \"SessionToken\": \"token\", \"Expiration\": \"2999-01-01T00:00:00Z\"}";
    with_session(&account, Some(&format!("echo '{key}'"))).await.success();
    assert_ne!(account.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_session_that_has_ended_is_told_in_the_words_of_awscli() {
    let account = Account::start(Options::prompt()).await;
    let expired = "The SSO session associated with this profile has expired or is otherwise invalid";
    let awscli = format!("printf '\\n%s\\n' '{expired}' >&2; exit 255");
    let cures = [expired, "`aws sso login`"];
    let ran = told(with_session(&account, Some(&awscli)).await, 1, &cures);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    let old = "echo 'aws: error: argument subcommand: Invalid choice, valid choices are:' >&2; exit 2";
    for awscli in [Some(old), None] {
        let ran =
            told(with_session(&account, awscli).await, 1, &["bootstrap needs awscli version 2 on PATH"]);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
    assert_eq!(account.names(), Vec::<String>::new());
}

#[tokio::test]
async fn credentials_that_aws_refuses_are_told_with_the_cure() {
    let account = Account::start(Options::prompt()).await;
    for (code, cure) in [
        ("ExpiredToken", "log in again: the credentials have expired"),
        ("RequestExpired", "log in again: the credentials have expired"),
        ("AuthFailure", "check the credentials, that this region is enabled in the account"),
        ("InvalidClientTokenId", "check the credentials, that this region is enabled in the account"),
        ("OptInRequired", "enable this region"),
    ] {
        account.clear();
        let refusal = AwsError::new(403, code, "AWS was not able to validate the provided credentials");
        account.fault(Fault::every("*:*", Trouble::Fail(refusal)));
        for command in [&["launch", "clusters", "--in-image", "--yes"][..], &["destroy", "--yes"]] {
            let before = account.names().len();
            let ran = told(account.run(command).await, 1, &[code, cure]);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert!(account.names().len() - before < 20, "it is not tried again");
        }
    }
}

#[tokio::test]
async fn who_may_do_nothing_is_led_to_the_policy() {
    let account = Account::start(Options::prompt()).await;
    let nothing = json!({ "Version": "2012-10-17", "Statement": [] });
    account.set(|options| options.policy = Some(Document::parse(&nothing.to_string())));
    for command in [&["launch", "clusters", "--in-image", "--yes"][..], &["destroy", "--yes"], &["list"]] {
        refused(&account, command, 1, &["`bootstrap policy operator` prints the permissions"]).await;
    }
}

#[tokio::test]
async fn a_wrong_region_is_told_before_or_by_the_call_that_meets_it() {
    let account = Account::start(Options::prompt()).await;
    let launch = ["launch", "clusters", "--in-image", "--yes", "--region"];
    let with = |region| [&launch[..], &[region]].concat();
    refused(&account, &with("virginia"), 2, &["expected a region such as us-east-1"]).await;
    let elsewhere =
        "the fleet's zone us-east-1a is not in eu-west-1; write a fleet file with zones of eu-west-1";
    refused(&account, &with("eu-west-1"), 1, &["--region eu-west-1", elsewhere]).await;
    assert_eq!(account.names(), Vec::<String>::new(), "nothing is asked");

    let ran = account.bootstrap(&["list"]).without("AWS_REGION").run().await;
    let by_name = "no region is known; give --region, or set AWS_REGION or the profile's region";
    told(ran, 1, &[&format!("{by_name}; the built-in fleets "), "`bootstrap list --region us-east-1`"]);
    let file = account.file("nowhere.toml", SMALL.replacen("region = ", "# region = ", 1));
    for command in [["status", &file], ["plan", &file]] {
        let ran = account.bootstrap(&command).without("AWS_REGION").run().await;
        let told = told(ran, 1, &["bootstrap: no region is known; ", "or region in the fleet file"]);
        assert!(!told.stderr.contains("built-in"), "{}", told.stderr);
    }
    let ran = account.bootstrap(&["status", "clsuters"]).without("AWS_REGION").run().await;
    told(
        ran,
        1,
        &["bootstrap: there is no built-in fleet clsuters; did you mean clusters?", "no region is known"],
    );
    assert_eq!(account.names(), Vec::<String>::new(), "nothing is asked");
    let ran = account.run(&["status", "clsuters"]).await;
    told(
        ran,
        1,
        &["there is no fleet clsuters in us-east-1 of account 123456789012; did you mean clusters?"],
    );

    // An address at which nothing answers, as that of a region which does not exist.
    let ran = account.bootstrap(&["list"]).env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").run().await;
    told(ran, 1, &["http://127.0.0.1:9 refuses the connection; check the endpoint"]);
}

#[tokio::test]
async fn a_fleet_that_is_in_another_region_is_found_by_its_file_and_never_said_to_be_gone() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let elsewhere = async |arguments: &[&str]| {
        let command = small.account.bootstrap(arguments).env("AWS_REGION", "eu-west-1");
        command.run().await
    };
    let lead = "for a fleet in another region give --region, or its fleet file instead of its name";
    let nowhere = "there is no fleet small in eu-west-1 of account 123456789012; ";
    for command in [&["status", "small"][..], &["verify", "small"], &["scale", "small", "blue=1", "--yes"]] {
        told(elsewhere(command).await, 1, &[nowhere, lead]);
    }
    let before = small.account.snapshot().await;
    let nothing = "no resource of fleet small in eu-west-1 of account 123456789012: nothing to do; ";
    // Not a failure: destroying twice is none either. But it does not say that it is gone.
    let ran = told(elsewhere(&["destroy", "small", "--yes"]).await, 0, &[nothing, lead]);
    assert!(!ran.stdout.contains("gone"), "{}", ran.stdout);
    let json = elsewhere(&["destroy", "small", "--yes", "--output", "json"]).await.json();
    assert_eq!(
        (json["found"].as_bool(), json["region"].as_str(), json["account"].as_str()),
        (Some(false), Some("eu-west-1"), Some("123456789012"))
    );
    assert_eq!(differences(&before, &small.account.snapshot().await), Vec::<String>::new());

    told(elsewhere(&["status", &small.file]).await, 0, &["4 of 4 instances are healthy"]);
    told(elsewhere(&["scale", &small.file, "blue=1", "--yes"]).await, 0, &["3 of 3 instances are healthy"]);
    told(elsewhere(&["plan", &small.file, "--destroy"]).await, 0, &["terminate 3 instances"]);
    told(
        elsewhere(&["destroy", &small.file, "--yes"]).await,
        0,
        &["fleet small is deleted: no resource in us-east-1 carries its tag"],
    );
    let missing = "none.toml is neither a file nor a fleet name: ";
    told(elsewhere(&["destroy", "none.toml", "--yes"]).await, 1, &[missing]);
}

#[tokio::test]
async fn misspelt_names_and_keys_are_told_with_the_right_ones() {
    let account = Account::start(Options::prompt()).await;
    refused(
        &account,
        &["plan", "cluster"],
        1,
        &["cluster", "neither a built-in fleet (clusters and seed; did you mean clusters?)"],
    )
    .await;
    let shown = account.ok(&["fleets", "show", "clusters"]).await.stdout;
    let file = account.file("my.toml", shown.replacen("deregistration-delay", "deregistration-dealy", 1));
    let told = format!("{file}:8: deregistration-dealy: unknown key; did you mean deregistration-delay?");
    refused(&account, &["launch", &file, "--yes"], 1, &[&told]).await;
    let told = "fleet clusters has no group named cluster3; its groups: cluster1, cluster2";
    refused(&account, &["launch", "--count", "cluster3=1", "--in-image", "--yes"], 2, &[told]).await;
    for bounds in [&["plan", "--count", "cluster1=0"][..], &["scale", "cluster1=1001"]] {
        refused(&account, bounds, 2, &["a group has 1 to 1000 instances, not "]).await;
    }
    refused(
        &account,
        &["launch", "clsuters"],
        1,
        &["neither a built-in fleet (clusters and seed; did you mean clusters?) nor a readable file"],
    )
    .await;
    refused(&account, &["launch", "--allow", "10.1.2.3/8"], 2, &["did you mean 10.0.0.0/8?"]).await;
    assert_eq!(account.names(), Vec::<String>::new(), "nothing is asked");
    refused(&account, &["scale", "clusters", "cluster1=6", "--yes"], 1, &["there is no fleet clusters"])
        .await;
    refused(&account, &["status", "clusters"], 1, &["clusters"]).await;
}

#[tokio::test]
async fn what_would_make_a_launch_fail_is_found_before_it() {
    let account = Account::start(Options::prompt()).await;
    let launch = ["launch", "clusters", "--yes"];
    let in_image = [&launch[..], &["--in-image"]].concat();
    let with_key = [&in_image[..], &["--key-pair", "nobody"]].concat();
    refused(&account, &with_key, 1, &["there is no key pair nobody in us-east-1", "import-key-pair"]).await;
    let with_profile = [&in_image[..], &["--instance-profile", "none"]].concat();
    refused(&account, &with_profile, 1, &["there is no instance profile none"]).await;

    account.set(|options| options.vcpu_quota = 17);
    let told = ["18 vCPU are needed, 0 of 17 are in use", "L-1216C47A", "or lower the counts"];
    refused(&account, &in_image, 1, &told).await;
    account.set(|options| options.vcpu_quota = 64);

    let shown = account.ok(&["fleets", "show", "clusters"]).await.stdout;
    for (from, to, words) in [
        ("ami-08c40ec9ead489470", ARM_IMAGE, ["arm64", "m4.large"]),
        ("ami-08c40ec9ead489470", "ami-00000000000000000", ["there is no image", "choose"]),
        ("ami-08c40ec9ead489470", "ubuntu-23.04", ["image: expected an id", "ubuntu-22.04"]),
        ("m4.large", "m4.tiny", ["instance type m4.tiny (group cluster1)", "in us-east-1; correct type"]),
        ("us-east-1b", "us-east-1z", ["no subnet in us-east-1z", "correct zones"]),
        (
            "us-east-1b",
            "us-east-1e",
            ["m6g.large (group cluster1) is not offered in us-east-1e", "other zones"],
        ),
    ] {
        let mut text = shown.replace(from, to);
        if to == "us-east-1e" {
            text = text.replace("m4.large", "m6g.large");
        }
        let file = account.file("other.toml", text);
        refused(&account, &["launch", &file, "--in-image", "--yes"], 1, &words).await;
    }

    let found = account.ask("ec2", "DescribeSubnets", &[]).await.xml();
    let in_zone = |zone: &str| {
        let mut subnets = found.list("subnetSet").iter();
        subnets.find(|subnet| subnet.say("availabilityZone") == zone).expect("one").say("subnetId").to_owned()
    };
    let private = in_zone("us-east-1b");
    let off = [("SubnetId", private.as_str()), ("MapPublicIpOnLaunch.Value", "false")];
    assert!(account.ask("ec2", "ModifySubnetAttribute", &off).await.ok());
    let told = [
        &format!("subnet {private} in us-east-1b gives instances no public address"),
        "aws ec2 modify-subnet-attribute --region us-east-1",
        "--map-public-ip-on-launch",
    ];
    refused(&account, &in_image, 1, &told).await;
    for subnet in found.list("subnetSet") {
        account.ask("ec2", "DeleteSubnet", &[("SubnetId", subnet.say("subnetId"))]).await;
    }
    let told = ["no default VPC", "aws ec2 create-default-vpc"];
    refused(&account, &in_image, 1, &told).await;
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let account = Account::start(Options { vcpu_quota: 4, ..Options::prompt() }).await;
    let launch = ["launch", "clusters", "--yes", "--in-image", "--key-pair", "nobody"];
    let told = ["2 problems would make fleet clusters fail", "no key pair nobody", "18 vCPU are needed"];
    refused(&account, &launch, 1, &told).await;
}

/// What is written for people has no escape sequence in it.
fn plain(ran: &Ran) {
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:?}");
}

#[tokio::test]
async fn a_plan_says_what_it_makes_what_it_calls_and_what_it_costs() {
    let account = Account::start(Options::prompt()).await;
    let before = account.snapshot().await;
    let plan = ["plan", "clusters", "--deb", &account.package()];
    let ran = account.ok(&plan).await;
    plain(&ran);
    for words in [
        "fleet clusters in us-east-1, account 123456789012",
        "create:",
        "vCPU: 18 needed; 0 of 64 in use",
        "billed by the hour: ",
        "× ec2:RunInstances",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    let json = account.ok(&[&plan[..], &["--output", "json"]].concat()).await.json();
    assert_eq!(json["vcpus"], json!({ "needed": 18, "used": 0, "quota": 64 }));
    let steps = json["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["effect"] != "delete"), "{json:#}");
    assert!(steps.iter().enumerate().all(|(number, step)| {
        let after = step["after"].as_array().unwrap();
        after.iter().all(|earlier| earlier.as_u64().unwrap() < number as u64)
    }));
    untouched(&account, &before).await;

    assert!(ran.stdout.ends_with("\nthis is a plan: nothing was changed\n"), "{}", ran.stdout);
    let nothing = account.ok(&["plan", "clusters", "--destroy"]).await;
    let told = "no resource of fleet clusters in us-east-1 of account 123456789012: nothing to do; ";
    assert!(nothing.stdout.starts_with(told) && nothing.stdout.lines().count() == 1, "{}", nothing.stdout);
    account.ok(&["launch", "seed", "--in-image"]).await;
    let nothing = account.ok(&["plan", "seed"]).await.stdout;
    let last = "fleet seed matches its definition: nothing to do; `bootstrap status seed --region us-east-1` shows whether it is healthy";
    assert_eq!(nothing.lines().last(), Some(last), "{nothing}");
}

#[tokio::test]
async fn list_and_status_show_fleets_and_orphans() {
    let account = Account::start(Options::prompt()).await;
    let nothing = account.ok(&["list"]).await;
    assert_eq!(nothing.stdout, "no fleets in us-east-1\n");
    account.ok(&["launch", "seed", "--in-image", "--yes"]).await;

    let ran = account.ok(&["status", "seed"]).await;
    plain(&ran);
    assert_eq!(ran.stdout.matches("i-").count(), 2, "{}", ran.stdout);
    let status = account.ok(&["status", "seed", "--output", "json"]).await.json();
    assert_eq!((status["fleet"].as_str(), status["region"].as_str()), (Some("seed"), Some("us-east-1")));
    assert_eq!((status["wanted"].as_u64(), status["healthy"].as_u64()), (Some(2), Some(2)));
    let instances = status["instances"].as_array().unwrap();
    assert!(
        instances.iter().all(|i| i["target_state"] == "healthy" && i["group"] == "numbers"),
        "{status:#}"
    );
    let zones: Vec<_> = instances.iter().map(|i| i["zone"].as_str().unwrap()).collect();
    assert!(zones.contains(&"us-east-1a") && zones.contains(&"us-east-1b"), "{zones:?}");

    let listed = account.ok(&["list", "--output", "json"]).await.json();
    assert_eq!(listed["fleets"].as_array().unwrap().len(), 1, "{listed:#}");
    assert_eq!(
        (listed["fleets"][0]["fleet"].as_str(), listed["fleets"][0]["complete"].as_bool()),
        (Some("seed"), Some(true))
    );

    // Somebody deletes the balancer by hand: the instances go on costing money.
    let found = account.ask("elasticloadbalancing", "DescribeLoadBalancers", &[]).await.xml();
    let arn = found.find("LoadBalancerArn").unwrap().text.clone();
    account.ask("elasticloadbalancing", "DeleteLoadBalancer", &[("LoadBalancerArn", &arn)]).await;
    let ran = account.ok(&["list"]).await;
    plain(&ran);
    let told = "orphans: `bootstrap destroy seed --region us-east-1` deletes them, `bootstrap launch seed --region us-east-1` \
                completes the fleet";
    assert!(ran.stdout.contains(told), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("seed: instance i-").count(), 2, "{}", ran.stdout);
}

#[tokio::test]
async fn list_shows_roles_profiles_and_buckets_that_were_left_over() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let name = "instance-agent-small-us-east-1";
    let bucket = "instance-agent-small-123456789012-us-east-1";
    let whole = small.account.ok(&["list", "--output", "json"]).await.json();
    let resources = whole["fleets"][0]["resources"].as_array().unwrap();
    for (kind, id) in [("role", name), ("instance-profile", name), ("bucket", bucket)] {
        assert!(resources.iter().any(|r| r["kind"] == kind && r["id"] == id), "{kind}: {whole:#}");
    }
    small.destroy().await.success();
    // A role is left of it, and somebody has one with a name like ours.
    let trust = r#"{"Version":"2012-10-17","Statement":[]}"#;
    let tags = [("Tags.member.1.Key", "instance-agent:fleet"), ("Tags.member.1.Value", "small")];
    let role = [("RoleName", name), ("AssumeRolePolicyDocument", trust)];
    small.foreign("iam", "CreateRole", &[&role[..], &tags].concat()).await;
    let theirs = "instance-agent-theirs-us-east-1";
    small.foreign("iam", "CreateRole", &[("RoleName", theirs), ("AssumeRolePolicyDocument", trust)]).await;
    let told = "orphans: `bootstrap destroy small --region us-east-1` deletes them";
    let listed = small.account.ok(&["list"]).await.says(told).says(&format!("small: role {name}"));
    assert!(!listed.stdout.contains("theirs"), "{}", listed.stdout);

    // Who may not list roles sees the rest.
    let denied = AwsError::denied("iam", "ListRoles", "*");
    small.account.fault(Fault::every("iam:ListRoles", Trouble::Fail(denied)));
    small.account.ok(&["list"]).await.says("roles and instance profiles are not listed").says("no fleets");
    small.destroy().await.success();
    small.account.clear();
    assert_eq!(small.account.ok(&["list"]).await.stdout, "no fleets in us-east-1\n");
}

#[tokio::test]
async fn what_aws_and_tags_say_begins_no_line_and_steers_no_terminal() {
    const STEERS: &str = "done\u{9b}2J\u{202e}\nbootstrap: nothing is left";
    let account = Account::start(Options::prompt()).await;
    let one_of_each = |said: &str| said.matches(['\u{9b}', '\u{202e}']).count();
    account.fault(Fault::every("*:*", Trouble::Fail(AwsError::client("InvalidParameterValue", STEERS))));
    for command in [&["list"][..], &["launch", "clusters", "--in-image", "--yes"], &["destroy", "--yes"]] {
        let ran = told(account.run(command).await, 1, &["done 2J  bootstrap: nothing is left"]);
        assert!(!ran.stderr.lines().any(|line| line == "bootstrap: nothing is left"), "{}", ran.stderr);
        assert_eq!(one_of_each(&ran.stderr), 0, "{}", ran.stderr);
    }

    account.clear();
    let small = Small::with(Options::prompt()).await;
    let vpc = small.account.ask("ec2", "DescribeVpcs", &[]).await.xml();
    let vpc = vpc.list("vpcSet")[0].say("vpcId").to_owned();
    let group = [("GroupName", "theirs"), ("GroupDescription", "not of the fleet"), ("VpcId", &vpc)];
    let tag = [
        ("TagSpecification.1.ResourceType", "security-group"),
        ("TagSpecification.1.Tag.1.Key", "instance-agent:fleet"),
        ("TagSpecification.1.Tag.1.Value", STEERS),
    ];
    small.foreign("ec2", "CreateSecurityGroup", &[&group[..], &tag].concat()).await;
    let listed =
        small.account.ok(&["list"]).await.says("done 2J  bootstrap: nothing is left: security group");
    assert_eq!(one_of_each(&listed.stdout), 0, "{}", listed.stdout);
    let listed = small.account.ok(&["list", "--output", "json"]).await;
    assert_eq!(listed.json()["fleets"][0]["fleet"], STEERS, "a program gets what is there");
    assert_eq!(one_of_each(&listed.stdout), 0, "{}", listed.stdout);
}

#[tokio::test]
async fn commands_for_aws_say_what_to_do_with_a_local_fleet() {
    let account = Account::start(Options::prompt()).await;
    for (command, told) in [
        (&["plan", "seed"][..], "use `bootstrap launch --local`"),
        (&["scale", "seed", "numbers=3"], "then use `bootstrap launch --local --count GROUP=N`"),
        (&["scale"], "end the local fleet with Ctrl-C in its terminal"),
        (&["status"], "a local fleet's terminal shows each change of a target's health"),
        (&["verify", "seed"], "the terminal of a local fleet shows requests to try"),
        (&["destroy", "seed", "--yes"], "a local fleet ends with Ctrl-C in its terminal"),
        (&["list"], "a local fleet runs only in its own terminal"),
    ] {
        let ran = account.run(&[command, &["--local"]].concat()).await.exits(2);
        let usage = format!("Usage: bootstrap {}", command[0]);
        ran.says(&format!("error: {} is for AWS; ", command[0])).says(told).says(&usage);
    }
    assert_eq!(account.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_fleet_that_is_not_on_aws_is_said_to_run_on_this_machine_as_long_as_it_does() {
    let account = Account::start(Options::prompt()).await;
    let file = account.file("shadow.toml", SMALL.replacen("\"small\"", "\"shadow\"", 1));
    let mut launch = Launch::start(&[&file, "--output", "json"]);
    let fleet = launch.healthy().await;
    let local = format!(
        "; a local fleet named shadow runs on this machine, at {}: press Ctrl-C in its terminal or run `kill {}` to end it",
        fleet.url(),
        launch.pid()
    );
    let commands = [&["status", "shadow"][..], &["verify", &file], &["scale", "shadow", "red=1"]];
    for command in commands {
        told(account.run(command).await, 1, &["there is no fleet shadow in us-east-1", &local]);
    }
    told(account.run(&["destroy", "shadow", "--yes"]).await, 0, &["no resource of fleet shadow", &local]);
    let without_keys = async |command: &[&str]| {
        let command = account.bootstrap(command).without("AWS_ACCESS_KEY_ID");
        command.without("AWS_SECRET_ACCESS_KEY").run().await
    };
    for command in commands.into_iter().chain([&["destroy", "shadow"][..]]) {
        told(without_keys(command).await, 1, &["there are no AWS credentials; ", &local]);
    }
    let ran = account.bootstrap(&["status", "shadow"]).without("AWS_REGION").run().await;
    told(ran, 1, &["no region is known; ", &local]);
    // No other error speaks of it.
    let ran = account.run(&["scale", "shadow", "red=0"]).await.exits(2);
    assert!(!ran.stderr.contains("local fleet"), "{}", ran.stderr);

    assert_eq!(launch.interrupted().await.code(), Some(0), "{}", launch.stderr());
    for ran in [without_keys(&["status", "shadow"]).await, account.run(&["status", "shadow"]).await] {
        assert!(!ran.stderr.contains("local fleet"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn options_without_meaning_are_refused() {
    let account = Account::start(Options::prompt()).await;
    for (command, told) in [
        (&["plan", "seed", "--yes"][..], "plan changes nothing and asks nothing: omit --yes"),
        (&["plan", "seed", "--destroy", "--count", "numbers=3"], "'--destroy' cannot be used with '--count"),
        (&["plan", "seed", "--destroy", "--in-image"], "'--destroy' cannot be used with '--in-image'"),
        (&["policy", "agent", "--output", "text"], "a policy is JSON: omit --output text"),
        (&["--output", "text", "policy", "agent"], "a policy is JSON: omit --output text"),
    ] {
        account.run(command).await.exits(2).says(told);
    }
    let help = account.ok(&["policy", "--help"]).await.stdout;
    assert!(!help.contains("--output"), "{help}");
    // No name begins with a hyphen: clap's tip to write `-- --loud` would mislead.
    let ran = account.run(&["status", "--loud"]).await.exits(2).says("unexpected argument '--loud' found");
    assert!(!ran.stderr.contains("tip:"), "{}", ran.stderr);
    account.run(&["status", "--wach"]).await.exits(2).says("tip: a similar argument exists: '--watch'");
    assert_eq!(account.names(), Vec::<String>::new());
}

#[tokio::test]
async fn scale_says_what_it_takes_and_ends_with_2() {
    let account = Account::start(Options::prompt()).await;
    let file = account.file("small.toml", SMALL);
    for (words, told) in [
        (&["clusters"][..], "no number of instances; give GROUP=N, such as cluster1=6"),
        (&["seed"], "no number of instances; give GROUP=N, such as numbers=3"),
        (&[file.as_str()], "no number of instances; give GROUP=N, such as blue=3"),
        (&["web"], "give GROUP=N, for a GROUP that `bootstrap status web` shows"),
        (&[], "Usage: bootstrap scale [OPTIONS] [FLEET] <GROUP=N>..."),
        (&["seed", "3"], "3 is not GROUP=N: write a group's name before it, as in GROUP=3"),
        (
            &["clusters", "seed", "cluster1=6"],
            "clusters and seed are both fleet names; for a group write seed=N",
        ),
        (&["cluster1=6", "cluster1=7"], "group cluster1 is given twice"),
        (&["cluster1=0"], "a group has 1 to 1000 instances, not 0"),
        (&["cluster1=-1"], "is not GROUP=N, such as cluster1=3, or numbers=3 for the fleet seed"),
    ] {
        account.run(&[&["scale"], words].concat()).await.exits(2).says(told);
    }
    for command in ["launch", "plan"] {
        let twice = [command, "clusters", "--count", "cluster1=2", "--count", "cluster1=3", "--in-image"];
        account.run(&twice).await.exits(2).says("group cluster1 is given twice");
    }
    assert_eq!(account.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_result_that_cannot_be_written_is_a_failure_and_a_reader_that_has_gone_is_none() {
    let small = Small::with(Options::prompt()).await;
    small.launch().await.success();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for command in
        [&["status", "small"][..], &["policy", "operator", &small.file], &["fleets", "show", "seed"]]
    {
        let ran = small.account.bootstrap(command).stdout(full()).run().await;
        told(ran, 1, &["cannot write the result: No space left on device"]);
    }
    // It would go on for ever: it ends when its reader does.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    small.account.bootstrap(&["status", "small", "--watch"]).stdout(writer).run().await.exits(0);
}

#[tokio::test]
async fn every_command_writes_json_and_says_in_it_why_there_is_no_result() {
    let account = Account::start(Options::prompt()).await;
    for command in [
        &["plan", "seed", "--in-image"][..],
        &["launch", "seed", "--in-image", "--yes"],
        &["scale", "seed", "numbers=1", "--yes"],
        &["status", "seed"],
        &["list"],
        &["policy", "agent", "seed"],
        &["policy", "operator", "seed"],
        &["fleets", "list"],
        &["fleets", "show", "seed"],
        &["plan", "seed", "--destroy"],
        &["destroy", "seed", "--yes"],
    ] {
        // Before the command or after it, it is the same.
        let ran = account.ok(&[&["--output", "json"], command].concat()).await;
        assert!(ran.json().is_object(), "{command:?}: {}", ran.stdout);
        // A policy is in IAM's own words.
        if command[0] != "policy" {
            has_one_form_of_keys(&ran.json(), &ran.stdout);
        }
    }
    let built_in = account.ok(&["fleets", "list", "--output", "json"]).await.json();
    let shown = account.ok(&["fleets", "show", "seed", "--output", "json"]).await.json();
    assert!(built_in["fleets"].as_array().unwrap().contains(&shown), "{built_in:#}");
    assert_eq!(
        (&shown["name"], &shown["region"], &shown["groups"][0]["count"]),
        (&json!("seed"), &json!("us-east-1"), &json!(2))
    );
    for command in [
        &["plan", "sed", "--in-image"][..],
        &["launch", "seed", "--in-image", "--key-pair", "none"],
        &["scale", "seed", "numbers=1"],
        &["status", "seed"],
        &["verify", "seed"],
        &["policy", "agent", "sed"],
        &["fleets", "show", "sed"],
    ] {
        let ran = account.run(&[command, &["--output", "json"]].concat()).await.exits(1);
        let error = ran.json()["error"].as_str().expect("a reason").to_owned();
        assert_eq!(ran.stderr.trim_end(), format!("bootstrap: {error}"), "{command:?}");
    }
    // A launch that does not become healthy has no result either; what a wrong check found is one.
    account.set(|options| options.agents = Agents::Never);
    let launch = ["launch", "seed", "--in-image", "--yes", "--timeout", "1s", "--output", "json"];
    let error = account.run(&launch).await.exits(3).json()["error"].as_str().expect("a reason").to_owned();
    assert!(error.starts_with("not healthy within 1s: "), "{error}");
    let status = account.run(&["status", "seed", "--output", "json"]).await.exits(3).json();
    assert_eq!((&status["wanted"], &status["healthy"]), (&json!(2), &json!(0)));
    let report = account.run(&["verify", "seed", "--output", "json"]).await.exits(1).json();
    assert_eq!((&report["ok"], &report["error"]), (&json!(false), &Value::Null), "{report:#}");
}

/// Asserts that every key is in snake case, but for those of tags, which are their owner's.
fn has_one_form_of_keys(value: &serde_json::Value, whole: &str) {
    let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                assert!(is_key(key), "{key}: {whole}");
                if key != "tags" {
                    has_one_form_of_keys(value, whole);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| has_one_form_of_keys(value, whole)),
        _ => {}
    }
}

#[tokio::test]
async fn after_a_launch_of_seed_each_instance_is_posted_to_before_the_balancer_is_asked() {
    let account = Account::start(Options::prompt()).await;
    let ran = account.ok(&["launch", "seed", "--in-image", "--yes"]).await;
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("  curl ")).collect();
    let [one, other, read] = lines[..] else { panic!("{lines:?}") };
    let status = account.ok(&["status", "seed", "--output", "json"]).await.json();
    for ((line, number), instance) in
        [(one, 100), (other, 200)].iter().zip(status["instances"].as_array().unwrap())
    {
        let address = instance["address"].as_str().unwrap();
        assert_eq!(*line, format!("  curl -d '{{\"num\": {number}}}' http://{address}/"));
    }
    assert!(read.starts_with("  curl http://seed-") && read.ends_with(".amazonaws.com/"), "{read}");
}

#[tokio::test]
async fn a_launch_without_a_key_pair_says_how_to_get_onto_an_instance_and_how_to_add_one() {
    let small = Small::with(Options::prompt()).await;
    let add = "import your key (`aws ec2 import-key-pair`); then `launch --key-pair NAME` replaces";
    let connect = "  aws ec2-instance-connect ssh --region us-east-1 --os-user ubuntu --instance-id i-";
    let ran = small.launch().await.success().says(connect).says(add);
    assert!(!ran.stdout.contains("Session Manager"), "its role allows no session: {}", ran.stdout);
    small.destroy().await.success();
    // Nobody reaches port 22.
    let file = small.account.file("closed.toml", format!("{SMALL}\n[security]\nports = [80]\n"));
    let ran = small.account.ok(&["launch", &file, "--in-image", "--yes"]).await.says(add);
    assert!(!ran.stdout.contains("instance-connect"), "{}", ran.stdout);
}
