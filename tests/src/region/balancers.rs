//! What moto knows of balancers and target groups, made true by haproxy; and how the targets are, by
//! what haproxy's checks find, in ELBv2's words.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use local_cloud::{TargetHealth, TargetState};
use tokio::time::Instant;

use super::Instance;
use super::haproxy::{Checked, Haproxy};
use super::machines::monotonic;
use super::network::{self, Hosts};
use crate::account::{Account, Element, Health};

const SERVICE: &str = "elasticloadbalancing";

/// A balancer as moto knows it.
#[derive(Clone, Debug)]
pub(super) struct Balancer {
    arn: String,
    name: String,
    dns: String,
    /// By port.
    pub(super) listeners: BTreeMap<u16, Listener>,
}

#[derive(Clone, Debug)]
pub(super) struct Listener {
    /// In the order of their priorities.
    pub(super) rules: Vec<Rule>,
    /// Target groups by ARN, with their weights.
    pub(super) default: Vec<(String, u32)>,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) paths: Vec<String>,
    /// Target groups by ARN, with their weights.
    pub(super) forward: Vec<(String, u32)>,
}

impl Balancer {
    /// The ARNs of the target groups that it uses, each once.
    pub(super) fn groups(&self) -> Vec<&String> {
        let mut found: Vec<&String> = Vec::new();
        for listener in self.listeners.values() {
            let rules = listener.rules.iter().flat_map(|rule| &rule.forward);
            for (arn, _) in rules.chain(&listener.default) {
                if !found.contains(&arn) {
                    found.push(arn);
                }
            }
        }
        found
    }
}

/// A target group as moto knows it.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) healthy: u32,
    pub(super) unhealthy: u32,
    pub(super) matcher: String,
    delay: Duration,
    /// Instance and port.
    registered: BTreeMap<String, u16>,
}

/// Where a target is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not one check has passed yet.
    Initial,
    /// One has passed: from now on the checks alone decide.
    Ready,
    /// It was deregistered; until then it may answer what it was asked.
    Draining(Instant),
}

struct Target {
    address: SocketAddr,
    phase: Phase,
    /// When the first check passed, by the clock of [`monotonic`].
    healthy: Option<Duration>,
}

/// All the balancers.
pub(super) struct Balancers {
    account: Arc<Account>,
    hosts: Hosts,
    /// By ARN.
    known: BTreeMap<String, (Balancer, Haproxy)>,
    groups: BTreeMap<String, Group>,
    /// By group's ARN and instance.
    targets: BTreeMap<(String, String), Target>,
    health: Health,
    addresses: u8,
}

impl Balancers {
    pub(super) fn new(account: Arc<Account>, hosts: Hosts) -> Self {
        let (known, groups, targets, health) = Default::default();
        Self { account, hosts, known, groups, targets, health, addresses: 0 }
    }

    /// The URL of a balancer, by its name.
    pub(super) fn url(&self, name: &str) -> Option<String> {
        let (balancer, _) = self.known.values().find(|(balancer, _)| balancer.name == name)?;
        Some(format!("http://{}", balancer.dns))
    }

    /// How a target is, by its group's name.
    pub(super) fn health_of(&self, group: &str, id: &str) -> Option<TargetHealth> {
        let is_it = |arn: &str| self.groups.get(arn).is_some_and(|known| known.name == group);
        let found = self.health.iter().find(|((arn, target), _)| is_it(arn) && target == id);
        found.map(|(_, health)| health.clone())
    }

    /// When the first check of a target passed.
    pub(super) fn healthy_since(&self, id: &str) -> Option<Duration> {
        let found = self.targets.iter().find(|((_, target), _)| target == id);
        found.and_then(|(_, target)| target.healthy)
    }

    /// Makes the balancers what moto says now.
    pub(super) async fn follow(&mut self, instances: &[Instance]) {
        let (balancers, groups) = (self.look_at_balancers().await, self.look_at_groups().await);
        self.groups = groups;
        let gone: Vec<String> =
            self.known.keys().filter(|arn| !balancers.iter().any(|b| b.arn == **arn)).cloned().collect();
        for arn in gone {
            if let Some((balancer, haproxy)) = self.known.remove(&arn) {
                network::remove_address(haproxy.address).await;
                let used: Vec<&String> = balancer.groups();
                self.targets.retain(|(group, _), _| !used.contains(&group));
            }
        }
        for balancer in balancers {
            self.follow_one(balancer).await;
        }
        let names = self.known.values().map(|(balancer, haproxy)| (balancer.dns.as_str(), haproxy.address));
        self.hosts.set(names);
        self.follow_targets(instances).await;
    }

    async fn follow_one(&mut self, balancer: Balancer) {
        let arn = balancer.arn.clone();
        if !self.known.contains_key(&arn) {
            self.addresses += 1;
            let address = Ipv4Addr::new(198, 51, 100, self.addresses);
            network::add_address(address).await;
            self.known.insert(arn.clone(), (balancer.clone(), Haproxy::new(address)));
        }
        let Some((known, haproxy)) = self.known.get_mut(&arn) else { return };
        let used = balancer.groups();
        let servers: Vec<(&str, &str, SocketAddr)> = self
            .targets
            .iter()
            .filter(|((group, _), _)| used.contains(&group) && known.groups().contains(&group))
            .filter_map(|((group, id), target)| {
                Some((self.groups.get(group)?.name.as_str(), id.as_str(), target.address))
            })
            .collect();
        haproxy.configure(&balancer, &self.groups, &servers).await;
        // What is no longer used has no targets in haproxy any more.
        let dropped: Vec<String> =
            known.groups().into_iter().filter(|group| !used.contains(group)).cloned().collect();
        self.targets.retain(|(group, _), _| !dropped.contains(group));
        *known = balancer;
    }

    async fn follow_targets(&mut self, instances: &[Instance]) {
        for (balancer, haproxy) in self.known.values() {
            for arn in balancer.groups() {
                let Some(group) = self.groups.get(arn) else { continue };
                for (id, port) in &group.registered {
                    let instance = instances.iter().find(|instance| instance.id == *id && instance.is_on());
                    let Some(private) = instance.and_then(|instance| instance.private) else { continue };
                    let address = SocketAddr::from((private, *port));
                    let key = (arn.clone(), id.clone());
                    match self.targets.get_mut(&key) {
                        None => {
                            haproxy.add(group, id, address).await;
                            self.targets
                                .insert(key, Target { address, phase: Phase::Initial, healthy: None });
                        }
                        Some(target) if matches!(target.phase, Phase::Draining(_)) => {
                            // It may be about to be forgotten, and then is not checked.
                            haproxy.drain(group, id).await;
                            target.phase = Phase::Initial;
                        }
                        Some(_) => {}
                    }
                }
                let leaving = self.targets.iter_mut().filter(|((of, _), _)| of == arn);
                for ((_, id), target) in leaving {
                    let on = instances.iter().any(|instance| instance.id == *id && instance.is_on());
                    let stays = on && group.registered.contains_key(id);
                    if !stays && !matches!(target.phase, Phase::Draining(_)) {
                        haproxy.drain(group, id).await;
                        target.phase = Phase::Draining(Instant::now() + group.delay);
                    }
                }
            }
        }
    }

    /// Looks at what the checks have found, and lets targets in and out accordingly.
    pub(super) async fn look(&mut self) -> Health {
        let mut health = Health::new();
        for (balancer, haproxy) in self.known.values() {
            if balancer.listeners.is_empty() {
                continue;
            }
            let checked = haproxy.checked().await;
            for arn in balancer.groups() {
                let Some(group) = self.groups.get(arn) else { continue };
                let mut gone = Vec::new();
                for ((_, id), target) in self.targets.iter_mut().filter(|((of, _), _)| of == arn) {
                    let found = checked.get(&(group.name.clone(), id.clone()));
                    if target.phase == Phase::Initial && found.is_some_and(|found| found.last == "L7OK") {
                        haproxy.ready(group, id).await;
                        target.phase = Phase::Ready;
                        target.healthy.get_or_insert_with(monotonic);
                    }
                    if let Phase::Draining(until) = target.phase
                        && Instant::now() > until
                        && haproxy.remove(&group.name, id).await
                    {
                        gone.push((arn.clone(), id.clone()));
                        continue;
                    }
                    health.insert((arn.clone(), id.clone()), told(target.phase, found));
                }
                for key in gone {
                    self.targets.remove(&key);
                }
            }
        }
        for (arn, group) in &self.groups {
            if !self.known.values().any(|(balancer, _)| balancer.groups().contains(&arn)) {
                for id in group.registered.keys() {
                    let text = "Target group is not configured to receive traffic from the load balancer";
                    let unused = state(TargetState::Unused, "Target.NotInUse", text);
                    health.insert((arn.clone(), id.clone()), unused);
                }
            }
        }
        self.health.clone_from(&health);
        health
    }

    async fn look_at_balancers(&self) -> Vec<Balancer> {
        let found = self.ask("DescribeLoadBalancers", &[]).await;
        let mut balancers = Vec::new();
        for item in found.list("DescribeLoadBalancersResult/LoadBalancers") {
            let arn = item.say("LoadBalancerArn").to_owned();
            let mut listeners = BTreeMap::new();
            let asked = [("LoadBalancerArn", arn.as_str())];
            for listener in
                self.ask("DescribeListeners", &asked).await.list("DescribeListenersResult/Listeners")
            {
                let asked = [("ListenerArn", listener.say("ListenerArn"))];
                let rules = self.ask("DescribeRules", &asked).await;
                let port = listener.say("Port").parse().expect("a port");
                listeners.insert(port, read_listener(listener, rules.list("DescribeRulesResult/Rules")));
            }
            let (name, dns) = (item.say("LoadBalancerName").to_owned(), item.say("DNSName").to_owned());
            balancers.push(Balancer { arn, name, dns, listeners });
        }
        balancers
    }

    async fn look_at_groups(&self) -> BTreeMap<String, Group> {
        let found = self.ask("DescribeTargetGroups", &[]).await;
        let mut groups = BTreeMap::new();
        for item in found.list("DescribeTargetGroupsResult/TargetGroups") {
            let arn = item.say("TargetGroupArn").to_owned();
            let asked = [("TargetGroupArn", arn.as_str())];
            let attributes = self.ask("DescribeTargetGroupAttributes", &asked).await;
            let attributes = attributes.tags("DescribeTargetGroupAttributesResult/Attributes");
            let delay = attributes.iter().find(|(key, _)| key == "deregistration_delay.timeout_seconds");
            let delay = delay.and_then(|(_, value)| value.parse().ok()).unwrap_or(300);
            let health = self.ask("DescribeTargetHealth", &asked).await;
            let seconds = |name: &str| Duration::from_secs(item.say(name).parse().expect("seconds"));
            let count = |name: &str| item.say(name).parse().expect("a count");
            let group = Group {
                name: item.say("TargetGroupName").to_owned(),
                path: item.say("HealthCheckPath").to_owned(),
                interval: seconds("HealthCheckIntervalSeconds"),
                timeout: seconds("HealthCheckTimeoutSeconds"),
                healthy: count("HealthyThresholdCount"),
                unhealthy: count("UnhealthyThresholdCount"),
                matcher: item.say("Matcher/HttpCode").to_owned(),
                delay: Duration::from_secs(delay),
                registered: registered(&health),
            };
            groups.insert(arn, group);
        }
        groups
    }

    async fn ask(&self, action: &str, parameters: &[(&str, &str)]) -> Element {
        // What was there a moment ago may be gone: then there is nothing in it.
        let answer = self.account.ask(SERVICE, action, parameters).await;
        if answer.ok() { answer.xml() } else { Element::default() }
    }
}

fn read_listener(listener: &Element, rules: &[Element]) -> Listener {
    let mut read: Vec<(u32, Rule)> = Vec::new();
    for rule in rules {
        // The default has no number.
        let Ok(priority) = rule.say("Priority").parse() else { continue };
        let conditions = rule.list("Conditions").iter();
        let paths = conditions.flat_map(|condition| condition.list("PathPatternConfig/Values"));
        let paths = paths.map(|value| value.text.clone()).collect();
        read.push((priority, Rule { paths, forward: forwards(rule.list("Actions")) }));
    }
    read.sort_by_key(|(priority, _)| *priority);
    let rules = read.into_iter().map(|(_, rule)| rule).collect();
    Listener { rules, default: forwards(listener.list("DefaultActions")) }
}

fn forwards(actions: &[Element]) -> Vec<(String, u32)> {
    let mut to = Vec::new();
    for action in actions {
        let weighted = action.list("ForwardConfig/TargetGroups");
        for group in weighted {
            let weight = group.say("Weight").parse().unwrap_or(1);
            to.push((group.say("TargetGroupArn").to_owned(), weight));
        }
        if weighted.is_empty() && !action.say("TargetGroupArn").is_empty() {
            to.push((action.say("TargetGroupArn").to_owned(), 1));
        }
    }
    to
}

/// The registered targets: moto calls them healthy.
fn registered(health: &Element) -> BTreeMap<String, u16> {
    let items = health.list("DescribeTargetHealthResult/TargetHealthDescriptions").iter();
    let registered = items.filter(|item| item.say("TargetHealth/State") == "healthy");
    registered
        .map(|item| {
            let port = item.say("Target/Port").parse().unwrap_or(80);
            (item.say("Target/Id").to_owned(), port)
        })
        .collect()
}

fn state(state: TargetState, reason: &'static str, description: impl Into<String>) -> TargetHealth {
    TargetHealth { state, reason: Some(reason), description: Some(description.into()) }
}

/// A target's health in ELBv2's words.
fn told(phase: Phase, found: Option<&Checked>) -> TargetHealth {
    let Some(found) = found else {
        return state(
            TargetState::Initial,
            "Elb.RegistrationInProgress",
            "Target registration is in progress",
        );
    };
    match (phase, found.last.as_str()) {
        (Phase::Draining(_), _) => state(
            TargetState::Draining,
            "Target.DeregistrationInProgress",
            "Target deregistration is in progress",
        ),
        (Phase::Ready, _) if found.up => {
            TargetHealth { state: TargetState::Healthy, reason: None, description: None }
        }
        (Phase::Initial, "INI" | "") => {
            state(TargetState::Initial, "Elb.InitialHealthChecking", "Initial health checks in progress")
        }
        (_, "L7STS") => state(
            TargetState::Unhealthy,
            "Target.ResponseCodeMismatch",
            format!("Health checks failed with these codes: [{}]", found.code),
        ),
        (_, "L4TOUT" | "L6TOUT" | "L7TOUT") => {
            state(TargetState::Unhealthy, "Target.Timeout", "Request timed out")
        }
        _ => state(TargetState::Unhealthy, "Target.FailedHealthChecks", "Health checks failed"),
    }
}
