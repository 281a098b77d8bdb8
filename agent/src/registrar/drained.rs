//! Remembers an operator's drain across restarts, until `resume`.
//!
//! The instance's id is saved with it, so that copies made from a drained instance's image or disk do
//! not stay out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Saved while the instance's id is unknown.
const UNKNOWN: &str = "unknown";

/// The file `drained` in the state folder: one line, the id of the drained instance.
#[derive(Debug)]
pub(super) struct RememberedDrain {
    folder: PathBuf,
}

impl RememberedDrain {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("drained")
    }

    /// Whether this instance was drained and not resumed. While its id is unknown, any saved drain counts:
    /// registering by mistake is worse than registering late.
    pub(super) fn applies_to(&self, instance_id: Option<&str>) -> bool {
        let remembered = match fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                let path = self.path();
                tracing::warn!(
                    "cannot read {}: {error}; treating the instance as not drained",
                    path.display()
                );
                return false;
            }
        };
        let Some(id) = instance_id else { return true };
        match remembered.trim() {
            same if same == id => true,
            // Saved before the id was known: save it again with the id.
            UNKNOWN => {
                if let Err(error) = self.remember(instance_id) {
                    tracing::warn!(
                        "cannot save the drain: {error}; a restart would end it: make the state folder writable and drain again"
                    );
                }
                true
            }
            other => {
                tracing::info!("ignoring a saved drain: it belongs to instance {other}");
                false
            }
        }
    }

    /// Saves the drain durably, before the drain is acknowledged.
    pub(super) fn remember(&self, instance_id: Option<&str>) -> io::Result<()> {
        let new = self.folder.join("drained.new");
        let mut file = File::create(&new)?;
        writeln!(file, "{}", instance_id.unwrap_or(UNKNOWN))?;
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes the saved drain durably. It need not exist.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Ok(()) => File::open(&self.folder)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_remembered_for_this_instance_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let drain = RememberedDrain::in_folder(folder.path());
        assert!(!drain.applies_to(Some("i-1")));
        drain.forget().unwrap();
        drain.remember(Some("i-1")).unwrap();
        assert!(RememberedDrain::in_folder(folder.path()).applies_to(Some("i-1")));
        assert!(!drain.applies_to(Some("i-2")), "a clone does not inherit it");
        assert!(drain.applies_to(None), "it may be ours");
        drain.forget().unwrap();
        assert!(!drain.applies_to(None));
        drain.remember(None).unwrap();
        assert!(drain.applies_to(Some("i-1")), "asked for before the id was known");
        assert!(!drain.applies_to(Some("i-2")), "and from then on remembered with it");
        drain.forget().unwrap();
        assert!(!drain.applies_to(Some("i-1")));
    }

    #[test]
    fn what_cannot_be_remembered_is_an_error() {
        let drain = RememberedDrain::in_folder(Path::new("/nonexistent"));
        assert!(drain.remember(Some("i-1")).is_err());
    }
}
