//! The durable seed, through the real program: kills, traces, full and damaged disks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tests::solo::{NOBODY, Namespace, Solo, is_root_or_skip, refuses, tool};
use tests::strace::{self, Edge, Event};
use tests::wire::Wire;
use tests::{eventually, text};
use tokio::task::JoinSet;

const SLOT: usize = 8192;

#[tokio::test]
async fn a_number_keeps_every_digit() {
    let solo = Solo::new().with(&["--root", "seed"]);
    let _agent = solo.start().await;
    solo.get("/").await.is(200, "0");
    solo.post("100").await.is(200, "100");
    solo.get("/").await.is(200, "100");
    solo.get("/seed").await.is(200, "100");
    let long = "1234567890".repeat(400);
    let longest = format!("-{}", "9".repeat(4_300));
    for number in [&long, &longest] {
        solo.post(number).await.is(200, number);
        solo.get("/").await.is(200, number);
    }
    solo.post(&"1".repeat(4_301)).await.refuses(400, "4301 digits");
    solo.get("/").await.is(200, &longest);
}

#[tokio::test]
async fn a_number_outlives_a_stop_and_a_kill() {
    let solo = Solo::new();
    let mut agent = solo.start().await;
    solo.post("100").await.is(200, "100");
    agent.stop(&solo).await;
    let mut agent = solo.start().await;
    solo.get("/seed").await.is(200, "100");
    solo.post("-200").await.is(200, "-200");
    agent.die(&solo).await;
    let _agent = solo.start().await;
    solo.get("/seed").await.is(200, "-200");
}

/// One number that was sent: between these two moments it was stored or not.
struct Write {
    begun: Instant,
    /// When the answer came, or when it was known that none would come.
    ended: Option<Instant>,
    acknowledged: bool,
}

/// What was sent to one agent.
#[derive(Default)]
struct History {
    writes: Mutex<BTreeMap<u64, Write>>,
    acknowledged: AtomicU64,
}

impl History {
    /// Long enough that a value half written would show.
    fn number(order: u64) -> String {
        format!("{order}{}", "7".repeat(2000))
    }

    fn order(number: &str) -> Option<u64> {
        number.strip_suffix(&"7".repeat(2000))?.parse().ok()
    }

    /// Posts ever higher numbers until the agent is gone.
    async fn write_until_gone(self: Arc<Self>, mut wire: Wire) {
        loop {
            let order = {
                let mut writes = self.writes.lock().unwrap();
                let order = writes.len() as u64 + 1;
                writes.insert(order, Write { begun: Instant::now(), ended: None, acknowledged: false });
                order
            };
            let number = Self::number(order);
            let answer = wire.post(&number).await;
            let now = Instant::now();
            if let Ok(answer) = &answer {
                answer.is(200, &number);
            }
            {
                let mut writes = self.writes.lock().unwrap();
                let write = writes.get_mut(&order).unwrap();
                (write.ended, write.acknowledged) = (Some(now), answer.is_ok());
            }
            if answer.is_err() {
                return;
            }
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// No acknowledged value was lost: nothing was acknowledged that had begun only after the value
    /// that is shown now had ended. With one writer that leaves the last acknowledged number and
    /// the one that was under way.
    fn allows(&self, found: &str) {
        let writes = self.writes.lock().unwrap();
        let order = Self::order(found).unwrap_or_else(|| panic!("never sent: {found}"));
        let shown = writes.get(&order).unwrap_or_else(|| panic!("never sent: {order}"));
        let ended = shown.ended.expect("every writer has ended");
        for (later, write) in &*writes {
            let lost = write.acknowledged && write.begun > ended;
            assert!(!lost, "{order} is shown, and {later}, acknowledged, is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_a_storm_of_writes_no_agent_loses_an_acknowledged_value() {
    // One writer makes the answer exact; more of them share commits.
    let fleet = [1, 8, 32].map(|writers| (Solo::new(), writers, Arc::new(History::default())));
    for round in 0..6 {
        let mut agents = Vec::new();
        for (solo, _, history) in &fleet {
            agents.push(solo.start().await);
            let found = solo.get("/seed").await;
            assert_eq!(found.status, 200, "{found:?}");
            if round == 0 {
                found.is(200, "0");
            } else {
                history.allows(&found.body);
            }
        }
        let mut storm = JoinSet::new();
        for (solo, writers, history) in &fleet {
            for _ in 0..*writers {
                storm.spawn(history.clone().write_until_gone(solo.connect().await));
            }
        }
        for (solo, _, history) in &fleet {
            let before = history.acknowledged.load(Ordering::Relaxed);
            let enough =
                async || (history.acknowledged.load(Ordering::Relaxed) >= before + 200).then_some(());
            assert!(eventually(enough).await.is_some(), "the storm stands still:\n{}", solo.log());
        }
        // All in the middle of what they are doing, and only then waited for.
        agents.iter().for_each(tests::solo::Running::kill);
        for (agent, (solo, ..)) in agents.iter_mut().zip(&fleet) {
            agent.ended(solo).await;
        }
        storm.join_all().await;
    }
    for (solo, _, history) in &fleet {
        let _agent = solo.start().await;
        history.allows(&solo.get("/seed").await.body);
        assert!(!solo.log().contains("damaged"), "a killed process tears no slot:\n{}", solo.log());
    }
}

/// Asserts that between reading this number's request and beginning to answer it something was
/// written to the file and made durable.
fn is_durable_before_it_is_answered(events: &[Event], number: &str) {
    let request = format!("{{\\\"num\\\": {number}}}");
    let asked = events
        .iter()
        .position(|event| {
            ["read", "recvfrom"].contains(&event.call.as_str())
                && event.edge == Edge::Exit
                && event.text.contains(&request)
        })
        .unwrap_or_else(|| panic!("the request with {number} is not in the trace"));
    let answered = events[asked..]
        .iter()
        .position(|event| event.sends("HTTP/1.1 200") && event.text.contains(number))
        .unwrap_or_else(|| panic!("the answer with {number} is not in the trace"));
    let between = &events[asked..asked + answered];
    let written = between.iter().position(|event| event.call == "pwrite64" && event.edge == Edge::Enter);
    let written = written.unwrap_or_else(|| panic!("{number} was answered before anything was written"));
    // The sync has to begin after the write, and to have returned before the answer.
    let begun =
        between[written..].iter().position(|event| event.call == "fdatasync" && event.edge == Edge::Enter);
    let durable = begun.is_some_and(|begun| between[written + begun..].iter().any(Event::is_durable));
    assert!(durable, "{number} was answered before it was durable: {between:#?}");
}

#[tokio::test]
async fn an_answer_is_written_only_after_the_sync_has_returned() {
    let mut solo = Solo::new();
    strace::trace(&mut solo, strace::DURABILITY);
    let mut agent = solo.start().await;
    solo.post("123456789001").await.is(200, "123456789001");
    let events = strace::finish(&solo, &mut agent).await;
    is_durable_before_it_is_answered(&events, "123456789001");
    let syncs = events.iter().filter(|event| event.is_durable()).count();
    assert_eq!(syncs, 1, "one commit is one sync");

    // What a killed process may have left in memory only is made durable before it is shown.
    let mut agent = solo.start().await;
    solo.get("/seed").await.is(200, "123456789001");
    let events = strace::finish(&solo, &mut agent).await;
    let durable = events.iter().position(Event::is_durable).expect("a sync at the start");
    let shown = events.iter().position(|event| event.sends("123456789001")).expect("the answer");
    assert!(durable < shown, "{events:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_commits_and_each_is_answered_only_after_its_own() {
    const WRITERS: u64 = 32;
    const EACH: u64 = 20;
    let mut solo = Solo::new();
    strace::trace(&mut solo, strace::DURABILITY);
    let mut agent = solo.start().await;
    let mut writers = JoinSet::new();
    let number = |writer: u64, turn: u64| (500_000_000_000 + writer * 1_000 + turn).to_string();
    for writer in 0..WRITERS {
        let mut wire = solo.connect().await;
        writers.spawn(async move {
            for turn in 0..EACH {
                let number = number(writer, turn);
                wire.post(&number).await.unwrap().is(200, &number);
            }
        });
    }
    writers.join_all().await;
    let events = strace::finish(&solo, &mut agent).await;
    for writer in 0..WRITERS {
        for turn in 0..EACH {
            is_durable_before_it_is_answered(&events, &number(writer, turn));
        }
    }
    let syncs = events.iter().filter(|event| event.is_durable()).count() as u64;
    println!("{} writes, {syncs} syncs", WRITERS * EACH);
    assert!(syncs < WRITERS * EACH, "{syncs} syncs for {} writes", WRITERS * EACH);
}

#[tokio::test]
async fn a_disk_that_fills_up_stops_only_the_first_file() {
    // Ten pages: the file takes four, and the lock one.
    let Some(disk) = Namespace::new_or_skip("mount -t tmpfs -o size=40k none /mnt").await else { return };
    let filler = disk.path("/mnt/filler");
    let fill = || {
        // Until nothing fits any more, at worst all of it.
        let error = fs::write(&filler, vec![b'x'; 64 * 1024]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    };
    fill();
    let mut solo = Solo::new();
    solo.state_dir = "/mnt/state".into();
    solo.wrapper = disk.wrapper();
    // The folder itself needs no page of its own.
    fs::create_dir(disk.path("/mnt/state")).unwrap();
    let mut agent = solo.start().await;
    solo.get("/seed").await.is(200, "0");
    solo.post("5").await.refuses(507, "free some space");
    solo.get("/seed").await.is(200, "0");
    solo.get("/health").await.is(200, "Healthy!");
    assert!(!disk.path("/mnt/state/seed").exists());

    fs::remove_file(&filler).unwrap();
    solo.post("6").await.is(200, "6");
    fill();
    for number in 7..20 {
        solo.post(&number.to_string()).await.is(200, &number.to_string());
    }
    agent.die(&solo).await;
    let mut agent = solo.start().await;
    solo.get("/seed").await.is(200, "19");
    solo.post("20").await.is(200, "20");
    agent.stop(&solo).await;
}

/// A stopped agent that has stored 1 and then 2.
async fn with_two_values() -> Solo {
    let solo = Solo::new();
    let mut agent = solo.start().await;
    for number in ["1", "2"] {
        solo.post(number).await.is(200, number);
    }
    agent.stop(&solo).await;
    solo
}

#[tokio::test]
async fn a_damaged_file_says_so_serves_on_and_is_kept_aside() {
    let solo = with_two_values().await;
    let damaged = vec![b'?'; 2 * SLOT];
    fs::write(solo.seed_file(), &damaged).unwrap();
    let mut agent = solo.start().await;
    solo.get("/seed").await.refuses(500, "both copies of the number in ");
    solo.get("/health").await.is(200, "Healthy!");
    solo.get("/").await.is(200, "Healthy!");
    let status = solo.status().await.expect("status");
    assert!(status["seed_problem"].as_str().unwrap().contains("damaged"), "{status}");
    solo.post("3").await.is(200, "3");
    solo.get("/seed").await.is(200, "3");
    assert_eq!(fs::read(solo.state_dir.join("seed.damaged-1")).unwrap(), damaged);
    agent.stop(&solo).await;

    // A second time, the first one is kept too.
    fs::write(solo.seed_file(), b"").unwrap();
    let mut agent = solo.start().await;
    solo.post("4").await.is(200, "4");
    assert_eq!(fs::read(solo.state_dir.join("seed.damaged-1")).unwrap(), damaged);
    assert_eq!(fs::read(solo.state_dir.join("seed.damaged-2")).unwrap(), b"");
    agent.stop(&solo).await;
    let _agent = solo.start().await;
    solo.get("/seed").await.is(200, "4");
}

#[tokio::test]
async fn a_torn_slot_falls_back_to_the_other_with_a_warning() {
    let solo = with_two_values().await;
    let mut bytes = fs::read(solo.seed_file()).unwrap();
    let newer = if parse_slot(&bytes[..SLOT]).1 == "2" { 0 } else { SLOT };
    // As a power cut leaves it: one page written, the other not.
    bytes[newer + 4096..newer + SLOT].fill(0);
    fs::write(solo.seed_file(), &bytes).unwrap();
    let mut agent = solo.start().await;
    solo.get("/seed").await.is(200, "1");
    let warned = |line: &str| {
        line.contains("WARN") && line.contains("of the two copies in") && line.contains("; using the other; ")
    };
    assert_eq!(solo.log().lines().filter(|line| warned(line)).count(), 1, "{}", solo.log());
    solo.post("3").await.is(200, "3");
    agent.die(&solo).await;
    let _agent = solo.start().await;
    solo.get("/seed").await.is(200, "3");
    assert_eq!(solo.log().lines().filter(|line| warned(line)).count(), 1, "healed by the write");
}

#[tokio::test]
async fn a_second_agent_on_the_same_folder_names_the_first() {
    let first = Solo::new();
    let mut agent = first.start().await;
    let mut second = Solo::new();
    second.state_dir.clone_from(&first.state_dir);
    let pid = agent.pid().to_string();
    let refused = second.fails().await;
    // Its log lines stand before the reason.
    let said = text(&refused.stderr);
    let reason = said.lines().last().unwrap_or_default();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(reason.starts_with("instance-agent: "), "{said}");
    assert!(reason.contains(&format!("process {pid}")), "{said}");
    first.post("1").await.is(200, "1");

    // A killed owner leaves the lock file, and no lock.
    agent.die(&first).await;
    let _agent = second.start().await;
    second.get("/seed").await.is(200, "1");
}

/// CRC-32 as gzip has it, from its definition.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Reads a slot as docs/seed-format.md describes it: sequence and number.
fn parse_slot(slot: &[u8]) -> (u64, String) {
    let text = str::from_utf8(slot).unwrap();
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let [name, seed, version, word, sequence, crc_word, crc] = head[..] else { panic!("{head:?}") };
    assert_eq!(
        [name, seed, version, word, crc_word],
        ["instance-agent", "seed", "v1", "sequence", "crc32"],
        "{head:?}"
    );
    assert_eq!((sequence.len(), crc.len()), (20, 8));
    let at = text.find(" crc32 ").unwrap() + 7;
    let mut zeroed = slot.to_vec();
    zeroed[at..at + 8].fill(b'0');
    assert_eq!(crc, format!("{:08x}", crc32(&zeroed)));
    let number = lines.next().unwrap().to_owned();
    let padding = &text[text.find('\n').unwrap() + 1 + number.len() + 1..];
    assert!(padding.ends_with('\n') && padding.trim_end_matches('\n').bytes().all(|b| b == b' '));
    assert_eq!(padding.matches('\n').count(), 1);
    (sequence.parse().unwrap(), number)
}

#[tokio::test]
async fn the_file_is_as_documented_and_readable_with_cat() {
    let solo = with_two_values().await;
    let shown = tool("cat", &[solo.seed_file().to_str().unwrap()]).await.stdout;
    assert_eq!(shown.len(), 2 * SLOT);
    let mut slots = [parse_slot(&shown[..SLOT]), parse_slot(&shown[SLOT..])];
    slots.sort();
    let [(older, first), (newer, second)] = slots;
    assert_eq!((first.as_str(), second.as_str()), ("1", "2"));
    assert!(older < newer);
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the published check value");
    // Real bytes, not a hole that needs room later.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(solo.seed_file()).unwrap());
    assert!(blocks * 512 >= 2 * SLOT as u64, "{blocks} blocks");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_folder_it_may_not_write_to_costs_the_seed_and_nothing_else() {
    let solo = Solo::new().for_nobody();
    // Where it cannot even be made.
    set_mode(&solo.path(""), 0o511);
    let mut agent = solo.start().await;
    solo.get("/seed").await.refuses(500, "state-dir");
    solo.post("1").await.refuses(503, "the previous value stays");
    solo.get("/health").await.is(200, "Healthy!");
    agent.stop(&solo).await;
    set_mode(&solo.path(""), 0o711);

    // Where it is there and not writable.
    fs::create_dir(&solo.state_dir).unwrap();
    set_mode(&solo.state_dir, 0o555);
    let mut agent = solo.start().await;
    solo.get("/seed").await.refuses(500, "Permission denied");
    solo.post("1").await.refuses(503, "Permission denied");
    solo.get("/health").await.is(200, "Healthy!");
    // It is tried again by itself, and by each write: what was put right needs neither a restart nor a POST.
    set_mode(&solo.state_dir, 0o777);
    solo.until_logged("is usable again").await;
    solo.get("/seed").await.is(200, "0");
    solo.post("2").await.is(200, "2");
    agent.stop(&solo).await;
}

#[tokio::test]
async fn files_that_an_agent_of_root_left_are_named_with_the_command_that_gives_them_back() {
    if !is_root_or_skip("only root can leave files of root") {
        return;
    }
    let solo = Solo::new().for_nobody();
    fs::create_dir(&solo.state_dir).unwrap();
    set_mode(&solo.state_dir, 0o777);
    for name in ["seed", "seed.lock"] {
        fs::write(solo.state_dir.join(name), "").unwrap();
        set_mode(&solo.state_dir.join(name), 0o600);
    }
    let mut agent = solo.start().await;
    let (seed, lock) = (solo.state_dir.join("seed"), solo.state_dir.join("seed.lock"));
    let cure = format!("chown {NOBODY}: {} {}", seed.display(), lock.display());
    solo.get("/seed").await.refuses(500, &cure);
    solo.post("1").await.refuses(503, "belong to root");
    std::os::unix::fs::chown(&lock, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::remove_file(&seed).unwrap();
    solo.until_logged("is usable again").await;
    solo.post("1").await.is(200, "1");
    agent.stop(&solo).await;
}

#[tokio::test]
async fn a_limit_for_the_size_of_files_refuses_the_write_and_ends_nothing() {
    let mut solo = Solo::new();
    // In kilobytes: less than a slot.
    solo.wrapper = ["sh", "-c", "ulimit -f 4 && exec \"$@\"", "sh"].map(OsString::from).to_vec();
    let mut agent = solo.start().await;
    solo.post("1").await.refuses(503, "File too large");
    solo.get("/health").await.is(200, "Healthy!");
    agent.stop(&solo).await;
}

#[tokio::test]
async fn a_refused_second_agent_says_it_in_one_line_without_settings_of_its_own() {
    // Same runtime folder too, as two services with the default settings would have it.
    let first = Solo::new();
    let _agent = first.start().await;
    let mut second = Solo::new();
    second.state_dir.clone_from(&first.state_dir);
    second.runtime_dir.clone_from(&first.runtime_dir);
    refuses(&second.fails().await, 1, &["another agent is running"]);
    first.get("/health").await.is(200, "Healthy!");
}
