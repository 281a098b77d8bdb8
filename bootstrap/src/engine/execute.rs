//! Executes a plan: each step starts as soon as the steps before it are done.

use std::cell::Cell;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use tokio::sync::Notify;

use crate::engine::interrupt::Interrupt;
use crate::output::Board;
use crate::plan::{Action, Effect, Plan};

/// How long running calls may take to end after a failure or an interrupt.
const GRACE: Duration = Duration::from_secs(30);

/// Why a plan was not executed to its end. No step runs on in the background.
#[derive(Debug)]
pub(crate) enum Halt<E> {
    /// A step failed.
    Failed(E),
    /// This program was asked to stop.
    Interrupted,
}

/// Executes a plan. `act` performs one action, reports why it waits, and returns a short name of what it created.
///
/// All steps whose predecessors are done run at once, as futures on this one thread. A plan has no conditions: whether
/// a step is needed was decided when the plan was made. The first failure, or Ctrl-C, stops the start of further steps.
/// Steps that are in the middle of a call then get 30 seconds to end, since a call that is cut off may still take effect
/// in AWS; steps that only wait are dropped at once. A second Ctrl-C drops all of them. Dropping a step is safe at any
/// time: every action is idempotent, and the next command finds what this one created by its tags.
///
/// # Errors
/// The first failure, or the interrupt.
pub(crate) async fn execute<E: fmt::Display>(
    plan: &Plan,
    board: &Board,
    interrupt: &mut Interrupt,
    act: impl AsyncFn(&Action, &dyn Fn(&str)) -> Result<String, E>,
) -> Result<(), Halt<E>> {
    let act = &act;
    let mut steps: Vec<State> = plan.steps.iter().map(|_| State::Waiting).collect();
    // The steps that have reported why they wait: at the end these are dropped, not waited for.
    let waits: Vec<Cell<bool>> = plan.steps.iter().map(|_| Cell::new(false)).collect();
    let told = Notify::new();
    let mut running = FuturesUnordered::new();
    let mut halt = None;
    let mut grace = pin!(tokio::time::sleep(Duration::MAX));
    loop {
        if halt.is_none() {
            for (index, step) in plan.steps.iter().enumerate() {
                if steps[index] == State::Waiting
                    && step.after.iter().all(|before| steps[*before] == State::Done)
                {
                    steps[index] = State::Running;
                    let (waits, told) = (&waits[index], &told);
                    running.push(async move {
                        let line = board.begin(&step.title);
                        let waiting = |reason: &str| {
                            waits.set(true);
                            told.notify_one();
                            line.waits(reason);
                        };
                        let result = act(&step.action, &waiting).await;
                        (index, line, result)
                    });
                }
            }
        }
        let is_work = |(index, state): (usize, &State)| {
            let only_waits = waits[index].get() || plan.steps[index].action.effect() == Effect::Wait;
            *state == State::Running && !only_waits
        };
        let work_is_left = steps.iter().enumerate().any(is_work);
        if running.is_empty() || halt.is_some() && !work_is_left {
            break;
        }
        tokio::select! {
            Some((index, line, result)) = running.next() => match result {
                Ok(made) => {
                    steps[index] = State::Done;
                    line.ends(&made);
                }
                Err(error) => {
                    steps[index] = State::Failed;
                    // The first is told at the end, with what to do.
                    line.fails(&if halt.is_none() { String::new() } else { error.to_string() });
                    if halt.is_none() {
                        halt = Some(Halt::Failed(error));
                        grace.as_mut().reset(tokio::time::Instant::now() + GRACE);
                    }
                }
            },
            () = interrupt.received() => {
                if halt.is_some() {
                    break;
                }
                board.remark("stopping when the calls in progress have ended; press Ctrl-C again to stop at once");
                halt = Some(Halt::Interrupted);
                grace.as_mut().reset(tokio::time::Instant::now() + GRACE);
            }
            () = told.notified(), if halt.is_some() => {}
            () = &mut grace => break,
        }
    }
    halt.map_or(Ok(()), Err)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    Failed,
}
