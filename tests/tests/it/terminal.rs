//! What `bootstrap` shows on a terminal of 80 and of 40 columns: no line is wider, and no word is broken.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::termios::{Winsize, tcsetwinsize};
use tests::account::{Account, Agents, Options, Small};
use tests::{eventually, terminal};

/// A terminal of so many columns, and all that is written to it until its last writer is gone.
fn screen(columns: u16, lines: u16) -> (OwnedFd, tokio::task::JoinHandle<String>) {
    let (person, program) = terminal();
    let size = Winsize { ws_col: columns, ws_row: lines, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&program, size).unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        // The end of a terminal is an error.
        while let Ok(count @ 1..) = rustix::io::read(&person, &mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(all).unwrap()
    });
    (program, reading)
}

/// The lines that were on the screen at some time: without sequences that move the cursor.
fn lines(written: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut chars = written.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            assert_eq!(chars.next(), Some('['));
            while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
            plain.push('\n');
        } else {
            plain.push(if c == '\r' { '\n' } else { c });
        }
    }
    plain.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// That no line is wider than the terminal, but for what is to be pasted, and that each word is one of those that a
/// reader who is no terminal gets.
fn fits(shown: &[String], columns: usize, piped: &str) {
    let known: BTreeSet<&str> = piped.split([' ', '\n']).collect();
    for line in shown {
        let content = line.trim_start();
        let pasted = ["aws ", "curl ", "bootstrap ", "`"].iter().any(|start| content.starts_with(start));
        let single = !content.contains(' ');
        assert!(line.chars().count() <= columns || pasted || single, "wider than {columns}: {line}");
        for word in content.split(' ').filter(|word| !word.is_empty()) {
            // Of what is below a row the headings are in lower case, and a list is cut.
            let bare = word.trim_end_matches([';', ':', '…']);
            let is_known = [word, bare].iter().any(|word| known.contains(word) || piped.contains(*word));
            let upper = bare.to_uppercase();
            assert!(
                is_known || piped.contains(&upper) || word == "more",
                "{word:?} in {line:?} is of no word in\n{piped}"
            );
        }
    }
}

#[tokio::test]
async fn plan_launch_status_and_list_fit_a_terminal_and_break_no_word() {
    let account = Account::start(Options::prompt()).await;
    let program = account.installed("usr", &["amd64"]);
    for columns in [80, 40] {
        for command in [&["plan", "clusters"][..], &["plan", "clusters", "--key-pair", "nobody"]] {
            let piped = account.bootstrap_at(&program, command).run().await;
            let (screen, reading) = screen(columns, 50);
            let running =
                account.bootstrap_at(&program, command).stdout(screen.try_clone().unwrap()).stderr(screen);
            running.run().await;
            let shown = reading.await.unwrap();
            fits(&lines(&shown), columns.into(), &(piped.stdout + &piped.stderr));
        }
    }
    account.bootstrap_at(&program, &["launch", "clusters"]).run().await.success();
    for columns in [80, 40] {
        for command in
            [&["launch", "clusters"][..], &["status"], &["list"], &["plan", "--destroy"], &["plan"]]
        {
            let piped = account.bootstrap_at(&program, command).run().await.success();
            let (screen, reading) = screen(columns, 50);
            account.bootstrap_at(&program, command).stdout(screen).run().await.success();
            let shown = lines(&reading.await.unwrap());
            // The ages go on.
            let ages: String = (0..90).map(|age| format!("{age} ")).collect();
            fits(&shown, columns.into(), &(piped.stdout + &ages + "s min and"));
            if command.contains(&"--destroy") {
                assert!(shown.join(" ").contains(" and 4 more"), "{shown:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_step_under_way_is_one_line_that_says_first_how_many_are_healthy() {
    let small = Small::with(Options { agents: Agents::Never, ..Options::prompt() }).await;
    let launch = ["launch", &small.file, "--in-image", "--timeout", "3s"];
    for columns in [80, 40] {
        let (screen, reading) = screen(columns, 50);
        small.account.bootstrap(&launch).env("TERM", "xterm").stderr(screen).run().await.exits(3);
        let columns = usize::from(columns);
        let shown = lines(&reading.await.unwrap());
        // Steps under way fill their lines with spaces, and so come to the next one.
        let is_under_way =
            |line: &&String| line.chars().nth(2).is_some_and(|c| !c.is_ascii() && !['…', '×'].contains(&c));
        let of_steps: Vec<String> = shown
            .iter()
            .filter(is_under_way)
            .flat_map(|line| {
                let all: Vec<char> = line.chars().collect();
                all.chunks(columns).map(|chunk| chunk.iter().collect()).collect::<Vec<String>>()
            })
            .collect();
        for line in &of_steps {
            assert!(
                is_under_way(&line) && line.starts_with("  ") && line.contains(" s)"),
                "not one line: {line:?}"
            );
        }
        let waits = |line: &String| line.contains("wait") && line.contains(" s) 0 of 4 healthy");
        assert!(of_steps.iter().any(waits), "{of_steps:?}");
        for line in shown.iter().filter(|line| !is_under_way(line)) {
            let pasted = line.trim_start().starts_with('`') || !line.trim_start().contains(' ');
            assert!(pasted || line.chars().count() <= columns, "wider than {columns}: {line}");
        }
    }
}

#[tokio::test]
async fn status_that_watches_is_drawn_in_the_place_of_the_one_before_and_fits() {
    let account = Account::start(Options::prompt()).await;
    account.ok(&["launch", "clusters", "--in-image"]).await;
    let (screen, reading) = screen(80, 12);
    let kept = screen.try_clone().unwrap();
    let running = account.bootstrap(&["status", "--watch"]).stdout(screen).start();
    // Each look asks for both groups' health.
    let looks = async || {
        (account.names().iter().filter(|name| name.ends_with("DescribeTargetHealth")).count() >= 6)
            .then_some(())
    };
    account.clear();
    eventually(looks).await.expect("it looks again");
    running.signal(rustix::process::Signal::INT);
    running.end().await.success();
    drop(kept);
    let shown = reading.await.unwrap();
    let mut drawn = shown.split("\u{1b}[");
    let first = drawn.next().unwrap();
    assert!(first.lines().count() <= 12 && first.contains("9 of 9 instances are healthy"), "{first}");
    assert!(first.contains("lines more"), "{first}");
    let up = format!("{}A", first.lines().count());
    assert_eq!(drawn.next().map(|sequence| sequence.trim_end()), Some(up.as_str()), "{shown:?}");
}
