//! An AWS account to launch fleets in: moto, and in front of it a proxy that adds what AWS does and
//! moto does not. It says what was called, makes things go wrong where a test wants that, and knows
//! whether a policy allows what was asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::outside::{AwsCli, Moto};
use front::Front;
use run::PATIENCE;
use state::State;
use upstream::Upstream;

pub use answer::{Answer, AwsError};
pub use authorization::Need;
pub use calls::{Call, chain, depth, is_read};
pub use data_plane::{Health, Target};
pub use faults::{Fault, Trouble};
pub use options::{Agents, Options};
pub use policy::{Context, Document};
pub use protection::{protect_balancer, protect_instance};
pub use run::{Bootstrap, Ran, Running};
pub use small::{SMALL, SMALLEST, Small};
pub use snapshot::{differences, without_ids};
pub use xml::Element;

mod agents;
mod answer;
mod authorization;
mod balancing;
mod calls;
mod data_plane;
mod faults;
mod front;
mod groups;
mod installed;
mod instances;
mod options;
mod paging;
mod policy;
mod protection;
mod request;
mod roles;
mod run;
mod small;
mod snapshot;
mod state;
mod upstream;
mod xml;

/// The account's number, which is moto's.
pub const ACCOUNT: &str = "123456789012";

/// The region of everything in it.
pub const REGION: &str = "us-east-1";

/// The image of the built-in fleets. `images.json` lists all three as moto reads them.
pub const IMAGE: &str = "ami-08c40ec9ead489470";

/// The image that [`IMAGE_PARAMETER`] names.
pub const NEWER_IMAGE: &str = "ami-0f1e2d3c4b5a69788";

/// An image for another kind of processor.
pub const ARM_IMAGE: &str = "ami-0a1b2c3d4e5f60718";

/// Where AWS says what the image `ubuntu-22.04` is.
pub const IMAGE_PARAMETER: &str =
    "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id";

/// An account. Everything in it is gone when this is dropped.
pub struct Account {
    moto: Moto,
    upstream: Upstream,
    front: Arc<Front>,
    endpoint: String,
    folder: tempfile::TempDir,
    _server: JoinSet<()>,
}

impl Account {
    /// An account as AWS gives it: a default VPC with a subnet in each zone, and nothing in it.
    pub async fn start(options: Options) -> Self {
        Self::with(Moto::account().await, (Ipv4Addr::LOCALHOST, 0).into(), options).await
    }

    /// The same with moto and the endpoint, at this address, in the network of this thread.
    pub async fn start_at(address: SocketAddr, options: Options) -> Self {
        Self::with(Moto::start(&["--bare"]).await, address, options).await
    }

    async fn with(moto: Moto, address: SocketAddr, options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let upstream = Upstream::new(moto.endpoint());
        let front = Arc::new(Front {
            options: Mutex::new(options.clone()),
            faults: Mutex::new(faults::Faults::new()),
            calls: Mutex::new(Vec::new()),
            busy: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            state: tokio::sync::Mutex::new(State::new(upstream.clone(), options)),
        });
        let (address, server) = front.serve(address).await;
        Self { moto, upstream, front, endpoint: format!("http://{address}"), folder, _server: server }
    }

    /// The front's URL, for all services.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Makes it a new account, with these options; forgets calls and faults.
    pub async fn reset(&self, options: Options) {
        self.quiet().await;
        self.upstream.control("reset", "").await;
        *self.front.options.lock().expect("not poisoned") = options.clone();
        *self.front.state.lock().await = State::new(self.upstream.clone(), options);
        self.clear();
    }

    /// Changes how the account behaves from the next call on.
    pub fn set(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.front.options.lock().expect("not poisoned"));
    }

    /// Makes something go wrong.
    pub fn fault(&self, fault: Fault) {
        self.front.faults.lock().expect("not poisoned").add(fault);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.front.faults.lock().expect("not poisoned").clear();
    }

    /// Forgets faults and the record of calls.
    pub fn clear(&self) {
        self.clear_faults();
        self.front.calls.lock().expect("not poisoned").clear();
    }

    /// How many calls met a fault.
    pub fn fired(&self) -> usize {
        self.front.faults.lock().expect("not poisoned").fired()
    }

    /// Every call since the account was reset or cleared, in the order of their coming.
    pub fn calls(&self) -> Vec<Call> {
        self.front.calls.lock().expect("not poisoned").clone()
    }

    /// Time passes: whatever was launched is shown to everyone who looks.
    pub async fn time_passes(&self) {
        self.front.state.lock().await.instances_are_seen();
    }

    /// The name of the instance profile that an instance was launched with; empty if it has none.
    pub async fn profile_of(&self, instance: &str) -> String {
        self.front.state.lock().await.profile_of(instance).to_owned()
    }

    /// What the calls needed of the caller's policy since there is one, each once.
    pub async fn needs(&self) -> Vec<Need> {
        self.front.state.lock().await.needs.clone()
    }

    /// Waits until a call is held.
    pub async fn held(&self) {
        self.holds(1).await;
    }

    /// Waits until this many calls are held.
    pub async fn holds(&self, count: usize) {
        let mut held = self.front.faults.lock().expect("not poisoned").held.subscribe();
        let waited = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held >= count)).await;
        assert!(waited.is_ok(), "never {count} calls were held: {:?}", self.names());
    }

    /// Lets the calls that wait take effect.
    pub fn release(&self) {
        self.front.faults.lock().expect("not poisoned").released.send_replace(true);
    }

    /// Waits until no call is being answered.
    pub async fn quiet(&self) {
        let mut busy = self.front.busy.subscribe();
        let waited = tokio::time::timeout(PATIENCE, busy.wait_for(|busy| *busy == 0)).await;
        assert!(waited.is_ok(), "calls without end: {:?}", self.names());
    }

    /// The names of the calls that were made.
    pub fn names(&self) -> Vec<String> {
        self.calls().iter().map(Call::name).collect()
    }

    /// awscli as the account's owner, directly at moto: the witness, who meets no rule of ours.
    pub async fn witness(&self) -> AwsCli {
        self.moto.cli().await
    }

    /// awscli as the account's owner, through the front.
    pub async fn cli(&self) -> AwsCli {
        AwsCli::new(&self.endpoint, "testing", "testing").await
    }

    /// Asks one of the query services of moto directly, as the account's owner.
    pub async fn ask(&self, service: &str, action: &str, parameters: &[(&str, &str)]) -> Answer {
        self.upstream.ask(service, action, parameters).await
    }

    /// As [`Account::ask`], but through the front; `None`: the connection ended without an answer.
    pub async fn ask_front(
        &self,
        service: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Option<Answer> {
        Upstream::new(&self.endpoint).try_ask(service, action, parameters).await
    }

    /// A user with this policy, and no other permission: access key and secret. moto checks key and
    /// policy from now on, for requests that are passed on as they came.
    pub async fn user(&self, name: &str, policy: &str) -> (String, String) {
        let said = self.ask("iam", "CreateUser", &[("UserName", name)]).await;
        assert!(said.ok(), "{said:?}");
        let put = [("UserName", name), ("PolicyName", name), ("PolicyDocument", policy)];
        let said = self.ask("iam", "PutUserPolicy", &put).await;
        assert!(said.ok(), "{said:?}");
        let key = self.ask("iam", "CreateAccessKey", &[("UserName", name)]).await.xml();
        let key = key.find("AccessKey").expect("a key");
        self.set(|options| options.transparent = true);
        (key.say("AccessKeyId").to_owned(), key.say("SecretAccessKey").to_owned())
    }

    /// The smallest file that is a Debian package of the agent, for launches that no instance installs.
    pub fn package(&self) -> String {
        self.file("instance-agent_0.1.0_amd64.deb", installed::archive("y"))
    }

    /// A file of the test's own, gone with the account.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("it is written");
        path.to_str().expect("a plain path").to_owned()
    }
}

/// The vCPUs of the types that the tests launch.
fn vcpus(kind: &str) -> u32 {
    match kind {
        "m4.xlarge" | "c5.xlarge" => 4,
        "m4.large" | "t2.large" | "t3.micro" | "t3.small" | "m5.large" | "m6g.large" => 2,
        "t2.micro" | "t2.small" => 1,
        other => panic!("the tests do not know how many vCPUs a {other} has"),
    }
}
