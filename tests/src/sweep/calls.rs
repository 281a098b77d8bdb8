//! At every call of a command in turn something goes wrong: the call fails, its answer is lost after it
//! took effect, or `bootstrap` is killed while it waits for the answer. Then the command is run again, and
//! everything is as if nothing had happened: nothing twice, nothing left.
//!
//! A whole sweep is of `launch`, `scale` and `destroy` of four instances in two groups. The three commands
//! are swept together: round N breaks the N-th call of each. So each round begins and ends with an empty
//! account, and no time goes into launching what only a later command is tried on. A short sweep is of
//! `launch` of the smallest fleet.

use std::collections::BTreeMap;

use super::Extent;
use crate::account::{
    Account, AwsError, Fault, Options, SMALL, SMALLEST, Trouble, differences, is_read, without_ids,
};
use crate::send;
use rustix::process::Signal;
use serde_json::Value;

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
pub enum Accident {
    /// It is refused, and changes nothing.
    Fails,
    /// It takes effect, and the connection ends without an answer.
    LosesItsAnswer,
    /// It takes effect, and `bootstrap` is killed before it is answered.
    IsTheLast,
}

/// A call of a command: its name, and the how manieth of that name.
type Which = (String, usize);

/// A command, what it does when all goes well, and what is there afterwards.
struct Command {
    arguments: Vec<String>,
    calls: Vec<Which>,
    result: Value,
}

impl Command {
    /// Runs it without any accident.
    async fn learn(account: &Account, arguments: Vec<String>) -> Self {
        account.time_passes().await;
        account.clear();
        account.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut calls = Vec::new();
        for call in account.calls() {
            let number = seen.entry(call.name()).or_default();
            *number += 1;
            calls.push((call.name(), *number));
        }
        Self { arguments, calls, result: without_ids(&account.snapshot().await) }
    }

    /// Runs it with an accident at its N-th call, and again.
    async fn survives(&self, account: &Account, accident: Accident, number: usize) -> Result<(), String> {
        let Some((call, nth)) = self.calls.get(number) else {
            return Ok(());
        };
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let case = format!("{} when {call} {nth} {accident:?}", arguments[0]);
        let (service, action) = call.split_once(':').expect("service:Action");
        account.clear();
        account.fault(Fault::nth(
            call,
            *nth,
            match accident {
                Accident::Fails => Trouble::Fail(AwsError::denied(service, action, "*")),
                Accident::LosesItsAnswer => Trouble::Lose,
                Accident::IsTheLast => Trouble::Hold,
            },
        ));
        let running = account.bootstrap(&arguments).start();
        let first = if let Accident::IsTheLast = accident {
            let pid = running.pid();
            let ended = running.end();
            tokio::pin!(ended);
            tokio::select! {
                ended = &mut ended => ended,
                () = account.held() => {
                    send(Signal::KILL, pid);
                    ended.await
                }
            }
        } else {
            running.end().await
        };
        account.quiet().await;
        // What only polls can come in other numbers; what changes something cannot.
        if account.fired() == 0 && !(is_read(action) && *nth > 1) {
            return Err(format!("{case}: there was no such call: {:?}", account.names()));
        }
        let told = format!("{}\n{}", first.stdout, first.stderr);
        match (accident, first.status) {
            (Accident::IsTheLast, None) | (_, Some(0)) => {}
            (Accident::Fails, Some(1)) if told.contains("not authorized to perform") => {}
            (_, status) => return Err(format!("{case}: it ended with {status:?}\n{told}")),
        }
        account.clear();
        let again = account.run(&arguments).await;
        if again.status != Some(0) {
            return Err(format!("{case}: again, {:?}\n{}\n{}", again.status, again.stdout, again.stderr));
        }
        let found = differences(&self.result, &without_ids(&account.snapshot().await));
        if found.is_empty() { Ok(()) } else { Err(format!("{case}:\n{}", found.join("\n"))) }
    }
}

/// Every N-th round of this many, beginning with this one.
async fn rounds(extent: Extent, accident: Accident, first: usize, step: usize) -> Vec<String> {
    let account = Account::start(options()).await;
    let package = account.package();
    let file = account.file("small.toml", if extent == Extent::Whole { SMALL } else { SMALLEST });
    let mut lines = vec![format!("launch {file} --deb {package} --yes")];
    if extent == Extent::Whole {
        lines.extend(["scale small blue=3 red=1 --yes", "destroy small --yes"].map(str::to_owned));
    }
    let mut commands = Vec::new();
    for line in lines {
        commands.push(Command::learn(&account, line.split(' ').map(str::to_owned).collect()).await);
    }
    let rounds = commands.iter().map(|command| command.calls.len()).max().expect("a command");
    let mut failures = Vec::new();
    for round in (first..rounds).step_by(step) {
        account.reset(options()).await;
        for command in &commands {
            account.time_passes().await;
            let whole = async {
                if command.calls.len() > round || command.arguments[0] == "scale" {
                    return command.survives(&account, accident, round).await;
                }
                let arguments: Vec<&str> = command.arguments.iter().map(String::as_str).collect();
                account.clear();
                account.ok(&arguments).await;
                Ok(())
            };
            if let Err(failure) = whole.await {
                failures.push(failure);
                break;
            }
        }
    }
    failures
}

/// Nothing takes long, but a look right after a launch does not show it: that it is not made twice is
/// then the client token's work.
fn options() -> Options {
    Options { unseen_instances: 1, ..Options::prompt() }
}

/// All rounds, half of them in another account at the same time.
pub async fn sweep(extent: Extent, accident: Accident) {
    let (even, odd) = tokio::join!(rounds(extent, accident, 0, 2), rounds(extent, accident, 1, 2));
    let failures: Vec<String> = even.into_iter().chain(odd).collect();
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n\n"));
}
