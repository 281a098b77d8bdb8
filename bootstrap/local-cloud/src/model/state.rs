//! The state of the whole cloud, and how its tasks and handles share it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::balancers::{Balancer, BalancerSpec};
use crate::model::faults::{Call, Fault};
use crate::model::ids::{random_hex, stable_hex};
use crate::model::instances::{Credentials, Instance, InstanceSpec, InstanceState};
use crate::model::options::LocalCloudOptions;
use crate::model::target_groups::{
    HealthCheck, Target, TargetGroup, TargetGroupSpec, TargetHealth, TargetState, TargetType,
};
use crate::model::throttle::{ActionClass, Buckets, Throttle};

/// A change of a target's health, as `DescribeTargetHealth` shows it.
#[derive(Clone, Debug)]
pub struct HealthChange {
    /// Since the cloud's start.
    pub at: Duration,
    /// The wall clock.
    pub time: SystemTime,
    /// The target group's name.
    pub group: String,
    /// The target's id.
    pub target: String,
    /// The target's port.
    pub port: u16,
    /// The health before; `unused`, `Target.NotRegistered` for a new target.
    pub from: TargetHealth,
    /// The health from now on.
    pub to: TargetHealth,
}

/// Calls and changes of health that are kept; the oldest go first.
const LOG_LENGTH: usize = 20_000;

/// One registration of a target: another one with the same id and port has another key.
#[derive(Clone, Debug)]
pub(crate) struct TargetKey {
    group: String,
    serial: u64,
}

/// Everything that exists in the cloud.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: LocalCloudOptions,
    pub(crate) started: Instant,
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) groups: Vec<TargetGroup>,
    pub(crate) balancers: Vec<Balancer>,
    pub(crate) operator: Credentials,
    buckets: Buckets,
    faults: BTreeMap<String, Fault>,
    calls: VecDeque<Call>,
    health_changes: VecDeque<HealthChange>,
    unprobed: Vec<TargetKey>,
    next_serial: u64,
}

impl State {
    fn new(options: LocalCloudOptions) -> Self {
        let now = Instant::now();
        Self {
            started: now,
            instances: BTreeMap::new(),
            groups: Vec::new(),
            balancers: Vec::new(),
            operator: Credentials::long_term(),
            buckets: Buckets::new(options.throttle, now),
            faults: BTreeMap::new(),
            calls: VecDeque::new(),
            health_changes: VecDeque::new(),
            unprobed: Vec::new(),
            next_serial: 0,
            options,
        }
    }

    /// An ARN of ELBv2.
    fn arn(&self, resource: &str) -> String {
        let LocalCloudOptions { region, account, .. } = &self.options;
        format!("arn:aws:elasticloadbalancing:{region}:{account}:{resource}")
    }

    /// Creates a target group and returns its ARN.
    pub(crate) fn create_target_group(&mut self, spec: TargetGroupSpec) -> String {
        let arn = self.arn(&format!("targetgroup/{}/{}", spec.name, stable_hex(&spec.name)));
        let vpc = spec.vpc.clone().unwrap_or_else(|| self.options.vpc.clone());
        self.groups.push(TargetGroup::new(spec, arn.clone(), vpc));
        arn
    }

    /// Creates a balancer with a listener at this address.
    pub(crate) fn create_balancer(&mut self, mut spec: BalancerSpec, address: SocketAddr) -> &Balancer {
        spec.rules.sort_by_key(|rule| rule.priority);
        let path = format!("app/{}/{}", spec.name, stable_hex(&spec.name));
        let balancer = Balancer {
            spec,
            arn: self.arn(&format!("loadbalancer/{path}")),
            listener_arn: self.arn(&format!("listener/{path}/{}", stable_hex("listener"))),
            address,
            counts: Arc::default(),
        };
        self.balancers.push(balancer);
        &self.balancers[self.balancers.len() - 1]
    }

    /// Runs an instance.
    pub(crate) fn run_instance(&mut self, mut spec: InstanceSpec) -> &Instance {
        let id = spec.id.take().unwrap_or_else(|| format!("i-0{}", random_hex(16)));
        let vpc = spec.vpc.clone().unwrap_or_else(|| self.options.vpc.clone());
        let instance = Instance::new(id.clone(), vpc, spec);
        self.instances.entry(id).insert_entry(instance).into_mut()
    }

    /// The instance that has this address and is not terminated.
    pub(crate) fn instance_at(&self, address: IpAddr) -> Option<&Instance> {
        instance_at(&self.instances, address)
    }

    /// A target group by name or ARN.
    pub(crate) fn group(&mut self, name_or_arn: &str) -> Option<&mut TargetGroup> {
        self.groups.iter_mut().find(|group| group.arn == name_or_arn || group.spec.name == name_or_arn)
    }

    /// Registers a target, or brings it back from draining.
    pub(crate) fn register(&mut self, arn: &str, id: &str, address: SocketAddr, now: Instant) {
        let registering = self.options.registration_time;
        let serial = self.next_serial;
        let Some(group) = self.group(arn) else { return };
        if let Some(known) = group.target(id, address.port()) {
            known.register_again(now, registering);
            return;
        }
        let mut target = Target::new(id, address, now, registering);
        target.serial = serial;
        group.targets.push(target);
        self.unprobed.push(TargetKey { group: arn.to_owned(), serial });
        self.next_serial += 1;
    }

    /// The targets that were registered since this was last asked.
    pub(crate) fn take_unprobed(&mut self) -> Vec<TargetKey> {
        std::mem::take(&mut self.unprobed)
    }

    /// A target with its health check; `None` once it is gone.
    pub(crate) fn target(&mut self, key: &TargetKey) -> Option<(&HealthCheck, &mut Target)> {
        let group = self.group(&key.group)?;
        let target = group.targets.iter_mut().find(|target| target.serial == key.serial)?;
        Some((&group.spec.health_check, target))
    }

    /// Deregisters a target; `false` if none has this id and port.
    pub(crate) fn deregister(&mut self, arn: &str, id: &str, port: u16, now: Instant) -> bool {
        let late = self.options.late_requests;
        let Some(group) = self.group(arn) else {
            return false;
        };
        let delay = group.spec.deregistration_delay;
        let target = group.target(id, port);
        target.map(|target| target.deregister(now, delay, late)).is_some()
    }

    /// The target whose turn it is in the target group that a request for this path goes to.
    pub(crate) fn route(&mut self, balancer: &str, path: &str, now: Instant) -> Option<SocketAddr> {
        let found = self.balancers.iter_mut().find(|b| b.arn == balancer)?;
        let arn = found.forward(path).next()?;
        self.group(&arn)?.pick(now)
    }

    /// Sets the API's throttle; its buckets are full again.
    pub(crate) fn set_throttle(&mut self, throttle: Throttle, now: Instant) {
        self.buckets = Buckets::new(throttle, now);
    }

    /// Takes one call from its bucket; `false` means "Rate exceeded".
    pub(crate) fn take_call(&mut self, class: ActionClass, now: Instant) -> bool {
        self.buckets.take(class, now)
    }

    /// Sets or ends an action's fault.
    pub(crate) fn set_fault(&mut self, action: &str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.faults.insert(action.to_owned(), fault),
            None => self.faults.remove(action),
        };
    }

    /// An action's fault.
    pub(crate) fn fault(&self, action: &str) -> Option<&Fault> {
        self.faults.get(action)
    }

    /// Logs a call.
    pub(crate) fn log_call(&mut self, call: Call) {
        if self.calls.len() == LOG_LENGTH {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// The calls that were logged, oldest first.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.iter().cloned().collect()
    }

    /// The changes of targets' health, oldest first.
    pub(crate) fn health_changes(&self) -> Vec<HealthChange> {
        self.health_changes.iter().cloned().collect()
    }

    /// Updates the health that is shown of each target and logs the changes; whether there were any.
    fn refresh(&mut self, now: Instant) -> bool {
        let mut changes = Vec::new();
        for group in &mut self.groups {
            let users = self.balancers.iter().filter(|b| b.uses(&group.arn));
            let zones: Vec<&str> = users.flat_map(Balancer::zones).collect();
            let TargetGroup { spec, targets, .. } = group;
            targets.retain_mut(|target| {
                let instance = match spec.target_type {
                    TargetType::Instance => self.instances.get(&target.id),
                    TargetType::Ip => instance_at(&self.instances, target.address.ip()),
                };
                let instance = instance.filter(|i| i.state != InstanceState::Terminated);
                let drained = target.drained_at().is_some_and(|until| until <= now);
                let health = match instance {
                    None => TargetHealth::not_registered(),
                    Some(_) if drained => TargetHealth::not_registered(),
                    Some(_) if target.is_draining() => target.health(),
                    Some(i) if i.state != InstanceState::Running => TargetHealth::invalid_state(),
                    Some(_) if zones.is_empty() => TargetHealth::group_not_in_use(),
                    Some(i) if !zones.contains(&i.spec.zone.as_str()) => TargetHealth::zone_not_enabled(),
                    Some(_) => target.health(),
                };
                let stays = health.reason != Some("Target.NotRegistered");
                if stays && health.state == TargetState::Unused {
                    target.forget_checks(now);
                }
                if target.shown.as_ref() != Some(&health) {
                    let before = target.shown.replace(health.clone());
                    changes.push(HealthChange {
                        at: now - self.started,
                        time: SystemTime::now(),
                        group: spec.name.clone(),
                        target: target.id.clone(),
                        port: target.port,
                        from: before.unwrap_or_else(TargetHealth::not_registered),
                        to: health,
                    });
                }
                stays
            });
        }
        let changed = !changes.is_empty();
        self.health_changes.extend(changes);
        while self.health_changes.len() > LOG_LENGTH {
            self.health_changes.pop_front();
        }
        changed
    }
}

fn instance_at(instances: &BTreeMap<String, Instance>, address: IpAddr) -> Option<&Instance> {
    instances
        .values()
        .find(|instance| instance.state != InstanceState::Terminated && instance.spec.address == address)
}

/// The state, as the cloud's tasks and handles share it.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    endpoint: SocketAddr,
}

impl Shared {
    /// The state of a cloud with nothing in it, whose API listens at `endpoint`.
    pub(crate) fn new(options: LocalCloudOptions, endpoint: SocketAddr) -> Self {
        Self { state: Mutex::new(State::new(options)), changed: watch::Sender::new(0), endpoint }
    }

    /// The state. Never held over an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // State is changed in small steps that do not panic half-way; go on with what is there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, which is up to date before and after, and wakes all that wait for changes.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let result = self.update_quietly(change);
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// The same, but wakes them only if a target's health changed.
    pub(crate) fn update_quietly<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> R {
        let now = Instant::now();
        let (result, changed) = {
            let mut state = self.lock();
            let changed_before = state.refresh(now);
            let result = change(&mut state, now);
            (result, state.refresh(now) || changed_before)
        };
        if changed {
            self.changed.send_modify(|version| *version += 1);
        }
        result
    }

    /// A receiver that hears of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Where the ELBv2 and EC2 endpoint listens.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Its URL.
    pub(crate) fn endpoint_url(&self) -> String {
        format!("http://{}", self.endpoint)
    }
}
