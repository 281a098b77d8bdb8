//! `plan`, `launch`, `scale` and `destroy` on AWS: show what is to be done, ask, do it, say how it ended.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use crate::apply::{ActError, Work};
use crate::cloud::Cloud;
use crate::cloud::pace::Pace;
use crate::cloud::search::{Found, search};
use crate::deb::Deb;
use crate::execute::{Halt, execute};
use crate::health::Unhealthy;
use crate::interrupt::Interrupt;
use crate::inventory::Inventory;
use crate::output::{Board, Outcome, Output, no_result, print, remark};
use crate::plan_text;
use crate::prepare::{ELSEWHERE, Prepared, Request, place, prepare, prepare_destroy};
use crate::status;

/// How a command on AWS is to behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Do not ask.
    pub(crate) yes: bool,
    /// How long the fleet may take to become healthy, or to go.
    pub(crate) patience: Duration,
    /// How results are written.
    pub(crate) output: Output,
}

/// Shows what a launch would do. Nothing is changed.
///
/// # Errors
/// A call failed, or the launch would.
pub(crate) async fn plan(
    cloud: &Cloud,
    name: &str,
    request: Request,
    deb: Option<&Deb>,
    output: Output,
) -> Result<Outcome> {
    let prepared = prepare(cloud, name, request, deb).await?;
    plan_text::show(&prepared, output);
    Ok(Outcome::Done)
}

/// Shows what a destroy would do. Nothing is changed.
///
/// # Errors
/// A call failed.
pub(crate) async fn plan_destroy(cloud: &Cloud, name: &str, output: Output) -> Result<Outcome> {
    let prepared = prepare_destroy(cloud, name).await?;
    prepared.notes.iter().for_each(|note| remark(note));
    plan_text::show(&prepared, output);
    Ok(Outcome::Done)
}

/// Brings the fleet to what is asked for and waits until it is healthy.
///
/// # Errors
/// What failed. What is there by then is finished by the next launch and removed by a destroy.
pub(crate) async fn launch(
    cloud: &Cloud,
    name: &str,
    request: Request,
    deb: Option<&Deb>,
    manner: Manner,
) -> Result<Outcome> {
    let mut interrupt = Interrupt::new().context("cannot listen to signals")?;
    let preparing = prepare(cloud, name, request, deb);
    let prepared = tokio::select! {
        prepared = preparing => prepared?,
        () = interrupt.asked() => bail!("interrupted; nothing was changed"),
    };
    let Prepared { fleet, names, have, around, plan, .. } = &prepared;
    if plan.is_empty() {
        let work = Work::new(cloud, fleet, names, around, deb, have, manner.patience);
        // Nothing to do is only half the answer: the fleet is there, but is it well?
        let ended = {
            let board = Board::new();
            let line = board.begin("see whether all are healthy");
            let waiting = |reason: &str| line.waits(reason);
            tokio::select! {
                ended = work.until_healthy(false, &waiting) => ended,
                () = interrupt.asked() => bail!("interrupted; nothing was changed"),
            }
        };
        if let Err(error) = ended {
            return unhealthy(error, manner.output);
        }
        remark(&format!("fleet {} is as defined: nothing to do", names.fleet));
        status::show_launched(fleet, &names.region, have, work.balancer().as_ref(), manner.output);
        return Ok(Outcome::Done);
    }
    if !manner.yes || prepared.needs_consent() {
        remark(plan_text::text(&prepared).trim_end());
    }
    if prepared.needs_consent() && !manner.yes {
        consent(&format!("Change fleet {}?", names.fleet), &mut interrupt).await?;
    }
    let board = Board::new();
    let work = Work::new(cloud, fleet, names, around, deb, have, manner.patience);
    let ended =
        execute(plan, &board, &mut interrupt, async |action, waiting| work.act(action, waiting).await);
    match ended.await {
        Ok(()) => {}
        Err(Halt::Interrupted) => bail!(
            "interrupted; `bootstrap launch` finishes what was begun, `bootstrap destroy {} --region {}` removes it",
            names.fleet,
            names.region
        ),
        Err(Halt::Failed(error @ ActError::Unhealthy(_))) => return unhealthy(error, manner.output),
        Err(Halt::Failed(error @ (ActError::Overtaken(_) | ActError::Destroyed(_)))) => {
            return Err(error.into());
        }
        Err(Halt::Failed(error)) => {
            return Err(anyhow!(
                "{error}\nwhat was made stays: `bootstrap launch` finishes it, `bootstrap destroy {} --region {}` removes it",
                names.fleet,
                names.region
            ));
        }
    }
    let now = Inventory { instances: work.instances(), ..have.clone() };
    let now = Inventory { balancer: work.balancer(), ..now };
    status::show_launched(fleet, &names.region, &now, None, manner.output);
    Ok(Outcome::Done)
}

/// Exit status 3 where the fleet is not healthy, 1 where that could not be found out.
fn unhealthy(error: ActError, output: Output) -> Result<Outcome> {
    match error {
        ActError::Unhealthy(Unhealthy::Call(error)) => Err(error.into()),
        ActError::Unhealthy(error) => {
            remark(&format!("bootstrap: {error}"));
            no_result(output, &error.to_string());
            Ok(Outcome::NotHealthy)
        }
        error => Err(error.into()),
    }
}

/// How long what is gone may go on being shown.
const SHOWN: Duration = Duration::from_secs(10);

/// Takes the fleet down and looks whether anything is left.
///
/// # Errors
/// What failed, or what is left. Running it again goes on.
pub(crate) async fn destroy(cloud: &Cloud, name: &str, manner: Manner) -> Result<Outcome> {
    let mut interrupt = Interrupt::new().context("cannot listen to signals")?;
    let mut pace = Pace::new(manner.patience);
    let (mut rounds, mut settling) = (0, None);
    // Until there is nothing to do: a launch that was on its way may go on making things for a while.
    let (prepared, left) = loop {
        let looking = async {
            // What is gone may be shown for a while.
            if rounds > 1 && settling.is_none() && !pace.next().await {
                bail!(
                    "there is always more of fleet {name}: end the launch of it that runs, and destroy it again"
                );
            }
            let prepared = prepare_destroy(cloud, name).await?;
            let mut left = match prepared.plan.is_empty() {
                true => search(cloud, Some(name)).await?,
                false => Vec::new(),
            };
            left.retain(Found::counts);
            Ok((prepared, left))
        };
        let (prepared, left) = tokio::select! {
            found = looking => found?,
            () = interrupt.asked() => bail!(interrupted(name, rounds)),
        };
        if rounds == 0 {
            prepared.notes.iter().for_each(|note| remark(note));
        }
        let Prepared { fleet, names, have, around, plan, .. } = &prepared;
        if plan.is_empty() {
            // What a launch has made meanwhile the next look finds; what else is shown may be gone in a moment.
            let settling = settling.get_or_insert_with(|| Pace::new(SHOWN));
            if left.is_empty() || !settling.next().await {
                break (prepared, left);
            }
            continue;
        }
        settling = None;
        if rounds == 0 && !manner.yes {
            remark(plan_text::text(&prepared).trim_end());
            let question = format!("Destroy fleet {} in {}?", names.fleet, names.region);
            consent(&question, &mut interrupt).await?;
        }
        if rounds > 0 {
            remark("there is more of it, which goes too");
        }
        rounds += 1;
        let board = Board::new();
        let work = Work::new(cloud, fleet, names, around, None, have, manner.patience);
        let ended =
            execute(plan, &board, &mut interrupt, async |action, waiting| work.act(action, waiting).await);
        match ended.await {
            Ok(()) | Err(Halt::Failed(ActError::More(_))) => {}
            Err(Halt::Interrupted) => bail!(interrupted(name, rounds)),
            Err(Halt::Failed(error)) => bail!("{error}\nrun `bootstrap destroy {name}` again to finish"),
        }
    };
    let names = &prepared.names;
    if manner.output == Output::Json {
        let result = json!({
            "fleet": name,
            "region": names.region,
            "account": prepared.around.account,
            "found": rounds > 0 || !left.is_empty(),
            "left": left,
        });
        print(&format!("{result:#}\n"));
    }
    if !left.is_empty() {
        let lines: Vec<_> = left.iter().map(|found| format!("\n  {found}")).collect();
        let lines = lines.concat();
        remark(&format!("bootstrap: still there with the tag of fleet {name} in {}:{lines}", names.region));
        return Ok(Outcome::Failed);
    }
    let text = match rounds {
        0 => {
            let place = place(&names.region, &prepared.around.account);
            format!("nothing of fleet {name} is in {place}: nothing to do; {ELSEWHERE}")
        }
        _ => format!("fleet {name} is gone from {}: nothing with its tag is left", names.region),
    };
    if manner.output == Output::Text {
        print(&format!("{text}\n"));
    }
    Ok(Outcome::Done)
}

fn interrupted(name: &str, rounds: usize) -> String {
    match rounds {
        0 => "interrupted; nothing was changed".to_owned(),
        _ => format!("interrupted; run `bootstrap destroy {name}` again to finish"),
    }
}

/// Asks on the terminal.
///
/// # Errors
/// The answer is no, or there is nobody to ask.
async fn consent(question: &str, interrupt: &mut Interrupt) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "this needs to be confirmed, and there is no terminal to ask on: give --yes; nothing was changed"
        );
    }
    let _ = {
        let mut error = std::io::stderr().lock();
        write!(error, "{question} [y/N] ").and_then(|()| error.flush())
    };
    // In a thread of its own, which ends with the program: a read cannot be given up.
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = tell.send(std::io::stdin().read_line(&mut answer).map(|_| answer));
    });
    let answer = tokio::select! {
        answer = told => answer?.context("cannot read the answer")?,
        () = interrupt.asked() => {
            remark("");
            bail!("interrupted; nothing was changed");
        }
    };
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("not confirmed; nothing was changed"),
    }
}
