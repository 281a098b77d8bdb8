//! The booted Debians of the tests leave nothing behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tests::debian::{root, script};
use tests::eventually;
use tests::nspawn::Nspawn;
use tests::solo::is_root_or_skip;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The processes whose command line names this folder.
fn processes_of(folder: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let names = |path: &PathBuf| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    };
    all.filter(names).collect()
}

#[tokio::test]
async fn a_machine_goes_with_the_test_that_is_killed() {
    if !is_root_or_skip("only root can boot a machine") {
        return;
    }
    // In place of a test: gives orders, and waits for something that never comes.
    let line = "coproc MACHINE { exec \"$0\" \"$1\"; }; read -r made <&\"${MACHINE[0]}\"; \
                echo boot >&\"${MACHINE[1]}\"; echo \"$made\"; read -r _";
    let mut test = Command::new("bash")
        .args(["-c", line])
        .arg(script("machine"))
        .arg(root("bookworm").await)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(test.stdout.take().unwrap()).lines();
    let made = said.next_line().await.unwrap().unwrap();
    let folder = made.strip_prefix("made ").unwrap().to_owned();
    let name = Path::new(&folder).file_name().unwrap().to_string_lossy().into_owned();
    let boots = async || {
        let of = processes_of(&folder);
        of.iter()
            .any(|path| {
                std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == "systemd-nspawn\n")
            })
            .then_some(())
    };
    eventually(boots).await.expect("it boots");

    test.kill().await.unwrap();
    let gone = async || (processes_of(&folder).is_empty() && !Path::new(&folder).exists()).then_some(());
    assert!(eventually(gone).await.is_some(), "left: {:?}", processes_of(&folder));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&name), "{mounts}");
    for cgroups in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        assert!(!Path::new(cgroups).join(&name).exists(), "{cgroups}/{name}");
    }
}

#[tokio::test]
async fn a_machine_keeps_its_disk_over_reboots_and_has_no_network_of_its_own() {
    if !is_root_or_skip("only root can boot a machine") {
        return;
    }
    let mut machine = Nspawn::booted(&root("bookworm").await).await;
    assert_eq!(machine.ok("ip -brief address | awk '{ print $1 }'").await, "lo");
    machine.ok("echo here > /etc/mark").await;
    machine.cut().await;
    machine.boot().await;
    machine.power_off().await;
    machine.boot().await;
    assert_eq!(machine.ok("cat /etc/mark").await, "here");
}
