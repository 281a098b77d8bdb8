//! The command line, the admin socket, the logs and the programs themselves, as an operator meets
//! them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Output;

use rustix::fs::{OFlags, fcntl_setfl};
use tests::solo::{Solo, is_root, output, program, refuses, wrapper_or_skip};
use tests::strace::{self, Edge};
use tests::{binary, eventually, text};

/// Runs the built agent with these arguments and environment.
async fn agent(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    ends("instance-agent", arguments, environment).await
}

/// Runs a built program that ends by itself.
async fn ends(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    output(program(&[], binary(name).as_os_str(), &arguments, &environment)).await
}

#[tokio::test]
async fn a_taken_port_is_said_in_one_line() {
    let first = Solo::new();
    let _agent = first.start().await;
    let mut second = Solo::new();
    second.listen = first.listen;
    let address = first.listen.to_string();
    refuses(&second.fails().await, 1, &["cannot listen on", &address, "address in use", "--listen"]);
    // Whoever does not get the port touches nothing else either.
    assert!(!second.state_dir.exists() && !second.runtime_dir.exists());
    first.get("/").await.is(200, "Healthy!");
}

#[tokio::test]
async fn an_address_of_another_machine_is_said_in_one_line() {
    let mut solo = Solo::new();
    solo.listen = "192.0.2.1:8080".parse().unwrap();
    refuses(&solo.fails().await, 1, &["192.0.2.1:8080", "this machine does not have that address"]);
}

#[tokio::test]
async fn a_privileged_port_without_rights_is_said_in_one_line() {
    let mut solo = Solo::new().for_nobody();
    // A container's own network may allow everyone such ports; a new one does not. Who is not root in
    // a new user namespace either has no rights in it.
    let user = ["unshare", "--user", "--map-current-user", "--net", "--"].map(OsString::from);
    let mut wrappers = vec![[solo.wrapper.as_slice(), &user].concat()];
    if is_root() {
        let root = ["unshare", "--net", "--"].map(OsString::from);
        wrappers.push([&root, solo.wrapper.as_slice()].concat());
    }
    let Some(wrapper) = wrapper_or_skip(wrappers, "true").await else { return };
    solo.wrapper = wrapper;
    solo.listen = "0.0.0.0:80".parse().unwrap();
    refuses(&solo.fails().await, 1, &["0.0.0.0:80", "CAP_NET_BIND_SERVICE"]);
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_names_what_is_wrong() {
    let unknown = agent(&["--lissten", "x"], &[]).await;
    assert_eq!(unknown.status.code(), Some(2));
    let said = text(&unknown.stderr);
    assert!(said.contains("--lissten") && said.contains("'--listen'"), "{said}");
    assert_eq!(agent(&["strat"], &[]).await.status.code(), Some(2));

    refuses(&agent(&["--drain-quiet", "soon"], &[]).await, 2, &["--drain-quiet", "soon", "20s"]);
    refuses(&agent(&["--cluster", "health"], &[]).await, 2, &["--cluster", "the agent's own paths"]);
    refuses(
        &agent(&[], &[("INSTANCE_AGENT_LISTN", "x")]).await,
        2,
        &["INSTANCE_AGENT_LISTN:", "did you mean INSTANCE_AGENT_LISTEN?"],
    );
    refuses(
        &agent(&[], &[("INSTANCE_AGENT_MAX_BODY", "64 kilos")]).await,
        2,
        &["INSTANCE_AGENT_MAX_BODY:", "64 kilos", "64KiB"],
    );
}

/// Both programs, each given one duration by flag and another, in TOML, by file.
async fn with_durations(folder: &Path, flag: &str, value: &str) -> [Output; 2] {
    let [settings, fleet] = ["agent.toml", "fleet.toml"].map(|name| folder.join(name).display().to_string());
    fs::write(&settings, format!("reload-wait = {value}\n")).unwrap();
    let clusters = bootstrap::fleet::Fleet::built_in("clusters").unwrap();
    fs::write(&fleet, clusters.replacen("\"300s\"", value, 1)).unwrap();
    let quiet = format!("--drain-quiet={flag}");
    let timeout = format!("--timeout={flag}");
    // Without an agent a launch ends as soon as flags and file are read.
    let launch = ["launch", &fleet, "--local", "--agent", "/nonexistent", &timeout];
    [
        agent(&["serve", "--check", "--config", &settings, &quiet], &[]).await,
        ends("bootstrap", &launch, &[]).await,
    ]
}

#[tokio::test]
async fn both_programs_read_durations_alike() {
    let folder = tempfile::tempdir().unwrap();
    let texts = ["0", "5", "5s", "005", "500ms", "2m", "1h"];
    let texts = texts.map(|text| (text, format!("'{text}'")));
    let integers = ["0", "5", "1_000"].map(|integer| ("5", integer.to_owned()));
    for (flag, value) in texts.into_iter().chain(integers) {
        let [agent, launch] = with_durations(folder.path(), flag, &value).await;
        assert_eq!(agent.status.code(), Some(0), "{flag} {value}: {}", text(&agent.stderr));
        let said = text(&launch.stderr);
        assert_eq!(launch.status.code(), Some(1), "{flag} {value}: {said}");
        assert!(said.contains("/nonexistent is not a file (--agent)"), "{flag} {value}: {said}");
    }
    let wrong = [
        "",
        " ",
        "s",
        "5 s",
        " 5",
        "-5",
        "-5s",
        "+5",
        "1.5s",
        "1e3",
        "0x5",
        "5S",
        "5d",
        "5m30s",
        "soon",
        "99999999999999999999",
    ];
    for flag in wrong {
        let [agent, launch] = with_durations(folder.path(), flag, "5").await;
        let expected = format!("{flag:?} is not valid: expected a duration such as 500ms, 20s, 5m or 1h");
        refuses(&agent, 2, &["--drain-quiet: ", &expected]);
        let said = text(&launch.stderr);
        assert_eq!(launch.status.code(), Some(2), "{said}");
        assert!(said.contains("'--timeout <TIME>'") && said.contains(&expected), "{said}");
    }
    let values = ["-5", "+5", "0x5", "5.0", "1e3", "true", "[5]", "99999999999999999999"];
    let wrong = wrong.map(|text| format!("'{text}'")).into_iter().chain(values.map(str::to_owned));
    for value in wrong {
        let [agent, launch] = with_durations(folder.path(), "5", &value).await;
        refuses(&agent, 2, &["/agent.toml:1: reload-wait: ", "expected a "]);
        let said = text(&launch.stderr);
        assert_eq!((launch.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        let expected = "/fleet.toml:8: deregistration-delay: expected a duration from \"0s\" to \"3600s\"";
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn mistakes_in_the_file_are_found_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let named = file.to_str().unwrap();
    for (written, line, parts) in [
        ("# ours\n\ndrain-quit = \"3s\"\n", 3, &["drain-quit", "did you mean drain-quiet?"][..]),
        ("root = \"seed\"\nlog-level = \"loud\"\n", 2, &["log-level", "loud", "debug"]),
        ("root = \"seed\"\nthreads = true\n", 2, &["threads", "boolean"]),
        ("root = \"seed\"\n\n\nroot = \n", 4, &[]),
    ] {
        fs::write(&file, written).unwrap();
        let at = format!("{named}:{line}: ");
        let parts = [&[at.as_str()][..], parts].concat();
        refuses(&agent(&["--config", named], &[]).await, 2, &parts);
    }
    let missing = folder.path().join("missing.toml");
    let missing = missing.to_str().unwrap();
    for (arguments, environment) in
        [(&["--config", missing][..], &[][..]), (&[], &[("INSTANCE_AGENT_CONFIG", missing)])]
    {
        refuses(&agent(arguments, environment).await, 2, &[missing, "cannot be read"]);
    }
}

#[tokio::test]
async fn flags_are_stronger_than_the_environment_and_that_than_the_file() {
    let mut solo = Solo::new();
    let file = solo.path("agent.toml");
    fs::write(&file, "instance-id = \"i-file\"\nroot = \"seed\"\ncluster = \"from-file\"\n").unwrap();
    solo = solo.with(&["--config", file.to_str().unwrap()]);
    let mut agent = solo.start().await;
    let answers = async |solo: &Solo, path: &str, id: &str| {
        let wanted = format!("Instance {id} is responding now!");
        let found = eventually(async || {
            let answer = solo.get(path).await;
            (answer.status != 503).then_some(answer)
        });
        found.await.expect("it gets to know itself").is(200, &wanted);
    };
    answers(&solo, "/from-file", "i-file").await;
    solo.get("/").await.is(200, "0");
    agent.stop(&solo).await;

    solo.set("INSTANCE_AGENT_INSTANCE_ID", "i-environment");
    solo.set("INSTANCE_AGENT_CLUSTER", "from-environment");
    let mut agent = solo.start().await;
    answers(&solo, "/from-environment", "i-environment").await;
    solo.get("/").await.is(200, "0");
    agent.stop(&solo).await;

    let solo = solo.with(&["--instance-id", "i-flag"]);
    let mut agent = solo.start().await;
    answers(&solo, "/from-environment", "i-flag").await;
    agent.stop(&solo).await;

    // Of a repeated flag the last one counts, so that a wrapper's can be overridden.
    let solo = solo.with(&["--instance-id", "i-last"]);
    let mut agent = solo.start().await;
    answers(&solo, "/from-environment", "i-last").await;
    agent.stop(&solo).await;
}

#[tokio::test]
async fn it_listens_to_signals_before_it_says_that_it_serves() {
    // A stop right after the first answer must be a drain, and not the end.
    let mut solo = Solo::new();
    strace::trace(&mut solo, "rt_sigaction,write");
    let mut agent = solo.start().await;
    let events = strace::finish(&solo, &mut agent).await;
    let begins = |call: &str, part: &str| {
        events
            .iter()
            .position(|event| event.call == call && event.edge == Edge::Enter && event.text.contains(part))
            .unwrap_or_else(|| panic!("no {call} with {part}: {events:#?}"))
    };
    let serving = begins("write", "serving");
    for signal in ["SIGTERM", "SIGINT"] {
        assert!(begins("rt_sigaction", &format!("({signal}, {{sa_handler=0x")) < serving, "{events:#?}");
    }
}

#[tokio::test]
async fn systemds_folders_are_the_defaults() {
    // As the unit starts it: no folder named, on an address of our own.
    let solo = Solo::new();
    let (state, run) = (solo.path("systemd-state"), solo.path("systemd-run"));
    let environment = [("STATE_DIRECTORY", &state), ("RUNTIME_DIRECTORY", &run)]
        .map(|(name, path)| (name.to_owned(), path.to_str().unwrap().to_owned()));
    let arguments = ["--listen".into(), OsString::from(solo.listen.to_string())];
    let mut command = program(&[], solo.binary.as_os_str(), &arguments, &environment);
    let log = fs::File::create(solo.path("agent.log")).unwrap();
    let _agent = command.stderr(log).spawn().unwrap();
    let serving = async || tests::wire::Wire::connect(solo.listen).await.ok();
    assert!(eventually(serving).await.is_some(), "{}", solo.log());
    solo.post("3").await.is(200, "3");
    assert!(state.join("seed").exists() && run.join("admin.sock").exists());
}

#[tokio::test]
async fn variables_that_are_no_text_matter_only_where_they_are_ours() {
    use std::os::unix::ffi::OsStringExt as _;
    let no_text = OsString::from_vec(vec![0xff]);
    for (name, is_told) in [("OTHER", false), ("INSTANCE_AGENT_LISTEN", true)] {
        let mut status_command = tokio::process::Command::new(binary("instance-agent"));
        status_command
            .args(["status"])
            .env_clear()
            .env(name, &no_text)
            .env("RUNTIME_DIRECTORY", "/nonexistent");
        let output = status_command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("no agent is listening on /nonexistent/admin.sock"), "{said}");
        assert_eq!(said.contains("INSTANCE_AGENT_LISTEN: the value is not UTF-8 text"), is_told, "{said}");
    }
}

#[tokio::test]
async fn a_slip_in_the_settings_keeps_nobody_from_status_drain_and_resume() {
    let solo = Solo::new();
    let _agent = solo.start().await;
    let file = solo.path("agent.toml");
    let folder = solo.runtime_dir.display();
    fs::write(&file, format!("runtime-dir = '{folder}'\nroot = 'both'\nlistn = 'x'\n")).unwrap();
    for command in ["status", "drain", "resume"] {
        let output = agent(&[command, "--config", file.to_str().unwrap()], &[]).await;
        let said = text(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        assert!(said.contains(&format!("asking the agent in {folder}")), "{said}");
        assert!(said.contains("agent.toml:3: listn: ") && said.contains("did you mean listen?"), "{said}");
    }
}

#[tokio::test]
async fn all_mistakes_of_a_settings_file_are_told_at_once() {
    let solo = Solo::new();
    let file = solo.path("agent.toml");
    fs::write(&file, "root = 'both'\nlistn = 'x'\nmax-body = true\n").unwrap();
    let file = file.to_str().unwrap();
    let output = agent(&["serve", "--check", "--config", file], &[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        format!(
            "instance-agent: {file}:1: root: \"both\" is not valid: expected health or seed\n\
             {file}:2: listn: no such setting; did you mean listen?\n\
             {file}:3: max-body: expected a string or a decimal integer, found boolean\n"
        )
    );
    fs::write(file, "root = 'seed'\n").unwrap();
    let output = agent(&["serve", "--check", "--config", file], &[]).await;
    assert_eq!(text(&output.stdout), format!("the settings are valid, read from {file}\n"));
}

#[tokio::test]
async fn what_cannot_be_printed_is_a_failure_and_a_reader_that_has_gone_is_none() {
    let check_to = async |stdout: std::process::Stdio| {
        let mut command = tokio::process::Command::new(binary("instance-agent"));
        command.args(["serve", "--check"]).env_clear().stdout(stdout).stderr(std::process::Stdio::piped());
        command.spawn().unwrap().wait_with_output().await.unwrap()
    };
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    refuses(&check_to(full.into()).await, 1, &["cannot write to standard output", "No space left on device"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = check_to(writer.into()).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn clients_of_the_admin_socket_that_say_nothing_hold_nobody_up() {
    let solo = Solo::new();
    let _agent = solo.start().await;
    let socket = solo.runtime_dir.join("admin.sock");
    let silent: Vec<_> =
        (0..200).filter_map(|_| std::os::unix::net::UnixStream::connect(&socket).ok()).collect();
    assert!(silent.len() > 64, "{} connections", silent.len());
    let output = solo.command(&[], &["status"]).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_runtime_folder_of_another_user_and_a_link_in_place_of_the_lock_are_not_used() {
    let linked = Solo::new();
    fs::create_dir(&linked.runtime_dir).unwrap();
    set_mode(&linked.runtime_dir, 0o700);
    std::os::unix::fs::symlink(linked.path("elsewhere"), linked.runtime_dir.join("admin.lock")).unwrap();
    let _agent = linked.start().await;
    linked.until_logged("no admin socket: ").await;
    assert!(!linked.path("elsewhere").exists());
    linked.get("/").await.is(200, "Healthy!");

    if !tests::solo::is_root_or_skip("only root can use a folder of another user's") {
        return;
    }
    let foreign = Solo::new();
    fs::create_dir(&foreign.runtime_dir).unwrap();
    set_mode(&foreign.runtime_dir, 0o700);
    std::os::unix::fs::chown(&foreign.runtime_dir, Some(tests::solo::NOBODY), None).unwrap();
    let _agent = foreign.start().await;
    foreign.until_logged("belongs to another user: ").await;
    foreign.get("/").await.is(200, "Healthy!");
}

#[tokio::test]
async fn a_second_agent_takes_no_socket_over_even_where_it_was_removed() {
    let first = Solo::new();
    let _agent = first.start().await;
    std::fs::remove_file(first.runtime_dir.join("admin.sock")).unwrap();
    let mut second = Solo::new();
    second.runtime_dir = first.runtime_dir.clone();
    refuses(&second.fails().await, 1, &["another agent is running", "--runtime-dir"]);
    first.get("/").await.is(200, "Healthy!");
}

#[tokio::test]
async fn a_folder_that_others_use_is_not_closed_to_them() {
    let mut solo = Solo::new();
    let shared = tempfile::tempdir().unwrap();
    set_mode(shared.path(), 0o755);
    std::fs::write(shared.path().join("theirs"), "").unwrap();
    solo.runtime_dir = shared.path().to_owned();
    let command = solo.start().await;
    solo.until_logged("is open to other users and holds other files").await;
    assert_eq!(mode(shared.path()), 0o755);
    solo.get("/").await.is(200, "Healthy!");
    command.terminate();
}

#[tokio::test]
async fn a_check_can_show_every_setting_with_its_value_and_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    fs::write(&file, "threads = 2\n").unwrap();
    let check = ["serve", "--check", "--show", "--config", file.to_str().unwrap()];
    let shown = agent(&[&check[..], &["--listen", "127.0.0.1:1"]].concat(), &[]).await;
    assert!(shown.status.success(), "{shown:?}");
    let said = text(&shown.stdout);
    for line in
        ["listen = \"127.0.0.1:1\"  # --listen", "agent.toml:1", "# cluster: the instance's tag, else both"]
    {
        assert!(said.contains(line), "{line} in {said}");
    }
    fs::write(&file, "threads = 0\n").unwrap();
    refuses(&agent(&check, &[]).await, 2, &["agent.toml:1: threads: "]);
    let alone = agent(&["serve", "--show"], &[]).await;
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
}

#[tokio::test]
async fn without_an_agent_the_commands_say_what_to_do() {
    let solo = Solo::new();
    for command in ["status", "drain", "resume"] {
        let said = solo.command(&[], &[command]).await;
        let socket = solo.runtime_dir.join("admin.sock");
        refuses(&said, 1, &[socket.to_str().unwrap(), "no agent is listening", "--runtime-dir"]);
        assert!(said.stdout.is_empty());
    }
    // A socket that nobody listens on any more is the same.
    let mut agent = solo.start().await;
    agent.die(&solo).await;
    refuses(&solo.command(&[], &["status"]).await, 1, &["no agent is listening"]);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn the_admin_socket_is_for_its_owner() {
    let solo = Solo::new();
    // Whatever the folder was before.
    fs::create_dir(&solo.runtime_dir).unwrap();
    set_mode(&solo.runtime_dir, 0o755);
    let mut agent = solo.start().await;
    let socket = solo.runtime_dir.join("admin.sock");
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    assert_eq!((mode(&solo.runtime_dir), mode(&socket)), (0o700, 0o600));
    let shown = solo.command(&[], &["status"]).await;
    assert!(shown.status.success() && text(&shown.stdout).contains(&solo.listen.to_string()), "{shown:?}");
    agent.stop(&solo).await;
    assert!(!socket.exists(), "left behind");
}

#[tokio::test]
async fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
    let first = Solo::new();
    let mut agent = first.start().await;
    let socket = first.runtime_dir.join("admin.sock");
    let inode = fs::metadata(&socket).unwrap().ino();
    let mut second = Solo::new();
    second.runtime_dir.clone_from(&first.runtime_dir);
    refuses(&second.fails().await, 1, &["admin.sock", "another agent is running", "--runtime-dir"]);
    assert_eq!(fs::metadata(&socket).unwrap().ino(), inode, "not unlinked, not even for a moment");
    let status = first.status().await.expect("the first still answers");
    assert_eq!(status["pid"], agent.pid());

    agent.die(&first).await;
    assert!(socket.exists());
    let agent = second.start().await;
    assert_eq!(second.status().await.expect("the second answers")["pid"], agent.pid());
}

/// The settings of `--help`: name and text, in one line each.
async fn settings_of_help() -> BTreeMap<String, String> {
    let help = text(&agent(&["--help"], &[]).await.stdout);
    let (_, settings) = help.split_once("Settings (").expect("a part with the settings");
    let mut found = BTreeMap::new();
    let mut last = None;
    for line in settings.lines().skip(1) {
        if let Some(flag) = line.trim_start().strip_prefix("--") {
            let (name, rest) = flag.split_once(' ').unwrap();
            let (_, rest) = rest.split_once('>').unwrap();
            found.insert(name.to_owned(), rest.trim().to_owned());
            last = Some(name);
        } else if let Some(text) = last.and_then(|name| found.get_mut(name)) {
            *text = format!("{text} {}", line.trim());
        }
    }
    found
}

#[tokio::test]
async fn help_and_docs_know_the_same_settings_with_the_same_defaults() {
    let help = settings_of_help().await;
    assert!(help.len() >= 20, "{help:?}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, settings) = docs.split_once("\n## Settings\n").unwrap();
    let settings = settings.split("\n## ").next().unwrap();
    let row = |line: &str| {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.get(2)?.clone()))
    };
    let documented: BTreeMap<String, String> = settings.lines().filter_map(row).collect();
    assert_eq!(help.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    for (name, documented) in documented {
        let shown = &help[&name];
        let (_, default) =
            shown.split_once("[default: ").unwrap_or_else(|| panic!("{name}: no default: {shown}"));
        let default = default.trim_end_matches(']');
        // Words may differ, values not.
        for value in documented.split('`').skip(1).step_by(2) {
            let shown = default.split([' ', ',']).any(|word| word == value);
            assert!(shown, "{name}: {value} in the docs, {default:?} in --help");
        }
        let is_value = |word: &&str| word.contains(|c: char| c.is_ascii_digit() || "$/".contains(c));
        for value in default.split([' ', ',']).filter(is_value) {
            assert!(documented.contains(&format!("`{value}`")), "{name}: {value} not in {documented:?}");
        }
    }
}

#[tokio::test]
async fn help_and_version_are_not_errors() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["status", "--help"], &["--version"]] {
        let shown = agent(arguments, &[]).await;
        assert!(shown.status.success() && !shown.stdout.is_empty() && shown.stderr.is_empty(), "{shown:?}");
    }
}

/// Whether a 64-bit ELF file asks for an interpreter, and how many libraries it needs.
fn asks_of_the_loader(program: &[u8]) -> (bool, usize) {
    assert_eq!(&program[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian program");
    let number = |at: usize, bytes: usize| {
        program[at..at + bytes].iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let (mut interpreter, mut libraries) = (false, 0);
    for header in (0..count).map(|index| table + index * size) {
        match number(header, 4) {
            // PT_DYNAMIC: pairs of a tag and a value; the tag DT_NEEDED is 1.
            2 => {
                let (from, length) = (number(header + 8, 8), number(header + 32, 8));
                libraries += (from..from + length).step_by(16).filter(|at| number(*at, 8) == 1).count();
            }
            // PT_INTERP
            3 => interpreter = true,
            _ => {}
        }
    }
    (interpreter, libraries)
}

#[test]
fn both_programs_are_static() {
    for name in ["instance-agent", "bootstrap"] {
        assert_eq!(asks_of_the_loader(&fs::read(binary(name)).unwrap()), (false, 0), "{name}");
    }
    // The check can fail: a shell is not static.
    let shell = asks_of_the_loader(&fs::read("/bin/sh").unwrap());
    assert!(shell.0 && shell.1 > 0, "{shell:?}");
}

/// Whether a line begins as a log line does: when, and how bad.
fn is_event(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let time = words.next().unwrap_or_default();
    let level = words.next().unwrap_or_default();
    time.len() >= 20
        && time.as_bytes()[10] == b'T'
        && time.ends_with('Z')
        && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level)
}

#[tokio::test]
async fn on_a_plain_stderr_each_event_is_one_line() {
    let mut solo = Solo::new().with(&["--log-level", "debug"]);
    // Inherited from a service whose stderr is the journal; this one is a file.
    solo.set("JOURNAL_STREAM", "8:12345");
    fs::create_dir(&solo.state_dir).unwrap();
    fs::write(solo.seed_file(), b"nonsense").unwrap();
    let mut agent = solo.start().await;
    solo.post("1").await.is(200, "1");
    agent.stop(&solo).await;
    let log = solo.log();
    assert!(log.lines().count() > 3, "{log}");
    for line in log.lines() {
        assert!(is_event(line), "not an event: {line:?}");
        assert!(!line.contains('\x1b'), "colours in a file: {line:?}");
    }
    // Sentences alone: neither ids nor fields, which are for the journal.
    assert!(!log.contains("message_id") && !log.contains("reason="), "{log}");
    let listening = format!(" INFO listening on {}, version ", solo.listen);
    for wanted in ["ERROR cannot use the seed: ", &listening, " INFO stopped: the port is closed"] {
        assert!(log.contains(wanted), "no {wanted}:\n{log}");
    }
    let mut quiet = Solo::new().with(&["--log-level", "error"]);
    quiet.set("JOURNAL_STREAM", "");
    let mut agent = quiet.start().await;
    agent.stop(&quiet).await;
    assert_eq!(quiet.log(), "");
}

#[tokio::test]
async fn on_a_terminal_the_level_alone_is_in_colour_unless_nobody_wants_it() {
    for (no_color, level) in [(None, "\x1b[32m INFO\x1b[0m"), (Some("1"), " INFO")] {
        let mut solo = Solo::new();
        solo.environment.extend(no_color.map(|value| ("NO_COLOR".to_owned(), value.to_owned())));
        let (person, stderr) = tests::terminal();
        fcntl_setfl(&person, OFlags::NONBLOCK).unwrap();
        let mut agent = solo.launch_with_stderr(stderr);
        let mut shown = Vec::new();
        let mut read = |wanted: &str| {
            let mut bytes = [0; 4096];
            while let Ok(length) = rustix::io::read(&person, &mut bytes) {
                shown.extend_from_slice(&bytes[..length]);
            }
            text(&shown).contains(wanted).then(|| text(&shown))
        };
        assert!(eventually(async || read("listening on")).await.is_some(), "{:?}", read(""));
        agent.stop(&solo).await;
        let shown = read("stopped: the port is closed").unwrap_or_else(|| panic!("{:?}", read("")));
        assert!(shown.lines().count() >= 3, "{shown:?}");
        for line in shown.lines() {
            assert!(
                is_event(&line.replace("\x1b[32m", "").replace("\x1b[33m", "").replace("\x1b[0m", "")),
                "{line:?}"
            );
            assert_eq!(line.contains('\x1b'), no_color.is_none(), "{line:?}");
        }
        assert!(shown.contains(&format!(" {level} listening on ")), "{shown:?}");
    }
}

#[tokio::test]
async fn without_ca_certificates_it_serves_and_says_what_is_missing() {
    let mut solo = Solo::new();
    solo.set("SSL_CERT_FILE", "/nonexistent");
    solo.set("SSL_CERT_DIR", "/nonexistent");
    let _running = solo.start().await;
    solo.until_logged("install ca-certificates").await;
    let status = solo.status().await.unwrap();
    let said = status["certificates_problem"].as_str().unwrap();
    assert!(said.contains("install ca-certificates"), "{said}");
    let table = solo.command(&[], &["status"]).await;
    assert!(text(&table.stdout).contains("install ca-certificates"), "{table:?}");
}
