//! A haproxy for each balancer. Listeners and rules are its configuration; targets come and go while
//! it runs, by its socket, so that no connection ends with a change of theirs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::balancers::{Balancer, Group};
use crate::SOON;
use crate::solo::program;

/// What its own `-sf` gives connections of a former configuration.
const LAST_REQUESTS: &str = "60s";

/// What the checks of a target have found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Whether it gets requests, if it may have any.
    pub(super) up: bool,
    /// haproxy's word for the last check: `L7OK`, `L7STS`, `L4TOUT`, ..., or `INI` if there was none.
    pub(super) last: String,
    /// The HTTP status that the last check saw.
    pub(super) code: String,
}

/// A running haproxy, and the one before it while that ends.
pub(super) struct Haproxy {
    folder: tempfile::TempDir,
    /// Where its listeners are.
    pub(super) address: Ipv4Addr,
    running: Option<Child>,
    ending: Vec<Child>,
    configuration: String,
    generation: u32,
}

impl Haproxy {
    pub(super) fn new(address: Ipv4Addr) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (running, ending) = (None, Vec::new());
        Self { folder, address, running, ending, configuration: String::new(), generation: 0 }
    }

    /// Makes its listeners and rules these. Where they change, a new process takes over the sockets and
    /// the servers as they are; `servers` are those, by group and name.
    pub(super) async fn configure(
        &mut self,
        balancer: &Balancer,
        groups: &BTreeMap<String, Group>,
        servers: &[(&str, &str, SocketAddr)],
    ) {
        self.ending.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let configuration = configuration(balancer, groups, self.address);
        if configuration == self.configuration {
            return;
        }
        let state = match self.running {
            Some(_) => self.command("show servers state").await,
            None => String::new(),
        };
        let former = self.socket();
        self.generation += 1;
        let (file, kept) = (self.folder.path().join("haproxy.cfg"), self.folder.path().join("servers"));
        std::fs::write(&kept, state).expect("room for it");
        let global = format!(
            "global\n  stats socket {} mode 600 level admin expose-fd listeners\n  server-state-file {}\n  \
             hard-stop-after {LAST_REQUESTS}\n",
            self.socket().display(),
            kept.display()
        );
        std::fs::write(&file, global + &with_servers(&configuration, groups, servers)).expect("room for it");
        let mut words = vec!["-db".into(), "-f".into(), file.into()];
        if let Some(pid) = self.running.as_ref().and_then(Child::id) {
            words.extend(["-x".into(), former.into(), "-sf".into(), pid.to_string().into()]);
        }
        let dies_with_us = ["setpriv", "--pdeathsig", "KILL", "--"].map(Into::into);
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.expect("our own folder");
        let child = program(&dies_with_us, "haproxy".as_ref(), &words, &[])
            .stdout(log.try_clone().expect("our own file"))
            .stderr(log)
            .spawn()
            .expect("haproxy is there");
        self.ending.extend(self.running.replace(child));
        self.until_it_answers().await;
        self.configuration = configuration;
    }

    /// A new target, which is checked from now on and gets no request yet.
    pub(super) async fn add(&self, group: &Group, id: &str, address: SocketAddr) {
        let server = format!("{}/{id}", group.name);
        self.expect(&format!("add server {server} {address} {}", checks(group)), "New server registered")
            .await;
        self.expect(&format!("enable health {server}"), "").await;
        self.drain(group, id).await;
    }

    /// From now on it gets requests, as long as the checks pass.
    pub(super) async fn ready(&self, group: &Group, id: &str) {
        self.expect(&format!("set server {}/{id} state ready", group.name), "").await;
    }

    /// From now on it gets no new request.
    pub(super) async fn drain(&self, group: &Group, id: &str) {
        self.expect(&format!("set server {}/{id} state drain", group.name), "").await;
    }

    /// Forgets a target; whether that is done, which it is not while connections are open.
    pub(super) async fn remove(&self, group: &str, id: &str) -> bool {
        self.expect(&format!("set server {group}/{id} state maint"), "").await;
        self.command(&format!("del server {group}/{id}")).await.contains("deleted")
    }

    /// What the checks have found, by group and target.
    pub(super) async fn checked(&self) -> BTreeMap<(String, String), Checked> {
        let table = self.command("show stat -1 4 -1").await;
        let mut lines = table.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().trim_start_matches("# ").split(',').collect();
        let column = |name: &str| names.iter().position(|known| *known == name).expect("haproxy has it");
        let columns = ["pxname", "svname", "status", "check_status", "check_code"].map(column);
        let read = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            let [group, id, status, last, code] = columns.map(|n| fields.get(n).copied().unwrap_or_default());
            let up = status.starts_with("UP") || status == "DRAIN" || status == "no check";
            // An asterisk: the next check is on its way.
            let last = last.trim_start_matches("* ").to_owned();
            ((group.to_owned(), id.to_owned()), Checked { up, last, code: code.to_owned() })
        };
        lines.filter(|line| !line.is_empty()).map(read).collect()
    }

    async fn until_it_answers(&self) {
        let deadline = Instant::now() + SOON;
        while UnixStream::connect(self.socket()).await.is_err() {
            assert!(Instant::now() < deadline, "haproxy does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(format!("socket{}", self.generation))
    }

    /// Gives an order that is answered with this, or with nothing.
    async fn expect(&self, order: &str, answer: &str) {
        let said = self.command(order).await;
        let as_wanted = if answer.is_empty() { said.trim().is_empty() } else { said.contains(answer) };
        assert!(as_wanted, "haproxy: {order}: {said}\n{}", self.log());
    }

    async fn command(&self, order: &str) -> String {
        let said = tokio::time::timeout(SOON, async {
            let mut socket = UnixStream::connect(self.socket()).await?;
            socket.write_all(format!("{order}\n").as_bytes()).await?;
            let mut said = String::new();
            socket.read_to_string(&mut said).await?;
            Ok::<_, std::io::Error>(said)
        });
        let said = said.await.expect("haproxy answers");
        said.unwrap_or_else(|error| panic!("haproxy: {order}: {error}\n{}", self.log()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        for child in self.running.iter().chain(&self.ending) {
            if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                // One that has ended by itself needs no signal.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
    }
}

/// Listeners, rules and groups, without the groups' servers. As an Application Load Balancer: nothing is
/// tried twice, connections to targets are kept.
fn configuration(balancer: &Balancer, groups: &BTreeMap<String, Group>, address: Ipv4Addr) -> String {
    let mut text = "defaults\n  mode http\n  retries 0\n  option http-keep-alive\n  http-reuse safe\n  \
                    option forwardfor\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n  \
                    load-server-state-from-file global\n"
        .to_owned();
    let name = |arn: &String| groups.get(arn).map(|group| group.name.as_str());
    for (port, listener) in &balancer.listeners {
        text += &format!("frontend port{port}\n  bind {address}:{port}\n");
        for (number, rule) in listener.rules.iter().enumerate() {
            for path in &rule.paths {
                text += &format!("  acl rule{number} path -m reg {}\n", pattern(path));
            }
            let condition = format!("{{ always_true }} rule{number}");
            text += &forward(&rule.forward, &format!("rule{number}pick"), &condition, &name);
        }
        text += &forward(&listener.default, "default", "{ always_true }", &name);
    }
    for arn in balancer.groups() {
        let Some(group) = groups.get(arn) else { continue };
        let timeout = group.timeout.as_millis();
        text += &format!(
            "backend {}\n  balance roundrobin\n  option httpchk\n  timeout check {timeout}ms\n  http-check send \
             meth GET uri {} ver HTTP/1.1 hdr Host region hdr User-Agent ELB-HealthChecker/2.0\n  http-check \
             expect status {}\n",
            group.name, group.path, group.matcher
        );
    }
    text
}

/// Requests that meet the condition go to these groups by their weights.
fn forward<'a>(
    to: &[(String, u32)],
    variable: &str,
    condition: &str,
    name: &impl Fn(&String) -> Option<&'a str>,
) -> String {
    let known: Vec<(&str, u32)> =
        to.iter().filter_map(|(arn, weight)| Some((name(arn)?, *weight))).filter(|(_, w)| *w > 0).collect();
    let total: u32 = known.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return String::new();
    }
    let mut text = format!("  http-request set-var(txn.{variable}) rand({total}) if {condition}\n");
    let mut below = 0;
    for (group, weight) in known {
        below += weight;
        text +=
            &format!("  use_backend {group} if {condition} {{ var(txn.{variable}) -m int lt {below} }}\n");
    }
    text
}

/// A path pattern as a regular expression: `*` is any characters, `?` is one.
fn pattern(path: &str) -> String {
    let translated = path.chars().map(|c| match c {
        '*' => ".*".to_owned(),
        '?' => ".".to_owned(),
        c if c.is_ascii_alphanumeric() || "/-_".contains(c) => c.to_string(),
        c => format!("[{c}]"),
    });
    format!("^{}$", translated.collect::<String>())
}

fn checks(group: &Group) -> String {
    format!(
        "check inter {}ms fall {} rise {} pool-purge-delay 55s",
        group.interval.as_millis(),
        group.unhealthy,
        group.healthy
    )
}

/// The configuration with the servers that there are.
fn with_servers(
    configuration: &str,
    groups: &BTreeMap<String, Group>,
    servers: &[(&str, &str, SocketAddr)],
) -> String {
    let mut text = String::new();
    for line in configuration.lines() {
        text += line;
        text += "\n";
        let Some(name) = line.strip_prefix("backend ") else { continue };
        let group = groups.values().find(|group| group.name == name);
        for (_, id, address) in servers.iter().filter(|(of, ..)| *of == name) {
            text += &format!("  server {id} {address} {}\n", group.map(checks).unwrap_or_default());
        }
    }
    text
}
