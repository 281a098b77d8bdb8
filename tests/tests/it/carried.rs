//! A first launch without a flag: the package of the agent that has come with `bootstrap`.

use serde_json::Value;
use tests::account::{ARM_IMAGE, Account, IMAGE, Options, SMALLEST};

/// The SHA-256 of the package in the fleet's bucket, and how many objects are there.
async fn uploaded(account: &Account) -> (String, usize) {
    let bucket = "instance-agent-small-123456789012-us-east-1";
    let cli = account.witness().await;
    let found = cli.ok(&["s3api", "list-objects-v2", "--bucket", bucket]).await;
    let keys: Vec<&str> =
        found["Contents"].as_array().unwrap().iter().map(|object| object["Key"].as_str().unwrap()).collect();
    let sum = keys[0].strip_prefix("instance-agent_").unwrap().strip_suffix(".deb").unwrap();
    (sum.to_owned(), keys.len())
}

#[tokio::test]
async fn launch_clusters_needs_nothing_but_credentials() {
    let account = Account::start(Options::prompt()).await;
    let program = account.installed("usr", &["amd64", "arm64"]);
    let command = account.bootstrap_at(&program, &["launch", "clusters"]).without("AWS_REGION");
    let ran = command.run().await.success();
    ran.says("9 of 9 instances are healthy");
    let again = account.bootstrap_at(&program, &["launch", "clusters"]).run().await.success();
    again.says("fleet clusters matches its definition: nothing to do");
    account.bootstrap_at(&program, &["destroy", "clusters", "--yes"]).run().await.success();
}

#[tokio::test]
async fn the_package_that_fits_the_instances_is_taken() {
    let arm = SMALLEST.replace(IMAGE, ARM_IMAGE).replace("t3.micro", "m6g.large");
    for (text, architecture) in [(SMALLEST.to_owned(), "amd64"), (arm, "arm64")] {
        let account = Account::start(Options::prompt()).await;
        let program = account.installed("tree/target/x86_64-unknown-linux-musl/debug", &["amd64", "arm64"]);
        let file = account.file("small.toml", text);
        let ran = account.bootstrap_at(&program, &["launch", &file]).run().await.success();
        ran.says("upload the package");
        let (sum, _) = uploaded(&account).await;
        assert_eq!(sum, account.carried_sum("tree/target/x86_64-unknown-linux-musl/debug", architecture));
    }
}

#[tokio::test]
async fn without_a_package_that_fits_it_says_what_to_give() {
    let account = Account::start(Options::prompt()).await;
    let file = account.file("small.toml", SMALLEST);
    let how = [
        "--deb FILE",
        "--package-url with --package-sha256",
        "--apt with --apt-key",
        "--in-image",
        "the package instance-bootstrap",
    ];
    for (place, packages) in [("none", &[][..]), ("other", &["arm64"])] {
        let program = account.installed(place, packages);
        let before = account.snapshot().await;
        let mut ran = account.bootstrap_at(&program, &["launch", &file]).run().await.exits(1);
        for words in how {
            ran = ran.says(words);
        }
        assert_eq!(account.snapshot().await, before);
    }
    // Who could have put it there is not the program's owner alone.
    let program = account.installed("open", &["amd64"]);
    account.let_all_write("open");
    account
        .bootstrap_at(&program, &["launch", &file])
        .run()
        .await
        .exits(1)
        .says("this bootstrap comes with none");
}

#[tokio::test]
async fn another_bootstrap_alone_makes_no_difference_and_flags_come_first() {
    let account = Account::start(Options::prompt()).await;
    let file = account.file("small.toml", SMALLEST);
    let first = account.installed("first", &["amd64"]);
    account.bootstrap_at(&first, &["launch", &file]).run().await.success();
    let stored = uploaded(&account).await;

    let newer = account.installed("newer", &["amd64"]);
    assert_ne!(account.carried_sum("newer", "amd64"), stored.0);
    let plan =
        account.bootstrap_at(&newer, &["plan", &file, "--output", "json"]).run().await.success().json();
    assert_eq!((&plan["steps"], &plan["differences"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    account.bootstrap_at(&newer, &["scale", &file, "blue=2", "--yes"]).run().await.success();
    assert_eq!(uploaded(&account).await, stored);

    // A package by name is another one.
    let deb = account.carried_file("newer", "amd64");
    let plan = account.bootstrap_at(&newer, &["plan", &file, "--count", "blue=2", "--deb", &deb]).run().await;
    plan.success().says("package: deb sha256");
}

#[tokio::test]
async fn a_launch_that_ended_before_the_upload_is_finished_without_a_flag() {
    let account = Account::start(Options::prompt()).await;
    let file = account.file("small.toml", SMALLEST);
    let program = account.installed("usr", &["amd64"]);
    let denied = tests::account::AwsError::denied("s3", "CreateBucket", "*");
    let fault = tests::account::Fault::every("s3:CreateBucket", tests::account::Trouble::Fail(denied));
    account.fault(fault);
    account.bootstrap_at(&program, &["launch", &file]).run().await.exits(1);
    account.clear_faults();
    account.bootstrap_at(&program, &["launch", &file]).run().await.success();
    assert_eq!(uploaded(&account).await.0, account.carried_sum("usr", "amd64"));
}
