//! The seed's file: opens it, writes to it, and handles disk errors.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;

use super::disk::Disk;
use super::error::{SetError, is_full, owner};
use super::number::Seed;
use super::slot::{SLOT_LEN, SLOTS, Slot};
use crate::events;
use crate::repeat_filter::RepeatFilter;

/// The seed's file, usable or not. One thread owns it.
pub(super) struct SeedFile<D> {
    disk: D,
    dir: PathBuf,
    /// The locked lock file; the kernel unlocks it when the process ends.
    lock: Option<File>,
    state: Result<OpenSeedFile, SeedFileError>,
    /// The first value of a new file: `0`, or the value of a file that was moved or deleted while open.
    carried: Seed,
    failures: RepeatFilter<SetError>,
}

/// A file whose current value is durable.
struct OpenSeedFile {
    file: File,
    seed: Seed,
    /// The slot that holds it.
    slot: usize,
    /// The next sequence number; a failed write uses one too.
    sequence: u64,
    /// A write failed, so the other slot may hold a value that was refused.
    unsettled: bool,
}

/// Why there is no usable file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SeedFileError {
    /// There is no file yet and the disk has no room for one.
    #[error("the disk is full")]
    NoSpace,
    /// Neither slot can be trusted.
    #[error(
        "both copies of the number in {path} are damaged; POST a new number, which also keeps the damaged file under another name"
    )]
    Damaged {
        /// The file.
        path: String,
    },
    /// A file operation failed.
    #[error("{doing} failed: {reason}; make the state-dir writable for the agent")]
    Unusable {
        /// The operation and its path.
        doing: String,
        /// The system's error.
        reason: String,
    },
    /// Files in the folder belong to another user, such as root, who ran an agent there.
    #[error("{files} belong to {owner}; run `chown {uid}: {files}`")]
    Foreign {
        /// Their paths.
        files: String,
        /// Whose they are.
        owner: String,
        /// This agent's user.
        uid: u32,
    },
    /// Another process holds the lock.
    #[error("in use by {}", owner(*pid))]
    Owned {
        /// Its process id, if the lock file tells.
        pid: Option<u32>,
    },
}

/// Makes an error that names the operation that failed.
fn during(doing: &str, path: &Path) -> impl Fn(io::Error) -> SeedFileError {
    let doing = format!("{doing} {}", path.display());
    move |error| SeedFileError::Unusable { doing: doing.clone(), reason: error.to_string() }
}

fn not_opened() -> SeedFileError {
    SeedFileError::Unusable { doing: "opening".to_owned(), reason: "not tried yet".to_owned() }
}

/// Like [`during`], for a file that does not exist: a full disk is then its own case, because the seed is `0`.
fn creating(path: &Path) -> impl Fn(io::Error) -> SeedFileError {
    let failed = during("creating", path);
    move |error| if is_full(&error) { SeedFileError::NoSpace } else { failed(error) }
}

impl<D: Disk> SeedFile<D> {
    pub(super) fn new(disk: D, dir: &Path) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            lock: None,
            state: Err(not_opened()),
            carried: Seed::zero(),
            failures: RepeatFilter::default(),
        }
    }

    /// Opens the file, or creates it with the value `0`.
    pub(super) fn load(&mut self) -> Result<(), SeedFileError> {
        // Closes an open file first, which unlocks it.
        self.state = Err(not_opened());
        self.state = self.try_load();
        self.state.as_ref().map(drop).map_err(SeedFileError::clone)
    }

    /// The value to serve, or why there is none.
    pub(super) fn value(&self) -> Result<&Seed, &SeedFileError> {
        self.state.as_ref().map(|opened| &opened.seed)
    }

    fn try_load(&mut self) -> Result<OpenSeedFile, SeedFileError> {
        if !self.dir.exists() {
            fs::create_dir_all(&self.dir).map_err(creating(&self.dir))?;
            tracing::info!("created the state folder {}", self.dir.display());
        }
        if self.lock.is_none() {
            self.lock = Some(self.take_lock()?);
        }
        let path = self.path();
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => {
                self.own(&file)?;
                self.adopt(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create(&self.carried, |temporary| fs::rename(temporary, &path))
            }
            Err(error) => Err(self.foreign(&error).unwrap_or_else(|| during("opening", &path)(error))),
        }
    }

    /// Locks a separate file, so that replacing the seed's file does not lose the lock.
    fn take_lock(&self) -> Result<File, SeedFileError> {
        let path = self.dir.join("seed.lock");
        let failed = during("locking", &path);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| match self.path().try_exists() {
            Ok(false) => creating(&path)(error),
            _ => self.foreign(&error).unwrap_or_else(|| failed(error)),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(SeedFileError::Owned { pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The id only informs people: on a full disk the seed must still be readable.
        let told = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = told {
            tracing::debug!("cannot write the process id to {}: {error}", path.display());
        }
        Ok(file)
    }

    /// Locks the seed's file too, in case someone removed the lock file of a running agent.
    fn own(&self, file: &File) -> Result<(), SeedFileError> {
        match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(SeedFileError::Owned { pid: None }),
            Err(TryLockError::Error(error)) => Err(during("locking", &self.path())(error)),
        }
    }

    /// Explains a denied access by files in the folder that belong to another user.
    fn foreign(&self, error: &io::Error) -> Option<SeedFileError> {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return None;
        }
        let uid = rustix::process::geteuid().as_raw();
        let paths = ["seed", "seed.lock", "seed.tmp"].map(|name| self.dir.join(name));
        let owned = paths.iter().filter_map(|path| Some((path, fs::metadata(path).ok()?.uid())));
        let foreign: Vec<_> = owned.filter(|(_, owner)| *owner != uid).collect();
        let owner = match foreign.first()?.1 {
            0 => "root, because an agent ran as root".to_owned(),
            other => format!("user {other}"),
        };
        let files: Vec<String> = foreign.iter().map(|(path, _)| path.display().to_string()).collect();
        Some(SeedFileError::Foreign { files: files.join(" "), owner, uid })
    }

    /// Reads an existing file and makes its value durable before it is served.
    fn adopt(&self, file: File) -> Result<OpenSeedFile, SeedFileError> {
        let path = self.path();
        let mut bytes = Vec::with_capacity(SLOTS * SLOT_LEN);
        (&file).take((SLOTS * SLOT_LEN) as u64).read_to_end(&mut bytes).map_err(during("reading", &path))?;
        let slots = [0, 1].map(|slot| {
            let end = bytes.len().min((slot + 1) * SLOT_LEN);
            bytes.get(slot * SLOT_LEN..end).and_then(Slot::decode)
        });
        let damaged = slots.iter().position(Option::is_none);
        let (slot, current) = match slots {
            [Some(first), Some(second)] if first.sequence > second.sequence => (0, first),
            [_, Some(second)] => (1, second),
            [Some(first), None] => (0, first),
            [None, None] => return Err(SeedFileError::Damaged { path: path.display().to_string() }),
        };
        if let Some(damaged) = damaged {
            let reason = format!("one of the two copies in {} is damaged (slot {damaged})", path.display());
            tracing::warn!(
                message_id = events::SEED_DAMAGED,
                reason,
                "seed: {reason}; using the other; the next POST repairs it"
            );
        }
        // A killed process may have left a value that is only in the page cache; after a failed sync Linux
        // even marks such a page clean. Only after the same bytes are written again does a sync prove
        // anything. Nothing is served before it succeeds.
        let doing = during("making durable", &path);
        self.disk.write_at(&file, &current.encode(), offset(slot)).map_err(&doing)?;
        self.disk.sync_data(&file).map_err(&doing)?;
        self.sync_dir()?;
        Ok(OpenSeedFile { file, seed: current.seed, slot, sequence: current.sequence + 1, unsettled: false })
    }

    /// Writes a new file that holds `seed` in both slots; `place` gives it its name.
    fn create(
        &self,
        seed: &Seed,
        place: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<OpenSeedFile, SeedFileError> {
        let temporary = self.dir.join("seed.tmp");
        let failed = creating(&temporary);
        let created =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary).and_then(
                |file| {
                    file.try_lock()?;
                    for slot in 0..SLOTS {
                        let bytes = Slot { sequence: slot as u64 + 1, seed: seed.clone() }.encode();
                        self.disk.write_at(&file, &bytes, offset(slot))?;
                    }
                    self.disk.sync_all(&file)?;
                    place(&temporary)?;
                    Ok(file)
                },
            );
        match created {
            Ok(file) => {
                self.sync_dir()?;
                Ok(OpenSeedFile {
                    file,
                    seed: seed.clone(),
                    slot: SLOTS - 1,
                    sequence: SLOTS as u64 + 1,
                    unsettled: false,
                })
            }
            Err(error) => {
                // An incomplete file is useless, and takes space on a full disk.
                let _ = fs::remove_file(&temporary);
                Err(failed(error))
            }
        }
    }

    /// Stores the seed durably. On an error the previous value is still served.
    pub(super) fn commit(&mut self, seed: &Seed) -> Result<(), SetError> {
        let result = self.commit_or_make_anew(seed);
        match &result {
            Ok(()) => {
                if let Some(count) = self.failures.end() {
                    tracing::info!(
                        message_id = events::SEED_WRITE_WORKS,
                        "seed writes succeed again after {count} failures"
                    );
                }
            }
            Err(error) => {
                if let Some(earlier) = self.failures.news(error) {
                    tracing::error!(
                        message_id = events::SEED_WRITE_FAILED,
                        reason = %error,
                        "{error} (failure {} in a row; repeats are not logged)",
                        earlier + 1
                    );
                }
            }
        }
        result
    }

    fn commit_or_make_anew(&mut self, seed: &Seed) -> Result<(), SetError> {
        let result = self.try_commit(seed);
        let path = self.path();
        let Ok(opened) = &self.state else { return result };
        if result.is_ok() || opened.is_at(&path) {
            return result;
        }
        tracing::warn!(
            "{} was moved, replaced or deleted while in use; now using the file at that path",
            path.display()
        );
        self.carried = opened.seed.clone();
        self.lock = None;
        let reason = "it was moved, replaced or deleted".to_owned();
        self.state = Err(SeedFileError::Unusable { doing: "writing".to_owned(), reason });
        self.try_commit(seed)
    }

    fn try_commit(&mut self, seed: &Seed) -> Result<(), SetError> {
        if self.state.is_err() {
            match self.load_again() {
                Ok(()) => {}
                Err(SeedFileError::NoSpace) => return Err(SetError::NoSpace),
                Err(SeedFileError::Damaged { .. }) => return self.heal(seed),
                Err(trouble) => return Err(SetError::Failed { reason: trouble.to_string() }),
            }
        }
        self.settle()?;
        let Ok(opened) = &mut self.state else { return Ok(()) };
        let Err(error) = opened.write(&self.disk, seed, &self.dir.join("seed")) else { return Ok(()) };
        opened.unsettled = true;
        // At once, to keep the time short in which a power cut would bring the refused value back. If this
        // fails too, the next write starts with it.
        let _ = self.settle();
        Err(SetError::Failed { reason: format!("writing the file failed: {error}") })
    }

    fn load_again(&mut self) -> Result<(), SeedFileError> {
        self.load()?;
        let path = self.path();
        tracing::info!(
            message_id = events::SEED_WRITE_WORKS,
            "the seed in {} is usable again",
            path.display()
        );
        Ok(())
    }

    /// Whether `mend` should be called: a refused value is in the slot that is not served, or the file could not be used.
    /// A damaged file waits for the next POST, since only a new value can replace it.
    pub(super) fn needs_mending(&self) -> bool {
        match &self.state {
            Ok(opened) => opened.unsettled,
            Err(trouble) => !matches!(trouble, SeedFileError::Damaged { .. }),
        }
    }

    /// Tries to repair. The failure has been logged before; success is logged inside.
    pub(super) fn mend(&mut self) {
        let _ = match self.state {
            Ok(_) => self.settle().is_ok(),
            Err(_) => self.load_again().is_ok(),
        };
    }

    /// After a failed write: writes the previous value, with a higher sequence number, over the refused one.
    fn settle(&mut self) -> Result<(), SetError> {
        let path = self.path();
        let Ok(opened) = &mut self.state else { return Ok(()) };
        if !opened.unsettled {
            return Ok(());
        }
        let seed = opened.seed.clone();
        opened.write(&self.disk, &seed, &path).map_err(|error| SetError::Failed {
            reason: format!("an earlier write failed and the old value could not be written again: {error}"),
        })?;
        opened.unsettled = false;
        tracing::info!("the previous value of the seed is on disk again after a failed write");
        Ok(())
    }

    /// Replaces a file with two damaged slots by a new file that holds `seed`, and keeps the damaged one as
    /// `seed.damaged-N`.
    ///
    /// Invariant: the path `seed` names a file at every moment. If it named none, a crash and a restart would make a file
    /// with `0`, and the damaged file would be forgotten. Hence this order:
    ///
    /// 1. Write the new file as `seed.tmp` and sync it. A crash leaves the damaged file in place.
    /// 2. Give the damaged file its second name with a hard link, so that it keeps the first. A crash here leaves one extra
    ///    name; the next POST starts over and takes the next free number.
    /// 3. Rename `seed.tmp` to `seed`, which replaces the name in one step, and sync the folder. Only then is the POST
    ///    answered.
    ///
    /// If any step fails, the state stays damaged: reads get the error and the next POST tries again.
    fn heal(&mut self, seed: &Seed) -> Result<(), SetError> {
        let path = self.path();
        let mut kept = None;
        let healed = self.create(seed, |temporary| {
            kept = Some(keep_aside(&path)?);
            fs::rename(temporary, &path)
        });
        match healed {
            Ok(opened) => {
                let kept = kept.unwrap_or_default();
                let (path, kept) = (path.display(), kept.display());
                tracing::warn!(
                    "replaced the damaged {path} with a new seed; the damaged file is kept as {kept}"
                );
                self.state = Ok(opened);
                Ok(())
            }
            Err(trouble) => {
                Err(SetError::Failed { reason: format!("replacing the damaged file failed: {trouble}") })
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("seed")
    }

    fn sync_dir(&self) -> Result<(), SeedFileError> {
        let doing = during("making durable", &self.dir);
        File::open(&self.dir).and_then(|dir| self.disk.sync_all(&dir)).map_err(doing)
    }
}

impl OpenSeedFile {
    /// Writes the seed to the slot that is not served, makes it durable, and serves it from then on.
    fn write(&mut self, disk: &impl Disk, seed: &Seed, path: &Path) -> io::Result<()> {
        let slot = SLOTS - 1 - self.slot;
        let bytes = Slot { sequence: self.sequence, seed: seed.clone() }.encode();
        self.sequence += 1;
        disk.write_at(&self.file, &bytes, offset(slot))?;
        disk.sync_data(&self.file)?;
        if !self.is_at(path) {
            return Err(io::Error::other("the file was moved, replaced or deleted"));
        }
        self.slot = slot;
        self.seed = seed.clone();
        Ok(())
    }

    /// Whether `path` still names this file: otherwise a restart would not find the value.
    fn is_at(&self, path: &Path) -> bool {
        let open = identity(self.file.as_fd(), Path::new(""), AtFlags::EMPTY_PATH);
        open.is_ok_and(|open| identity(CWD, path, AtFlags::empty()) == Ok(open))
    }
}

/// Device and inode of a file.
///
/// Asks for nothing else: since Linux 6.13, the first write after a query of a file's times gives the file a new time, and
/// the sync then waits for the file system's journal too. That took 0.1 ms of each POST.
fn identity(folder: BorrowedFd<'_>, path: &Path, flags: AtFlags) -> Result<(u64, u64), Errno> {
    match rustix::fs::statx(folder, path, flags, StatxFlags::INO) {
        Ok(file) => Ok((rustix::fs::makedev(file.stx_dev_major, file.stx_dev_minor), file.stx_ino)),
        // A kernel or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let file = rustix::fs::statat(folder, path, flags)?;
            Ok((file.st_dev, file.st_ino))
        }
        Err(error) => Err(error),
    }
}

fn offset(slot: usize) -> u64 {
    (slot * SLOT_LEN) as u64
}

/// Gives the damaged file a second, unused name.
fn keep_aside(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1_u32;
    loop {
        let aside = path.with_file_name(format!("seed.damaged-{number}"));
        match fs::hard_link(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            result => return result.map(|()| aside),
        }
    }
}
