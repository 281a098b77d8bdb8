//! A region of AWS on this machine, of parts that someone else has written wherever there are any:
//! moto is the control plane, booted Debians are the instances, haproxy is the balancers.
//!
//! | file | holds |
//! | --- | --- |
//! | `network.rs` | the closed-off network that all of it is in |
//! | `instances.rs` | what moto knows of instances |
//! | `machines.rs` | a booted Debian for each instance that runs |
//! | `metadata.rs` | what the metadata service tells each |
//! | `balancers.rs` | what moto knows of balancers, and the targets' health by what haproxy finds |
//! | `haproxy.rs` | a haproxy for each balancer |
//! | `command.rs` | the region as a command, `tests/bed` |
//!
//! In front of moto is the tests' own [`Account`], which adds what AWS does and moto does not. Nothing
//! of the product knows of any of it: endpoints come by the SDK's own variables and the metadata
//! service's own address, the balancers' names by `/etc/hosts`.
//!
//! It is in a network and a mount namespace of its own, and ends with the process that made it,
//! however that ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::account::{Account, Agents, Options};
use crate::{eventually, within};
use balancers::Balancers;
use machines::Machines;

pub use instances::Instance;
pub use machines::{Machine, Power, SPOT_NOTICE, monotonic};

mod balancers;
pub mod command;
mod haproxy;
mod instances;
mod machines;
mod metadata;
mod network;

/// Where the account's API is, and where the clients' and the balancers' connections come from.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(INSIDE), 8000);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// How often the balancers' checks are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// How often the account is looked at though no call came that may have changed it.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// A region with an account in it.
pub struct Region {
    /// The account. Its options say that the agents are real.
    pub account: Arc<Account>,
    machines: Arc<Machines>,
    balancers: Arc<Mutex<Balancers>>,
    tasks: JoinSet<()>,
}

impl Region {
    /// A region with room for this many instances. Moves the calling thread into the region's network
    /// and mounts, for good: what it does with the network from now on, it does there. Needs root.
    pub async fn up(room: u32) -> Self {
        let hosts = network::enter().await;
        let account = Account::start_at(API, Options { agents: Agents::Real, ..Options::strict() }).await;
        let account = Arc::new(account);
        let endpoint = account.endpoint().to_owned();
        let machines = Arc::new(Machines::new(Arc::clone(&account), endpoint, room).await);
        let balancers = Arc::new(Mutex::new(Balancers::new(Arc::clone(&account), hosts)));
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind((METADATA, 80)).await.expect("the network is our own");
        tasks.spawn(metadata::serve(listener, Arc::clone(&machines)));
        tasks.spawn(control(Arc::clone(&account), Arc::clone(&machines), Arc::clone(&balancers)));
        Self { account, machines, balancers, tasks }
    }

    /// Fails if a part of the region has.
    pub fn check(&mut self) {
        if let Some(ended) = self.tasks.try_join_next() {
            panic!("a part of the region has ended: {ended:?}");
        }
    }

    /// Waits for the end of a part of the region, which none has but by a fault.
    pub async fn failed(&mut self) -> String {
        format!("a part of the region has ended: {:?}", self.tasks.join_next().await)
    }

    /// The instances of a fleet, as moto knows them; those that ended are not among them.
    pub async fn instances(&self, fleet: &str) -> Vec<Instance> {
        let all = instances::look(&self.account).await;
        let of_fleet = |instance: &Instance| instance.tag(instance_contract::tags::FLEET) == Some(fleet);
        all.into_iter().filter(|instance| of_fleet(instance) && instance.state != "terminated").collect()
    }

    /// The machine of an instance; waits until it has one.
    pub async fn machine(&self, id: &str) -> Arc<Machine> {
        let found = eventually(async || self.machines.get(id)).await;
        found.unwrap_or_else(|| panic!("{id} has no machine"))
    }

    /// Every machine there is, and those that are gone but for their names.
    pub fn machines(&self) -> Vec<Arc<Machine>> {
        self.machines.all()
    }

    /// The URL of a balancer, by its name.
    pub async fn url(&self, balancer: &str) -> String {
        let found = eventually(async || self.balancers.lock().await.url(balancer)).await;
        found.unwrap_or_else(|| panic!("there is no balancer {balancer}"))
    }

    /// What `bootstrap status` says of a fleet.
    pub async fn status(&self, fleet: &str) -> Value {
        self.account.ok(&["status", fleet, "--output", "json"]).await.json()
    }

    /// What the balancer of a target group says of an instance: state and reason.
    pub async fn health(&self, group: &str, id: &str) -> Option<(String, String)> {
        let health = self.balancers.lock().await.health_of(group, id)?;
        Some((health.state.to_string(), health.reason.unwrap_or_default().to_owned()))
    }

    /// When a target first passed a check, by the clock of [`monotonic`].
    pub async fn healthy_since(&self, id: &str) -> Option<Duration> {
        self.balancers.lock().await.healthy_since(id)
    }

    /// Waits until the balancer says this of an instance.
    pub async fn until_health(&self, group: &str, id: &str, state: &str, patience: Duration) {
        let is = async || (self.health(group, id).await?.0 == state).then_some(());
        if within(patience, is).await.is_none() {
            let seen = self.health(group, id).await;
            let journal = self.machine(id).await.journal().await;
            panic!("{id} never became {state} in {group}: {seen:?}\n{journal}");
        }
    }

    /// Waits until the machine of an instance is as it should be.
    pub async fn until_power(&self, id: &str, power: Power, patience: Duration) {
        let machine = self.machine(id).await;
        let is = async || (machine.power() == power).then_some(());
        assert!(within(patience, is).await.is_some(), "{id} is {:?}, not {power:?}", machine.power());
    }
}

/// Makes machines and balancers what the account says, and tells the account how targets are.
async fn control(account: Arc<Account>, machines: Arc<Machines>, balancers: Arc<Mutex<Balancers>>) {
    let mut changes = account.changes();
    let (mut changed, mut looked) = (true, Instant::now());
    loop {
        if changed || looked.elapsed() > LOOK_ANYWAY {
            looked = Instant::now();
            let instances = instances::look(&account).await;
            // First the balancers: who is shut down gets no request by then.
            balancers.lock().await.follow(&instances).await;
            machines.follow(&instances).await;
            account.tell_consoles(machines.consoles()).await;
        }
        let health = balancers.lock().await.look().await;
        account.tell_health(health).await;
        changed = tokio::time::timeout(LOOK, changes.changed()).await.is_ok();
    }
}
