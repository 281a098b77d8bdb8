//! Completions for bash, zsh and fish.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::{Shell, generate_to};

use crate::Program;

/// Writes one file for each shell, under the name that the shell looks for.
pub(crate) fn write(program: &Program, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let written = generate_to(shell, &mut program.command.clone(), program.binary, folder)
            .with_context(|| format!("completions for {shell}"))?;
        if shell == Shell::Bash {
            fs::rename(written, folder.join(program.binary))?;
        }
    }
    Ok(())
}
