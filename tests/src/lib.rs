//! What the whole-program tests share: the built binaries, and a [`Bed`] in which real agents run
//! against the strict local cloud.
//!
//! Nothing here waits for a fixed time: every wait ends when its condition holds, and fails the
//! test with what was seen when it does not hold by its deadline.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test bed that cannot be set up is a failed test"
)]
#![expect(clippy::disallowed_types, reason = "the account's tables are looked up by key, never listed")]

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bootstrap::{AgentCommand, AgentProcess};
use local_cloud::{
    BalancerHandle, BalancerSpec, Call, Forward, HealthCheck, InstanceHandle, InstanceSpec, LocalCloud,
    LocalCloudOptions, Rule, TargetGroupSpec, TargetState,
};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use serde_json::Value;
use tokio::process::Command;

pub mod account;
pub mod apt_repository;
pub mod debian;
pub mod files;
pub mod first_boot;
pub mod journal;
pub mod launch;
pub mod load;
pub mod netns;
pub mod nspawn;
pub mod outside;
pub mod package;
pub mod region;
pub mod service;
pub mod solo;
pub mod story;
pub mod strace;
pub mod sweep;
pub mod vm;
pub mod wire;

/// The port on which the beds' agents serve, each on an address of its own.
pub const PORT: u16 = 8080;

/// How long anything in a bed may take that should happen soon, on a machine that is busy. Shorter than
/// the time for which an idle connection is kept, so that nothing can pass by waiting for its end.
pub const SOON: Duration = Duration::from_secs(60);

/// A program of this workspace, as built beside the running test.
pub fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("the test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push(name);
    assert!(path.exists(), "{} is not built; run the tests with `make test`", path.display());
    path
}

/// Runs a program of this workspace to its end.
pub async fn run(name: &str, arguments: &[&str]) -> Output {
    output(Command::new(binary(name)).args(arguments).env_clear(), SOON).await
}

/// Runs a program that ends by itself, within this time.
pub async fn output(command: &mut Command, limit: Duration) -> Output {
    let what = format!("{command:?}");
    match tokio::time::timeout(limit, command.kill_on_drop(true).output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => panic!("{what}: {error}; tests/bin/setup installs what the tests need"),
        Err(_) => panic!("{what} did not end"),
    }
}

/// Sends a signal to a process that runs.
pub fn send(signal: Signal, pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("not zero");
    kill_process(pid, signal).expect("it runs");
}

/// What a program printed, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A terminal: the side of the person who sees and types, and the side of the program.
pub fn terminal() -> (OwnedFd, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (person, program)
}

/// A loopback network of its own for each bed, also of beds in other processes.
fn network() -> (u8, u8) {
    static BEDS: AtomicU32 = AtomicU32::new(0);
    // Process ids of tests that run at the same time are close together, so their remainders
    // differ; several beds of one process take distant ones.
    let number = (std::process::id() + 7919 * BEDS.fetch_add(1, Ordering::Relaxed)) % 50_000;
    ((number / 250 + 1) as u8, (number % 250) as u8)
}

/// A local cloud with target groups behind one balancer, and agents on instances of it.
pub struct Bed {
    /// The cloud.
    pub cloud: LocalCloud,
    /// The balancer in front of all groups.
    pub balancer: BalancerHandle,
    /// The target groups' names and ARNs.
    groups: Vec<(String, String)>,
    folder: tempfile::TempDir,
    network: (u8, u8),
    instances: u8,
    client: reqwest::Client,
}

/// What a bed is made of; the defaults make a fast one.
pub struct BedOptions {
    /// The target groups; each gets the path rule `/{name}` and an equal weight by default.
    pub groups: Vec<TargetGroupSpec>,
    /// The cloud.
    pub cloud: LocalCloudOptions,
}

impl Default for BedOptions {
    fn default() -> Self {
        Self { groups: vec![group("cluster1")], cloud: LocalCloudOptions::default() }
    }
}

/// A target group that checks twice a second, so that tests do not wait for checks, and keeps
/// AWS's deregistration delay of 300 s, so that nothing can pass by waiting for its end.
pub fn group(name: &str) -> TargetGroupSpec {
    TargetGroupSpec {
        health_check: HealthCheck {
            path: "/health".to_owned(),
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(2),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        },
        ..TargetGroupSpec::new(name, PORT)
    }
}

/// One instance of a bed.
pub struct Machine {
    /// Everything that can happen to the instance.
    pub instance: InstanceHandle,
    /// How its agent is started.
    pub command: AgentCommand,
}

impl Bed {
    /// A bed with one target group, `cluster1`.
    pub async fn start() -> Self {
        Self::with(BedOptions::default()).await
    }

    /// The same, with an instance of cluster1 that is healthy there.
    pub async fn healthy() -> (Self, Machine, AgentProcess) {
        let mut bed = Self::start().await;
        let (machine, agent) = bed.boot().await;
        bed.until_target("cluster1", &machine, TargetState::Healthy).await;
        (bed, machine, agent)
    }

    /// A bed as described.
    pub async fn with(options: BedOptions) -> Self {
        let cloud = LocalCloud::start(options.cloud).await.expect("a loopback port is free");
        let arns: Vec<(String, String)> = options
            .groups
            .into_iter()
            .map(|group| (group.name.clone(), cloud.create_target_group(group)))
            .collect();
        let default = Forward::weighted(arns.iter().map(|(_, arn)| (arn.clone(), 1)));
        let rules = arns.iter().zip(1..).map(|((name, arn), priority)| Rule {
            priority,
            paths: vec![format!("/{name}"), format!("/{name}/*")],
            forward: Forward::to(arn.clone()),
        });
        let spec = BalancerSpec { rules: rules.collect(), ..BalancerSpec::new("balancer", default) };
        let balancer = cloud.create_balancer(spec).await.expect("a loopback port is free");
        Self {
            cloud,
            balancer,
            groups: arns,
            folder: tempfile::tempdir().expect("a temporary folder"),
            network: network(),
            instances: 0,
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
        }
    }

    /// The ARN of a target group.
    pub fn arn(&self, group: &str) -> &str {
        let found = self.groups.iter().find(|(name, _)| name == group);
        found.map(|(_, arn)| arn.as_str()).expect("a group of this bed")
    }

    /// A client of this bed.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// What an instance of this bed is unless the test says otherwise: in cluster1 by its tags.
    pub fn spec(&self) -> InstanceSpec {
        let (high, low) = self.network;
        InstanceSpec::new(Ipv4Addr::new(127, high, low, 10 + self.instances))
            .tag(instance_contract::tags::CLUSTER, "cluster1")
            .tag(instance_contract::tags::TARGET_GROUP, "cluster1")
    }

    /// Runs an instance; its agent is not started yet.
    pub async fn machine(&mut self, spec: InstanceSpec) -> Machine {
        self.instances += 1;
        let instance = self.cloud.run_instance(spec).await.expect("a loopback port is free");
        let command = AgentCommand {
            binary: binary("instance-agent"),
            listen: SocketAddr::from((instance.address(), PORT)),
            folder: self.folder.path().join(instance.id()),
            environment: instance.agent_environment(),
            arguments: ["--drain-quiet", "3s", "--log-level", "debug"].map(OsString::from).to_vec(),
        };
        Machine { instance, command }
    }

    /// Runs an instance of cluster1 and starts its agent.
    pub async fn boot(&mut self) -> (Machine, AgentProcess) {
        let machine = self.machine(self.spec()).await;
        let agent = machine.start();
        (machine, agent)
    }

    /// Waits until the target is in this state.
    pub async fn until_target(&self, group: &str, machine: &Machine, state: TargetState) {
        let is = |cloud: &LocalCloud| cloud.health_of(group, machine.instance.id(), PORT).state == state;
        assert!(
            self.cloud.wait_until(SOON, is).await,
            "target in {group} never became {state}: {:?}\n{}",
            self.cloud.health_of(group, machine.instance.id(), PORT),
            machine.log()
        );
    }

    /// The answered calls of one action by one instance.
    pub fn calls(&self, machine: &Machine, action: &str) -> Vec<Call> {
        let by =
            |call: &Call| call.action == action && call.instance.as_deref() == Some(machine.instance.id());
        self.cloud.calls().into_iter().filter(by).collect()
    }

    /// Status and body of a GET.
    pub async fn get(&self, url: &str) -> (u16, String) {
        let answer = self.client.get(url).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }
}

impl Machine {
    /// Starts the agent.
    pub fn start(&self) -> AgentProcess {
        self.command.spawn().expect("the agent starts")
    }

    /// Adds arguments for the next start.
    pub fn arguments(&mut self, arguments: &[&str]) {
        self.command.arguments.extend(arguments.iter().map(OsString::from));
    }

    /// The URL of a path on this instance itself.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.command.listen)
    }

    /// Everything the agent logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.command.log()).unwrap_or_default()
    }

    /// Runs a command of the agent against the running one.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let runtime_dir = self.command.runtime_dir();
        let runtime_dir = runtime_dir.to_str().expect("a plain path");
        run("instance-agent", &[arguments, &["--runtime-dir", runtime_dir]].concat()).await
    }

    /// The agent's status; `None` while its socket does not answer.
    pub async fn status(&self) -> Option<Value> {
        let output = self.command(&["status", "--output", "json"]).await;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the agent's status is as wanted, and returns it.
    pub async fn until_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(async || self.status().await.filter(&wanted)).await;
        match found {
            Some(status) => status,
            None => panic!("status never showed {what}: {:?}\n{}", self.status().await, self.log()),
        }
    }

    /// Waits until the agent is in this phase.
    pub async fn until_phase(&self, phase: &str) -> Value {
        self.until_status(phase, |status| status["phase"] == phase).await
    }

    /// Waits until the agent has logged this text.
    pub async fn until_logged(&self, wanted: &str) {
        let found = eventually(async || self.log().contains(wanted).then_some(())).await;
        assert!(found.is_some(), "never logged {wanted:?}:\n{}", self.log());
    }

    /// Waits until the agent answers.
    pub async fn until_serving(&self, bed: &Bed) {
        let answers = async || bed.client.get(self.url("/health")).send().await.ok();
        assert!(eventually(answers).await.is_some(), "never answered:\n{}", self.log());
    }
}

/// Asks again and again until there is an answer, [`SOON`] at the latest.
pub async fn eventually<T>(ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    within(SOON, ask).await
}

/// Asks again and again until there is an answer, for as long as this at the most.
pub async fn within<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, asking).await.ok()
}

/// Waits for an agent to end by itself.
pub async fn ended(agent: &mut AgentProcess, machine: &Machine) -> ExitStatus {
    tokio::time::timeout(SOON, agent.wait())
        .await
        .unwrap_or_else(|_| panic!("the agent did not end:\n{}", machine.log()))
        .expect("an exit status")
}
