//! A virtual machine that looks like an EC2 instance: real kernel, real systemd, cloud-init, and a
//! plug that can be pulled. Everything a container cannot prove is proven here.
//!
//! It is emulated in software, so it is slow, and needs nothing of the machine but QEMU. It is alone
//! with the test in a network namespace that has:
//!
//! | address | what |
//! | --- | --- |
//! | `169.254.169.254` | the metadata service of the local cloud |
//! | [`SERVICES`] | the local cloud's API and a web server with the package |
//! | [`CLIENT`] | where the test's own connections to the instance come from |
//! | [`INSTANCE`] | ports 22 and 80, passed on to the guest, which has this address too |
//!
//! All of it ends with the test's process, also by `kill -9`: the kernel kills QEMU and ssh, and the
//! namespace goes with them.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use local_cloud::{
    BalancerHandle, BalancerSpec, Forward, InstanceHandle, InstanceSpec, LocalCloud, LocalCloudOptions,
    TargetGroupSpec, TargetState,
};
use tokio::process::{Child, Command};

use crate::debian::script;
use crate::files::Files;
use crate::solo::{program, tool};
use crate::wire::Wire;
use crate::{group, netns, text, within};

pub mod first_boot;
pub mod posts;
pub mod shell;

/// The instance's private address.
pub const INSTANCE: Ipv4Addr = Ipv4Addr::new(172, 31, 16, 10);

/// Where the test, and so the balancer and its probes, connect from.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 4);

/// Where the services are.
pub const SERVICES: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);

const IMDS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// The target group that the instance's tag names.
pub const GROUP: &str = "cluster1";

/// The longest that something may take which has to start a machine first. Ten times what it takes
/// on an idle machine.
pub const BOOT: Duration = Duration::from_secs(600);

/// The longest that a command in the guest may take.
const COMMAND: Duration = Duration::from_secs(300);

/// The virtual machine, and the cloud around it.
pub struct Guest {
    /// The cloud it is an instance of.
    pub cloud: LocalCloud,
    /// The balancer in front of it.
    pub balancer: BalancerHandle,
    /// What the cloud knows of it.
    pub instance: InstanceHandle,
    /// What it can download.
    pub files: Files,
    folder: tempfile::TempDir,
    image: PathBuf,
    /// Without a name: it is gone with the processes that have it open.
    disk: File,
    mac: String,
    qemu: Option<Child>,
    shell: Option<Child>,
}

impl Guest {
    /// A new instance on which the package has been installed by its user data, and that is healthy.
    pub async fn installed() -> Self {
        let mut guest = Self::launch(first_boot::user_data).await;
        guest.until_healthy().await;
        guest.log_in().await;
        guest.until(BOOT, "cloud-init status | grep -q done").await;
        guest
    }

    /// Powers a new instance on. `user_data` is made when everything it may point at is there.
    pub async fn launch(user_data: impl FnOnce(&LocalCloud, &Files) -> String) -> Self {
        netns::enter().await;
        for address in [IMDS.ip(), SERVICES.into(), CLIENT.into()] {
            netns::ip(&format!("address add {address}/32 dev lo")).await;
        }
        // Connections to the instance come from another address than its own, else it would take
        // their packets for forged ones.
        netns::ip(&format!("route add local {INSTANCE}/32 dev lo src {CLIENT}")).await;

        let folder = tempfile::tempdir().expect("a temporary folder");
        let image = image().await;
        let key = folder.path().join("key");
        let key = key.to_str().expect("a plain path");
        succeeds(tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "key", "-f", key]).await);
        let disk = tempfile::tempfile().expect("room for a disk");
        let source = image.join("disk.ext4");
        let source = source.to_str().expect("a plain path");
        succeeds(tool("cp", &["--sparse=always", source, &path_of(&disk)]).await);

        let endpoint = SocketAddr::from((SERVICES, 8000));
        let cloud = LocalCloud::start(LocalCloudOptions { endpoint, ..LocalCloudOptions::default() }).await;
        let cloud = cloud.expect("the address is free");
        let arn = cloud.create_target_group(TargetGroupSpec { port: 80, ..group(GROUP) });
        let spec = BalancerSpec {
            listen: SocketAddr::from((SERVICES, 80)),
            ..BalancerSpec::new("balancer", Forward::to(arn))
        };
        let balancer = cloud.create_balancer(spec).await.expect("the address is free");
        let files = Files::serve(SocketAddr::from((SERVICES, 8001))).await;
        let spec = InstanceSpec {
            imds: IMDS,
            user_data: Some(user_data(&cloud, &files)),
            public_key: Some(std::fs::read_to_string(format!("{key}.pub")).expect("just made")),
            ..InstanceSpec::new(INSTANCE)
        }
        .tag(instance_contract::tags::CLUSTER, "cluster1")
        .tag(instance_contract::tags::TARGET_GROUP, GROUP);
        let mac = spec.mac();
        let instance = cloud.run_instance(spec).await.expect("the address is free");
        let mut guest =
            Self { cloud, balancer, instance, files, folder, image, disk, mac, qemu: None, shell: None };
        guest.power_on();
        guest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Powers it on with the disk as it is.
    pub fn power_on(&mut self) {
        let id = self.instance.id();
        // What tells cloud-init that this is EC2.
        let uuid = format!("ec2{}-0000-4000-8000-000000000000", &id[3..8]);
        let machine = [
            "-machine q35 -accel tcg -cpu max -smp 1 -m 1536".to_owned(),
            "-nodefaults -no-user-config -display none -device virtio-rng-pci".to_owned(),
            "-smbios type=0,vendor=Amazon".to_owned(),
            format!("-smbios type=1,manufacturer=Amazon,product=t3.micro,uuid={uuid},serial={uuid}"),
            format!("-smbios type=2,manufacturer=Amazon,asset={id}"),
            // Slow only for the kernel's own start; the clock is the machine's.
            format!("-kernel {0}/vmlinuz -initrd {0}/initrd", self.image.display()),
            // What the guest has not written out dies with QEMU. What it has is in this machine's
            // memory or on its disk, and this machine goes on: how it caches makes no difference.
            format!("-drive file={},if=none,id=disk,format=raw", path_of(&self.disk)),
            "-device virtio-blk-pci,drive=disk".to_owned(),
            format!(
                "-netdev user,id=net,net=172.31.16.0/20,dhcpstart={INSTANCE},\
                 hostfwd=tcp:{INSTANCE}:22-:22,hostfwd=tcp:{INSTANCE}:80-:80"
            ),
            format!("-device virtio-net-pci,netdev=net,romfile=,mac={}", self.mac),
            format!("-serial file:{}", self.path("console").display()),
        ];
        let machine = machine.join(" ");
        let kernel = "root=LABEL=root ro console=ttyS0 quiet systemd.show_status=0 panic=-1 mitigations=off";
        let arguments = machine.split(' ').map(OsString::from);
        let arguments: Vec<OsString> =
            arguments.chain([OsString::from("-append"), OsString::from(kernel)]).collect();
        let log = File::create(self.path("qemu.log")).expect("a log");
        let mut command = program(&dies_with_us(), "qemu-system-x86_64".as_ref(), &arguments, &[]);
        command.stdout(log.try_clone().expect("a copy of it")).stderr(log);
        self.qemu = Some(command.spawn().expect("it starts"));
    }

    /// Pulls the plug.
    pub async fn cut_power(&mut self) {
        let mut qemu = self.qemu.take().expect("it is on");
        // SIGKILL, and waits for the end.
        qemu.kill().await.expect("it runs");
        // The connection is dead; ssh would notice in its own time.
        drop(self.shell.take());
    }

    /// Waits until the balancer finds the instance healthy, and thereby its agent registered.
    pub async fn until_healthy(&self) {
        let healthy =
            |cloud: &LocalCloud| cloud.health_of(GROUP, self.instance.id(), 80).state == TargetState::Healthy;
        if !self.cloud.wait_until(BOOT, healthy).await {
            let log = match &self.shell {
                Some(_) => {
                    text(&self.run("journalctl --no-pager -u instance-agent | tail -n 50").await.stdout)
                }
                None => self.console(),
            };
            panic!("never healthy: {:?}\n{log}", self.cloud.health_of(GROUP, self.instance.id(), 80));
        }
    }

    /// What the balancer thinks of it.
    pub fn health(&self) -> TargetState {
        self.cloud.health_of(GROUP, self.instance.id(), 80).state
    }

    /// A connection to its port 80.
    pub async fn connect(&self) -> std::io::Result<Wire> {
        Wire::connect(SocketAddr::from((INSTANCE, 80))).await
    }

    /// Waits until the agent answers on port 80, and returns the answer's body.
    pub async fn until_answers(&self, path: &str) -> String {
        let answer = async || {
            self.check();
            let answer = self.connect().await.ok()?.get(path).await.ok()?;
            (answer.status == 200).then_some(answer.body)
        };
        let body = within(BOOT, answer).await;
        body.unwrap_or_else(|| panic!("{path} was never answered:\n{}", self.console()))
    }

    /// What the guest wrote to its console.
    pub fn console(&self) -> String {
        let read = |name: &str| std::fs::read(self.path(name)).map(|bytes| text(&bytes)).unwrap_or_default();
        format!("{}{}", read("qemu.log"), read("console"))
    }

    /// Fails if QEMU has ended by itself.
    fn check(&self) {
        let id = self.qemu.as_ref().and_then(Child::id);
        let dead =
            |id| std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |s| s.contains(") Z"));
        assert!(id.is_some_and(|id| !dead(id)), "QEMU has ended:\n{}", self.console());
    }
}

/// What runs a program that the kernel kills as soon as the test's thread is gone.
fn dies_with_us() -> Vec<OsString> {
    ["setpriv", "--pdeathsig", "KILL", "--"].map(OsString::from).to_vec()
}

/// A path by which other processes can open an open file.
fn path_of(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

fn succeeds(output: Output) {
    assert!(output.status.success(), "{output:?}");
}

/// The image's folder; making it is up to tests/bin/setup.
async fn image() -> PathBuf {
    let output = Command::new(script("vm-image")).output().await.expect("it starts");
    let folder = PathBuf::from(text(&output.stdout).trim());
    assert!(folder.join("disk.ext4").exists(), "no image; run these tests with `make e2e`");
    folder
}
