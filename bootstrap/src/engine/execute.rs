//! Carrying a plan out: each step as soon as those it comes after are done.

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

/// After a failure or an interrupt, how long calls that are on their way may take to end.
const GRACE: Duration = Duration::from_secs(30);

/// Why a plan was not carried out to its end. Nothing goes on in the background.
#[derive(Debug)]
pub(crate) enum Halt<E> {
    /// A step failed.
    Failed(E),
    /// This program was asked to stop.
    Interrupted,
}

/// Carries out a plan; `act` does one action, tells why it waits, and answers what it made, in short.
///
/// # Errors
/// The first failure. Steps that had begun were let end, but for those that only wait or that AWS has
/// put off before; what comes after a step that failed was not begun.
pub(crate) async fn execute<E: fmt::Display>(
    plan: &Plan,
    board: &Board,
    interrupt: &mut Interrupt,
    act: impl AsyncFn(&Action, &dyn Fn(&str)) -> Result<String, E>,
) -> Result<(), Halt<E>> {
    let act = &act;
    let mut steps: Vec<State> = plan.steps.iter().map(|_| State::Waiting).collect();
    // The steps that have told why they wait. When all ends nobody waits with them: what they may just be
    // making is found by the next command, as all that a killed one leaves.
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
