//! `bootstrap launch --local`, the built program with the built agent: what it shows, what the
//! fleet answers, and that it leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use tests::launch::{INSTANCE_PORT, Launch, free_port};
use tests::{binary, run, text};
use tokio::process::Command;

/// One instance in each cluster: the smallest fleet with two groups.
const PAIR: [&str; 7] = ["clusters", "--count", "cluster1=1", "--count", "cluster2=1", "--output", "json"];

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn get(client: &reqwest::Client, url: &str) -> (u16, String) {
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn post(client: &reqwest::Client, url: &str, body: &str) -> (u16, String) {
    let answer = client.post(url).body(body.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// A launch that ends by itself, on a port of its own.
async fn ends(arguments: &[&str]) -> (i32, String) {
    let mut launch = Launch::start(arguments);
    let status = launch.ended().await.code().unwrap();
    // The logs of a fleet that was started and did not become healthy.
    let kept = launch.temporary_files();
    assert_eq!(kept.len(), usize::from(status == 3), "{kept:?}");
    for folder in kept {
        let told = format!("seeds and logs are in {}", folder.display());
        assert_eq!(launch.stderr().lines().last(), Some(&*told));
    }
    (status, launch.stderr())
}

#[tokio::test]
async fn nine_instances_in_two_clusters_answer_as_promised() {
    let mut launch = Launch::start(&["--output", "json"]);
    let fleet = launch.healthy().await;
    let client = client();
    assert_eq!(fleet.json["fleet"], "clusters");
    assert_eq!(fleet.url(), format!("http://127.0.0.1:{}", launch.port));
    let ids_of = |group: &str| -> BTreeSet<String> {
        fleet.instances.iter().filter(|i| i.group == group).map(|i| i.id.clone()).collect()
    };
    assert_eq!((ids_of("cluster1").len(), ids_of("cluster2").len()), (5, 4));
    for instance in fleet.json["instances"].as_array().unwrap() {
        assert_eq!(instance["target"]["state"], "healthy", "{instance}");
        assert_eq!(instance["cluster"], instance["group"]);
        let group = instance["group"].as_str().unwrap();
        assert_eq!(instance["target_group"], format!("clusters-{group}"));
        for folder in ["state_dir", "runtime_dir", "log"] {
            assert!(Path::new(instance[folder].as_str().unwrap()).exists(), "{folder}");
        }
    }

    let own = ["/cluster1", "/cluster2"].map(|path| format!("{}{path}", fleet.url()));
    for (url, group) in own.iter().zip(["cluster1", "cluster2"]) {
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            let (status, body) = get(&client, url).await;
            let id = body.strip_prefix("Instance ").and_then(|rest| rest.strip_suffix(" is responding now!"));
            assert_eq!(status, 200, "{body}");
            seen.insert(id.unwrap_or_else(|| panic!("{body:?}")).to_owned());
        }
        assert_eq!(seen, ids_of(group), "each of the cluster's instances, and no other");
    }
    let below = get(&client, &format!("{}/x?y=z", own[0])).await;
    assert!(below.1.ends_with("is responding now!"), "{below:?}");

    let before = roots(&fleet).await;
    for _ in 0..900 {
        assert_eq!(get(&client, &format!("{}/", fleet.url())).await, (200, "Healthy!".to_owned()));
    }
    let after = roots(&fleet).await;
    for group in ["cluster1", "cluster2"] {
        let answered = after[group] - before[group];
        assert!((449..=451).contains(&answered), "{group} answered {answered} of 900");
    }
    assert_eq!(after.values().sum::<u64>() - before.values().sum::<u64>(), 900);

    // Directly: each on its own cluster's path, so that a wrong route would show.
    for instance in &fleet.instances {
        let (mine, other) = match instance.group.as_str() {
            "cluster1" => ("/cluster1", "/cluster2"),
            _ => ("/cluster2", "/cluster1"),
        };
        let expected = format!("Instance {} is responding now!", instance.id);
        assert_eq!(get(&client, &instance.url(mine)).await, (200, expected));
        assert_eq!(get(&client, &instance.url(other)).await.0, 404);
    }

    assert_eq!(launch.interrupted().await.code(), Some(0), "{}", launch.stderr());
    let said = launch.stderr();
    let steps: Vec<_> = said.lines().filter(|line| line.ends_with(" of 9 stopped")).collect();
    assert!(said.contains("draining; press Ctrl-C again to kill the agents"), "{said}");
    assert!(steps.len() > 1 && steps.last() == Some(&"9 of 9 stopped"), "{said}");
    let last = "fleet clusters is stopped: all agents drained; nothing is left";
    assert_eq!(said.lines().last(), Some(last), "{said}");
    assert!(launch.temporary_files().is_empty(), "the temporary folder is gone");
    fleet.until_gone().await;
}

/// Requests to `/` that each group's agents have counted.
async fn roots(fleet: &tests::launch::Fleet) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for instance in &fleet.instances {
        let status = instance.status().await;
        assert_eq!(status["instance_id"], instance.id.as_str());
        *sums.entry(instance.group.clone()).or_default() += status["traffic"]["root"].as_u64().unwrap();
    }
    sums
}

#[tokio::test]
async fn after_ctrl_c_nothing_is_left_and_the_same_port_can_be_used_at_once() {
    let port = free_port();
    for _ in 0..2 {
        let mut launch = Launch::start_on(port, &PAIR);
        let fleet = launch.healthy().await;
        assert_eq!(fleet.instances.len(), 2);
        assert_eq!(launch.interrupted().await.code(), Some(0), "{}", launch.stderr());
        assert!(fleet.instances.iter().all(|instance| !instance.runs()), "bootstrap waited for them");
        assert!(launch.temporary_files().is_empty());
        // Nothing is waited for: the next launch takes the same addresses.
    }
}

#[tokio::test]
async fn killed_with_kill_9_it_takes_its_agents_along() {
    let mut launch = Launch::start(&PAIR);
    let fleet = launch.healthy().await;
    launch.signal(Signal::KILL);
    assert_eq!(launch.ended().await.code(), None);
    fleet.until_gone().await;
}

#[tokio::test]
async fn ctrl_c_before_it_is_healthy_takes_it_down_as_well() {
    let mut launch = Launch::start(&[&PAIR[..], &["--agent-arg=--register-port=9"]].concat());
    // With a port that nobody listens on it will not become healthy in the meantime.
    launch.until_said("0 of 2 healthy").await;
    assert_eq!(launch.interrupted().await.code(), Some(1), "{}", launch.stderr());
    let told = "interrupted before all instances were healthy";
    assert!(
        launch.stderr().ends_with(&format!("2 of 2 stopped\nbootstrap: {told}\n")),
        "{}",
        launch.stderr()
    );
    let result: serde_json::Value = serde_json::from_str(&launch.stdout()).unwrap();
    assert_eq!(result, serde_json::json!({ "error": told }));
    assert!(launch.temporary_files().is_empty());
}

#[tokio::test]
async fn a_second_ctrl_c_kills_at_once() {
    let mut launch = Launch::start(&[&PAIR[..], &["--drain-quiet", "1h"]].concat());
    let fleet = launch.healthy().await;
    launch.signal(Signal::INT);
    launch.until_said("draining; press Ctrl-C again to kill the agents").await;
    // An hour without requests is not over: only being killed can end the agents in time.
    assert_eq!(launch.interrupted().await.code(), Some(1), "they have not drained");
    let said = launch.stderr();
    let last = "bootstrap: killed 2 agents before draining, as you asked; nothing is left";
    assert_eq!(said.lines().last(), Some(last), "{said}");
    assert!(launch.temporary_files().is_empty());
    fleet.until_gone().await;
}

#[tokio::test]
async fn at_the_end_it_says_which_agents_did_not_drain_and_what_stays() {
    let kept = tempfile::tempdir().unwrap();
    let dir = kept.path().join("fleet");
    let dir = dir.to_str().unwrap();
    let mut launch = Launch::start(&[&PAIR[..], &["--dir", dir]].concat());
    let fleet = launch.healthy().await;
    fleet.instances[0].kill();
    launch.until_said("the agent ended (signal: 9 (SIGKILL)); not restarted").await;
    assert_eq!(launch.interrupted().await.code(), Some(0), "{}", launch.stderr());
    let said = launch.stderr();
    let last = format!("1 agent had ended before, the others drained; seeds and logs are in {dir}");
    assert!(said.lines().last().unwrap().ends_with(&last), "{said}");
    assert!(kept.path().join("fleet").join(&fleet.instances[0].id).join("agent.log").is_file());
}

#[tokio::test]
async fn a_second_launch_on_the_same_port_says_so_and_one_on_another_runs_beside_it() {
    let mut first = Launch::start(&PAIR);
    let fleet = first.healthy().await;
    let mut refused = Launch::start_on(first.port, &PAIR);
    assert_eq!(refused.ended().await.code(), Some(1));
    let said = refused.stderr();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&format!(":{}", first.port)) && said.contains("--port"), "{said}");
    let result: serde_json::Value = serde_json::from_str(&refused.stdout()).unwrap();
    assert_eq!(format!("bootstrap: {}\n", result["error"].as_str().unwrap()), said);

    let mut second = Launch::start(&PAIR);
    let other = second.healthy().await;
    let client = client();
    for (fleet, launch) in [(&fleet, &first), (&other, &second)] {
        assert_eq!(get(&client, &format!("{}/", fleet.url())).await, (200, "Healthy!".to_owned()));
        assert!(!launch.stderr().contains("the agent ended"), "{}", launch.stderr());
    }
    assert_eq!(second.interrupted().await.code(), Some(0));
    other.until_gone().await;
    assert_eq!(get(&client, &format!("{}/", fleet.url())).await, (200, "Healthy!".to_owned()));
    assert!(fleet.instances.iter().all(|instance| instance.runs()), "{}", first.stderr());
    assert_eq!(first.interrupted().await.code(), Some(0));
}

#[tokio::test]
async fn an_instance_of_the_seed_fleet_keeps_its_own_number() {
    let mut launch = Launch::start(&["seed", "--output", "json"]);
    let fleet = launch.healthy().await;
    let client = client();
    let [one, other] = fleet.instances.as_slice() else { panic!("{:?}", fleet.instances) };
    assert_eq!(get(&client, &one.url("/")).await, (200, "0".to_owned()));
    assert_eq!(post(&client, &one.url("/"), "{\"num\": 100}").await, (200, "100".to_owned()));
    assert_eq!(get(&client, &one.url("/")).await, (200, "100".to_owned()));
    assert_eq!(get(&client, &other.url("/")).await, (200, "0".to_owned()), "each has its own");
    let long = format!("-{}", "7".repeat(4000));
    let body = format!("{{\"num\": {long}}}");
    assert_eq!(post(&client, &other.url("/"), &body).await, (200, long.clone()));
    assert_eq!(get(&client, &other.url("/seed")).await, (200, long), "digit for digit");
    assert_eq!(post(&client, &other.url("/"), "{\"num\": 0}").await, (200, "0".to_owned()));
    // The balancer takes turns.
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.insert(get(&client, &format!("{}/", fleet.url())).await);
    }
    assert_eq!(seen, BTreeSet::from([(200, "0".to_owned()), (200, "100".to_owned())]));
    assert_eq!(launch.interrupted().await.code(), Some(0));
}

#[tokio::test]
async fn a_kept_folder_holds_the_seeds_for_the_next_launch() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("fleet");
    let arguments = ["seed", "--output", "json", "--dir", dir.to_str().unwrap()];
    let client = client();
    let mut ids = Vec::new();
    for number in 0..2 {
        // Another port: neither the ids nor the folders may depend on it.
        let mut launch = Launch::start(&arguments);
        let fleet = launch.healthy().await;
        let url = fleet.instances[1].url("/");
        match number {
            0 => assert_eq!(post(&client, &url, "{\"num\": -17}").await, (200, "-17".to_owned())),
            _ => assert_eq!(get(&client, &url).await, (200, "-17".to_owned())),
        }
        ids.push(fleet.instances.iter().map(|instance| instance.id.clone()).collect::<Vec<_>>());
        assert_eq!(launch.interrupted().await.code(), Some(0));
        for id in &ids[0] {
            assert!(dir.join(id).join("agent.log").is_file(), "the folder is kept");
        }
    }
    assert_eq!(ids[0], ids[1]);
}

/// A fleet file of one's own: one group with a path, one with seeds and without, and what only AWS heeds.
const OWN: &str = r#"
name = "mine"
region = "eu-central-1"
image = "ami-0123456789abcdef0"
zones = ["eu-central-1a", "eu-central-1b"]

[health-check]
path = "/health"
interval = "6s"

[[group]]
name = "blue"
type = "t3.micro"
weight = 0

[[group]]
name = "store"
type = "t3.micro"
root = "seed"
paths = false

[security]
allow = ["203.0.113.0/24"]

[package]
in-image = true

[tags]
Project = "mine"
"#;

fn fleet_file(folder: &tempfile::TempDir, text: &str) -> String {
    let path = folder.path().join("fleet.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_fleet_file_of_ones_own_is_launched_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut launch = Launch::start(&[&fleet_file(&folder, OWN), "--output", "json"]);
    let fleet = launch.healthy().await;
    assert_eq!(fleet.json["fleet"], "mine");
    let client = client();
    let [blue, store] = fleet.instances.as_slice() else { panic!("{:?}", fleet.instances) };
    for _ in 0..4 {
        assert_eq!(get(&client, fleet.url()).await, (200, "0".to_owned()), "blue has no weight");
    }
    let expected = format!("Instance {} is responding now!", blue.id);
    assert_eq!(get(&client, &format!("{}/blue", fleet.url())).await, (200, expected));
    assert_eq!(get(&client, &format!("{}/store", fleet.url())).await.0, 404, "it has no path");
    let status = store.status().await;
    assert_eq!(status["region"], "eu-central-1");
    assert_eq!(status["availability_zone"], "eu-central-1b", "instances take turns in the zones");
    assert_eq!(fleet.json["instances"][1]["cluster"], serde_json::Value::Null);
    assert_eq!(launch.interrupted().await.code(), Some(0));
}

#[tokio::test]
async fn a_broken_fleet_file_is_told_by_line_key_and_nearest_key() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, expected) in [
        ("region", "regoin", ":3: regoin: unknown key; did you mean region?"),
        ("weight = 0", "wieght = 0", ":14: group.wieght: unknown key; did you mean weight?"),
        ("\"6s\"", "\"6 parsecs\"", ":9: health-check.interval: expected a duration"),
        ("name = \"mine\"", "name = \"mine", ":2: "),
    ] {
        let file = fleet_file(&folder, &OWN.replacen(from, to, 1));
        let (status, said) = ends(&[&file]).await;
        assert_eq!((status, said.lines().count()), (1, 1), "{said}");
        assert!(said.contains(&format!("{file}{expected}")), "{said}");
    }
    let (status, said) = ends(&["/nonexistent/fleet.toml"]).await;
    assert_eq!((status, said.lines().count()), (1, 1), "{said}");
    assert!(
        said.contains(
            "/nonexistent/fleet.toml is neither a built-in fleet (clusters and seed) nor a readable file"
        ),
        "{said}"
    );
}

#[tokio::test]
async fn all_mistakes_of_a_fleet_file_are_reported_in_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let text = OWN
        .replacen("region = \"eu-central-1\"", "region = eu-central-1", 1)
        .replacen("\"ami-0123456789abcdef0\"", "\"ami-0123\"", 1)
        .replacen("weight = 0", "wieght = 0", 1)
        .replacen("root = \"seed\"", "name = \"shop\"", 1)
        .replacen("203.0.113.0/24", "203.0.113.1/24", 1);
    let file = fleet_file(&folder, &text);
    let (status, said) = ends(&[&file]).await;
    let expected = format!(
        "bootstrap: {file}:3: region: a text needs quotes: write \"eu-central-1\"\n\
         {file}:4: image: expected an id (ami- and 8 or 17 hex digits) or one of ubuntu-22.04, ubuntu-24.04, debian-12, debian-13\n\
         {file}:14: group.wieght: unknown key; did you mean weight?\n\
         {file}:19: group.name is given twice (first in line 17): delete one\n\
         {file}:23: security.allow: 203.0.113.1/24 is an address within a range, not a range; did you mean \
         203.0.113.0/24?\n"
    );
    assert_eq!((status, said), (1, expected));
}

#[tokio::test]
async fn wrong_arguments_are_refused_before_anything_is_started() {
    // Longer than the path of a socket may be.
    let deep = std::env::temp_dir().join("x".repeat(90));
    let deep = deep.to_str().unwrap();
    for (arguments, status, words) in [
        (vec!["--agent", "/nonexistent"], 1, ["/nonexistent", "--agent"]),
        (vec!["--dir", deep], 1, ["too long", "--dir"]),
        (vec!["--count", "cluster3=1"], 2, ["cluster3", "cluster1, cluster2"]),
        (vec!["--count", "cluster1=none"], 2, ["--count", "cluster1=3"]),
        (vec!["--timeout", "soon"], 2, ["--timeout", "soon"]),
        (vec!["--exit-when-healthy", "--duration", "1s"], 2, ["--exit-when-healthy", "--duration"]),
    ] {
        let (ended, said) = ends(&arguments).await;
        assert_eq!(ended, status, "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(said.starts_with("error: ") || said.lines().count() == 1, "{said}");
    }
}

#[tokio::test]
async fn it_stops_by_itself_when_healthy_or_when_its_time_is_over() {
    for flags in [&["--exit-when-healthy"][..], &["--duration", "100ms"]] {
        let mut launch = Launch::start(&[&PAIR[..], flags].concat());
        let fleet = launch.healthy().await;
        assert_eq!(launch.ended().await.code(), Some(0), "{}", launch.stderr());
        assert!(launch.stderr().contains("2 of 2 healthy"), "{}", launch.stderr());
        assert!(
            launch.stderr().contains("draining; press Ctrl-C to kill the agents\n"),
            "{}",
            launch.stderr()
        );
        assert!(launch.temporary_files().is_empty());
        fleet.until_gone().await;
    }
}

#[tokio::test]
async fn not_healthy_in_time_is_exit_3_with_each_instances_reason_and_log() {
    // The agents work, but have themselves registered with a port that nobody listens on.
    let arguments =
        [&PAIR[..], &["--timeout", "10s", "--health-interval", "300ms", "--agent-arg=--register-port=9"]];
    let (status, said) = ends(&arguments.concat()).await;
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("not healthy within 10s"), "{said}");
    let reasons = said
        .lines()
        .filter(|line| line.contains("unhealthy (was initial): Target.FailedHealthChecks: "))
        .count();
    assert_eq!(reasons, 2, "{said}");
    assert!(
        said.lines().any(|line| line.starts_with("    ") && line.contains(" WARN target group clusters-")),
        "{said}"
    );
}

#[tokio::test]
async fn an_agent_that_dies_is_reported_and_the_others_go_on() {
    let mut launch = Launch::start(&PAIR);
    let fleet = launch.healthy().await;
    let [dying, staying] = fleet.instances.as_slice() else { panic!("{:?}", fleet.instances) };
    dying.kill();
    launch.until_said("the agent ended").await;
    let said = launch.stderr();
    let line = said.lines().find(|line| line.contains("the agent ended")).unwrap();
    assert!(line.starts_with(&dying.id) && line.contains("signal: 9"), "{line}");
    let unhealthy = "unhealthy (was healthy): Target.FailedHealthChecks: ";
    launch.until_said(&format!("{} in target group clusters-cluster1: {unhealthy}", dying.id)).await;
    assert_eq!(get(&client(), &staying.url("/")).await, (200, "Healthy!".to_owned()));
    assert_eq!(launch.interrupted().await.code(), Some(0));
}

#[tokio::test]
async fn each_change_of_a_targets_state_is_one_line_with_its_reason() {
    let mut launch = Launch::start(&PAIR);
    let fleet = launch.healthy().await;
    let instance = &fleet.json["instances"][1];
    let agent = async |command: &str| {
        let arguments = [command, "--wait", "--runtime-dir", instance["runtime_dir"].as_str().unwrap()];
        let ran = run("instance-agent", &arguments).await;
        assert!(ran.status.success(), "{command}: {}", launch.stderr());
    };
    agent("drain").await;
    agent("resume").await;
    let target = format!("{} in target group clusters-cluster2: ", instance["id"].as_str().unwrap());
    launch.until_said(&format!("{target}healthy (was initial)\n")).await;
    let said = launch.stderr();
    let changes: Vec<_> = said.lines().filter_map(|line| line.strip_prefix(&target)).collect();
    let [draining, initial, "healthy (was initial)"] = changes[..] else { panic!("{said}") };
    assert!(draining.starts_with("draining (was healthy): Target.DeregistrationInProgress: "), "{said}");
    assert!(initial.starts_with("initial (was draining): Elb.RegistrationInProgress: "), "{said}");
    assert_eq!(
        said.matches(" in target group ").count(),
        changes.len(),
        "the other target did not change: {said}"
    );
    assert_eq!(launch.interrupted().await.code(), Some(0));
}

#[tokio::test]
async fn the_lines_to_try_work_as_they_are_printed() {
    for (fleet, lines, numbers) in [("clusters", 3, false), ("seed", 3, true)] {
        let small: &[&str] = if numbers { &[] } else { &["--count", "cluster1=1", "--count", "cluster2=1"] };
        let mut launch = Launch::start(&[&[fleet], small].concat());
        let printed = tests::eventually(async || {
            let text = launch.stdout();
            text.contains("Ctrl-C stops the fleet and deletes its folders, with stored numbers and logs.\n")
                .then_some(text)
        });
        let printed = printed.await.unwrap_or_else(|| panic!("{}", launch.stderr()));
        assert_eq!(
            printed.lines().filter(|line| line.trim_start().starts_with("i-0")).count(),
            2,
            "{printed}"
        );
        let curls: Vec<&str> =
            printed.lines().filter(|line| line.trim_start().starts_with("curl ")).collect();
        assert_eq!(curls.len(), lines, "{printed}");
        let status = printed.lines().find(|line| line.contains("instance-agent status ")).unwrap();
        let shown = Command::new("sh").args(["-c", status]).output().await.unwrap();
        let first = printed.lines().nth(1).and_then(|row| row.split_whitespace().next()).unwrap();
        assert!(text(&shown.stdout).contains(first), "{status}: {shown:?}");
        let mut answers = Vec::new();
        for line in curls {
            let output = Command::new("sh").args(["-c", line]).output().await.unwrap();
            assert!(output.status.success(), "{line}: {output:?}");
            answers.push(text(&output.stdout));
        }
        if numbers {
            assert_eq!(answers[..2], ["100", "200"]);
            assert!(["100", "200"].contains(&answers[2].as_str()), "{answers:?}");
        } else {
            assert_eq!(answers[0], "Healthy!");
            assert!(answers[1..].iter().all(|answer| answer.ends_with(" is responding now!")), "{answers:?}");
        }
        assert_eq!(launch.interrupted().await.code(), Some(0), "{}", launch.stderr());
    }
}

#[tokio::test]
async fn the_built_in_fleets_can_be_listed_shown_and_launched_from_a_file() {
    let listed = run("bootstrap", &["fleets", "list"]).await;
    let listed = text(&listed.stdout);
    let names: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["clusters", "seed"], "{listed}");
    assert!(listed.contains("5 x m4.large cluster1, 4 x t2.large cluster2"), "{listed}");

    let wrong = run("bootstrap", &["fleets", "clusters"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("show clusters"), "{wrong:?}");
    let shown = run("bootstrap", &["fleets", "show", "clusters"]).await;
    assert!(shown.status.success());
    let folder = tempfile::tempdir().unwrap();
    let file = fleet_file(&folder, &text(&shown.stdout));
    // It is read: what is wrong is only the count.
    let (status, said) = ends(&[&file, "--count", "cluster9=1"]).await;
    assert_eq!(status, 2);
    assert!(
        said.contains("fleet clusters has no group named cluster9; its groups: cluster1, cluster2"),
        "{said}"
    );

    let unknown = run("bootstrap", &["fleets", "show", "nine"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    let said = text(&unknown.stderr);
    assert!(said.lines().count() == 1 && said.contains("clusters and seed"), "{said}");
}

#[tokio::test]
async fn a_fleet_file_is_checked_without_aws_and_shown_with_every_default() {
    let folder = tempfile::tempdir().unwrap();
    let group = "[[group]]\nname = 'one'\ntype = 't3.micro'\n";
    let good =
        format!("name = 'small'\nimage = 'ubuntu-22.04'\nzones = ['us-east-1a', 'us-east-1b']\n{group}");
    let file = fleet_file(&folder, &good);
    let checked = run("bootstrap", &["fleets", "check", &file]).await;
    assert!(checked.status.success(), "{checked:?}");
    assert!(text(&checked.stderr).ends_with(" is valid\n"), "{checked:?}");
    let whole = text(&checked.stdout);
    assert!(whole.contains("\nport = 80\n") && whole.contains("\nbalancer-allow = "), "{whole}");
    // What it prints is a fleet file of the same fleet.
    let file = fleet_file(&folder, &whole);
    assert_eq!(text(&run("bootstrap", &["fleets", "check", &file]).await.stdout), whole);

    let file = fleet_file(&folder, &good.replace("name = 'small'", "nam = 'small'\nport = 'x'"));
    let wrong = run("bootstrap", &["fleets", "check", &file]).await;
    assert_eq!((wrong.status.code(), &*text(&wrong.stdout)), (Some(1), ""), "{wrong:?}");
    let said = text(&wrong.stderr);
    assert!(
        said.contains(":1: nam: unknown key; did you mean name?") && said.contains(":2: port: "),
        "{said}"
    );
}

#[tokio::test]
async fn an_instances_address_that_is_taken_is_named() {
    let port = free_port();
    let [high, low] = port.to_be_bytes();
    let address = format!("127.{high}.{low}.11:{INSTANCE_PORT}");
    let taken = TcpListener::bind(&address).unwrap();
    let mut launch = Launch::start_on(port, &PAIR);
    assert_eq!(launch.ended().await.code(), Some(1));
    let said = launch.stderr();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&address) && said.contains("--instance-port"), "{said}");
    assert!(launch.temporary_files().is_empty());
    drop(taken);
}

#[tokio::test]
async fn an_agent_that_cannot_be_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent");
    std::fs::write(&path, "no program").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let agent = path.to_str().unwrap();
    let (status, said) = ends(&["--agent", agent]).await;
    assert_eq!((status, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains(agent), "{said}");
}

#[tokio::test]
async fn make_demo_launches_what_it_is_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let program = binary("bootstrap");
    // TARGET_DIR/TRIPLE/debug/bootstrap
    let target_dir = program.ancestors().nth(3).unwrap();
    let port = free_port();
    let mut command = Command::new("make");
    command
        .current_dir(root)
        .env("CARGO_TARGET_DIR", target_dir)
        // Of the `make test` that may run this.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("MFLAGS")
        // The programs are built, with the tests' features: `make build` would build them anew.
        .args(["--old-file=build", "demo", "FLEET=seed"])
        .arg(format!("PORT={port}"))
        .arg("ARGS=--exit-when-healthy --output json");
    let mut launch = Launch::spawn(port, command);
    let fleet = launch.healthy().await;
    assert_eq!((fleet.url(), fleet.instances.len()), (&*format!("http://127.0.0.1:{port}"), 2));
    assert_eq!(launch.ended().await.code(), Some(0), "{}", launch.stderr());
    fleet.until_gone().await;
}
