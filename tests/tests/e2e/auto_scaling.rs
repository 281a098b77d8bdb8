//! A fleet that Auto Scaling adds instances to, by the commands of docs/auto-scaling.md.

use std::path::Path;
use std::time::Duration;

use tests::account::REGION;
use tests::debian::package;
use tests::files::Files;
use tests::outside::venv;
use tests::region::{INSIDE, Power};
use tests::solo::is_root_or_skip;
use tests::story::{Day, QUICK, TRIO, WHY};
use tests::within;

const DOCUMENT: &str = include_str!("../../../docs/auto-scaling.md");

/// The blocks of shell in the document.
fn blocks() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Runs commands of the document as a user would paste them, with this user's own words in them.
async fn paste(day: &Day, block: &str, words: &[(&str, &str)]) {
    let mut block = block.to_owned();
    for (theirs, ours) in words {
        assert!(block.contains(theirs), "the document no longer says {theirs}");
        block = block.replace(theirs, ours);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = format!("{}/bin:/usr/bin:/bin", venv().await.display());
    let run = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", &block])
        .current_dir(root)
        .env_clear()
        .env("PATH", path)
        .env("AWS_ENDPOINT_URL", day.region.account.endpoint())
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", "testing")
        .env("AWS_DEFAULT_REGION", REGION)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(300), run).await.unwrap().unwrap();
    assert!(output.status.success(), "{block}\n{}", tests::text(&output.stderr));
}

#[tokio::test]
async fn instances_of_an_auto_scaling_group_join_and_leave_by_themselves() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let mut day = Day::begin(4, Some(TRIO), "trio", &[("cluster1", 2), ("cluster2", 1)], QUICK).await;
    day.launch().await;

    let files = Files::serve((INSIDE, 8001).into()).await;
    let url = files.put("instance-agent.deb", std::fs::read(package("instance-agent")).unwrap());
    let [create, delete] = blocks()[..] else { panic!("two blocks of shell") };
    let theirs = "https://packages.example.com/instance-agent_0.1.0_amd64.deb";
    let words =
        [("fleet=clusters", "fleet=trio"), (theirs, &url), ("--desired-capacity 2", "--desired-capacity 1")];
    paste(&day, create, &words).await;

    // It finds its place by its tags, and is one of the fleet.
    let found = async || {
        let all = day.region.instances("trio").await;
        all.into_iter().find(|instance| instance.tag("aws:autoscaling:groupName").is_some())
    };
    let joined = within(QUICK.settle, found).await.expect("the group launches one");
    day.region.until_health("trio-cluster1", &joined.id, "healthy", QUICK.boot).await;
    let status = day.region.status("trio").await;
    let shown = status["instances"].as_array().unwrap().iter().find(|shown| shown["id"] == *joined.id);
    assert_eq!(shown.expect("it is shown")["target_state"], "healthy", "{status}");

    // Auto Scaling takes it out: it drains under load, then goes.
    day.load_begins().await;
    let cli = day.region.account.cli().await;
    let words = [
        "autoscaling",
        "set-desired-capacity",
        "--auto-scaling-group-name",
        "trio-cluster1",
        "--desired-capacity",
        "0",
    ];
    cli.ok(&words).await;
    day.region.until_power(&joined.id, Power::Off, QUICK.settle).await;
    day.load_ends_without_a_failure().await;

    paste(&day, delete, &[("\"$fleet-$cluster\"", "trio-cluster1")]).await;
    day.ends().await;
}
