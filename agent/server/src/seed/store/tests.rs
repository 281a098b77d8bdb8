//! The store as a whole, on a disk that can be told to fail, to wait and to lose power.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar};

use super::super::error::is_full;
use super::super::slot::{SLOT_LEN, Slot};
use super::*;

/// What a disk is to do with its next operations, and what it did.
#[derive(Default)]
struct Plan {
    /// Answers to the next writes: an error stands for bytes that arrived in part. Then all succeed.
    writes: VecDeque<Result<(), usize>>,
    /// Answers to the next syncs. Then all succeed.
    syncs: VecDeque<bool>,
    /// Syncs wait while this is set.
    held: bool,
    waiting: usize,
    synced: usize,
}

#[derive(Clone, Default)]
struct TestDisk(Arc<(Mutex<Plan>, Condvar)>);

impl TestDisk {
    fn plan<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        let result = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    fn wait_until(&self, mut condition: impl FnMut(&Plan) -> bool) {
        let plan = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(plan, |plan| !condition(plan)).unwrap());
    }
}

impl Disk for TestDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.plan(|plan| plan.writes.pop_front()) {
            Some(Err(arrived)) => {
                file.write_all_at(&bytes[..arrived], offset)?;
                Err(io::Error::from_raw_os_error(5))
            }
            _ => file.write_all_at(bytes, offset),
        }
    }

    fn sync_data(&self, _: &File) -> io::Result<()> {
        self.plan(|plan| plan.waiting += 1);
        self.wait_until(|plan| !plan.held);
        self.plan(|plan| {
            plan.waiting -= 1;
            plan.synced += 1;
            if plan.syncs.pop_front() == Some(false) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        })
    }

    fn sync_all(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

fn seed(number: impl ToString) -> Seed {
    Seed::from_canonical(number.to_string().as_bytes()).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn set(store: &SeedStore, number: impl ToString) -> Result<Bytes, SetError> {
    block_on(store.set(seed(number)))
}

fn slots(path: &Path) -> [Option<(u64, String)>; 2] {
    let bytes = fs::read(path).unwrap();
    [0, 1].map(|slot| {
        Slot::decode(&bytes[slot * SLOT_LEN..(slot + 1) * SLOT_LEN])
            .map(|slot| (slot.sequence, String::from_utf8(slot.seed.as_bytes().to_vec()).unwrap()))
    })
}

fn said(sequence: u64, number: &str) -> Option<(u64, String)> {
    Some((sequence, number.to_owned()))
}

#[test]
fn a_new_store_says_zero_and_keeps_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("made/by/open");
    let store = SeedStore::open(&state).unwrap();
    let mut reader = store.reader();
    assert_eq!(reader.read().unwrap(), "0");
    let long = format!("-{}", "7".repeat(4_300));
    for number in ["100", "5", &long] {
        assert_eq!(set(&store, number).unwrap(), number);
        assert_eq!(store.read().unwrap(), number);
        assert_eq!(reader.read().unwrap(), number);
    }
    drop(store);
    assert_eq!(SeedStore::open(&state).unwrap().read().unwrap(), long);
    assert_eq!(slots(&state.join("seed")), [said(5, &long), said(4, "5")]);
    assert!(!state.join("seed.tmp").exists());
}

#[test]
fn the_file_is_readable_as_text() {
    let dir = tempfile::tempdir().unwrap();
    set(&SeedStore::open(dir.path()).unwrap(), 100).unwrap();
    let text = fs::read_to_string(dir.path().join("seed")).unwrap();
    assert!(text.contains("\n100\n") && text.ends_with(" \n") && text.len() == 2 * SLOT_LEN, "{text}");
}

#[test]
fn a_second_owner_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = SeedStore::open(dir.path()).unwrap();
    let error = SeedStore::open(dir.path()).err().unwrap();
    assert_eq!(error.pid, Some(std::process::id()));
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    // The last handle frees the lock; no waiting.
    drop(first);
    SeedStore::open(dir.path()).unwrap();
}

/// Power is cut after any number of bytes of a slot: the value is the one before, or the new one
/// once all of it is there.
#[test]
fn a_slot_torn_at_any_byte_falls_back_to_the_other() {
    for (before, new) in [("333", "4444"), ("-98765432109876543210", "1")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        let kept = Slot { sequence: 8, seed: seed(22) }.encode();
        let before = Slot { sequence: 7, seed: seed(before) }.encode();
        let after = Slot { sequence: 9, seed: seed(new) }.encode();
        let last_change = (0..SLOT_LEN).rev().find(|at| before[*at] != after[*at]).unwrap();
        // One file object for all: only the store's own reading of it is under test.
        let mut file = SeedFile::new(TestDisk::default(), dir.path());
        for torn in 0..=SLOT_LEN {
            fs::write(&path, [&after[..torn], &before[torn..], &kept].concat()).unwrap();
            file.load().unwrap();
            let expected = if torn > last_change { seed(new) } else { seed(22) };
            assert_eq!(file.value(), Ok(&expected), "{torn} bytes of {new}");
        }
    }
}

#[test]
fn a_file_that_is_cut_short_falls_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    let store = SeedStore::open(dir.path()).unwrap();
    set(&store, 1).unwrap();
    drop(store);
    for len in [SLOT_LEN, SLOT_LEN + 1, 2 * SLOT_LEN - 1] {
        File::options().write(true).open(&path).unwrap().set_len(len as u64).unwrap();
        let store = SeedStore::open(dir.path()).unwrap();
        assert_eq!(store.read().unwrap(), "1");
        assert_eq!(set(&store, 2).unwrap(), "2");
        assert_eq!(set(&store, 1).unwrap(), "1");
        drop(store);
    }
}

#[test]
fn a_file_damaged_in_both_slots_is_kept_aside_and_healed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    for round in 1..=2 {
        fs::write(&path, format!("damage {round}")).unwrap();
        let store = SeedStore::open(dir.path()).unwrap();
        let mut reader = store.reader();
        let error = reader.read().unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("POST") && !error.contains('\n'), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("damage {round}"), "left alone until told");
        assert_eq!(set(&store, round).unwrap(), round.to_string());
        assert_eq!(reader.read().unwrap(), round.to_string());
        drop(store);
        let aside = dir.path().join(format!("seed.damaged-{round}"));
        assert_eq!(fs::read_to_string(aside).unwrap(), format!("damage {round}"));
        assert_eq!(SeedStore::open(dir.path()).unwrap().read().unwrap(), round.to_string());
    }
}

#[test]
fn a_failed_write_is_refused_and_the_old_value_rewritten_above_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let store = SeedStore::open_on(disk.clone(), dir.path()).unwrap();
    set(&store, 1).unwrap();
    for arrived in [0, 100, SLOT_LEN] {
        disk.plan(|plan| plan.writes.push_back(Err(arrived)));
        let error = set(&store, 666).unwrap_err();
        assert!(
            matches!(error, SetError::Failed { .. }) && error.to_string().contains("I/O error"),
            "{error}"
        );
        assert_eq!(store.read().unwrap(), "1");
        let numbers = slots(&dir.path().join("seed")).map(|slot| slot.unwrap().1);
        assert_eq!(numbers, ["1", "1"], "after {arrived} bytes");
    }
    assert_eq!(set(&store, 2).unwrap(), "2");
    drop(store);
    assert_eq!(SeedStore::open(dir.path()).unwrap().read().unwrap(), "2");
}

#[test]
fn after_a_failed_sync_nothing_is_stored_before_the_old_value_is_safe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seed");
    let disk = TestDisk::default();
    let store = SeedStore::open_on(disk.clone(), dir.path()).unwrap();
    set(&store, 1).unwrap();
    assert_eq!(slots(&path), [said(3, "1"), said(2, "0")]);
    // The commit's sync fails, so does the rewrite's.
    disk.plan(|plan| plan.syncs.extend([false, false]));
    set(&store, 666).unwrap_err();
    assert_eq!(store.read().unwrap(), "1");
    assert_eq!(slots(&path), [said(3, "1"), said(5, "1")]);
    // So does the rewrite that the next one begins with: it is refused unwritten.
    disk.plan(|plan| plan.syncs.push_back(false));
    let error = set(&store, 777).unwrap_err();
    assert!(error.to_string().contains("old value"), "{error}");
    assert_eq!(slots(&path), [said(3, "1"), said(6, "1")]);
    // Now the disk works: first the old value, into the slot that failed, then the new one.
    assert_eq!(set(&store, 2).unwrap(), "2");
    assert_eq!(slots(&path), [said(8, "2"), said(7, "1")]);
    assert_eq!(store.read().unwrap(), "2");
}

#[test]
fn nothing_is_served_before_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    drop(SeedStore::open(dir.path()).unwrap());
    // At the start: what is read may be in memory only.
    let disk = TestDisk::default();
    disk.plan(|plan| plan.syncs.push_back(false));
    let store = SeedStore::open_on(disk.clone(), dir.path()).unwrap();
    store.read().unwrap_err();
    assert_eq!(set(&store, 1).unwrap(), "1");
    // While a write is under way.
    disk.plan(|plan| plan.held = true);
    let writing = std::thread::spawn({
        let store = store.clone();
        move || set(&store, 2)
    });
    disk.wait_until(|plan| plan.waiting == 1);
    assert_eq!(store.read().unwrap(), "1");
    disk.plan(|plan| plan.held = false);
    writing.join().unwrap().unwrap();
    assert_eq!(store.read().unwrap(), "2");
}

#[test]
fn writers_that_wait_share_one_commit_and_too_many_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let store = SeedStore::open_on(disk.clone(), dir.path()).unwrap();
    let before = disk.plan(|plan| {
        plan.held = true;
        plan.synced
    });
    block_on(async {
        let mut first = Box::pin(store.set(seed(0)));
        assert!(futures_poll(&mut first).is_pending());
        disk.wait_until(|plan| plan.waiting == 1);
        let mut queued: Vec<_> = (1..=QUEUE).map(|number| Box::pin(store.set(seed(number)))).collect();
        for write in &mut queued {
            assert!(futures_poll(write).is_pending());
        }
        assert_eq!(store.set(seed(1)).await, Err(SetError::Busy));
        disk.plan(|plan| plan.held = false);
        assert_eq!(first.await.unwrap(), "0");
        for (number, write) in (1..=QUEUE).zip(queued) {
            assert_eq!(write.await.unwrap(), number.to_string(), "everyone hears of their own number");
        }
    });
    assert_eq!(disk.plan(|plan| plan.synced) - before, 2, "one for the first, one for all that waited");
    assert_eq!(store.read().unwrap(), QUEUE.to_string());
}

/// Polls once, without a waker that matters.
fn futures_poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[test]
fn a_folder_that_cannot_be_used_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let blocker = dir.path().join("file");
    fs::write(&blocker, "").unwrap();
    let store = SeedStore::open(&blocker.join("state")).unwrap();
    let error = store.read().unwrap_err().to_string();
    assert!(error.contains("state-dir") && error.contains("Not a directory"), "{error}");
    assert!(matches!(set(&store, 1), Err(SetError::Failed { .. })));
    fs::remove_file(&blocker).unwrap();
    assert_eq!(set(&store, 1).unwrap(), "1");
    assert_eq!(store.read().unwrap(), "1");
}

/// What may happen to the file or its folder while the store has it open.
type Happens = fn(&Path);

#[test]
fn what_is_written_to_a_file_that_its_path_no_longer_names_is_not_said_to_be_stored() {
    let happens: [(&str, Happens); 5] = [
        ("renamed", |dir| fs::rename(dir.join("seed"), dir.join("elsewhere")).unwrap()),
        ("linked and removed", |dir| {
            fs::hard_link(dir.join("seed"), dir.join("kept")).unwrap();
            fs::remove_file(dir.join("seed")).unwrap();
        }),
        ("replaced by a copy", |dir| {
            fs::copy(dir.join("seed"), dir.join("copy")).unwrap();
            fs::rename(dir.join("copy"), dir.join("seed")).unwrap();
        }),
        ("its folder renamed", |dir| fs::rename(dir, dir.with_file_name("moved")).unwrap()),
        ("all removed", |dir| fs::remove_dir_all(dir).unwrap()),
    ];
    for (what, happens) in happens {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("state");
        let store = SeedStore::open(&dir).unwrap();
        set(&store, 7).unwrap();
        happens(&dir);
        assert_eq!(store.read().unwrap(), "7", "{what}");
        assert_eq!(set(&store, 8).unwrap(), "8", "{what}");
        drop(store);
        assert_eq!(SeedStore::open(&dir).unwrap().read().unwrap(), "8", "{what}");
    }
}

#[test]
fn a_file_that_cannot_be_made_anew_begins_with_the_value_of_the_one_that_was_moved() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    let store = SeedStore::open(&dir).unwrap();
    set(&store, 7).unwrap();
    fs::rename(&dir, parent.path().join("moved")).unwrap();
    // Where the folder was is a file: nothing can be made in it.
    fs::write(&dir, "").unwrap();
    assert!(matches!(set(&store, 8), Err(SetError::Failed { .. })));
    fs::remove_file(&dir).unwrap();
    let mended = (0..200).any(|_| {
        #[expect(
            clippy::disallowed_methods,
            reason = "the store's own thread mends; a deadline ends the loop"
        )]
        std::thread::sleep(MEND_INTERVAL / 50);
        store.read().is_ok_and(|value| value == "7")
    });
    assert!(mended, "without a write it is not tried again");
}

#[test]
fn without_the_locks_file_a_second_owner_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let _first = SeedStore::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join("seed.lock")).unwrap();
    let error = SeedStore::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

/// A small file system of its own, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Option<Self> {
        run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", at.to_str()?]).then(|| Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", &self.0.to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let command =
        std::process::Command::new(program).args(arguments).stderr(std::process::Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_refuses_only_the_first_write() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(dir.path()) else {
        println!("SKIPPED: mounting a small tmpfs needs root");
        return;
    };
    let filler = mount.0.join("filler");
    let fill = || {
        while let Err(error) = fs::write(&filler, vec![0; 1 << 20])
            && !is_full(&error)
        {}
    };
    fill();
    let store = SeedStore::open(&mount.0).unwrap();
    assert_eq!(store.read().unwrap(), "0", "no file yet is no reason not to answer");
    assert_eq!(set(&store, 1), Err(SetError::NoSpace));
    assert_eq!(store.read().unwrap(), "0");
    assert!(!mount.0.join("seed.tmp").exists());
    fs::remove_file(&filler).unwrap();
    assert_eq!(set(&store, 1).unwrap(), "1");
    fill();
    for number in 2..6 {
        assert_eq!(set(&store, number).unwrap(), number.to_string());
    }
    // A damaged file is there: so it is not 507, and it is not lost either.
    drop(store);
    File::options()
        .write(true)
        .open(mount.0.join("seed"))
        .unwrap()
        .write_all_at(&[0; 2 * SLOT_LEN], 0)
        .unwrap();
    let store = SeedStore::open(&mount.0).unwrap();
    assert!(matches!(set(&store, 9), Err(SetError::Failed { .. })));
    store.read().unwrap_err();
    drop(store);
    // Nor is a disk that became read-only.
    assert!(run("mount", &["-o", "remount,ro", &mount.0.to_string_lossy()]));
    let store = SeedStore::open(&mount.0).unwrap();
    assert!(store.read().unwrap_err().to_string().contains("Read-only"));
    assert!(matches!(set(&store, 9), Err(SetError::Failed { .. })));
}

/// A disk with a cache that loses what is not synced, sector by sector, and that forgets after a
/// failed sync what was dirty, as Linux does.
#[derive(Clone, Default)]
struct CachedDisk(Arc<Mutex<Cache>>);

#[derive(Default)]
struct Cache {
    durable: Vec<u8>,
    dirty: std::collections::BTreeSet<usize>,
    /// Of a hundred operations, so many fail.
    failing: u8,
}

const SECTOR: usize = 512;

impl Cache {
    /// Writes some of the dirty sectors, or all.
    fn write_back(&mut self, file: &File, all: bool) {
        for sector in std::mem::take(&mut self.dirty) {
            if all || fastrand::bool() {
                self.durable.resize(self.durable.len().max((sector + 1) * SECTOR), 0);
                file.read_exact_at(&mut self.durable[sector * SECTOR..][..SECTOR], (sector * SECTOR) as u64)
                    .unwrap();
            }
        }
    }

    fn fails(&self) -> io::Result<()> {
        if fastrand::u8(..100) < self.failing { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

impl Disk for CachedDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut cache = self.0.lock().unwrap();
        let failed = cache.fails();
        let arrived =
            if failed.is_ok() { bytes.len() } else { fastrand::usize(..=bytes.len() / SECTOR) * SECTOR };
        file.write_all_at(&bytes[..arrived], offset)?;
        let first = usize::try_from(offset).unwrap() / SECTOR;
        cache.dirty.extend(first..first + arrived / SECTOR);
        failed
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        let mut cache = self.0.lock().unwrap();
        let failed = cache.fails();
        cache.write_back(file, failed.is_ok());
        failed
    }

    fn sync_all(&self, file: &File) -> io::Result<()> {
        // A folder is always written; the file is created before failures are switched on.
        if file.metadata()?.is_file() { self.sync_data(file) } else { Ok(()) }
    }
}

/// Writes, failures, kills and power cuts in any order: an acknowledged value is never lost, and
/// only a value refused since then may take its place.
#[test]
fn no_acknowledged_value_is_ever_lost() {
    for round in 0..200 {
        fastrand::seed(round);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed");
        let disk = CachedDisk::default();
        let mut file = SeedFile::new(disk.clone(), dir.path());
        file.load().unwrap();
        disk.0.lock().unwrap().failing = 20;
        let mut acknowledged = seed(0);
        // What a crash may show instead: refused, and perhaps not overwritten yet.
        let mut refused: Vec<Seed> = Vec::new();
        // A crash happened, and what it left has not been read yet.
        let mut crashed = false;
        for step in 1..60_u32 {
            let wanted = if fastrand::u8(..4) == 0 {
                seed(format!("{step}{}", "5".repeat(4_000)))
            } else {
                seed(step)
            };
            let committed = match fastrand::u8(..10) {
                0..7 => Some(file.commit(&wanted)),
                crash => {
                    if crash == 9 {
                        let mut cache = disk.0.lock().unwrap();
                        cache.write_back(&File::open(&path).unwrap(), false);
                        fs::write(&path, &cache.durable).unwrap();
                    }
                    drop(file);
                    file = SeedFile::new(disk.clone(), dir.path());
                    let _ = file.load();
                    crashed = true;
                    None
                }
            };
            if committed == Some(Ok(())) {
                acknowledged = wanted;
                refused.clear();
                crashed = false;
            } else if let Ok(shown) = file.value() {
                if std::mem::take(&mut crashed) {
                    assert!(
                        shown == &acknowledged || refused.contains(shown),
                        "round {round} step {step}: {shown:?} is neither {acknowledged:?} nor in {refused:?}"
                    );
                    acknowledged = shown.clone();
                }
                if !file.needs_mending() {
                    // Whatever was refused is overwritten.
                    refused.clear();
                } else if committed.is_some() {
                    refused.push(wanted);
                }
            }
            if let Ok(shown) = file.value() {
                assert_eq!(shown, &acknowledged, "round {round} step {step}");
            }
        }
    }
}
