//! Asks before existing resources are changed or deleted.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};

use crate::engine::interrupt::Interrupt;
use crate::output::{WrongUsage, prompt, remark};

/// Asks on the terminal.
///
/// # Errors
/// The answer is no, or there is nobody to ask.
pub(super) async fn ask(question: &str, interrupt: &mut Interrupt) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        let text = format!("{question} There is no terminal to ask on: give --yes; nothing was changed");
        return Err(WrongUsage(text).into());
    }
    prompt(&format!("{question} [y/N]"));
    // A thread of its own, which ends with the program: a blocking read cannot be cancelled.
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = tell.send(std::io::stdin().read_line(&mut answer).map(|_| answer));
    });
    let answer = tokio::select! {
        answer = told => answer?.context("cannot read the answer")?,
        () = interrupt.received() => {
            remark("");
            bail!("interrupted; nothing was changed");
        }
    };
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("not confirmed; nothing was changed"),
    }
}
