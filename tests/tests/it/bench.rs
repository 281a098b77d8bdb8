//! `make bench`, in its shortest form with the programs of this build: that it measures both sides, never how fast
//! they are.

use std::path::Path;

use tests::package::{ok, output, tool, tree};
use tests::{binary, text};

fn bench(arguments: &[&str]) -> tokio::process::Command {
    let mut command = tool(tree().join("tests/bench/run"));
    command.arg("--agent").arg(binary("instance-agent"));
    command.arg("--programs").arg(binary("bench-client").parent().unwrap());
    command.args(arguments);
    command
}

/// The figures of the line that begins with these words; NaN for one that is not known.
fn figures(printed: &str, words: &str) -> Vec<f64> {
    let line = printed.lines().find_map(|line| line.trim_start().strip_prefix(words));
    let line = line.unwrap_or_else(|| panic!("no line of {words}:\n{printed}"));
    let figure = |word: &str| if word == "-" { Ok(f64::NAN) } else { word.replace(',', "").parse() };
    line.split_whitespace().map_while(|word| figure(word).ok()).collect()
}

#[tokio::test]
async fn a_row_shows_both_sides_and_their_ratio_and_the_page_with_its_chart() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().to_str().unwrap();
    let arguments =
        ["--quick", "--row", "get-64", "--peer", "bare-epoll", "--peer", "bare-hyper", "--page", page];
    let printed = ok(&mut bench(&arguments)).await;
    assert!(printed.contains("too short for figures"), "{printed}");
    for line in ["agent ", "bare epoll loop", "bare hyper", "agent ÷ bare epoll loop", "agent ÷ bare hyper"]
    {
        // The processors' time may be less than the kernel counts; the rate may not.
        assert!(figures(&printed, line)[3] > 0.0, "{line}:\n{printed}");
    }
    let read = |name: &str| std::fs::read_to_string(Path::new(page).join(name)).unwrap();
    let written = read("benchmarks.md");
    for words in
        ["| agent ÷ bare hyper |", "benchmarks-dark.svg", "make bench ARGS='--row get-64'", "| kernel |"]
    {
        assert!(written.contains(words), "{words}:\n{written}");
    }
    for theme in ["light", "dark"] {
        assert!(read(&format!("benchmarks-{theme}.svg")).ends_with("</svg>\n"));
    }
}

/// Idle connections, a program's start, reloads and stores have ways of their own to be measured.
#[tokio::test]
async fn a_reload_under_load_loses_nothing_and_other_rows_work_without_their_peers() {
    let rows = ["idle", "post-8", "memory", "start", "reload"].map(|row| ["--row", row]);
    let arguments = [&["--quick", "--alone"][..], &rows.concat()].concat();
    let printed = ok(&mut bench(&arguments)).await;
    for (row, figure) in [("idle", 0), ("post-8", 3), ("memory", 0), ("start", 0), ("reload", 2)] {
        let shown = printed.split_once(&format!("{row}: ")).map_or("", |(_, after)| after);
        let measured = figures(shown, "agent ");
        assert!(measured[figure] > 0.0, "{row}:\n{printed}");
    }
    let (_, reload) = printed.split_once("reload: ").unwrap();
    assert_eq!(figures(reload, "agent ")[..2], [0.0, 0.0], "{printed}");
}

#[tokio::test]
async fn a_launch_is_measured_beside_a_script_with_waiters() {
    let program = binary("bootstrap");
    let arguments = ["--quick", "--rounds", "1", "--row", "launch", "--bootstrap", program.to_str().unwrap()];
    let printed = ok(&mut bench(&arguments)).await;
    for line in ["bootstrap ", "boto3 script", "bootstrap ÷ boto3 script"] {
        assert!(figures(&printed, line)[0] > 0.0, "{line}:\n{printed}");
    }
}

/// Two rounds are too few for a spread, so they are never a result.
#[tokio::test]
async fn ratios_without_a_spread_under_the_limit_are_no_result_and_a_failed_row_is_named() {
    let short = ["--row", "get-64", "--peer", "bare-epoll", "--rounds", "2", "--seconds", "0.1"];
    let noisy = output(&mut bench(&short)).await;
    assert_eq!(noisy.status.code(), Some(1));
    assert!(text(&noisy.stdout).contains("TOO NOISY"), "{}", text(&noisy.stdout));
    assert!(text(&noisy.stderr).contains("too noisy, run it again on a quiet machine: get-64"));

    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page");
    let mut broken = bench(&["--quick", "--row", "get-64", "--peer", "bare-epoll", "--agent", "/bin/false"]);
    let failed = output(broken.arg("--page").arg(&page)).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stderr).contains("get-64 failed: agent does not answer"),
        "{}",
        text(&failed.stderr)
    );
    assert!(!page.exists(), "a page without a row");
}

#[tokio::test]
async fn an_unknown_row_or_peer_is_refused_with_the_names_that_exist() {
    for (arguments, named) in [(["--row", "get"], "get-64"), (["--peer", "apache"], "nginx")] {
        let refused = output(&mut bench(&arguments)).await;
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(named), "{}", text(&refused.stderr));
    }
    // A page holds every row, or nothing of it is comparable.
    let refused = output(&mut bench(&["--update", "--row", "get-64"])).await;
    assert_eq!(refused.status.code(), Some(2));
}
