//! A booted Debian for each instance that runs: powered on when moto says that it runs, shut down as
//! EC2 does it when it is stopped or terminated. cloud-init runs its user data.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use local_cloud::timestamp;
use serde_json::{Value, json};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::instances::AUTO_SCALING_GROUP;
use super::{INSIDE, Instance, METADATA, network};
use crate::account::Account;
use crate::debian::root;
use crate::nspawn::Nspawn;
use crate::{text, within};

/// What a shutdown may take before the plug is pulled: the unit's own limit and a little.
const SHUTDOWN: Duration = Duration::from_secs(400);

/// EC2's notice before a spot instance is interrupted.
pub const SPOT_NOTICE: Duration = Duration::from_secs(120);

/// How long an instance's credentials are handed out before new ones are.
const CREDENTIALS: Duration = Duration::from_secs(1800);

/// Asks the metadata service for what cloud-init is to do, as its own data source for EC2 does where
/// the firmware says that this is EC2. A container has no firmware.
const FETCH_USER_DATA: &str = r#"#!/bin/sh
set -eu
imds=http://169.254.169.254/latest
seed=/var/lib/cloud/seed/nocloud
ask() { curl --silent --fail --max-time 20 --retry 30 --retry-connrefused --retry-delay 1 "$@"; }
token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/api/token")
get() { ask -H "X-aws-ec2-metadata-token: $token" "$imds/$1"; }
mkdir -p "$seed"
id=$(get meta-data/instance-id)
printf 'instance-id: %s\n' "$id" >"$seed/meta-data"
case $(get '') in
  *user-data*) get user-data >"$seed/user-data" ;;
  *) : >"$seed/user-data" ;;
esac
"#;

const FETCH_UNIT: &str = "\
[Unit]
DefaultDependencies=no
Requires=region-network.service
After=region-network.service
Before=cloud-init-local.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/lib/fetch-user-data
[Install]
RequiredBy=cloud-init-local.service
";

/// The time since this machine, and so every container on it, booted.
pub fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).expect("it is not before the boot")
}

/// A container has no console of its own: here it is a pipe, of which all is kept. It gets its name when
/// someone reads it: systemd, which opens it, would wait for that, and so start nobody who could.
const CONSOLE: &str = "var/log/console";

const CONSOLE_UNIT: &str = "\
[Unit]
DefaultDependencies=no
Before=cloud-init-local.service
[Service]
ExecStart=/bin/sh -c 'mkfifo /dev/pipe; exec 3<>/dev/pipe; mv /dev/pipe /dev/console; exec cat <&3 >>/var/log/console'
[Install]
WantedBy=sysinit.target
";

/// Whether a machine is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It is off, for good if its instance was terminated.
    Off,
    /// It is on: booting, or serving.
    On,
    /// It was told to shut down.
    ShuttingDown,
}

/// The machine of one instance.
pub struct Machine {
    /// The instance's id.
    pub id: String,
    instance: Mutex<Instance>,
    user_data: Option<String>,
    publishes_tags: bool,
    notices: Mutex<BTreeMap<String, String>>,
    credentials: tokio::sync::Mutex<Option<(Instant, String, Value)>>,
    power: watch::Sender<Power>,
    /// Whether the plug was pulled by hand; then only a hand puts it back.
    unplugged: AtomicBool,
    nspawn: RwLock<Option<Nspawn>>,
    powered_on: Mutex<Option<Duration>>,
    number: u32,
}

impl Machine {
    /// What moto knew of the instance last.
    pub fn instance(&self) -> Instance {
        self.instance.lock().expect("not poisoned").clone()
    }

    /// Whether it is on.
    pub fn power(&self) -> Power {
        *self.power.borrow()
    }

    /// When it was last powered on, by the clock that systemd's own times are of.
    pub fn powered_on(&self) -> Option<Duration> {
        *self.powered_on.lock().expect("not poisoned")
    }

    /// Runs a line of shell in it, as root.
    ///
    /// # Panics
    /// It is off.
    pub async fn run(&self, line: &str) -> Output {
        self.nspawn.read().await.as_ref().expect("it is on").run(line).await
    }

    /// What a line of shell printed that has to succeed.
    pub async fn ok(&self, line: &str) -> String {
        self.nspawn.read().await.as_ref().expect("it is on").ok(line).await
    }

    /// Writes a file of its disk.
    pub async fn write(&self, inside: &str, content: impl AsRef<[u8]>) {
        self.nspawn.read().await.as_ref().expect("it has a disk").write(inside, content);
    }

    /// The agent's journal, and what cloud-init and the console say where there is no agent.
    pub async fn journal(&self) -> String {
        // A shutdown has it to itself until it is over.
        if self.power() != Power::On {
            return format!("it is {:?}", self.power());
        }
        let nspawn = self.nspawn.read().await;
        let Some(nspawn) = nspawn.as_ref() else {
            return "it is being made".to_owned();
        };
        let lines = "journalctl -u instance-agent -o short-precise --no-hostname | tail -n 200; \
                     tail -n 50 /var/log/cloud-init-output.log; systemctl list-jobs; systemctl --failed";
        text(&nspawn.run(lines).await.stdout)
    }

    /// The process that its systemd is, as this process sees it; `None` while it is off.
    pub async fn leader(&self) -> Option<u32> {
        self.nspawn.read().await.as_ref()?.leader()
    }

    /// Pulls the plug, and leaves it so.
    pub async fn cut(&self) {
        self.unplugged.store(true, Ordering::SeqCst);
        self.nspawn.write().await.as_mut().expect("it is on").cut().await;
        self.power.send_replace(Power::Off);
    }

    /// Puts the plug back: it boots from the disk as it is.
    pub async fn plug_in(&self) {
        let mut nspawn = self.nspawn.write().await;
        let nspawn = nspawn.as_mut().expect("it has a disk");
        nspawn.power_on().await;
        self.is_on();
        self.unplugged.store(false, Ordering::SeqCst);
    }

    /// The metadata service is out of reach: what is sent there is lost.
    pub async fn lose_metadata(&self) {
        self.ok(&format!("ip neigh replace {METADATA} lladdr 02:00:00:00:00:01 nud permanent dev eth0"))
            .await;
    }

    /// The metadata service is there again.
    pub async fn find_metadata(&self) {
        self.ok(&format!("ip neigh del {METADATA} dev eth0")).await;
    }

    /// A notice of a spot interruption: it will be terminated then.
    pub fn tell_spot_interruption(&self) -> SystemTime {
        let at = SystemTime::now() + SPOT_NOTICE;
        let notice = json!({ "action": "terminate", "time": timestamp(at) });
        self.tell("spot/instance-action", notice.to_string());
        at
    }

    /// A recommendation to rebalance.
    pub fn tell_rebalance(&self) {
        let notice = json!({ "noticeTime": timestamp(SystemTime::now()) });
        self.tell("events/recommendations/rebalance", notice.to_string());
    }

    /// Takes all notices back.
    pub fn tell_nothing(&self) {
        self.notices.lock().expect("not poisoned").clear();
    }

    /// The agent's status.
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.ok("instance-agent status --output json").await).expect("JSON")
    }

    /// Waits until the agent is in this phase.
    pub async fn until_phase(&self, phase: &str, patience: Duration) {
        let is = async || (self.status().await["phase"] == phase).then_some(());
        if within(patience, is).await.is_none() {
            panic!("{} never was {phase}: {}\n{}", self.id, self.status().await, self.journal().await);
        }
    }

    /// A time of a unit, such as `ActiveEnter`, by the clock of [`monotonic`].
    pub async fn unit_time(&self, unit: &str, what: &str) -> Duration {
        let line = format!("systemctl show -P {what}TimestampMonotonic {unit}");
        Duration::from_micros(self.ok(&line).await.parse().expect("microseconds"))
    }

    /// The state that Auto Scaling wants it in.
    pub fn tell_lifecycle(&self, state: &str) {
        self.tell("autoscaling/target-lifecycle-state", state.to_owned());
    }

    fn tell(&self, path: &str, value: String) {
        self.notices.lock().expect("not poisoned").insert(path.to_owned(), value);
    }

    pub(super) fn notices(&self) -> BTreeMap<String, String> {
        self.notices.lock().expect("not poisoned").clone()
    }

    pub(super) fn user_data(&self) -> Option<&str> {
        self.user_data.as_deref()
    }

    pub(super) fn publishes_tags(&self) -> bool {
        self.publishes_tags
    }

    /// The role of the instance's profile, and credentials of it.
    pub(super) async fn credentials(&self, account: &Account) -> Option<(String, Value)> {
        let mut kept = self.credentials.lock().await;
        if let Some((_, role, value)) = kept.as_ref().filter(|(at, ..)| at.elapsed() < CREDENTIALS) {
            return Some((role.clone(), value.clone()));
        }
        let profile = self.instance().profile;
        if profile.is_empty() {
            return None;
        }
        let found = account.ask("iam", "GetInstanceProfile", &[("InstanceProfileName", &profile)]).await;
        let found = found.ok().then(|| found.xml())?;
        let role = found.list("GetInstanceProfileResult/InstanceProfile/Roles").first()?;
        let (name, arn) = (role.say("RoleName").to_owned(), role.say("Arn").to_owned());
        let asked = [("RoleArn", arn.as_str()), ("RoleSessionName", &self.id)];
        let assumed = account.ask("sts", "AssumeRole", &asked).await;
        let assumed = assumed.ok().then(|| assumed.xml())?;
        let credentials = assumed.at("AssumeRoleResult/Credentials")?;
        let value = json!({
            "Code": "Success",
            "LastUpdated": timestamp(SystemTime::now()),
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.say("AccessKeyId"),
            "SecretAccessKey": credentials.say("SecretAccessKey"),
            "Token": credentials.say("SessionToken"),
            "Expiration": credentials.say("Expiration"),
        });
        *kept = Some((Instant::now(), name.clone(), value.clone()));
        Some((name, value))
    }

    fn is_on(&self) {
        *self.powered_on.lock().expect("not poisoned") = Some(monotonic());
        self.power.send_replace(Power::On);
    }
}

/// All the machines.
pub(super) struct Machines {
    pub(super) account: Arc<Account>,
    endpoint: String,
    root: PathBuf,
    room: u32,
    known: Mutex<BTreeMap<String, Arc<Machine>>>,
    numbers: AtomicU32,
    tasks: Mutex<JoinSet<()>>,
}

impl Machines {
    pub(super) async fn new(account: Arc<Account>, endpoint: String, room: u32) -> Self {
        let root = root("bookworm-vm").await;
        let (known, numbers, tasks) = (Mutex::default(), AtomicU32::new(0), Mutex::default());
        Self { account, endpoint, root, room, known, numbers, tasks }
    }

    /// The machine of an instance.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Machine>> {
        self.known.lock().expect("not poisoned").get(id).cloned()
    }

    /// Every machine, those that are off for good too.
    pub(super) fn all(&self) -> Vec<Arc<Machine>> {
        self.known.lock().expect("not poisoned").values().cloned().collect()
    }

    /// What the machines that are on have written to their consoles.
    pub(super) fn consoles(&self) -> BTreeMap<String, String> {
        let console = |machine: Arc<Machine>| {
            // Who has it to himself boots it, or shuts it down.
            let nspawn = machine.nspawn.try_read().ok()?;
            let file = nspawn.as_ref()?.path(CONSOLE);
            Some((machine.id.clone(), std::fs::read_to_string(file).unwrap_or_default()))
        };
        self.all().into_iter().filter_map(console).collect()
    }

    /// The machine with this private address.
    pub(super) fn at(&self, address: Ipv4Addr) -> Option<Arc<Machine>> {
        let is_here = |machine: &Arc<Machine>| {
            machine.instance().private == Some(address) && machine.power() != Power::Off
        };
        self.all().into_iter().find(is_here)
    }

    /// Powers on and shuts down what has to be.
    pub(super) async fn follow(&self, instances: &[Instance]) {
        while let Some(ended) = self.tasks.lock().expect("not poisoned").try_join_next() {
            ended.expect("a machine is powered on, or off");
        }
        for instance in instances {
            let Some(machine) = self.get(&instance.id) else {
                if instance.is_on() {
                    self.begin(instance.clone()).await;
                }
                continue;
            };
            *machine.instance.lock().expect("not poisoned") = instance.clone();
            let unplugged = machine.unplugged.load(Ordering::SeqCst);
            match (machine.power(), instance.is_on()) {
                (Power::On, false) => {
                    machine.power.send_replace(Power::ShuttingDown);
                    self.spawn(shut_down(machine, instance.state == "terminated"));
                }
                (Power::Off, true) if !unplugged => {
                    machine.is_on();
                    self.spawn(async move { machine.plug_in().await });
                }
                _ => {}
            }
        }
    }

    async fn begin(&self, instance: Instance) {
        let on = self.all().iter().filter(|machine| machine.power() != Power::Off).count();
        if on >= self.room as usize {
            eprintln!(
                "there is no room for {}: this region was made for {} machines",
                instance.id, self.room
            );
            return;
        }
        let machine = Arc::new(Machine {
            id: instance.id.clone(),
            user_data: user_data(&self.account, &instance.id).await,
            publishes_tags: instance.publishes_tags,
            instance: Mutex::new(instance),
            notices: Mutex::default(),
            credentials: tokio::sync::Mutex::default(),
            power: watch::Sender::new(Power::On),
            unplugged: AtomicBool::new(false),
            nspawn: RwLock::default(),
            powered_on: Mutex::default(),
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
        });
        self.known.lock().expect("not poisoned").insert(machine.id.clone(), Arc::clone(&machine));
        self.spawn(make(machine, self.root.clone(), self.endpoint.clone()));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().expect("not poisoned").spawn(task);
    }
}

/// What was given to the instance to do at its first boot.
async fn user_data(account: &Account, id: &str) -> Option<String> {
    let asked = [("InstanceId", id), ("Attribute", "userData")];
    let found = account.ask("ec2", "DescribeInstanceAttribute", &asked).await.xml();
    let encoded = found.say("userData/value");
    let data = STANDARD.decode(encoded.trim()).ok().filter(|data| !data.is_empty())?;
    Some(text(&data))
}

/// A new machine with its cable, powered on.
async fn make(machine: Arc<Machine>, root: PathBuf, endpoint: String) {
    let mut place = machine.nspawn.write().await;
    let instance = machine.instance();
    let private = instance.private.expect("an instance has a private address");
    let mut nspawn = Nspawn::make(&root).await;
    let cable = format!("cable{}", machine.number);
    nspawn.plug_in(&cable, "eth0").await;
    network::attach(&cable, private, instance.public).await;

    let unit = |name: &str, content: &str, wanted_by: &str| {
        nspawn.write(&format!("etc/systemd/system/{name}"), content);
        let wants = nspawn.path(&format!("etc/systemd/system/{wanted_by}"));
        std::fs::create_dir_all(&wants).expect("the folder");
        std::os::unix::fs::symlink(format!("../{name}"), wants.join(name)).expect("a link");
    };
    unit("region-network.service", &network_unit(private, instance.public), "multi-user.target.wants");
    unit("region-console.service", CONSOLE_UNIT, "sysinit.target.wants");
    unit("fetch-user-data.service", FETCH_UNIT, "cloud-init-local.service.requires");
    nspawn.write("usr/local/lib/fetch-user-data", FETCH_USER_DATA);
    let program = nspawn.path("usr/local/lib/fetch-user-data");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(program, mode).expect("our own file");
    let cloud_init = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\n";
    nspawn.write("etc/cloud/cloud.cfg.d/95-region.cfg", cloud_init);
    let manager = format!("[Manager]\nDefaultEnvironment=AWS_ENDPOINT_URL={endpoint}\n");
    nspawn.write("etc/systemd/system.conf.d/region.conf", manager);
    // The disk is no device of its own in here, and nobody comes in.
    nspawn.write("etc/fstab", "");
    let ssh = nspawn.path("etc/systemd/system/ssh.service");
    std::os::unix::fs::symlink("/dev/null", ssh).expect("a link");

    nspawn.power_on().await;
    *place = Some(nspawn);
    machine.is_on();
}

async fn shut_down(machine: Arc<Machine>, for_good: bool) {
    if machine.instance().tag(AUTO_SCALING_GROUP).is_some() {
        machine.tell_lifecycle("Terminated");
    }
    let mut nspawn = machine.nspawn.write().await;
    if let Some(nspawn) = nspawn.as_mut() {
        nspawn.shut_down(SHUTDOWN).await;
    }
    if for_good {
        *nspawn = None;
    }
    machine.power.send_replace(Power::Off);
}

/// Brings the network up and takes it down again with the target that every manager of networks does
/// it for. Others reach the public address by the private one, as by EC2's own translation.
fn network_unit(private: Ipv4Addr, public: Option<Ipv4Addr>) -> String {
    let public = public.map(|public| format!("ExecStart=/bin/ip address replace {public}/32 dev lo\n"));
    format!(
        "[Unit]\n\
         DefaultDependencies=no\n\
         After=local-fs.target\n\
         Before=network.target network-online.target shutdown.target\n\
         Wants=network.target\n\
         Conflicts=shutdown.target\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/bin/ip link set eth0 up\n\
         ExecStart=/bin/ip address replace {private}/32 dev eth0\n\
         ExecStart=/bin/ip route replace {METADATA}/32 dev eth0 src {private}\n\
         ExecStart=/bin/ip route replace {INSIDE}/32 dev eth0 src {private}\n\
         ExecStart=/bin/ip route replace default via {INSIDE} src {private}\n\
         {}\
         ExecStop=/bin/ip link set eth0 down\n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        public.unwrap_or_default()
    )
}
