//! The durable store: one writer thread, and one `fdatasync` for all POSTs that wait.
//!
//! Readers never wait for the disk: they get the last durable value.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::disk::{Disk, RealDisk};
use super::error::{QUEUE, SeedInUse, SeedUnreadable, SetError};
use super::file::{SeedFile, SeedFileError};
use super::number::Seed;
use crate::events;

/// How often to try to repair the file while no POST arrives.
const MEND_INTERVAL: Duration = Duration::from_secs(5);

/// A handle to the seed; clones share one store. Dropping the last one ends the writer thread.
#[derive(Clone)]
pub struct SeedStore(Arc<Store>);

struct Store {
    latest: Arc<PublishedSeed>,
    queue: Option<SyncSender<SeedWrite>>,
    writer: Option<JoinHandle<()>>,
}

impl SeedStore {
    /// Opens the store in `state_dir`, and creates folder and file if they are missing.
    ///
    /// An unusable folder or file is no error here: the store then answers every read and write with the reason,
    /// and each write tries again. Blocks for a few disk operations.
    pub fn open(state_dir: &Path) -> Result<Self, SeedInUse> {
        Self::open_on(RealDisk, state_dir)
    }

    fn open_on<D: Disk>(disk: D, state_dir: &Path) -> Result<Self, SeedInUse> {
        let mut file = SeedFile::new(disk, state_dir);
        match file.load() {
            Err(SeedFileError::Owned { pid }) => {
                return Err(SeedInUse { path: state_dir.display().to_string(), pid });
            }
            Err(trouble) => {
                let message_id = match trouble {
                    SeedFileError::Damaged { .. } => events::SEED_DAMAGED,
                    _ => events::SEED_WRITE_FAILED,
                };
                tracing::error!(message_id, reason = %trouble, "cannot use the seed: {trouble}; other requests are answered");
            }
            Ok(()) => {}
        }
        let latest = Arc::new(PublishedSeed::new(shown(&file)));
        let (queue, writes) = sync_channel(QUEUE);
        let published = Arc::clone(&latest);
        let writer = std::thread::Builder::new()
            .name("seed-writer".to_owned())
            .spawn(move || write_until_closed(file, &writes, &published))
            .inspect_err(|error| {
                tracing::error!(
                    "cannot start the seed writer: {error}; the seed is read-only until a restart"
                )
            });
        Ok(Self(Arc::new(Store { latest, queue: Some(queue), writer: writer.ok() })))
    }

    /// The stored integer's text. Takes a lock for the length of a copy; [`SeedReader`] does not.
    pub fn read(&self) -> Result<Bytes, SeedUnreadable> {
        self.0.latest.get().1
    }

    /// A reader for one thread.
    pub(crate) fn reader(&self) -> SeedReader {
        let (version, value) = self.0.latest.get();
        SeedReader { latest: Arc::clone(&self.0.latest), version, value }
    }

    /// Stores the seed. Returns its text once it would survive a power cut.
    pub(crate) async fn set(&self, seed: Seed) -> Result<Bytes, SetError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || SetError::Failed { reason: "the seed writer has stopped".to_owned() };
        let queue = self.0.queue.as_ref().ok_or_else(stopped)?;
        queue.try_send(SeedWrite { seed, answer }).map_err(|error| match error {
            TrySendError::Full(_) => SetError::Busy,
            TrySendError::Disconnected(_) => stopped(),
        })?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Store {
    /// Waits for queued writes, so that the file is unlocked once the last handle is gone.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the seed writer panicked: this is a bug, please report it");
        }
    }
}

/// Reads the seed with one memory load while it does not change.
pub(crate) struct SeedReader {
    latest: Arc<PublishedSeed>,
    version: u64,
    value: Result<Bytes, SeedUnreadable>,
}

impl SeedReader {
    /// The stored integer's text, always a durable one.
    pub(crate) fn read(&mut self) -> Result<Bytes, SeedUnreadable> {
        if self.latest.version.load(Ordering::Acquire) != self.version {
            let (version, value) = self.latest.get();
            self.version = version;
            // Its own copy: threads that share one reference count slow each other down.
            self.value = value.map(|text| Bytes::copy_from_slice(&text));
        }
        self.value.clone()
    }
}

/// The last durable value, as published by the writer.
struct PublishedSeed {
    version: AtomicU64,
    value: Mutex<Result<Bytes, SeedUnreadable>>,
}

impl PublishedSeed {
    fn new(value: Result<Bytes, SeedUnreadable>) -> Self {
        Self { version: AtomicU64::new(0), value: Mutex::new(value) }
    }

    fn get(&self) -> (u64, Result<Bytes, SeedUnreadable>) {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        (self.version.load(Ordering::Acquire), value.clone())
    }

    fn publish(&self, new: Result<Bytes, SeedUnreadable>) {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        *value = new;
        self.version.fetch_add(1, Ordering::Release);
    }
}

struct SeedWrite {
    seed: Seed,
    answer: oneshot::Sender<Result<Bytes, SetError>>,
}

/// The writer thread. All waiting writes become one commit: only the last seed is written. No reader can
/// tell this from writing them one after the other.
fn write_until_closed<D: Disk>(mut file: SeedFile<D>, writes: &Receiver<SeedWrite>, latest: &PublishedSeed) {
    loop {
        let first = if file.needs_mending() {
            match writes.recv_timeout(MEND_INTERVAL) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    file.mend();
                    latest.publish(shown(&file));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            let Ok(first) = writes.recv() else { return };
            first
        };
        let mut batch = vec![first];
        batch.extend(writes.try_iter().take(QUEUE));
        let result = batch.last().map_or(Ok(()), |last| file.commit(&last.seed));
        latest.publish(shown(&file));
        for SeedWrite { seed, answer } in batch {
            // The client may have disconnected; the value stays stored.
            let _ = answer.send(result.clone().map(|()| seed.into_bytes()));
        }
    }
}

/// The value or error for readers.
fn shown<D: Disk>(file: &SeedFile<D>) -> Result<Bytes, SeedUnreadable> {
    match file.value() {
        Ok(seed) => Ok(seed.clone().into_bytes()),
        // The file that the disk has no room for would contain this value.
        Err(SeedFileError::NoSpace) => Ok(Seed::zero().into_bytes()),
        Err(trouble) => Err(SeedUnreadable { reason: trouble.to_string() }),
    }
}

#[cfg(test)]
mod tests;
