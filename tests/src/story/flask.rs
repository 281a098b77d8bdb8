//! The way that was before: Flask from Debian, a unit file, and a script that registers the instance.
//! How long it takes beside the agent's, each alone on the same machine, in one run.

use std::time::Duration;

use crate::account::IMAGE;
use crate::debian::root;
use crate::files::Files;
use crate::region::{INSIDE, Machine, monotonic};

use super::Day;
use crate::region::Power;
use crate::within;

/// What a first boot has to do for it.
const USER_DATA: &str = r#"#cloud-config
write_files:
  - path: /opt/app/app.py
    content: |
      import urllib.request
      from flask import Flask

      app = Flask(__name__)
      imds = "http://169.254.169.254/latest"
      ask = urllib.request.Request(
          imds + "/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "300"})
      token = urllib.request.urlopen(ask).read().decode()
      ask = urllib.request.Request(
          imds + "/meta-data/instance-id", headers={"X-aws-ec2-metadata-token": token})
      instance = urllib.request.urlopen(ask).read().decode()

      @app.route("/")
      def health():
          return "Healthy!"

      @app.route("/cluster1")
      def cluster():
          return f"Instance {instance} is responding now!"
  - path: /etc/systemd/system/app.service
    content: |
      [Service]
      WorkingDirectory=/opt/app
      ExecStart=/usr/bin/python3 -m flask run --host 0.0.0.0 --port 80
      [Install]
      WantedBy=multi-user.target
runcmd:
  - echo 'deb [trusted=yes] @BASE@ flask/' >/etc/apt/sources.list.d/flask.list
  - apt-get update
  - apt-get install -y --no-install-recommends python3-flask
  - systemctl enable --now app.service
"#;

/// From power on.
struct Steps {
    installed: Duration,
    serving: Duration,
    registered: Duration,
}

/// Waits until an instance answers; when it did.
async fn answers(day: &Day, machine: &Machine) -> Duration {
    let url = format!("http://{}/", machine.instance().private.unwrap());
    let asked = async || day.client.get(&url).send().await.ok().filter(|answer| answer.status() == 200);
    let answered = within(day.times.boot, asked).await;
    assert!(answered.is_some(), "{} does not serve:\n{}", machine.id, machine.journal().await);
    monotonic()
}

async fn agents_way(day: &mut Day) -> Steps {
    let (fleet, more) = (day.fleet.clone(), day.groups["cluster1"] + 1);
    let before: Vec<String> = day.instances().await.into_iter().map(|instance| instance.id).collect();
    day.bootstrap(&["scale", &fleet, &format!("cluster1={more}"), "--yes"]).await;
    let new = day.instances().await.into_iter().find(|instance| !before.contains(&instance.id)).unwrap();
    let machine = day.region.machine(&new.id).await;
    let on = machine.powered_on().unwrap();
    let steps = Steps {
        installed: machine.unit_time("instance-agent", "InactiveExit").await - on,
        serving: machine.unit_time("instance-agent", "ActiveEnter").await - on,
        registered: day.registered(&new.id) - on,
    };
    day.bootstrap(&["scale", &fleet, &format!("cluster1={}", more - 1), "--yes"]).await;
    day.region.until_power(&new.id, Power::Off, day.times.settle).await;
    steps
}

async fn flasks_way(day: &Day) -> Steps {
    let files = Files::serve((INSIDE, 8002).into()).await;
    let mut base = String::new();
    for entry in std::fs::read_dir(root("bookworm-flask").await).unwrap() {
        let entry = entry.unwrap();
        let mut bytes = std::fs::read(entry.path()).unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "Packages" {
            // Its paths are from the base, not from the index.
            bytes = crate::text(&bytes).replace("Filename: ./", "Filename: flask/").into_bytes();
        }
        // As apt writes them on the wire.
        let name = name.replace('+', "%2b").replace('~', "%7e");
        let url = files.put(&format!("flask/{name}"), bytes);
        base = url.split("flask/").next().unwrap().to_owned();
    }
    let user_data = USER_DATA.replace("@BASE@", &base);
    let file = day.region.account.file("flask.yaml", user_data);
    let cli = day.region.account.cli().await;
    let user_data = format!("file://{file}");
    let words = ["ec2", "run-instances", "--image-id", IMAGE, "--instance-type", "m4.large", "--user-data"];
    let run = cli.ok(&[&words[..], &[&user_data]].concat()).await;
    let id = run["Instances"][0]["InstanceId"].as_str().unwrap().to_owned();
    let vpc = cli.ok(&["ec2", "describe-vpcs", "--query", "Vpcs[0].VpcId"]).await;
    let words =
        ["elbv2", "create-target-group", "--name", "flask", "--protocol", "HTTP", "--port", "80", "--vpc-id"];
    let group = cli.ok(&[&words[..], &[vpc.as_str().unwrap()]].concat()).await;
    let arn = group["TargetGroups"][0]["TargetGroupArn"].as_str().unwrap();

    let machine: std::sync::Arc<Machine> = day.region.machine(&id).await;
    let serving = answers(day, &machine).await;
    // What a script does that waits until it serves.
    let target = format!("Id={id}");
    cli.ok(&["elbv2", "register-targets", "--target-group-arn", arn, "--targets", &target]).await;
    let on = machine.powered_on().unwrap();
    let steps = Steps {
        installed: machine.unit_time("app", "InactiveExit").await - on,
        serving: serving - on,
        registered: day.registered(&id) - on,
    };
    cli.ok(&["elbv2", "delete-target-group", "--target-group-arn", arn]).await;
    cli.ok(&["ec2", "terminate-instances", "--instance-ids", &id]).await;
    day.region.until_power(&id, Power::Off, day.times.settle).await;
    steps
}

/// Both ways, one after the other, as ratios. What takes how long is no promise, so nothing is asserted.
pub async fn beside(day: &mut Day) {
    let ours = agents_way(day).await;
    let theirs = flasks_way(day).await;
    let of = |what: &str, ours: Duration, theirs: Duration| {
        let (ours, theirs) = (ours.as_secs_f64(), theirs.as_secs_f64());
        println!("         {what:<10} agent {ours:5.2} s, Flask {theirs:5.2} s: {:.2} times", theirs / ours);
    };
    day.said("one instance alone, from power on:");
    of("installed", ours.installed, theirs.installed);
    of("serving", ours.serving, theirs.serving);
    of("registered", ours.registered, theirs.registered);
}
