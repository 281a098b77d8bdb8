//! What happens to a fleet in a day, an event each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::account::{Account, AwsError, Fault, Ran, Trouble};
use crate::debian::{another_version, package};
use crate::load::{Ask, Load};
use crate::region::{Instance, Machine, Power, Region, SPOT_NOTICE, monotonic};
use crate::within;
use serde_json::Value;

/// What the instances of the seed fleet are told, each its own.
const SEEDS: [&str; 2] = ["100", "98765432109876543210"];

/// How long things may take, and how long troubles last.
pub struct Times {
    /// From a launch to the health of all.
    pub boot: Duration,
    /// A target's change from one state to another, its drain and its delay among them.
    pub settle: Duration,
    /// The outages.
    pub lasts: Duration,
}

/// A fleet in a region, and a client that never stops asking.
pub struct Day {
    /// Where it is.
    pub region: Region,
    /// What `bootstrap launch` is told: a file, or a built-in fleet's name.
    pub file: String,
    /// The fleet's name.
    pub fleet: String,
    /// How many instances each group is to have.
    pub groups: BTreeMap<String, usize>,
    package: PathBuf,
    url: String,
    /// A client that keeps connections.
    pub client: reqwest::Client,
    load: Option<Load>,
    before: Value,
    /// How long things may take.
    pub times: Times,
    began: Instant,
}

impl Day {
    /// An empty region with room for this many machines; nothing is launched yet.
    pub async fn begin(
        room: u32,
        file: Option<&str>,
        fleet: &str,
        groups: &[(&str, usize)],
        times: Times,
    ) -> Self {
        let region = Region::up(room).await;
        let file = file.map(|content| region.account.file("fleet.toml", content));
        let before = region.account.snapshot().await;
        Self {
            file: file.unwrap_or_else(|| fleet.to_owned()),
            fleet: fleet.to_owned(),
            groups: groups.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            package: package("instance-agent"),
            url: String::new(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            load: None,
            before,
            times,
            began: Instant::now(),
            region,
        }
    }

    fn account(&self) -> &Account {
        &self.region.account
    }

    /// Runs a command of `bootstrap` that has to succeed; not longer than the region lives.
    pub async fn bootstrap(&mut self, words: &[&str]) -> Ran {
        let running = self.region.account.bootstrap(words).start();
        let patience = self.times.boot + self.times.settle;
        let ran = tokio::select! {
            ran = running.end_within(patience) => ran,
            said = self.region.failed() => panic!("{said}"),
        };
        if ran.status != Some(0) {
            for machine in self.region.machines() {
                eprintln!("{} {:?}\n{}", machine.id, machine.power(), machine.journal().await);
            }
        }
        ran.success()
    }

    /// Tells what has happened, and when.
    pub fn said(&self, what: &str) {
        println!("{:>5.0} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Its instances.
    pub async fn instances(&self) -> Vec<Instance> {
        self.region.instances(&self.fleet).await
    }

    /// The machine of a running instance of a group, by its number there.
    async fn one_of(&self, group: &str, number: usize) -> Arc<Machine> {
        let mut of_group: Vec<Instance> = self.instances().await;
        of_group.retain(|instance| instance.cluster() == group && instance.state == "running");
        self.region.machine(&of_group[number].id).await
    }

    fn target_group(&self, group: &str) -> String {
        format!("{}-{group}", self.fleet)
    }

    async fn arn(&self, group: &str) -> String {
        let cli = self.account().cli().await;
        let found = cli.ok(&["elbv2", "describe-target-groups", "--names", &self.target_group(group)]).await;
        found["TargetGroups"][0]["TargetGroupArn"].as_str().unwrap().to_owned()
    }

    async fn until(&self, machine: &Machine, state: &str) {
        let group = self.target_group(machine.instance().cluster());
        self.region.until_health(&group, &machine.id, state, self.times.settle).await;
    }

    fn count(&self) -> usize {
        self.groups.values().sum()
    }

    /// Waits until every instance is healthy, by `bootstrap status`.
    pub async fn until_all_healthy(&self) {
        let wanted = self.count();
        let healthy = async || {
            let status = self.account().run(&["status", &self.fleet, "--output", "json"]).await.json();
            (status["healthy"] == wanted && status["wanted"] == wanted).then_some(())
        };
        let waited = within(self.times.settle, healthy).await;
        assert!(waited.is_some(), "{}", self.account().run(&["status", &self.fleet]).await.stdout);
    }

    /// How often an instance was registered: the calls that moto accepted.
    fn registrations(&self, id: &str) -> usize {
        let calls = self.account().calls();
        let of_it = calls.iter().filter(|call| {
            call.action == "RegisterTargets"
                && call.status == 200
                && call.parameters.values().any(|value| value == id)
        });
        of_it.count()
    }

    /// When an instance was first registered, by the clock of [`monotonic`].
    pub fn registered(&self, id: &str) -> Duration {
        let calls = self.account().calls();
        let of_it = |value: &String| value == id;
        let call =
            calls.iter().find(|call| call.action == "RegisterTargets" && call.parameters.values().any(of_it));
        monotonic() - call.expect("it was registered").began.elapsed()
    }

    /// `bootstrap launch`, from the package, to the health of all.
    pub async fn launch(&mut self) {
        let began = Instant::now();
        let (file, package) = (self.file.clone(), self.package.to_str().unwrap().to_owned());
        let wait = format!("{}s", self.times.boot.as_secs());
        self.bootstrap(&["launch", &file, "--deb", &package, "--yes", "--timeout", &wait]).await;
        self.url = self.region.url(&self.fleet).await;
        self.said(&format!("launched, and {} instances are healthy: {:.0?}", self.count(), began.elapsed()));
    }

    /// Someone terminates every instance.
    pub async fn terminate_all(&mut self) {
        let cli = self.account().cli().await;
        for instance in self.instances().await {
            cli.ok(&["ec2", "terminate-instances", "--instance-ids", &instance.id]).await;
            self.region.until_power(&instance.id, Power::Off, self.times.settle).await;
        }
    }

    /// Bodies, spread and tags, as the product's description has them; by `bootstrap`, and by others.
    pub async fn is_what_was_asked_for(&mut self) {
        self.until_all_healthy().await;
        let fleet = self.fleet.clone();
        self.bootstrap(&["verify", &fleet]).await.says("Healthy!");
        let instances = self.instances().await;
        assert_eq!(instances.len(), self.count());
        assert_eq!(self.get("/").await, "Healthy!");
        for (group, count) in &self.groups {
            let ids: Vec<&str> = instances
                .iter()
                .filter(|instance| instance.cluster() == group)
                .map(|instance| instance.id.as_str())
                .collect();
            assert_eq!(ids.len(), *count);
            let mut seen: Vec<String> = Vec::new();
            for _ in 0..10 * count {
                let body = self.get(&format!("/{group}")).await;
                let id =
                    body.strip_prefix("Instance ").and_then(|rest| rest.strip_suffix(" is responding now!"));
                let id = id.unwrap_or_else(|| panic!("{body}"));
                assert!(ids.contains(&id), "{id} is not of {group}");
                seen.push(id.to_owned());
            }
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), *count, "every instance of {group} gets requests");
            // The package came by apt, and nothing else was installed with it.
            let machine = self.region.machine(ids[0]).await;
            let installed = machine.ok("grep '^Install:' /var/log/apt/history.log | tail -n 1").await;
            let alone = format!("Install: instance-agent:amd64 ({})", env!("CARGO_PKG_VERSION"));
            assert_eq!(installed, alone);
            let done = machine.ok("cloud-init status").await;
            assert!(done.contains("done"), "{done}");
        }
        // Each has it from the bucket.
        let downloads = self.account().calls().iter().filter(|call| call.action == "GetObject").count();
        assert!(downloads >= self.count(), "{downloads} downloads from the bucket");
        // awscli sees those registered that answer.
        let witness = self.account().witness().await;
        for group in self.groups.keys() {
            let arn = self.arn(group).await;
            let words = ["elbv2", "describe-target-health", "--target-group-arn", &arn];
            let told = witness.ok(&words).await;
            let told = told["TargetHealthDescriptions"].as_array().unwrap().iter();
            let mut told: Vec<&str> = told.map(|target| target["Target"]["Id"].as_str().unwrap()).collect();
            told.sort_unstable();
            let of_group = instances.iter().filter(|instance| instance.cluster() == group);
            let mut wanted: Vec<&str> = of_group.map(|instance| instance.id.as_str()).collect();
            wanted.sort_unstable();
            assert_eq!(told, wanted);
        }
        self.said("verified, and seen by awscli");
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    /// Says how long each step of each boot took, from power on.
    pub async fn steps_of_the_boots(&self) {
        for instance in self.instances().await {
            let machine = self.region.machine(&instance.id).await;
            let on = machine.powered_on().unwrap();
            let installed = machine.unit_time("instance-agent", "InactiveExit").await - on;
            let serving = machine.unit_time("instance-agent", "ActiveEnter").await - on;
            let registered = self.registered(&instance.id) - on;
            let healthy = self.region.healthy_since(&instance.id).await.unwrap() - on;
            println!(
                "         {}: installed {:.1} s, serving {:.1} s, registered {:.1} s, healthy {:.1} s",
                instance.id,
                installed.as_secs_f64(),
                serving.as_secs_f64(),
                registered.as_secs_f64(),
                healthy.as_secs_f64()
            );
            assert!(installed <= serving && registered <= healthy);
        }
    }

    /// From now on there is load on every path, with kept and with new connections.
    pub async fn load_begins(&mut self) {
        let mut asks = vec![Ask::Get("/")];
        for (group, count) in &self.groups {
            // A group of one cannot lose it without being missed.
            if *count > 1 {
                asks.push(if group == "cluster1" { Ask::Get("/cluster1") } else { Ask::Get("/cluster2/x") });
            }
        }
        if self.groups.values().any(|count| *count == 1) {
            // Half of the default's requests go to each group.
            asks.remove(0);
        }
        let load = Load::start_paced(&self.url, &asks, Duration::from_millis(10));
        load.until_answered(100).await;
        self.load = Some(load);
    }

    /// The load goes on, and nothing of it has failed.
    pub async fn still_served(&mut self) {
        self.region.check();
        let load = self.load.as_ref().unwrap();
        load.until_answered(100).await;
        assert_eq!(load.failures(), [""; 0]);
    }

    /// The load ends, and no request of it has failed.
    pub async fn load_ends_without_a_failure(&mut self) {
        self.until_all_healthy().await;
        let report = self.load.take().unwrap().stop().await;
        assert_eq!(report.failures, [""; 0]);
        self.said(&format!("{} requests under way through all of this, none failed", report.answered));
    }

    /// A new package on one machine after the other, by apt.
    pub async fn rolling_upgrade(&mut self) {
        let newer = another_version(&self.package, "99.0.0", |_| ()).await;
        let bytes = std::fs::read(&newer).unwrap();
        for instance in self.instances().await {
            let machine = self.region.machine(&instance.id).await;
            let before = (
                machine.ok("systemctl show -P MainPID instance-agent").await,
                self.registrations(&machine.id),
            );
            machine.write("var/cache/newer.deb", &bytes).await;
            machine.ok("chmod 644 /var/cache/newer.deb && apt-get install -y /var/cache/newer.deb").await;
            assert_eq!(machine.ok("dpkg-query -W -f '${Version}' instance-agent").await, "99.0.0");
            assert_eq!(machine.status().await["reload"]["outcome"], "done");
            let after = (
                machine.ok("systemctl show -P MainPID instance-agent").await,
                self.registrations(&machine.id),
            );
            assert_eq!(after, before, "the same process, registered as it was");
            self.still_served().await;
        }
        self.said("upgraded one after the other");
    }

    /// One more of the first group, and back.
    pub async fn scale_up_and_down(&mut self) {
        let (fleet, count) = (self.fleet.clone(), self.groups["cluster1"]);
        let before: Vec<String> = self.instances().await.into_iter().map(|instance| instance.id).collect();
        self.bootstrap(&["scale", &fleet, &format!("cluster1={}", count + 1), "--yes"]).await;
        self.groups.insert("cluster1".to_owned(), count + 1);
        self.until_all_healthy().await;
        self.still_served().await;
        self.bootstrap(&["scale", &fleet, &format!("cluster1={count}"), "--yes"]).await;
        self.groups.insert("cluster1".to_owned(), count);
        // The one that had to go has drained, and is off.
        for machine in self.region.machines() {
            if machine.instance().state == "terminated" {
                self.region.until_power(&machine.id, Power::Off, self.times.settle).await;
            }
        }
        assert_eq!(self.instances().await.len(), before.len());
        self.until_all_healthy().await;
        self.still_served().await;
        self.said(&format!("scaled to cluster1={} and back to {count}", count + 1));
    }

    /// The service of one is stopped, which drains, and started again.
    pub async fn one_is_stopped_and_started(&mut self) {
        let machine = self.one_of("cluster1", 0).await;
        machine.ok("systemctl stop --no-block instance-agent").await;
        self.until(&machine, "draining").await;
        machine.ok("systemctl stop instance-agent").await;
        self.still_served().await;
        machine.ok("systemctl start instance-agent").await;
        self.until(&machine, "healthy").await;
        self.still_served().await;
        self.said("one was stopped, and started again");
    }

    /// EC2 gives notice, the agent is drained before it is over, then the instance is terminated. The
    /// next launch replaces it.
    pub async fn a_spot_instance_is_interrupted(&mut self) {
        let machine = self.one_of("cluster1", 1).await;
        let at = machine.tell_spot_interruption();
        machine.until_phase("drained", SPOT_NOTICE).await;
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        assert!(left > Duration::ZERO, "not drained in time");
        self.still_served().await;
        let cli = self.account().cli().await;
        cli.ok(&["ec2", "terminate-instances", "--instance-ids", &machine.id]).await;
        self.region.until_power(&machine.id, Power::Off, self.times.settle).await;
        self.still_served().await;
        let (file, package) = (self.file.clone(), self.package.to_str().unwrap().to_owned());
        self.bootstrap(&["launch", &file, "--deb", &package, "--yes"]).await;
        self.until_all_healthy().await;
        self.still_served().await;
        self.said(&format!(
            "a spot instance was drained {:.0} s before its end, and replaced",
            left.as_secs_f64()
        ));
    }

    /// EC2 recommends to rebalance one whose settings say to follow that.
    pub async fn a_rebalance_is_recommended(&mut self) {
        let machine = self.one_of("cluster1", 0).await;
        machine.ok("echo 'on-rebalance = \"drain\"' >>/etc/instance-agent/agent.toml && systemctl reload instance-agent").await;
        machine.tell_rebalance();
        self.drains_and_comes_back(&machine).await;
        self.said("a rebalance was recommended, and followed");
    }

    /// Auto Scaling wants one to be terminated; it drains, and stays up.
    pub async fn auto_scaling_says_terminated(&mut self) {
        let machine = self.one_of("cluster1", 1).await;
        machine.tell_lifecycle("Terminated");
        self.drains_and_comes_back(&machine).await;
        self.said("Auto Scaling took one out");
    }

    /// One that was given notice drains; when the notice is taken back, a restart has it serve again.
    async fn drains_and_comes_back(&mut self, machine: &Machine) {
        machine.until_phase("drained", self.times.settle).await;
        self.still_served().await;
        machine.tell_nothing();
        machine.ok("systemctl restart instance-agent").await;
        self.until(machine, "healthy").await;
        self.still_served().await;
    }

    /// Someone takes an instance out of its group with awscli. The agent misses the balancer's probes
    /// when its deregistration delay is over, looks, and registers again.
    pub async fn someone_deregisters_one_by_hand(&mut self) {
        let machine = self.one_of("cluster1", 0).await;
        let cli = self.account().cli().await;
        let arn = self.arn("cluster1").await;
        // The same someone has no five minutes.
        let delay = "Key=deregistration_delay.timeout_seconds,Value=30";
        let words =
            ["elbv2", "modify-target-group-attributes", "--target-group-arn", &arn, "--attributes", delay];
        cli.ok(&words).await;
        let before = self.registrations(&machine.id);
        let target = format!("Id={}", machine.id);
        cli.ok(&["elbv2", "deregister-targets", "--target-group-arn", &arn, "--targets", &target]).await;
        self.until(&machine, "draining").await;
        self.still_served().await;
        self.until(&machine, "healthy").await;
        assert_eq!(self.registrations(&machine.id), before + 1);
        self.still_served().await;
        self.said("one was deregistered by hand, and registered again");
    }

    /// Up to three instances cannot reach their metadata for a while: nothing happens.
    pub async fn metadata_are_gone(&mut self) {
        let mut cut_off = Vec::new();
        for instance in self.instances().await.into_iter().take(3) {
            let machine = self.region.machine(&instance.id).await;
            machine.lose_metadata().await;
            let asked = machine.run("curl --silent --max-time 2 http://169.254.169.254/").await;
            assert!(!asked.status.success(), "the metadata can be reached");
            cut_off.push((self.registrations(&machine.id), machine));
        }
        tokio::time::sleep(self.times.lasts).await;
        self.still_served().await;
        for (registrations, machine) in &cut_off {
            assert_eq!(machine.status().await["phase"], "serving", "{}", machine.journal().await);
            machine.find_metadata().await;
            assert_eq!(self.registrations(&machine.id), *registrations);
        }
        self.until_all_healthy().await;
        self.said(&format!("{} had no metadata for {:?}", cut_off.len(), self.times.lasts));
    }

    /// The API refuses every call for a while; who restarts meanwhile comes back when it can.
    pub async fn the_api_is_throttled(&mut self) {
        let machine = self.one_of("cluster1", 0).await;
        let throttled = AwsError::throttled("elasticloadbalancing");
        self.account().fault(Fault::every("elasticloadbalancing:*", Trouble::Fail(throttled)));
        machine.ok("systemctl restart --no-block instance-agent").await;
        tokio::time::sleep(self.times.lasts).await;
        self.still_served().await;
        assert!(self.account().fired() > 0, "nothing was throttled");
        self.account().clear_faults();
        let restarted = async || {
            let active = machine.run("systemctl is-active instance-agent").await.status.success();
            (active && machine.status().await["phase"] == "serving").then_some(())
        };
        assert!(within(self.times.settle, restarted).await.is_some(), "{}", machine.journal().await);
        self.until_all_healthy().await;
        self.still_served().await;
        self.said(&format!("the API was throttled for {:?}", self.times.lasts));
    }

    /// A machine loses its power: the balancer takes it out, it comes back with its number.
    pub async fn power_is_cut(&mut self) {
        let machine = self.one_of("cluster1", 0).await;
        let public = machine.instance().public.unwrap();
        let seed = format!("http://{public}/seed");
        let number = "31415926535897932384626433832795";
        let stored = self.client.post(&seed).body(format!("{{\"num\": {number}}}")).send().await.unwrap();
        assert_eq!(stored.text().await.unwrap(), number);
        let registrations = self.registrations(&machine.id);
        machine.cut().await;
        self.until(&machine, "unhealthy").await;
        for _ in 0..20 {
            assert!(!self.get("/cluster1").await.contains(&machine.id), "it gets requests");
        }
        self.said("a plug was pulled, and the balancer took the instance out");
        machine.plug_in().await;
        self.until(&machine, "healthy").await;
        let answer = self.client.get(&seed).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), number);
        // The cut took nothing away from the target group: the agent looks, and finds itself in it.
        let sees_itself = async || {
            let status = machine.status().await.to_string();
            status.contains("\"healthy\"").then_some(())
        };
        assert!(within(self.times.settle, sees_itself).await.is_some(), "{}", machine.status().await);
        assert_eq!(self.registrations(&machine.id), registrations, "{}", machine.journal().await);
        self.said("it came back with its number, and finds itself registered");
    }

    /// A second fleet in the same account; the first does not notice.
    pub async fn seed_fleet_comes_and_goes(&mut self) {
        let first = self.account().snapshot().await;
        let package = self.package.to_str().unwrap().to_owned();
        self.bootstrap(&["launch", "seed", "--deb", &package, "--yes"]).await;
        self.bootstrap(&["verify", "seed"]).await;
        let url = self.region.url("seed").await;
        // As its grader does: each instance its own number, and one of them through the balancer.
        for (instance, number) in self.region.instances("seed").await.iter().zip(SEEDS) {
            let address = format!("http://{}/", instance.public.unwrap());
            let stored =
                self.client.post(&address).body(format!("{{\"num\": {number}}}")).send().await.unwrap();
            assert_eq!(stored.status(), 200);
            let body = self.client.get(&address).send().await.unwrap().text().await.unwrap();
            assert_eq!(body, number);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            seen.insert(self.client.get(&url).send().await.unwrap().text().await.unwrap());
        }
        assert_eq!(seen, SEEDS.map(str::to_owned).into(), "digits and nothing else");
        self.until_all_healthy().await;
        let fleet = self.fleet.clone();
        self.bootstrap(&["verify", &fleet]).await;
        self.bootstrap(&["destroy", "seed", "--yes"]).await;
        let touched = crate::account::differences(&first, &self.account().snapshot().await);
        assert_eq!(touched, Vec::<String>::new(), "the first fleet is as it was");
        self.until_all_healthy().await;
        self.said("a second fleet came and went");
    }

    /// `bootstrap destroy`: nothing is left, and no machine runs.
    pub async fn ends(mut self) {
        let fleet = self.fleet.clone();
        self.bootstrap(&["destroy", &fleet, "--yes"]).await;
        for machine in self.region.machines() {
            self.region.until_power(&machine.id, Power::Off, self.times.settle).await;
        }
        let left = crate::account::differences(&self.before, &self.account().snapshot().await);
        assert_eq!(left, Vec::<String>::new());
        let witness = self.account().witness().await;
        let filter = "Name=instance-state-name,Values=pending,running,shutting-down,stopping,stopped";
        let found = witness.ok(&["ec2", "describe-instances", "--filters", filter]).await;
        assert_eq!(found["Reservations"], serde_json::json!([]));
        for (words, list) in [
            (["elbv2", "describe-load-balancers"], "LoadBalancers"),
            (["elbv2", "describe-target-groups"], "TargetGroups"),
            (["iam", "list-roles"], "Roles"),
            (["s3api", "list-buckets"], "Buckets"),
        ] {
            assert_eq!(witness.ok(&words).await[list], serde_json::json!([]), "{words:?}");
        }
        self.region.check();
        self.said("destroyed; awscli finds nothing");
    }
}
