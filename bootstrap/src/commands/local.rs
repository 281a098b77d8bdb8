//! `launch --local`: start a fleet on this machine, show it, and stop it again.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use local_cloud::TargetState;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::fleet_request::FleetRequest;
use super::suggestions;
use crate::engine::interrupt::Interrupt;
use crate::fleet::Fleet;
use crate::local::{LocalFleet, LocalOptions};
use crate::output::{Board, Outcome, Output, Table, print, print_error, print_json, remark, terminal_size};

/// What `launch --local` is asked for.
#[derive(Debug)]
pub(crate) struct LaunchOptions {
    pub(crate) request: FleetRequest,
    /// The agent's binary; `None` looks for it beside this program, then on `PATH`.
    pub(crate) agent: Option<PathBuf>,
    /// How the fleet is run.
    pub(crate) local: LocalOptions,
    /// The folder to keep; `None` is a temporary one.
    pub(crate) dir: Option<PathBuf>,
    /// How long the fleet may take to become healthy.
    pub(crate) timeout: Duration,
    /// How long to run; `None` is until a signal.
    pub(crate) duration: Option<Duration>,
    /// Whether to stop once healthy.
    pub(crate) exit_when_healthy: bool,
    /// How the result is written.
    pub(crate) output: Output,
}

/// Lines of an agent's log that are shown when it fails.
const LOG_LINES: usize = 8;

/// Runs a fleet on this machine until a signal, or as the options say.
///
/// # Errors
/// It could not be started, or an agent ended before it was healthy. Nothing is left running.
pub(crate) async fn launch(options: LaunchOptions) -> Result<Outcome> {
    let definition = options.request.read()?;
    let agent = find_agent(options.agent.as_deref())?;
    // Before the first process is started, so that no signal can leave any behind.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let folder = Folder::new(options.dir.as_deref())?;
    let mut fleet = LocalFleet::start(&definition, &agent, folder.path(), &options.local).await?;
    remark(&format!(
        "fleet {}: {} started; folders are in {}",
        definition.name,
        agents(fleet.members.len()),
        folder.path().display()
    ));

    let mut exits = ChildExits::default();
    let started = start_up(&mut fleet, &mut signals, &mut exits, options.timeout).await;
    let result = match started {
        StartUp::Healthy => {
            show(&fleet, &definition, &options, folder.path());
            if !options.exit_when_healthy {
                run(&mut fleet, &mut signals, &mut exits, options.duration).await;
            }
            Ok(Outcome::Done)
        }
        StartUp::Interrupted => Err(anyhow::anyhow!("interrupted before all instances were healthy")),
        StartUp::TimedOut => {
            report(&fleet, &options);
            Ok(Outcome::NotHealthy)
        }
        StartUp::AgentEnded => bail_after(&mut fleet, "an agent ended before it was healthy"),
    };
    // As long as an agent may take by itself, and then some.
    let silence = options.local.drain_quiet + Duration::from_secs(10);
    let limit = definition.deregistration_delay.max(silence) + Duration::from_secs(60);
    let end = shut_down(&mut fleet, &mut signals, limit).await;
    let crashed = exits.count();
    drop(fleet);
    let left = folder.remove()?;
    match end {
        End::Drained => {}
        End::TooSlow => bail!("killed the agents that did not drain within {} s", limit.as_secs()),
        End::Killed(count) => bail!("killed {} before draining, as you asked; {left}", agents(count)),
    }
    if let Ok(Outcome::Done) = &result {
        let drained = match crashed {
            0 => "all agents drained".to_owned(),
            crashed => format!("{} had ended before, the others drained", agents(crashed)),
        };
        remark(&format!("fleet {} is stopped: {drained}; {left}", definition.name));
    }
    result
}

/// "1 agent", "2 agents".
fn agents(count: usize) -> String {
    format!("{count} agent{}", if count == 1 { "" } else { "s" })
}

/// The agent's binary.
///
/// # Errors
/// It is not where it was said to be, or in none of the usual places.
fn find_agent(given: Option<&Path>) -> Result<PathBuf> {
    const NAME: &str = "instance-agent";
    if let Some(path) = given {
        if !path.is_file() {
            bail!("{} is not a file (--agent)", path.display());
        }
        // Made absolute: a bare name would be looked for on PATH.
        return std::path::absolute(path).with_context(|| format!("{}", path.display()));
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|dir| dir.join(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(NAME));
    let found = beside.into_iter().chain(on_path).find(|path| path.is_file());
    found.with_context(|| format!("found no {NAME} beside bootstrap or on PATH; name it with --agent PATH"))
}

/// A failed start: nothing was served, so the others need not drain.
fn bail_after(fleet: &mut LocalFleet, text: &'static str) -> Result<Outcome> {
    for member in &mut fleet.members {
        member.agent.kill();
    }
    Err(anyhow::Error::msg(text))
}

/// Signals to this program.
struct Signals {
    stop: Interrupt,
    child: Signal,
}

/// What a signal means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalEvent {
    Stop,
    ChildExit,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { stop: Interrupt::new()?, child: signal(SignalKind::child())? })
    }

    async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            () = self.stop.received() => SignalEvent::Stop,
            _ = self.child.recv() => SignalEvent::ChildExit,
        }
    }
}

/// Agents whose end was already reported.
#[derive(Default)]
struct ChildExits(BTreeSet<String>);

impl ChildExits {
    /// How many agents ended by themselves.
    fn count(&self) -> usize {
        self.0.len()
    }

    /// A line for each agent that ended since the last call.
    fn new_lines(&mut self, fleet: &mut LocalFleet) -> Vec<String> {
        let mut lines = Vec::new();
        for member in &mut fleet.members {
            let Some(status) = member.agent.ended() else {
                continue;
            };
            if self.0.insert(member.instance.id().to_owned()) {
                lines.push(format!(
                    "{} ({}): the agent ended ({status}); not restarted",
                    member.instance.id(),
                    member.address
                ));
                let mut log = member.agent.last_lines(LOG_LINES);
                if log.is_empty() {
                    log.push("it logged nothing".to_owned());
                }
                lines.extend(log.into_iter().map(|line| format!("    {line}")));
            }
        }
        lines
    }
}

enum StartUp {
    Healthy,
    TimedOut,
    AgentEnded,
    Interrupted,
}

async fn start_up(
    fleet: &mut LocalFleet,
    signals: &mut Signals,
    exits: &mut ChildExits,
    timeout: Duration,
) -> StartUp {
    let deadline = Instant::now() + timeout;
    let mut changes = fleet.cloud.changes();
    let board = Board::new();
    let mut count = board.count("healthy", fleet.members.len());
    loop {
        changes.borrow_and_update();
        let healthy = fleet.healthy();
        count.reach(healthy);
        if healthy == fleet.members.len() {
            return StartUp::Healthy;
        }
        let event = tokio::select! {
            _ = changes.changed() => continue,
            () = tokio::time::sleep_until(deadline) => return StartUp::TimedOut,
            event = signals.next() => event,
        };
        match event {
            SignalEvent::Stop => return StartUp::Interrupted,
            SignalEvent::ChildExit => {
                let lines = exits.new_lines(fleet);
                lines.iter().for_each(|line| board.remark(line));
                if !lines.is_empty() {
                    return StartUp::AgentEnded;
                }
            }
        }
    }
}

/// Lets the fleet run until a signal or the end of its time.
async fn run(
    fleet: &mut LocalFleet,
    signals: &mut Signals,
    exits: &mut ChildExits,
    duration: Option<Duration>,
) {
    let end = duration.map(|duration| Instant::now() + duration);
    loop {
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return,
            event = signals.next() => match event {
                SignalEvent::Stop => return,
                SignalEvent::ChildExit => exits.new_lines(fleet).iter().for_each(|line| remark(line)),
            },
        }
    }
}

/// How a fleet's agents ended.
enum End {
    Drained,
    /// Some took too long and were killed.
    TooSlow,
    /// So many were killed by a second signal.
    Killed(usize),
}

/// Drains all agents and waits for their end. A second signal kills them at once.
async fn shut_down(fleet: &mut LocalFleet, signals: &mut Signals, limit: Duration) -> End {
    let deadline = Instant::now() + limit;
    let total = fleet.members.len();
    let ended = |fleet: &mut LocalFleet| {
        let members = fleet.members.iter_mut();
        members.filter_map(|member| member.agent.ended()).count()
    };
    if ended(fleet) < total {
        remark("draining; press Ctrl-C again to kill the agents");
    }
    for member in &mut fleet.members {
        member.agent.terminate();
    }
    let board = Board::new();
    let mut stopped = board.count("stopped", total);
    let mut end = End::Drained;
    loop {
        let count = ended(fleet);
        stopped.reach(count);
        if count == total {
            return end;
        }
        let kill = tokio::select! {
            () = tokio::time::sleep_until(deadline), if matches!(end, End::Drained) => {
                end = End::TooSlow;
                true
            }
            event = signals.next() => {
                if event == SignalEvent::Stop && !matches!(end, End::Killed(_)) {
                    end = End::Killed(total - count);
                }
                event == SignalEvent::Stop
            }
        };
        if kill {
            for member in &mut fleet.members {
                member.agent.kill();
            }
        }
    }
}

/// Says why the fleet is not healthy.
fn report(fleet: &LocalFleet, options: &LaunchOptions) {
    let timeout = options.timeout.as_secs();
    remark(&format!("not healthy within {timeout} s:"));
    let mut reasons = Vec::new();
    for member in &fleet.members {
        let health = fleet.health(member);
        if health.state == TargetState::Healthy {
            continue;
        }
        let (id, address) = (member.instance.id(), member.address);
        let reason = health.reason.unwrap_or_default();
        let description = health.description.unwrap_or_default();
        let reason = format!("{id} {address}: {} ({reason}: {description})", health.state);
        remark(&reason);
        reasons.push(reason);
        for line in member.agent.last_lines(LOG_LINES) {
            remark(&format!("    {line}"));
        }
    }
    print_error(options.output, &format!("not healthy within {timeout} s: {}", reasons.join("; ")));
}

fn show(fleet: &LocalFleet, definition: &Fleet, options: &LaunchOptions, folder: &Path) {
    match options.output {
        Output::Json => print_json(&to_json(fleet, definition)),
        Output::Text => {
            print(&table(fleet));
            print(&advice(fleet, definition, options, folder));
        }
    }
}

fn to_json(fleet: &LocalFleet, definition: &Fleet) -> serde_json::Value {
    let instances: Vec<_> = fleet
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.instance.id(),
                "group": member.group,
                "cluster": member.cluster,
                "target_group": member.target_group,
                "address": member.address,
                "pid": member.agent.pid(),
                "state_dir": member.command.state_dir(),
                "runtime_dir": member.command.runtime_dir(),
                "log": member.command.log(),
                "imds": member.instance.imds_url(),
                "target": fleet.health(member),
            })
        })
        .collect();
    json!({
        "fleet": definition.name,
        "url": fleet.balancer.url(),
        "endpoint": fleet.cloud.endpoint_url(),
        "instances": instances,
    })
}

fn table(fleet: &LocalFleet) -> String {
    let mut table = Table::new(&["INSTANCE", "CLUSTER", "ADDRESS", "TARGET STATE", "REASON"]);
    for member in &fleet.members {
        let health = fleet.health(member);
        table.add_row([
            member.instance.id().to_owned(),
            member.cluster.clone().unwrap_or_else(|| "-".to_owned()),
            member.address.to_string(),
            health.state.to_string(),
            health.reason.unwrap_or("-").to_owned(),
        ]);
    }
    table.render(terminal_size(io::stdout()).map(|(width, _)| width))
}

/// What to try, and how to stop.
fn advice(fleet: &LocalFleet, definition: &Fleet, options: &LaunchOptions, folder: &Path) -> String {
    let url = fleet.balancer.url();
    let mut lines = vec![String::new(), format!("load balancer: {url}"), String::new()];
    let members = fleet.members.iter().map(|member| (member.group.as_str(), member.address.to_string()));
    lines.extend(suggestions::requests(definition, &url, &members.collect::<Vec<_>>()));
    let stop = match (options.exit_when_healthy, options.duration) {
        (true, _) => return format!("{}\n", lines.join("\n")),
        (_, Some(duration)) => format!("The fleet stops after {duration:?}, or on Ctrl-C"),
        (_, None) => "Ctrl-C stops the fleet".to_owned(),
    };
    lines.push(match options.dir {
        Some(_) => format!("\n{stop}; seeds and logs stay in {}.", folder.display()),
        None => format!("\n{stop} and deletes its folders, with stored numbers and logs."),
    });
    lines.push(String::new());
    lines.join("\n")
}

/// Where the instances' folders are.
enum Folder {
    Temporary(tempfile::TempDir),
    /// Kept, and locked against a second launch while this one runs.
    Kept(PathBuf, #[expect(dead_code, reason = "held for its lock")] OwnedFd),
}

/// A socket's path has at most 107 bytes; below the folder it goes on as
/// `/i-0123456789abcdef0/run/admin.sock`.
const MAX_FOLDER_LENGTH: usize = 107 - 35;

impl Folder {
    fn new(dir: Option<&Path>) -> Result<Self> {
        let Some(dir) = dir else {
            let made = tempfile::Builder::new().prefix("bootstrap-").tempdir();
            return Ok(Self::Temporary(made.context("cannot create a temporary folder")?));
        };
        let shown = dir.display();
        // The agents are given absolute paths, whatever their working directory is.
        let dir = std::path::absolute(dir)?;
        if dir.as_os_str().len() > MAX_FOLDER_LENGTH {
            bail!(
                "the path {shown} is too long for the agents' sockets; choose one of at most {MAX_FOLDER_LENGTH} \
                 bytes with --dir"
            );
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create the folder {shown}"))?;
        let opened = std::fs::File::open(&dir).with_context(|| format!("cannot open {shown}"))?;
        let opened = OwnedFd::from(opened);
        if flock(&opened, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another launch uses the folder {shown}; choose another with --dir");
        }
        Ok(Self::Kept(dir, opened))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir, _) => dir,
        }
    }

    /// Deletes a temporary folder, and says what is left.
    fn remove(self) -> Result<String> {
        match self {
            Self::Temporary(dir) => {
                dir.close().context("cannot remove the temporary folder")?;
                Ok("nothing is left".to_owned())
            }
            Self::Kept(path, _) => Ok(format!("seeds and logs are in {}", path.display())),
        }
    }
}
