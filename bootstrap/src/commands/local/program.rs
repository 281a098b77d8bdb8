//! The agent's program, and where a shell finds it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The agent's binary.
///
/// # Errors
/// It is not where it was said to be, or in none of the usual places.
pub(super) fn find_agent(given: Option<&Path>) -> Result<PathBuf> {
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
    let found = beside.filter(|path| path.is_file()).or_else(|| find_on_path(OsStr::new(NAME)));
    found.with_context(|| format!("found no {NAME} beside bootstrap or on PATH; name it with --agent PATH"))
}

/// The program that a shell runs for this name.
pub(super) fn find_on_path(name: &OsStr) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}
