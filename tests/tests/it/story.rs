//! The whole story.

use std::time::{Duration, Instant};

use tests::debian::package;
use tests::region::Region;
use tests::solo::is_root_or_skip;

const FLEET: &str = r#"
name = "trio"
region = "us-east-1"
image = "ami-08c40ec9ead489470"
zones = ["us-east-1a", "us-east-1b"]

[health-check]
path = "/"
interval = "5s"
timeout = "2s"
healthy = 2
unhealthy = 2

[[group]]
name = "cluster1"
type = "m4.large"
count = 2

[[group]]
name = "cluster2"
type = "t2.large"
count = 1
"#;

#[tokio::test]
async fn three_machines() {
    if !is_root_or_skip("x") {
        return;
    }
    let mut region = Region::up(4).await;
    let file = region.account.file("trio.toml", FLEET);
    let deb = package("instance-agent");
    let began = Instant::now();
    let launch =
        region.account.bootstrap(&["launch", &file, "--deb", deb.to_str().unwrap(), "--yes"]).start();
    let launched = tokio::select! {
        ran = launch.end() => ran,
        said = region.failed() => panic!("{said}"),
    };
    println!("{}\n{}\nafter {:?}", launched.stdout, launched.stderr, began.elapsed());
    for machine in region.machines() {
        println!("{} {:?}\n{}", machine.id, machine.power(), machine.journal().await);
    }
    launched.success();
    println!("{}", region.status("trio").await);
    let ran = region.account.run(&["verify", "trio"]).await;
    println!("{}{}", ran.stdout, ran.stderr);
    ran.success();
    region.check();
    let began = Instant::now();
    let ran = region.account.run(&["destroy", "trio", "--yes"]).await;
    println!("{}{} {:?}", ran.stdout, ran.stderr, began.elapsed());
    region.check();
    tokio::time::sleep(Duration::from_millis(1)).await;
}
