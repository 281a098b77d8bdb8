//! A first boot by cloud-init, with the user data that `bootstrap launch` gives its instances, in a
//! booted Debian in the strict local cloud.

use std::path::Path;
use std::process::Command;

use bootstrap::user_data::{PackageForInstance, user_data};

use crate::debian::root;
use crate::files::Files;
use crate::nspawn::Nspawn;
use crate::service::{CLOUD, ServiceBed};
use crate::{eventually, text, within};

const PORT: u16 = 8001;
/// The longest that a first boot may take that gives up in the end.
const FIRST_BOOT: std::time::Duration = std::time::Duration::from_secs(180);
/// All that cloud-init does at a first boot.
const STAGES: &str = "cloud-init init --local && cloud-init init && cloud-init modules --mode=config && \
                      cloud-init modules --mode=final";

/// The user data for this package; it is one that can be told to an instance.
pub fn of(package: &PackageForInstance) -> String {
    user_data(package).expect("it fits").expect("there is something to do")
}

/// The user data for this package at this address.
pub fn from_address(url: &str, package: &Path) -> String {
    let output = Command::new("sha256sum").arg(package).output().expect("it starts");
    let sum = text(&output.stdout).split(' ').next().expect("a sum").to_owned();
    of(&PackageForInstance::Download { url: url.to_owned(), sha256: sum })
}

/// An instance of the local cloud with an image's disk, whose first boot has not begun.
pub struct FirstBoot {
    /// The cloud and the instance.
    pub bed: ServiceBed,
}

impl FirstBoot {
    /// Runs the instance, but for cloud-init.
    pub async fn new() -> Self {
        let root = root("bookworm-vm").await;
        let bed = ServiceBed::boot_prepared(&root, |machine| {
            // Begun by the test, which then sees how each step goes.
            machine.write("etc/cloud/cloud-init.disabled", "");
            machine.write(
                "etc/cloud/cloud.cfg.d/95-bed.cfg",
                "datasource_list: [NoCloud]\nnetwork: {config: disabled}\n",
            );
            machine.write("var/lib/cloud/seed/nocloud/meta-data", "instance-id: i-0123456789abcdef0\n");
            // The disk is no device of its own in here, and nobody comes in.
            machine.write("etc/fstab", "");
            let ssh = machine.path("etc/systemd/system/ssh.service");
            std::os::unix::fs::symlink("/dev/null", ssh).expect("a link");
        });
        let bed = bed.await;
        // The container has no console of its own. In here it is a pipe, of which all is kept.
        bed.machine
            .ok("mkfifo /dev/console && systemd-run --quiet --unit=console \\
                 sh -c 'exec cat <>/dev/console >/var/log/console'")
            .await;
        Self { bed }
    }

    /// The machine.
    pub fn machine(&self) -> &Nspawn {
        &self.bed.machine
    }

    /// A web server that the instance can reach.
    pub async fn files() -> Files {
        Files::serve((CLOUD, PORT).into()).await
    }

    /// The address of a file on that web server, or of none where there is no server.
    pub fn url(name: &str) -> String {
        format!("http://{CLOUD}:{PORT}/{name}")
    }

    /// Begins the first boot, or another one of the same instance.
    pub async fn begin(&self, user_data: &str) {
        self.machine().write("var/lib/cloud/seed/nocloud/user-data", user_data);
        let begin = format!("systemd-run --quiet --collect --no-block --unit=first-boot sh -c '{STAGES}'");
        self.machine().ok(&begin).await;
    }

    /// What was written to the instance's console.
    pub async fn console(&self) -> String {
        self.machine().ok("cat /var/log/console").await
    }

    /// Waits until its log has this.
    pub async fn until_logged(&self, what: &str) {
        self.machine().until(&format!("grep -F -e '{what}' /var/log/cloud-init-output.log")).await;
    }

    /// Cuts it off where it stands: no process of it ends by itself.
    pub async fn cut(&self) {
        self.machine().ok("systemctl kill --signal=KILL first-boot").await;
        self.machine().until("! systemctl is-active --quiet first-boot").await;
    }

    /// Waits for its end, and returns what all boots have said of themselves: lines that are the same in their log and on
    /// the console.
    pub async fn ended(&self) -> Vec<String> {
        let line = "! systemctl is-active --quiet first-boot && cat /var/log/cloud-init-output.log";
        let ended = within(FIRST_BOOT, async || {
            let output = self.machine().run(line).await;
            output.status.success().then(|| text(&output.stdout))
        });
        let Some(log) = ended.await else {
            panic!("it does not end: {:?}", self.machine().run("cat /var/log/cloud-init-output.log").await)
        };
        let said = |text: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix("instance-agent-bootstrap: "));
            lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        let logged = said(&log);
        let shown = eventually(async || (said(&self.console().await) == logged).then_some(()));
        assert!(shown.await.is_some(), "console: {}\nlog: {log}", self.console().await);
        logged
    }

    /// Waits for its end, and returns what it says of itself: one line.
    pub async fn end(&self) -> String {
        let mut said = self.ended().await;
        assert_eq!(said.len(), 1, "{said:?}");
        said.remove(0)
    }

    /// Whether the package is installed.
    pub async fn has_package(&self) -> bool {
        self.machine().run("dpkg-query --status instance-agent").await.status.success()
    }

    /// Begins a first boot and waits for its end.
    pub async fn run(&self, user_data: &str) -> String {
        self.begin(user_data).await;
        self.end().await
    }
}
