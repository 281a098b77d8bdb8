//! A whole fleet in a local cloud, each instance a process of the real agent.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use local_cloud::{
    BalancerHandle, BalancerSpec, Forward, HealthCheck, InstanceHandle, InstanceSpec, LocalCloud,
    LocalCloudOptions, Rule, TargetGroupSpec, TargetHealth, TargetState, stable_instance_id,
};

use super::agents::{AgentCommand, AgentProcess};
use crate::fleet::{Fleet, Group};

/// How a fleet is run on this machine.
#[derive(Clone, Debug)]
pub(crate) struct LocalOptions {
    /// Further arguments for each agent.
    pub(crate) agent_arguments: Vec<OsString>,
    /// The balancer's port on 127.0.0.1; 0 picks a free one.
    pub(crate) port: u16,
    /// The port each agent serves on, at its own address.
    pub(crate) instance_port: u16,
    /// How long an agent must have been without requests before it goes.
    pub(crate) drain_quiet: Duration,
    /// From one health check to the next; `None` is a thirtieth of the fleet's.
    pub(crate) health_interval: Option<Duration>,
}

/// Why a fleet did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    /// The balancer's port is taken.
    #[error("{0} is in use, perhaps by another local fleet; choose another port with --port")]
    BalancerTaken(SocketAddr),
    /// An instance's address is taken.
    #[error("the instance address {0} is in use; choose other addresses with --port, or --instance-port")]
    InstanceTaken(SocketAddr),
    /// More instances than a port has addresses for.
    #[error("{0} instances are more than the {MAX_INSTANCES} that a local fleet can have")]
    TooMany(usize),
    /// Another error of the operating system.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl LocalError {
    /// Adds what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Host numbers 10 to 254.
const MAX_INSTANCES: usize = 245;

/// One instance of a running fleet.
#[derive(Debug)]
pub(crate) struct Member {
    /// The instance in the cloud.
    pub(crate) instance: InstanceHandle,
    /// Its process.
    pub(crate) agent: AgentProcess,
    /// How the process was started.
    pub(crate) command: AgentCommand,
    pub(crate) group: String,
    /// Its cluster; `None` if its group has no path.
    pub(crate) cluster: Option<String>,
    /// Its target group's name.
    pub(crate) target_group: String,
    /// Where it serves.
    pub(crate) address: SocketAddr,
}

/// A fleet that runs on this machine. Dropping it kills the agents and ends the cloud.
#[derive(Debug)]
pub(crate) struct LocalFleet {
    /// The agents, in the order of the fleet's groups. Dropped before the cloud.
    pub(crate) members: Vec<Member>,
    pub(crate) balancer: BalancerHandle,
    /// The cloud.
    pub(crate) cloud: LocalCloud,
}

impl LocalFleet {
    /// Starts the cloud, then an agent by this binary for each instance, with a folder of its own in this one;
    /// returns without waiting for health. See [`AgentCommand::spawn`] for the thread to call this from.
    ///
    /// # Errors
    /// An address is taken, or a process cannot be started. Nothing is left running.
    pub(crate) async fn start(
        fleet: &Fleet,
        binary: &Path,
        folder: &Path,
        options: &LocalOptions,
    ) -> Result<Self, LocalError> {
        if fleet.instances() > MAX_INSTANCES {
            return Err(LocalError::TooMany(fleet.instances()));
        }
        let mut cloud = LocalCloudOptions::default();
        if let Some(region) = &fleet.region {
            cloud.region.clone_from(region);
        }
        let cloud =
            LocalCloud::start(cloud).await.map_err(LocalError::io("cannot open the cloud's endpoint"))?;
        let balancer = balancer(&cloud, fleet, options).await?;
        let mut members = Vec::new();
        for group in &fleet.groups {
            for index in 0..group.count {
                let number = members.len();
                let host = instance_address(balancer.address().port(), number);
                let name = format!("{}/{}/{index}", fleet.name, group.name);
                let zone = &fleet.zones[number % fleet.zones.len()];
                let spec = instance(fleet, group, &name, zone, host);
                members.push(start_member(&cloud, fleet, group, spec, binary, folder, options).await?);
            }
        }
        Ok(Self { members, balancer, cloud })
    }

    /// What the balancer thinks of a member.
    pub(crate) fn health(&self, member: &Member) -> TargetHealth {
        self.cloud.health_of(&member.target_group, member.instance.id(), member.address.port())
    }

    /// How many members are healthy.
    pub(crate) fn healthy(&self) -> usize {
        let is_healthy = |member: &&Member| self.health(member).state == TargetState::Healthy;
        self.members.iter().filter(is_healthy).count()
    }
}

/// A loopback address for each instance, from the balancer's port, so that two fleets on one
/// machine never meet: 8080 is 0x1f90, its instances are 127.31.144.10 and up. A port is not zero,
/// so none of them is in 127.0.0.x, where everything else lives.
fn instance_address(port: u16, number: usize) -> Ipv4Addr {
    let [high, low] = port.to_be_bytes();
    let host = u8::try_from(10 + number).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, high, low, host)
}

async fn balancer(
    cloud: &LocalCloud,
    fleet: &Fleet,
    options: &LocalOptions,
) -> Result<BalancerHandle, LocalError> {
    // A thirtieth: AWS's 30 s become one second, so that a demo does not take minutes.
    let shortest = Duration::from_millis(200);
    let shortened = (fleet.health_check.interval / 30).max(shortest);
    let interval = options.health_interval.unwrap_or(shortened);
    let mut weights = Vec::new();
    let mut rules = Vec::new();
    for (group, priority) in fleet.groups.iter().zip(1..) {
        let arn = cloud.create_target_group(TargetGroupSpec {
            health_check: HealthCheck {
                path: fleet.health_check.path.clone(),
                interval,
                timeout: fleet.health_check.timeout.min(interval),
                healthy_threshold: fleet.health_check.healthy,
                unhealthy_threshold: fleet.health_check.unhealthy,
            },
            deregistration_delay: fleet.deregistration_delay,
            ..TargetGroupSpec::new(fleet.target_group(group), options.instance_port)
        });
        if group.paths {
            rules.push(Rule {
                priority,
                paths: vec![format!("/{}", group.name), format!("/{}/*", group.name)],
                forward: Forward::to(arn.clone()),
            });
        }
        weights.push((arn, group.weight));
    }
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let spec = BalancerSpec {
        listen,
        zones: fleet.zones.clone(),
        rules,
        ..BalancerSpec::new(fleet.name.clone(), Forward::weighted(weights))
    };
    cloud.create_balancer(spec).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => LocalError::BalancerTaken(listen),
        _ => LocalError::io(format!("cannot listen on {listen}"))(error),
    })
}

fn instance(fleet: &Fleet, group: &Group, name: &str, zone: &str, host: Ipv4Addr) -> InstanceSpec {
    let spec = InstanceSpec {
        id: Some(stable_instance_id(name)),
        instance_type: group.instance_type.clone(),
        zone: zone.to_owned(),
        image: fleet.image.clone(),
        ..InstanceSpec::new(host)
    };
    let spec = spec
        .tag(instance_contract::tags::FLEET, &fleet.name)
        .tag(instance_contract::tags::TARGET_GROUP, fleet.target_group(group))
        .tag(instance_contract::tags::ROOT, group.root.as_str());
    if group.paths { spec.tag(instance_contract::tags::CLUSTER, &group.name) } else { spec }
}

async fn start_member(
    cloud: &LocalCloud,
    fleet: &Fleet,
    group: &Group,
    spec: InstanceSpec,
    binary: &Path,
    folder: &Path,
    options: &LocalOptions,
) -> Result<Member, LocalError> {
    let address = SocketAddr::from((spec.address, options.instance_port));
    // Found out here, not from the agent's log. The agent binds it itself, a moment later.
    match std::net::TcpListener::bind(address) {
        Ok(free) => drop(free),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            return Err(LocalError::InstanceTaken(address));
        }
        Err(error) => return Err(LocalError::io(format!("cannot listen on {address}"))(error)),
    }
    let instance = cloud
        .run_instance(spec)
        .await
        .map_err(LocalError::io(format!("no metadata service for {address}")))?;
    let mut environment = instance.agent_environment();
    // By environment, so that --agent-arg=--drain-quiet=… can still override it.
    let quiet = format!("{}ms", options.drain_quiet.as_millis());
    environment.push(("INSTANCE_AGENT_DRAIN_QUIET".to_owned(), quiet));
    let command = AgentCommand {
        binary: binary.to_owned(),
        listen: address,
        folder: folder.join(instance.id()),
        environment,
        arguments: options.agent_arguments.clone(),
    };
    let what = format!("cannot start the agent {}", binary.display());
    let agent = command.spawn().map_err(LocalError::io(what))?;
    Ok(Member {
        instance,
        agent,
        command,
        group: group.name.clone(),
        cluster: group.paths.then(|| group.name.clone()),
        target_group: fleet.target_group(group),
        address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_have_addresses_of_their_own() {
        assert_eq!(instance_address(8080, 0), Ipv4Addr::new(127, 31, 144, 10));
        assert_eq!(instance_address(80, 244), Ipv4Addr::new(127, 0, 80, 254));
        assert_eq!(instance_address(256, 0), Ipv4Addr::new(127, 1, 0, 10));
    }
}
