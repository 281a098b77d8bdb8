//! The folder of a local fleet, with a folder for each instance in it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// Where the instances' folders are.
pub(super) enum Folder {
    Temporary(tempfile::TempDir),
    /// Kept, and locked against a second launch while this one runs.
    Kept(PathBuf, #[expect(dead_code, reason = "held for its lock")] OwnedFd),
}

/// A socket's path has at most 107 bytes; below the folder it goes on as
/// `/i-0123456789abcdef0/run/admin.sock`.
const MAX_FOLDER_LENGTH: usize = 107 - 35;

impl Folder {
    pub(super) fn new(dir: Option<&Path>) -> Result<Self> {
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

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir, _) => dir,
        }
    }

    /// Deletes a temporary folder unless its logs are to be kept, and says what is left.
    pub(super) fn end(self, keep_logs: bool) -> Result<String> {
        let path = match self {
            Self::Temporary(dir) if !keep_logs => {
                dir.close().context("cannot remove the temporary folder")?;
                return Ok("nothing is left".to_owned());
            }
            Self::Temporary(dir) => dir.keep(),
            Self::Kept(path, _) => path,
        };
        Ok(format!("seeds and logs are in {}", path.display()))
    }
}
