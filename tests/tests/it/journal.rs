//! The journal: what an operator reads there, can filter by, and has explained.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use local_cloud::{Fault, HealthCheck, InstanceSpec, TargetGroupSpec};
use rustix::process::Signal;
use tests::journal::{Entry, Journal, catalog, catalog_file, is_from, message_id, stderr_is_the_journal};
use tests::solo::{Namespace, Solo, refuses, tool};
use tests::wire::reads_nothing;
use tests::{Bed, BedOptions, PORT, eventually, group, text};

/// Asserts what holds for every entry, and that what the catalog shows of it is there.
fn is_well_formed(entry: &Entry, instance_id: &str) {
    assert!(!entry["MESSAGE"].is_empty(), "{entry:?}");
    assert!(["3", "4", "6", "7"].contains(&&*entry["PRIORITY"]), "{entry:?}");
    assert_eq!(entry["SYSLOG_IDENTIFIER"], "instance-agent");
    // Where in the source it comes from.
    let ours = ["instance_agent::", "instance_server::"];
    assert!(ours.iter().any(|name| entry["TARGET"].starts_with(name)), "{entry:?}");
    assert!(entry["CODE_FILE"].ends_with(".rs") && entry["CODE_LINE"].parse::<u32>().is_ok(), "{entry:?}");
    for value in entry.values() {
        assert!(value.chars().count() <= 4_096 && !value.contains(char::is_control), "{entry:?}");
    }
    assert!(entry.keys().all(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')), "{entry:?}");
    // The journal itself has the time, the process and its unit.
    assert!(!entry.keys().any(|name| name.starts_with('_') || name.contains("TIME")), "{entry:?}");
    if let Some(id) = entry.get("MESSAGE_ID") {
        let explained = catalog().into_iter().find(|explanation| explanation.id == *id).expect("explained");
        for field in &explained.fields {
            assert!(entry.contains_key(field), "{} shows {field}, not in {entry:?}", explained.name);
        }
    }
    let of_the_instance = ["TARGET_GROUP", "TARGET_STATE"].iter().any(|field| entry.contains_key(*field))
        || ["DRAINING", "DRAINED"].iter().any(|event| is_from(entry, "MESSAGE_ID", &message_id(event)));
    if of_the_instance {
        assert_eq!(entry["INSTANCE_ID"], instance_id, "{entry:?}");
    }
}

/// A group whose checks ask for a path that the agent does not have.
fn failing() -> TargetGroupSpec {
    let spec = group("failing");
    let health_check = HealthCheck { path: "/nowhere".to_owned(), ..spec.health_check };
    TargetGroupSpec { health_check, ..spec }
}

/// An agent on an instance that belongs to three groups, with a damaged seed on a full disk, and
/// with the journal to itself.
async fn agent_with_a_journal(bed: &mut Bed, world: &Namespace) -> (Solo, Journal, String) {
    // Used by no listener.
    bed.cloud.create_target_group(group("idle"));
    let spec: InstanceSpec = bed.spec().tag(instance_contract::tags::TARGET_GROUP, "cluster1 failing idle");
    let machine = bed.machine(spec).await;
    let mut solo = Solo::new();
    solo.listen = SocketAddr::from((machine.instance.address(), PORT));
    solo.environment = machine.instance.agent_environment();
    solo.set("AWS_EC2_METADATA_DISABLED", "false");
    solo.state_dir = "/run/state".into();
    let journal = Journal::of(&mut solo, world);
    let state = world.path("/run/state");
    fs::write(state.join("seed"), "nonsense").unwrap();
    // As much as fits.
    assert!(fs::write(state.join("filler"), vec![0; 64 * 1024]).is_err());
    let file = solo.path("agent.toml");
    fs::write(&file, "drain-quiet = \"1s\"\n").unwrap();
    let solo = solo.with(&["--config", file.to_str().unwrap()]);
    (solo, journal, machine.instance.id().to_owned())
}

#[tokio::test]
async fn an_instances_life_is_in_the_journal_as_sentences_with_ids_and_fields() {
    let disk = "mkdir /run/state; mount -t tmpfs -o size=40k none /run/state";
    let setup = format!("{}; {disk}", Journal::SETUP);
    let Some(world) = Namespace::new_or_skip(&setup).await else { return };
    let mut bed =
        Bed::with(BedOptions { groups: vec![group("cluster1"), failing()], ..BedOptions::default() }).await;
    bed.cloud.set_fault("RegisterTargets", Some(Fault::Deny));
    let (solo, journal, id) = agent_with_a_journal(&mut bed, &world).await;
    let mut agent = solo.start().await;
    let address = solo.listen;
    let version = env!("CARGO_PKG_VERSION");

    let started = journal.event("STARTED").await;
    assert_eq!(started["MESSAGE"], format!("listening on {address}, version {version}"));
    assert_eq!((&*started["PRIORITY"], &*started["LISTEN"]), ("6", &*address.to_string()));

    let failing = journal.of_group("REGISTRATION_FAILING", "cluster1").await;
    assert_eq!((&*failing["PRIORITY"], &*failing["TARGET_STATE"]), ("4", "unregistered"));
    assert!(failing["REASON"].contains("AccessDenied"), "{failing:?}");
    for part in ["target group cluster1: ", &failing["REASON"], &failing["CURE"]] {
        assert!(failing["MESSAGE"].contains(part), "no {part:?} in {failing:?}");
    }
    bed.cloud.set_fault("RegisterTargets", None);
    let works = journal.of_group("REGISTRATION_WORKS", "cluster1").await;
    assert!(works["MESSAGE"].starts_with("target group cluster1: calls succeed again, after "), "{works:?}");
    let registered = journal.of_group("REGISTERED", "cluster1").await;
    assert_eq!(registered["TARGET_STATE"], "initial");
    assert!(registered["MESSAGE"].contains(&format!("registered {id}:{PORT}")), "{registered:?}");

    let healthy = journal.of_group("HEALTHY", "cluster1").await;
    assert_eq!(healthy["MESSAGE"], "target group cluster1: healthy (was initial)");
    assert_eq!(
        (&*healthy["PRIORITY"], &*healthy["TARGET_STATE"], &*healthy["INSTANCE_ID"]),
        ("6", "healthy", &*id)
    );
    assert_eq!(healthy["REASON"], "the load balancer's health checks pass");
    let unhealthy = journal.of_group("UNHEALTHY", "failing").await;
    assert_eq!((&*unhealthy["PRIORITY"], &*unhealthy["TARGET_STATE"]), ("4", "unhealthy"));
    assert_eq!(unhealthy["REASON"], "Target.ResponseCodeMismatch");
    let said = &unhealthy["MESSAGE"];
    assert!(said.starts_with("target group failing: unhealthy (was "), "{said}");
    assert!(said.contains("404") && said.contains("request the group's health check path"), "{said}");
    let unused = journal.of_group("UNUSED", "idle").await;
    assert_eq!((&*unused["TARGET_STATE"], &*unused["REASON"]), ("unused", "Target.NotInUse"));

    seeds_are_told_of(&solo, &journal, &world).await;
    reloads_are_told_of(&solo, &journal).await;

    agent.stop(&solo).await;
    let draining = journal.event("DRAINING").await;
    assert_eq!(draining["MESSAGE"], "draining for at most 300 s: SIGTERM received");
    assert_eq!((&*draining["PRIORITY"], &*draining["REASON"]), ("6", "SIGTERM received"));
    let drained = journal.event("DRAINED").await;
    assert!(
        drained["MESSAGE"].starts_with("drained after ")
            && drained["MESSAGE"].ends_with(": SIGTERM received"),
        "{drained:?}"
    );
    assert_eq!(journal.event("STOPPED").await["MESSAGE"], "stopped: the port is closed");

    let solo = solo.with(&["--drain-timeout", "1s", "--max-connections", "150"]);
    bed.cloud.set_fault("DeregisterTargets", Some(Fault::Deny));
    let before = journal.entries().len();
    let mut agent = solo.start().await;
    let again = async || {
        let healthy = message_id("HEALTHY");
        journal
            .entries()
            .iter()
            .skip(before)
            .any(|entry| is_from(entry, "MESSAGE_ID", &healthy))
            .then_some(())
    };
    assert!(eventually(again).await.is_some(), "{:#?}", journal.entries());
    crowds_are_told_of(&solo, &journal).await;
    agent.stop(&solo).await;
    let late = journal.event("DRAIN_TIMED_OUT").await;
    assert_eq!((&*late["PRIORITY"], &*late["REASON"]), ("4", "SIGTERM received"));
    assert!(late["MESSAGE"].contains("may still be registered"), "{late:?}");

    for entry in journal.entries() {
        is_well_formed(&entry, &id);
    }
    let explained: BTreeSet<String> = catalog().into_iter().map(|explanation| explanation.id).collect();
    let sent = journal.entries().iter().filter_map(|entry| entry.get("MESSAGE_ID").cloned()).collect();
    assert_eq!(explained, sent, "every event of the catalog happens, and no other");
    assert_eq!(solo.log(), "", "said twice");
}

async fn crowds_are_told_of(solo: &Solo, journal: &Journal) {
    let mut crowd = Vec::new();
    for _ in 0..140 {
        crowd.push(reads_nothing(solo.listen, 1500).await);
    }
    let dropped = journal.event("UNREAD_DROPPED").await;
    assert_eq!(dropped["PRIORITY"], "4");
    for _ in 0..160 {
        crowd.push(reads_nothing(solo.listen, 0).await);
    }
    let limit = journal.event("CONNECTION_LIMIT").await;
    assert_eq!(limit["PRIORITY"], "4");
}

async fn seeds_are_told_of(solo: &Solo, journal: &Journal, world: &Namespace) {
    let damaged = journal.event("SEED_DAMAGED").await;
    assert_eq!(damaged["PRIORITY"], "3");
    assert!(damaged["REASON"].contains("/run/state/seed are damaged"), "{damaged:?}");
    for _ in 0..5 {
        solo.post("7").await.refuses(503, "the disk is full");
    }
    fs::remove_file(world.path("/run/state/filler")).unwrap();
    solo.post("7").await.is(200, "7");
    let works = journal.event("SEED_WRITE_WORKS").await;
    assert_eq!(works["MESSAGE"], "seed writes succeed again after 5 failures");
    let failed = message_id("SEED_WRITE_FAILED");
    let failed: Vec<Entry> =
        journal.entries().into_iter().filter(|entry| is_from(entry, "MESSAGE_ID", &failed)).collect();
    assert_eq!(failed.len(), 1, "said once and then counted: {failed:#?}");
    assert_eq!(failed[0]["PRIORITY"], "3");
    assert!(failed[0]["MESSAGE"].starts_with("the seed was not stored: "), "{failed:?}");
}

async fn reloads_are_told_of(solo: &Solo, journal: &Journal) {
    let file = solo.path("agent.toml");
    let good = fs::read(&file).unwrap();
    fs::write(&file, "root = \"sed\"\n").unwrap();
    refuses(&solo.command(&[], &["reload"]).await, 1, &["reload refused: "]);
    let refused = journal.event("RELOAD_REFUSED").await;
    let reason = &refused["REASON"];
    assert!(reason.contains("agent.toml:1: root:"), "{reason}");
    assert_eq!(refused["MESSAGE"], format!("reload refused: {reason}; the running version keeps serving"));
    assert_eq!(refused["PRIORITY"], "4");
    fs::write(&file, good).unwrap();
    let output = solo.command(&[], &["reload"]).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), solo.log());
    let reloaded = journal.event("RELOADED").await;
    let version = env!("CARGO_PKG_VERSION");
    assert!(reloaded["MESSAGE"].starts_with(&format!("reloaded: version {version} replaced {version}; ")));
    assert_eq!((&reloaded["VERSION"], &*reloaded["PRIORITY"]), (&reloaded["FROM_VERSION"], "6"));
}

#[tokio::test]
async fn a_stderr_that_is_not_the_journals_gets_lines_although_a_journal_listens() {
    let Some(world) = Namespace::new_or_skip(Journal::SETUP).await else { return };
    let mut solo = Solo::new();
    let journal = Journal::of(&mut solo, &world);
    // As a shell does that sends the service's stderr elsewhere.
    fs::rename(solo.path("agent.log"), solo.path("elsewhere.log")).unwrap();
    let mut agent = solo.start().await;
    solo.until_logged("listening on").await;
    agent.die(&solo).await;
    assert_eq!(journal.entries(), [] as [Entry; 0]);
    assert_eq!(fs::read_to_string(solo.path("elsewhere.log")).unwrap(), "");
}

#[tokio::test]
async fn where_no_journal_listens_the_lines_go_to_stderr() {
    let Some(world) = Namespace::new_or_skip("mount -t tmpfs none /run").await else { return };
    let mut solo = Solo::new();
    stderr_is_the_journal(&mut solo);
    solo.wrapper = world.wrapper();
    let mut agent = solo.start().await;
    solo.until_logged("listening on").await;
    agent.stop(&solo).await;
}

/// The number in the first entry that says how many are lost.
async fn lost(journal: &Journal) -> u64 {
    let says = |entry: &Entry| entry["MESSAGE"].starts_with("journald was too slow: ");
    let said = journal.until("that says how many are lost", says).await;
    assert_eq!((&*said["PRIORITY"], &*said["TARGET"]), ("4", "instance_agent::telemetry::journal"));
    let count = said["MESSAGE"].trim_start_matches("journald was too slow: ").split(' ').next();
    count.unwrap().parse().unwrap()
}

fn messages(journal: &Journal) -> Vec<String> {
    journal.entries().into_iter().map(|entry| entry["MESSAGE"].clone()).collect()
}

/// An agent with a settings file, which is empty.
fn with_settings() -> (Solo, PathBuf) {
    let solo = Solo::new();
    let file = solo.path("agent.toml");
    fs::write(&file, "").unwrap();
    (solo.with(&["--config", file.to_str().unwrap()]), file)
}

/// Waits until nothing more comes by itself.
async fn settled(journal: &Journal) {
    let last = |entry: &Entry| entry["MESSAGE"].starts_with("cannot read the instance metadata: ");
    journal.until("that says it serves without metadata", last).await;
}

/// Asks for a reload that is refused, because of these settings.
async fn refuse_reload(solo: &Solo, file: &Path, settings: &str) {
    fs::write(file, settings).unwrap();
    refuses(&solo.command(&[], &["reload"]).await, 1, &["reload refused: "]);
}

async fn reload(solo: &Solo) {
    let output = solo.command(&[], &["reload"]).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), solo.log());
}

#[tokio::test]
async fn a_journal_that_hangs_from_before_the_start_holds_up_no_start_request_reload_or_stop() {
    let Some(world) = Namespace::new_or_skip(Journal::SETUP).await else { return };
    let mut solo = Solo::new();
    let journal = Journal::of(&mut solo, &world);
    journal.hang();
    let mut agent = solo.start().await;
    solo.get("/").await.is(200, "Healthy!");
    reload(&solo).await;
    solo.post("1").await.is(200, "1");
    reload(&solo).await;
    solo.get("/").await.is(200, "Healthy!");
    assert_eq!(journal.entries(), []);
    journal.recover();
    // What the first two programs had to say went with them; the third counts it.
    assert!(lost(&journal).await >= 4, "{:#?}", journal.entries());
    journal.event("RELOADED").await;
    journal.hang();
    agent.stop(&solo).await;
}

#[tokio::test]
async fn a_journal_that_hangs_while_the_agent_runs_gets_what_there_is_room_for_and_the_number_of_the_others()
{
    let Some(world) = Namespace::new_or_skip(Journal::SETUP).await else { return };
    let (mut solo, file) = with_settings();
    let journal = Journal::of(&mut solo, &world);
    let mut agent = solo.start().await;
    settled(&journal).await;
    journal.hang();
    // Each makes an entry that is as long as one can be, and that tells it from the others.
    let refused = 48;
    for number in 0..refused {
        let settings = format!("root = \"{number:02} {}\"", "long".repeat(2_000));
        refuse_reload(&solo, &file, &settings).await;
        solo.get("/").await.is(200, "Healthy!");
    }
    let before = journal.entries().len();
    journal.recover();
    let lost = usize::try_from(lost(&journal).await).unwrap();
    assert!(0 < lost && lost < refused, "{lost}");
    // The number of those that are lost comes after those that were said before.
    let taken = journal.entries();
    let (last, taken) = taken[before..].split_last().unwrap();
    assert!(last["MESSAGE"].contains("log entries dropped"), "{:#?}", messages(&journal));
    assert_eq!(taken.len() + lost, refused, "{:#?}", messages(&journal));
    for (number, entry) in taken.iter().enumerate() {
        assert!(entry["REASON"].contains(&format!("{number:02} longlong")), "{number}: {entry:?}");
        assert_eq!(entry["REASON"].chars().count(), 4_096, "{entry:?}");
    }
    fs::write(&file, "").unwrap();
    reload(&solo).await;
    journal.event("RELOADED").await;
    journal.hang();
    agent.stop(&solo).await;
}

#[tokio::test]
async fn nothing_is_lost_at_a_reload_or_a_stop_when_the_journal_does_not_hang() {
    let Some(world) = Namespace::new_or_skip(Journal::SETUP).await else { return };
    let mut solo = Solo::new();
    let journal = Journal::of(&mut solo, &world);
    let mut agent = solo.start().await;
    for _ in 0..3 {
        reload(&solo).await;
    }
    solo.until_started().await;
    agent.stop(&solo).await;
    journal.event("STOPPED").await;
    let said = messages(&journal);
    let version = env!("CARGO_PKG_VERSION");
    let count = |beginning: &str| said.iter().filter(|message| message.starts_with(beginning)).count();
    for (times, beginning) in [
        (1, format!("listening on {}, version {version}", solo.listen)),
        (3, format!("reloading: version {version} can take over; finishing requests")),
        (3, format!("reloaded: version {version} replaced {version}; ")),
        (1, "draining for ".to_owned()),
        (1, "stopping: finishing the requests in flight".to_owned()),
        (1, "stopped: the port is closed".to_owned()),
    ] {
        assert_eq!(count(&beginning), times, "{beginning}: {said:#?}");
    }
    assert!(!said.iter().any(|message| message.contains("dropped")), "{said:#?}");
}

#[tokio::test]
async fn the_thread_that_writes_to_the_journal_leaves_signals_to_the_main_thread() {
    let Some(world) = Namespace::new_or_skip(Journal::SETUP).await else { return };
    let mut solo = Solo::new();
    let journal = Journal::of(&mut solo, &world);
    let mut agent = solo.start().await;
    journal.event("STARTED").await;
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let threads = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let named = |status: &String| status.starts_with("Name:\tjournal\n");
    let status = threads.into_iter().find(named).expect("a thread of that name");
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
    let blocked = u64::from_str_radix(blocked, 16).unwrap();
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        assert_ne!(blocked & (1 << (signal.as_raw() - 1)), 0, "{signal:?}: {status}");
    }
    agent.stop(&solo).await;
}

#[tokio::test]
async fn a_journal_that_is_restarted_gets_the_number_of_the_entries_that_nobody_took() {
    let Some(world) = Namespace::new_or_skip(Journal::SETUP).await else { return };
    let (mut solo, file) = with_settings();
    let journal = Journal::of(&mut solo, &world);
    let mut agent = solo.start().await;
    settled(&journal).await;
    journal.end().await;
    for number in 0..4 {
        refuse_reload(&solo, &file, &format!("root = \"nobody {number}\"")).await;
    }
    let journal = Journal::of(&mut solo, &world);
    refuse_reload(&solo, &file, "root = \"somebody\"").await;
    let lost = usize::try_from(lost(&journal).await).unwrap();
    journal.until("after it", |entry| entry["MESSAGE"].contains("somebody")).await;
    // The last of them may have come just in time.
    let taken = messages(&journal).iter().filter(|message| message.contains("nobody")).count();
    assert_eq!(lost + taken, 4, "{:#?}", messages(&journal));
    agent.stop(&solo).await;
    journal.event("STOPPED").await;
}

#[tokio::test]
async fn a_librarys_entry_is_one_sentence_and_says_where_it_comes_from() {
    let Some(world) = Namespace::new_or_skip(Journal::SETUP).await else { return };
    let mut solo = Solo::new().with(&["--instance-id", "i-0123456789abcdef0", "--target-group", "cluster1"]);
    // The SDK complains of it, in a message with two fields.
    for (name, value) in [
        ("AWS_CONFIG_FILE", "/nonexistent/config"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
    ] {
        solo.set(name, value);
    }
    let journal = Journal::of(&mut solo, &world);
    let mut agent = solo.start().await;
    let said = "aws_runtime::env_config::source: config file overridden via environment variable not found \
                path=/nonexistent/config env=AWS_CONFIG_FILE";
    let entry = journal.until(said, |entry| is_from(entry, "MESSAGE", said)).await;
    assert_eq!(
        (&*entry["PRIORITY"], &*entry["TARGET"], &*entry["INSTANCE_ID"]),
        ("4", "aws_runtime::env_config::source", "i-0123456789abcdef0")
    );
    assert!(!entry.contains_key("PATH") && !entry.contains_key("ENV"), "{entry:?}");
    // The SDK repeats it at each load of its configuration.
    journal.until("a call", |entry| entry["MESSAGE"].contains("retrying; logs again only if")).await;
    let same = journal.entries().into_iter().filter(|entry| is_from(entry, "MESSAGE", said));
    assert_eq!(same.count(), 1);
    agent.stop(&solo).await;
}

#[tokio::test]
async fn the_catalog_is_one_that_journalctl_takes_and_shows() {
    let folder = tempfile::tempdir().unwrap();
    let root = format!("--root={}", folder.path().display());
    let place = folder.path().join("usr/lib/systemd/catalog");
    fs::create_dir_all(&place).unwrap();
    fs::create_dir_all(folder.path().join("var/lib/systemd/catalog")).unwrap();
    fs::copy(catalog_file(), place.join("instance-agent.catalog")).unwrap();
    let made = tool("journalctl", &[&root, "--update-catalog"]).await;
    assert!(made.status.success() && made.stderr.is_empty(), "{}", text(&made.stderr));
    let listed = tool("journalctl", &[&root, "--list-catalog"]).await;
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    let mut listed: Vec<String> = text(&listed.stdout).lines().map(str::to_owned).collect();
    let mut wanted: Vec<String> = catalog()
        .into_iter()
        .map(|explanation| format!("{} instance-agent: {}", explanation.id, explanation.subject))
        .collect();
    listed.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
    let shown = tool("journalctl", &[&root, "--dump-catalog", &message_id("UNHEALTHY")]).await;
    assert!(text(&shown.stdout).contains("@REASON@"), "{}", text(&shown.stdout));
}

#[test]
fn the_documented_message_ids_are_those_of_the_catalog() {
    let page = catalog_file().with_file_name("../docs/operations.md");
    let page = fs::read_to_string(page).unwrap();
    let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let documented: Vec<&str> = rows.flat_map(|row| row.split('`').filter(is_id)).collect();
    let ids: Vec<String> = catalog().into_iter().map(|explanation| explanation.id).collect();
    assert_eq!(documented, ids);
    let example = page.split_once("journalctl MESSAGE_ID=").and_then(|(_, rest)| rest.get(..32)).unwrap();
    assert_eq!(example, message_id("UNHEALTHY"));
}
