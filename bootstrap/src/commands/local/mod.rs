//! `launch --local`: start a fleet on this machine, show it, and stop it again.
//!
//! | file | holds |
//! | --- | --- |
//! | `events.rs` | lines about agents that end and targets whose health changes |
//! | `folder.rs` | the fleet's folder, temporary or kept |
//! | `options.rs` | what the command line asks for |
//! | `program.rs` | the agent's program |
//! | `show.rs` | the healthy fleet, or why it is not |

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use self::events::{ChildExits, TargetStates};
use self::folder::Folder;
use self::program::find_agent;
use self::show::{report, show};
use crate::engine::interrupt::Interrupt;
use crate::local::{LocalFleet, RunningMark};
use crate::output::{Board, Outcome, remark};

pub(crate) use self::options::LaunchOptions;

mod events;
mod folder;
mod options;
mod program;
mod show;

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
    let _mark = RunningMark::set(&definition.name, fleet.balancer.address().port());
    remark(&format!(
        "fleet {}: {} started; their folders are in {}",
        definition.name,
        agents(fleet.members.len()),
        folder.path().display()
    ));

    let mut exits = ChildExits::default();
    let started = start_up(&mut fleet, &mut signals, &mut exits, options.timeout).await;
    let mut interrupted = false;
    match started {
        StartUp::Healthy => {
            show(&fleet, &definition, &options, folder.path());
            if !options.exit_when_healthy {
                interrupted = run(&mut fleet, &mut signals, &mut exits, options.duration).await;
            }
        }
        StartUp::TimedOut => report(&fleet, &options),
        StartUp::Interrupted => interrupted = true,
        // The fleet has answered no request: the other agents need not drain.
        StartUp::AgentEnded => {
            for member in &mut fleet.members {
                member.agent.kill();
                member.agent.wait().await.context("cannot wait for an agent")?;
            }
        }
    }
    // As long as an agent may take by itself, and then some.
    let silence = options.local.drain_quiet + Duration::from_secs(10);
    let limit = definition.deregistration_delay.max(silence) + Duration::from_secs(60);
    let end = shut_down(&mut fleet, &mut signals, limit, interrupted).await;
    let total = fleet.members.len();
    drop(fleet);
    let failed = matches!(started, StartUp::TimedOut | StartUp::AgentEnded) || matches!(end, End::TooSlow);
    let left = folder.end(failed)?;
    match end {
        End::Drained => {}
        End::TooSlow => bail!("killed the agents that did not drain within {} s; {left}", limit.as_secs()),
        End::Killed(count) => bail!("killed {} before draining, as you asked; {left}", agents(count)),
    }
    match started {
        StartUp::Healthy => {
            let drained = match exits.count() {
                0 => "all agents drained".to_owned(),
                crashed if crashed >= total => "all agents had ended before".to_owned(),
                crashed => format!("{} had ended before, the others drained", agents(crashed)),
            };
            remark(&format!("fleet {} is stopped: {drained}; {left}", definition.name));
            Ok(Outcome::Done)
        }
        StartUp::TimedOut => {
            remark(&left);
            Ok(Outcome::NotHealthy)
        }
        StartUp::Interrupted => bail!("interrupted before all instances were healthy"),
        StartUp::AgentEnded => Err(anyhow!("an agent ended before it was healthy; {left}")),
    }
}

/// "1 agent", "2 agents".
fn agents(count: usize) -> String {
    format!("{count} agent{}", if count == 1 { "" } else { "s" })
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

/// Lets the fleet run until a signal or the end of its time, and tells what happens to it. Whether it was a signal.
async fn run(
    fleet: &mut LocalFleet,
    signals: &mut Signals,
    exits: &mut ChildExits,
    duration: Option<Duration>,
) -> bool {
    let end = duration.map(|duration| Instant::now() + duration);
    let mut changes = fleet.cloud.changes();
    let mut states = TargetStates::healthy(fleet);
    loop {
        changes.borrow_and_update();
        states.new_lines(fleet).iter().for_each(|line| remark(line));
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return false,
            _ = changes.changed() => {}
            event = signals.next() => match event {
                SignalEvent::Stop => return true,
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
async fn shut_down(fleet: &mut LocalFleet, signals: &mut Signals, limit: Duration, interrupted: bool) -> End {
    let deadline = Instant::now() + limit;
    let total = fleet.members.len();
    let ended = |fleet: &mut LocalFleet| {
        let members = fleet.members.iter_mut();
        members.filter_map(|member| member.agent.ended()).count()
    };
    if ended(fleet) < total {
        let again = if interrupted { " again" } else { "" };
        remark(&format!("draining; press Ctrl-C{again} to kill the agents"));
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
