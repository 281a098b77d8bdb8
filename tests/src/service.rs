//! The package in a booted Debian, on an instance of the strict local cloud.
//!
//! The cloud is a network namespace without name, that of the test's thread; the machine is
//! another. One cable joins them, and the machine's default route leads into the cloud and no
//! further. So the unmodified package asks for its metadata at the address that it has on EC2.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use local_cloud::{
    BalancerHandle, BalancerSpec, Call, Forward, InstanceHandle, InstanceSpec, LocalCloud, LocalCloudOptions,
    TargetGroupSpec, TargetState,
};
use serde_json::Value;

use crate::nspawn::Nspawn;
use crate::wire::Wire;
use crate::{SOON, eventually, group, netns};

/// The cloud's own address: its API and its balancer are there.
pub const CLOUD: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The machine's address.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// Where the package serves.
pub const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(MACHINE), 80);
/// The target group.
pub const GROUP: &str = "cluster1";
const METADATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// Brings the network up and takes it down again with the target that every manager of networks
/// does it for.
const NETWORK_UNIT: &str = "\
[Unit]
DefaultDependencies=no
After=local-fs.target
Before=network.target network-online.target shutdown.target
Wants=network.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/ip link set eth0 up
ExecStart=/bin/ip address replace 10.77.0.10/24 dev eth0
ExecStart=/bin/ip route replace default via 10.77.0.1
ExecStop=/bin/ip link set eth0 down
[Install]
WantedBy=multi-user.target
";

/// A cloud, and a machine in it.
pub struct ServiceBed {
    /// The cloud.
    pub cloud: LocalCloud,
    /// The balancer in front of the target group.
    pub balancer: BalancerHandle,
    /// The machine, as the cloud knows it.
    pub instance: InstanceHandle,
    /// The machine, as its users know it.
    pub machine: Nspawn,
}

impl ServiceBed {
    /// A machine over this root file system, running, tagged to be a member of [`GROUP`].
    ///
    /// Moves the calling thread into the cloud's network namespace, for good: what this test does
    /// with the network from now on, it does there.
    pub async fn boot(root: &Path) -> Self {
        Self::boot_prepared(root, |_| {}).await
    }

    /// The same with changes to its disk before it boots.
    pub async fn boot_prepared(root: &Path, prepare: impl FnOnce(&Nspawn)) -> Self {
        netns::enter().await;
        let mut machine = Nspawn::make(root).await;
        prepare(&machine);
        machine.plug_in("cable", "eth0").await;
        netns::ip("address add 10.77.0.1/24 dev cable").await;
        netns::ip("address add 169.254.169.254/32 dev cable").await;
        netns::ip("link set cable up").await;
        let options =
            LocalCloudOptions { endpoint: SocketAddr::from((CLOUD, 8000)), ..LocalCloudOptions::default() };
        let cloud = LocalCloud::start(options).await.expect("the namespace is our own");
        let spec = TargetGroupSpec { port: SERVICE.port(), ..group(GROUP) };
        let arn = cloud.create_target_group(spec);
        let listen = SocketAddr::from((CLOUD, 80));
        let spec = BalancerSpec { listen, ..BalancerSpec::new("balancer", Forward::to(arn)) };
        let balancer = cloud.create_balancer(spec).await.expect("the namespace is our own");
        let spec = InstanceSpec { imds: METADATA, ..InstanceSpec::new(MACHINE) }
            .tag(instance_contract::tags::CLUSTER, "cluster1")
            .tag(instance_contract::tags::TARGET_GROUP, GROUP);
        let instance = cloud.run_instance(spec).await.expect("the namespace is our own");

        machine.write("etc/systemd/system/bed-network.service", NETWORK_UNIT);
        // At every boot, whether or not the agent asks for it.
        let wants = machine.path("etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants).expect("the folder");
        let link = wants.join("bed-network.service");
        std::os::unix::fs::symlink("../bed-network.service", link).expect("a link");
        let bed = format!(
            "[Service]\n\
             Environment=AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2={endpoint}\n\
             Environment=AWS_ENDPOINT_URL_EC2={endpoint}\n\
             Environment=INSTANCE_AGENT_DRAIN_QUIET=3s\n",
            endpoint = cloud.endpoint_url()
        );
        machine.write("etc/systemd/system/instance-agent.service.d/bed.conf", bed);
        machine.boot().await;
        Self { cloud, balancer, instance, machine }
    }

    /// The same with the package installed, and waits until the balancer calls it healthy.
    pub async fn serving(root: &Path, package: &Path) -> Self {
        let bed = Self::boot(root).await;
        bed.machine.install(package).await;
        bed.until_target(TargetState::Healthy).await;
        bed
    }

    /// Waits until the target is in this state.
    pub async fn until_target(&self, state: TargetState) {
        let health = |cloud: &LocalCloud| cloud.health_of(GROUP, self.instance.id(), SERVICE.port());
        if !self.cloud.wait_until(SOON, |cloud| health(cloud).state == state).await {
            let seen = health(&self.cloud);
            panic!("the target never became {state}: {seen:?}\n{}", self.machine.journal().await);
        }
    }

    /// The instance's answered calls of one action.
    pub fn calls(&self, action: &str) -> Vec<Call> {
        let by = |call: &Call| call.action == action && call.instance.as_deref() == Some(self.instance.id());
        self.cloud.calls().into_iter().filter(by).collect()
    }

    /// A connection to the service.
    pub async fn connect(&self) -> Wire {
        Wire::connect(SERVICE).await.expect("it listens")
    }

    /// Stores a number, as a client does.
    pub async fn store(&self, number: &str) {
        self.connect().await.post(number).await.expect("an answer").is(200, number);
    }

    /// The stored number, as a client sees it; waits until the service answers.
    pub async fn stored(&self) -> String {
        let read = async || Wire::connect(SERVICE).await.ok()?.get("/seed").await.ok();
        let answer = eventually(read).await.expect("it answers");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }
}

impl Nspawn {
    /// Installs a package as its user does. There is nowhere to download from.
    pub async fn install(&self, package: &Path) -> String {
        let name = package.file_name().expect("a file").to_string_lossy().into_owned();
        self.copy(package, &format!("root/{name}"));
        // apt drops its rights to fetch; a user's own folder is closed to it, hence no /root.
        let line = format!("mv /root/{name} /var/cache/ && apt-get install -y /var/cache/{name} 2>&1");
        self.ok(&line).await
    }

    /// Installs a package over a newer or an older one, and returns what apt said.
    pub async fn install_any(&self, package: &Path) -> String {
        self.copy(package, "var/cache/other.deb");
        self.ok("chmod 644 /var/cache/other.deb && apt-get install -y --allow-downgrades --reinstall /var/cache/other.deb 2>&1").await
    }

    /// A property of the service, as systemd shows it.
    pub async fn property(&self, name: &str) -> String {
        self.ok(&format!("systemctl show -P {name} instance-agent")).await
    }

    /// Waits until the service is active.
    pub async fn until_active(&self) {
        self.until("systemctl is-active instance-agent").await;
    }

    /// The agent's status.
    pub async fn status(&self) -> Value {
        let json = self.until("instance-agent status --output json").await;
        serde_json::from_str(&json).expect("JSON")
    }
}
