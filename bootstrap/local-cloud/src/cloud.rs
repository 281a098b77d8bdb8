//! The handle on a cloud: it creates things, injects faults and answers questions.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::endpoint;
use crate::handles::{BalancerHandle, InstanceHandle};
use crate::http::{Outage, serve_with_outages};
use crate::imds::service::InstanceMetadata;
use crate::model::balancers::BalancerSpec;
use crate::model::faults::{Call, Fault};
use crate::model::instances::{Credentials, InstanceSpec};
use crate::model::options::LocalCloudOptions;
use crate::model::state::{HealthChange, Shared};
use crate::model::target_groups::{TargetGroupSpec, TargetHealth, TargetStatus};
use crate::model::throttle::Throttle;
use crate::tasks::Tasks;
use crate::traffic::prober;
use crate::traffic::proxy::Proxy;

/// A running local cloud. Dropping it closes all its listeners and connections.
pub struct LocalCloud {
    shared: Arc<Shared>,
    endpoint_outage: watch::Sender<Outage>,
    tasks: Tasks,
}

impl std::fmt::Debug for LocalCloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCloud").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl LocalCloud {
    /// Starts a cloud with nothing in it. Its tasks run on the current runtime.
    ///
    /// # Errors
    /// The endpoint's address cannot be listened on.
    pub async fn start(options: LocalCloudOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.endpoint).await?;
        let shared = Arc::new(Shared::new(options, listener.local_addr()?));
        let endpoint_outage = watch::Sender::new(Outage::Up);
        let handler = {
            let shared = Arc::clone(&shared);
            move |request, _| endpoint::answer(Arc::clone(&shared), request)
        };
        let tasks = Tasks::default();
        tasks.spawn(serve_with_outages(listener, endpoint_outage.subscribe(), handler));
        tasks.spawn(prober::probe_targets(Arc::clone(&shared)));
        Ok(Self { shared, endpoint_outage, tasks })
    }

    /// Where the ELBv2 and EC2 endpoint listens.
    pub fn endpoint(&self) -> SocketAddr {
        self.shared.endpoint()
    }

    /// The endpoint's URL.
    pub fn endpoint_url(&self) -> String {
        self.shared.endpoint_url()
    }

    /// Credentials without session token that may call everything, for checks by hand.
    pub fn operator(&self) -> Credentials {
        self.shared.lock().operator.clone()
    }

    /// Creates a target group and returns its ARN.
    pub fn create_target_group(&self, spec: TargetGroupSpec) -> String {
        self.shared.update(|state, _| state.create_target_group(spec))
    }

    /// Changes the path that a target group's health checks ask for.
    pub fn set_health_check_path(&self, group: &str, path: &str) {
        self.shared.update(|state, _| {
            if let Some(group) = state.group(group) {
                path.clone_into(&mut group.spec.health_check.path);
            }
        });
    }

    /// Creates a balancer with its listener; it takes requests at once.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn create_balancer(&self, spec: BalancerSpec) -> io::Result<BalancerHandle> {
        let listener = TcpListener::bind(spec.listen).await?;
        let address = listener.local_addr()?;
        let (handle, proxy) = self.shared.update(|state, _| {
            let balancer = state.create_balancer(spec, address);
            (BalancerHandle::new(balancer), Proxy::new(Arc::clone(&self.shared), balancer))
        });
        self.tasks.spawn(proxy.serve(listener));
        Ok(handle)
    }

    /// Runs an instance: an id, credentials and a metadata service. It starts no process.
    ///
    /// # Errors
    /// The metadata service's address cannot be listened on.
    pub async fn run_instance(&self, spec: InstanceSpec) -> io::Result<InstanceHandle> {
        let listener = TcpListener::bind(spec.imds).await?;
        let imds = listener.local_addr()?;
        let (handle, outage) = self.shared.update(|state, _| {
            let instance = state.run_instance(spec);
            let handle = InstanceHandle::new(Arc::clone(&self.shared), instance, imds);
            (handle, instance.imds_outage.subscribe())
        });
        let metadata = InstanceMetadata::new(Arc::clone(&self.shared), handle.id().to_owned());
        self.tasks.spawn(metadata.serve(listener, outage));
        Ok(handle)
    }

    /// The health of each target of a group (name or ARN), in order of registration.
    pub fn target_health(&self, group: &str) -> Vec<TargetStatus> {
        self.shared
            .update_quietly(|state, _| state.group(group).map(|group| group.statuses()).unwrap_or_default())
    }

    /// The health of one target; `unused`, `Target.NotRegistered` if it is not registered.
    pub fn health_of(&self, group: &str, id: &str, port: u16) -> TargetHealth {
        let targets = self.target_health(group);
        let found = targets.into_iter().find(|t| t.id == id && t.port == port);
        found.map_or_else(TargetHealth::not_registered, |target| target.health)
    }

    /// Deregisters a target by hand, as from the console; whether it was registered.
    pub fn deregister(&self, group: &str, id: &str, port: u16) -> bool {
        self.shared.update(|state, now| state.deregister(group, id, port, now))
    }

    /// Sets the API's throttle; its buckets are full again.
    pub fn throttle(&self, throttle: Throttle) {
        self.shared.update(|state, now| state.set_throttle(throttle, now));
    }

    /// Sets or ends an action's fault.
    pub fn set_fault(&self, action: &str, fault: Option<Fault>) {
        self.shared.update(|state, _| state.set_fault(action, fault));
    }

    /// Makes the ELBv2 and EC2 endpoint fail, or work again.
    pub fn set_endpoint_outage(&self, outage: Outage) {
        self.endpoint_outage.send_replace(outage);
    }

    /// The last twenty thousand calls, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().calls()
    }

    /// The last twenty thousand changes of targets' health, oldest first.
    pub fn health_changes(&self) -> Vec<HealthChange> {
        self.shared.lock().health_changes()
    }

    /// A receiver that wakes at every call and change; it does not say which.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes()
    }

    /// Waits until a condition on the cloud holds, looking again at every call and change;
    /// `false` if it did not within the limit.
    pub async fn wait_until(&self, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let mut changes = self.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if condition(self) {
                    return true;
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.unwrap_or(false)
    }
}
