//! How the agent gets onto the instances that `bootstrap` launches: what each way puts into their user
//! data, and what is refused before anything is created.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::account::{ACCOUNT, Account, Options, Ran, SMALLEST};
use tests::files::Files;

const BUCKET: &str = "instance-agent-small-123456789012-us-east-1";
const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const KEY: &str =
    "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";

struct Place {
    account: Account,
    fleet: String,
    files: Files,
}

impl Place {
    async fn new() -> Self {
        let account = Account::start(Options::prompt()).await;
        let fleet = account.file("small.toml", SMALLEST);
        let files = Files::serve(([127, 0, 0, 1], 0).into()).await;
        Self { account, fleet, files }
    }

    fn words<'a>(&'a self, way: &[&'a str]) -> Vec<&'a str> {
        [&["launch", &self.fleet, "--yes"], way].concat()
    }

    async fn launch(&self, way: &[&str]) -> Ran {
        self.account.run(&self.words(way)).await
    }

    /// What the one instance is told to install; `None` where it has no user data.
    async fn told(&self) -> Option<Value> {
        let cli = self.account.witness().await;
        let running = ["ec2", "describe-instances", "--filters", "Name=instance-state-name,Values=running"];
        let id = cli.ok(&running).await["Reservations"][0]["Instances"][0]["InstanceId"].clone();
        let asked = ["ec2", "describe-instance-attribute", "--attribute", "userData", "--instance-id"];
        let answer = cli.ok(&[&asked[..], &[id.as_str().unwrap()]].concat()).await;
        let data = STANDARD.decode(answer["UserData"]["Value"].as_str()?).unwrap();
        let data = String::from_utf8(data).unwrap();
        assert!(data.starts_with("#cloud-config\n"), "{data}");
        let package = data.lines().find_map(|line| line.trim().strip_prefix("PACKAGE = ")).unwrap();
        Some(serde_json::from_str(package).unwrap())
    }

    /// That a launch is refused with this, and nothing was created.
    async fn refused(&self, way: &[&str], why: &str) {
        let before = self.account.snapshot().await;
        self.launch(way).await.exits(1).says(why);
        assert_eq!(self.account.snapshot().await, before);
    }
}

#[tokio::test]
async fn a_file_is_downloaded_from_the_fleets_bucket_by_an_address_that_dies_within_the_hour() {
    let place = Place::new().await;
    let package = place.account.package();
    place.launch(&["--deb", &package]).await.success();
    let told = place.told().await.unwrap();
    let url = told["url"].as_str().unwrap();
    assert!(url.contains(BUCKET) && url.contains("X-Amz-Expires=3600&"), "{url}");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
    let answer = client.get(url).send().await.unwrap().error_for_status().unwrap();
    let found = answer.bytes().await.unwrap();
    assert_eq!(found, std::fs::read(&package).unwrap());
    // Under the name of what is in it.
    assert!(url.contains(&format!("instance-agent_{}.deb?", told["sha256"].as_str().unwrap())), "{url}");
}

#[tokio::test]
async fn an_address_says_when_its_credentials_end_sooner_and_is_refused_when_they_end_at_once() {
    let place = Place::new().await;
    let package = place.account.package();
    let words = place.words(&["--deb", &package]);
    let with_credentials_for = async |minutes: u32| {
        // As a command that logs in gives them.
        let script = place.account.file(
            "credentials",
            format!(
                "#!/bin/sh\necho '{{\"Version\": 1, \"AccessKeyId\": \"testing\", \
                 \"SecretAccessKey\": \"testing\", \"SessionToken\": \"t\", \"Expiration\": \"'$(date -u -d \
                 '+{minutes} min' +%FT%TZ)'\"}}'\n"
            ),
        );
        let config = place.account.file("config", format!("[default]\ncredential_process = sh {script}\n"));
        let command = place.account.bootstrap(&words).env("AWS_CONFIG_FILE", &config);
        let command = command.env("PATH", "/usr/bin:/bin");
        command.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY").run().await
    };
    with_credentials_for(1).await.exits(1).says("the credentials expire in").says("log in again");
    assert_eq!(
        place.account.witness().await.ok(&["ec2", "describe-instances"]).await["Reservations"],
        json!([])
    );
    with_credentials_for(20)
        .await
        .success()
        .says("an instance that starts later cannot download the package");
    let told = place.told().await.unwrap();
    let lives = told["url"].as_str().unwrap().split("X-Amz-Expires=").nth(1).unwrap();
    let lives: u32 = lives.split('&').next().unwrap().parse().unwrap();
    assert!((60 * 15..=60 * 20).contains(&lives), "{lives}");
}

#[tokio::test]
async fn an_address_and_its_sum_reach_the_instance_as_they_are_and_no_bucket_is_made() {
    let place = Place::new().await;
    let url = place.files.put("agent.deb?a=1&b=$(x)", std::fs::read(place.account.package()).unwrap());
    place.launch(&["--package-url", &url, "--package-sha256", SHA256]).await.success();
    assert_eq!(place.told().await, Some(json!({ "url": url, "sha256": SHA256 })));
    assert_eq!(place.account.witness().await.ok(&["s3api", "list-buckets"]).await["Buckets"], json!([]));
}

#[tokio::test]
async fn the_query_of_an_address_is_neither_stored_nor_shown_and_new_instances_need_it_again() {
    let place = Place::new().await;
    let package = std::fs::read(place.account.package()).unwrap();
    let old = place.files.put("agent.deb?Signature=old-secret", package.clone());
    let new = place.files.put("agent.deb?Signature=new-secret", package);
    let bare = old.split('?').next().unwrap().to_owned();
    let sum = ["--package-sha256", SHA256];
    place.launch(&[&["--package-url", &old], &sum[..]].concat()).await.success();
    assert_eq!(place.told().await.unwrap()["url"], json!(old));
    let stored = place.account.snapshot().await.to_string();
    assert!(stored.contains("agent.deb?") && !stored.contains("secret"), "{stored}");

    // Another signature of the same package is no difference, and who does not need it does not give it.
    let again = place.launch(&[&["--package-url", &new], &sum[..]].concat()).await.success();
    again.says("matches its definition: nothing to do");
    place.launch(&[]).await.success().says("matches its definition: nothing to do");
    let other = "f".repeat(64);
    let plan = ["plan", &place.fleet, "--package-url", &new, "--package-sha256", &other];
    let plan = place.account.run(&plan).await.success();
    let plan = plan.says(&format!("package: url {bare} sha256 {SHA256}"));
    assert!(!plan.stdout.contains("secret"), "{}", plan.stdout);

    // One more needs it.
    let before = place.account.snapshot().await;
    let needs = format!("--package-url '{bare}?QUERY' --package-sha256 {SHA256}`");
    let launch = place.launch(&["--count", "blue=2"]).await.exits(1);
    launch.says("new instances (1) need it: `bootstrap launch ").says(&needs);
    let scale = place.account.run(&["scale", "small", "blue=2", "--yes"]).await.exits(1);
    scale.says("`bootstrap launch FLEET-FILE --region us-east-1 --count blue=2").says(&needs);
    assert_eq!(place.account.snapshot().await, before);
    place.launch(&[&["--count", "blue=2", "--package-url", &new], &sum[..]].concat()).await.success();
}

#[tokio::test]
async fn an_apt_source_reaches_the_instance_limited_to_its_key() {
    let place = Place::new().await;
    let site = place.files.put("", "");
    place.files.put("dists/stable/InRelease", "Origin: here\n");
    let key = place.account.file("key.asc", KEY);
    let line = format!("deb {site} stable main");
    place.launch(&["--apt", &line, "--apt-key", &key]).await.success();
    let told = place.told().await.unwrap();
    let signed = format!("deb [signed-by=/etc/apt/keyrings/instance-agent.asc] {site} stable main");
    assert_eq!((told["line"].as_str(), told["key"].as_str()), (Some(signed.as_str()), Some(KEY)));
}

#[tokio::test]
async fn instances_of_an_image_that_has_the_agent_are_told_nothing() {
    let place = Place::new().await;
    place.launch(&["--in-image"]).await.success();
    assert_eq!(place.told().await, None);
}

#[tokio::test]
async fn what_instances_could_not_install_is_refused_before_anything_is_made() {
    let place = Place::new().await;
    let sum = ["--package-sha256", SHA256];
    let nowhere = place.files.put("here", "").replace("here", "nowhere.deb");
    place.refused(&[&["--package-url", &nowhere], &sum[..]].concat(), "answers 404 for").await;
    let page = place.files.put("page.deb", "<html>log in first</html>");
    place.refused(&[&["--package-url", &page], &sum[..]].concat(), "is not a Debian package").await;

    let package = std::fs::read(place.account.package()).unwrap();
    let other = place.account.file("instance-bootstrap_0.1.0_amd64.deb", &package);
    place.refused(&["--deb", &other], "instances need instance-agent").await;
    let arm = place.account.file("instance-agent_0.1.0_arm64.deb", &package);
    place.refused(&["--deb", &arm], "the package is for arm64").await;
    let half = place.account.file("instance-agent_0.2.0_amd64.deb", &package[..package.len() / 2]);
    place.refused(&["--deb", &half], "not a complete Debian package").await;
    place.refused(&["--deb", "/nonexistent.deb"], "give the path of a .deb").await;

    place.files.put("dists/stable/InRelease", "Origin: here\n");
    let site = place.files.put("", "");
    let key = place.account.file("large.asc", KEY.replace("mDMEZ", &"mDMEZ\n".repeat(3000)));
    let line = format!("deb {site} stable main");
    place.refused(&["--apt", &line, "--apt-key", &key], "export-minimal").await;
}

#[tokio::test]
async fn a_package_that_later_instances_could_not_install_is_refused_though_none_is_launched_now() {
    let place = Place::new().await;
    let package = place.account.package();
    place.launch(&["--deb", &package]).await.success();
    // Another package: of the same one there would be nothing to keep.
    let mut other = std::fs::read(&package).unwrap();
    let content = other.iter().rposition(|byte| *byte == b'y').unwrap();
    other[content] = b'z';
    let arm = place.account.file("instance-agent_0.2.0_arm64.deb", other);
    place.launch(&["--deb", &arm]).await.exits(1).says("the package is for arm64");
}

#[tokio::test]
async fn destroy_deletes_the_bucket_with_every_version_and_unfinished_upload() {
    let place = Place::new().await;
    let cli = place.account.witness().await;
    place.launch(&["--deb", &place.account.package()]).await.success();
    cli.ok(&[
        "s3api",
        "put-bucket-versioning",
        "--bucket",
        BUCKET,
        "--versioning-configuration",
        "Status=Enabled",
    ])
    .await;
    let body = place.account.file("body", "x");
    for key in ["one", "two", "one"] {
        cli.ok(&["s3api", "put-object", "--bucket", BUCKET, "--key", key, "--body", &body]).await;
    }
    cli.ok(&["s3api", "delete-object", "--bucket", BUCKET, "--key", "one"]).await;
    cli.ok(&["s3api", "create-multipart-upload", "--bucket", BUCKET, "--key", "three"]).await;
    assert!(BUCKET.contains(ACCOUNT));
    place.account.ok(&["destroy", "small", "--yes"]).await;
    assert_eq!(cli.ok(&["s3api", "list-buckets"]).await["Buckets"], json!([]));
}
