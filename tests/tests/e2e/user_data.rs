//! What `bootstrap launch` tells an instance to do at its first boot, done by a real cloud-init in a
//! booted Debian: it installs the agent, or says in one line on the console why not.

use bootstrap::user_data::{FirstBoot as Said, PackageForInstance, first_boot_in_console};
use local_cloud::TargetState;
use tests::apt_repository::{make_key, publish};
use tests::debian::{package, root};
use tests::first_boot::{FirstBoot, from_address, of};
use tests::nspawn::Nspawn;
use tests::package::ok;
use tests::solo::is_root_or_skip;

const WHY: &str = "only root can boot a machine";

/// An address as S3 signs it, and worse: nothing of it may mean anything on its way.
const HOSTILE: &str = "x.deb?X-Amz-Signature=0&a='b'%22;$(touch${IFS}/run/owned)`touch${IFS}/run/owned`{}\\";

fn agent() -> Vec<u8> {
    std::fs::read(package("instance-agent")).unwrap()
}

fn installed() -> String {
    format!("installed {}", env!("CARGO_PKG_VERSION"))
}

#[tokio::test]
async fn it_installs_the_agent_from_a_signed_address_and_the_instance_becomes_healthy() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    files.put(HOSTILE, agent());
    let user_data = from_address(&FirstBoot::url(HOSTILE), &package("instance-agent"));
    assert_eq!(boot.run(&user_data).await, installed());
    assert_eq!(
        first_boot_in_console(&boot.console().await),
        Some(Said::Installed { version: env!("CARGO_PKG_VERSION").to_owned() })
    );
    assert_eq!(boot.machine().ok("systemctl is-active instance-agent").await, "active");
    assert_eq!(boot.machine().ok("systemctl is-enabled instance-agent").await, "enabled");
    boot.bed.until_target(TargetState::Healthy).await;
    assert_eq!(boot.machine().ok("find /tmp -name '*.deb'").await, "", "the download is left behind");
    assert!(!boot.machine().run("test -e /run/owned").await.status.success());
}

#[tokio::test]
async fn it_tries_again_until_the_server_answers_and_waits_for_the_lock_of_dpkg() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    boot.machine().write("usr/local/lib/hold.py", include_str!("../../guest/hold_dpkg_lock.py"));
    boot.machine().ok("python3 /usr/local/lib/hold.py").await;
    boot.begin(&from_address(&FirstBoot::url("agent.deb"), &package("instance-agent"))).await;
    boot.until_logged("Connection refused; retrying in").await;
    let files = FirstBoot::files().await;
    files.put("agent.deb", agent());
    boot.until_logged("Waiting for cache lock").await;
    assert!(!boot.has_package().await, "installed under a foreign lock");
    boot.machine().ok("touch /run/release-dpkg").await;
    assert_eq!(boot.end().await, installed());
}

/// Where a boot puts what the next one does again.
const SCRIPT: &str = "/var/lib/cloud/scripts/per-boot/instance-agent";

#[tokio::test]
async fn what_was_cut_off_is_done_at_the_next_boot_and_never_again() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    files.put("agent.deb", agent());
    let user_data = from_address(&FirstBoot::url("agent.deb"), &package("instance-agent"));
    boot.machine().write("usr/local/lib/hold.py", include_str!("../../guest/hold_dpkg_lock.py"));
    boot.machine().ok("python3 /usr/local/lib/hold.py").await;
    boot.begin(&user_data).await;
    boot.until_logged("Waiting for cache lock").await;
    boot.cut().await;
    // What had been written of the script is as if it had never reached the disk.
    boot.machine().ok(&format!("truncate -s 0 {SCRIPT}")).await;
    boot.machine().ok("touch /run/release-dpkg").await;
    assert_eq!(boot.run(&user_data).await, installed());
    assert_eq!(boot.machine().ok("systemctl is-active instance-agent").await, "active");

    boot.machine().ok("apt-get -y purge instance-agent").await;
    assert_eq!(boot.run(&user_data).await, installed(), "said once");
    assert!(!boot.has_package().await, "what was removed by hand comes back at the next boot");
    assert!(!boot.machine().run(&format!("test -e {SCRIPT}")).await.status.success());
}

#[tokio::test]
async fn what_failed_is_tried_again_at_the_next_boot_and_what_was_installed_by_hand_stays() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let _files = FirstBoot::files().await;
    let user_data = from_address(&FirstBoot::url("agent.deb"), &package("instance-agent"));
    let failed = format!("FAILED: cannot download {}: HTTP 404 Not Found", FirstBoot::url("agent.deb"));
    assert_eq!(boot.run(&user_data).await, failed);
    boot.begin(&user_data).await;
    assert_eq!(boot.ended().await, vec![failed.clone(); 2]);
    // Nobody waits for a boot: the same by hand.
    let by_hand = boot.machine().run(&format!("{SCRIPT} >>/var/log/cloud-init-output.log")).await;
    assert_eq!(by_hand.status.code(), Some(1), "{by_hand:?}");
    assert_eq!(boot.ended().await, vec![failed.clone(); 3]);

    boot.machine().write("root/agent.deb", agent());
    boot.machine().ok("apt-get -y install /root/agent.deb").await;
    boot.begin(&user_data).await;
    // The address still leads nowhere: it was not asked.
    assert_eq!(boot.ended().await[3..], [installed()]);
    assert!(!boot.machine().run(&format!("test -e {SCRIPT}")).await.status.success());
}

#[tokio::test]
async fn settings_that_are_there_first_stay_and_the_package_is_installed() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    files.put("agent.deb", agent());
    let settings = "/etc/instance-agent/agent.toml";
    boot.machine()
        .ok(&format!("mkdir -p /etc/instance-agent && echo 'drain-quiet = \"7s\"' >{settings}"))
        .await;
    let said = boot.run(&from_address(&FirstBoot::url("agent.deb"), &package("instance-agent"))).await;
    let kept =
        format!("{}; kept this machine's own {settings}, the package's is {settings}.dpkg-dist", installed());
    assert_eq!(said, kept);
    assert_eq!(
        first_boot_in_console(&boot.console().await),
        Some(Said::Installed { version: env!("CARGO_PKG_VERSION").to_owned() })
    );
    assert_eq!(boot.machine().ok(&format!("cat {settings}")).await, "drain-quiet = \"7s\"");
    assert_eq!(boot.machine().ok("systemctl is-active instance-agent").await, "active");
}

#[tokio::test]
async fn a_package_that_an_earlier_run_left_half_configured_is_repaired() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    files.put("agent.deb", agent());
    boot.machine().write("root/agent.deb", agent());
    // Unpacked, and cut off: what dpkg was about to note is still in its journal.
    boot.machine()
        .ok("dpkg --unpack /root/agent.deb && cp /var/lib/dpkg/status /var/lib/dpkg/updates/0001")
        .await;
    assert!(!boot.machine().run("apt-get check").await.status.success(), "nothing is interrupted");
    let said = boot.run(&from_address(&FirstBoot::url("agent.deb"), &package("instance-agent"))).await;
    assert_eq!(said, installed());
    assert_eq!(boot.machine().ok("dpkg --audit").await, "");
}

#[tokio::test]
async fn a_disk_without_room_or_not_to_be_written_to_is_told_with_what_to_do() {
    if !is_root_or_skip(WHY) {
        return;
    }
    for (prepare, why, cure) in [
        ("mount --bind /usr /usr && mount -o remount,ro,bind /usr", "Read-only file system", "take an image"),
        (
            "mount -t tmpfs -o size=64k none /usr/share/man && cp /bin/bash /usr/share/man/ ; true",
            "No space left on device",
            "take a larger volume",
        ),
    ] {
        let boot = FirstBoot::new().await;
        let files = FirstBoot::files().await;
        files.put("agent.deb", agent());
        boot.machine().ok(prepare).await;
        let said = boot.run(&from_address(&FirstBoot::url("agent.deb"), &package("instance-agent"))).await;
        assert!(said.starts_with("FAILED: apt-get: ") && said.contains(why) && said.contains(cure), "{said}");
    }
}

#[tokio::test]
async fn another_file_than_the_launcher_saw_is_not_installed() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    files.put("agent.deb", [agent(), vec![0]].concat());
    let url = FirstBoot::url("agent.deb");
    let said = boot.run(&from_address(&url, &package("instance-agent"))).await;
    assert!(said.starts_with(&format!("FAILED: the file from {url} has SHA-256 ")), "{said}");
    assert!(!boot.has_package().await);
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_told_without_its_signature() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    let signed = FirstBoot::url("agent.deb?X-Amz-Signature=secret");
    let said = boot.run(&from_address(&signed, &package("instance-agent"))).await;
    let url = FirstBoot::url("agent.deb");
    assert_eq!(said, format!("FAILED: cannot download {url}: HTTP 404 Not Found"));
    assert!(!boot.machine().ok("cat /var/log/cloud-init-output.log").await.contains("secret"));
    drop(files);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let url = FirstBoot::url("agent.deb");
    let said = boot.run(&from_address(&url, &package("instance-agent"))).await;
    assert!(said.starts_with(&format!("FAILED: cannot download {url}: ")), "{said}");
    assert!(said.ends_with("Connection refused"), "{said}");
}

/// A signed repository with the agent, on the instance's web server; its line for apt and its key.
async fn repository(files: &tests::files::Files) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (keys, site) = (folder.path().join("keys"), folder.path().join("site"));
    std::fs::create_dir(&site).unwrap();
    make_key(&keys).await;
    ok(&mut publish(&keys, &site, &[&package("instance-agent")])).await;
    let mut folders = vec![site.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&site).unwrap().to_str().unwrap();
                files.put(&format!("apt/{name}"), std::fs::read(&path).unwrap());
            }
        }
    }
    let key = std::fs::read_to_string(site.join("instance-agent.asc")).unwrap();
    (format!("deb {} stable main", FirstBoot::url("apt")), key)
}

#[tokio::test]
async fn it_installs_the_agent_from_an_apt_repository_that_its_key_signed() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    let (line, key) = repository(&files).await;
    // A repository that the image has and that does not answer is none of our business.
    boot.machine().write("etc/apt/sources.list.d/broken.list", "deb http://10.77.0.1:9 stable main\n");
    assert_eq!(boot.run(&of(&PackageForInstance::Apt { line, key })).await, installed());
    assert_eq!(boot.machine().ok("systemctl is-active instance-agent").await, "active");
}

#[tokio::test]
async fn a_repository_that_another_key_signed_is_not_trusted() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let boot = FirstBoot::new().await;
    let files = FirstBoot::files().await;
    let (_, key) = repository(&files).await;
    let (line, _) = repository(&files).await;
    let said = boot.run(&of(&PackageForInstance::Apt { line, key })).await;
    assert!(said.starts_with("FAILED: apt-get: ") && said.contains("NO_PUBKEY"), "{said}");
    assert!(!boot.has_package().await);
}

#[tokio::test]
async fn cloud_init_finds_nothing_wrong_with_it() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = Nspawn::make(&root("bookworm-vm").await).await;
    let packages = [
        PackageForInstance::Download { url: FirstBoot::url(HOSTILE), sha256: "0".repeat(64) },
        PackageForInstance::Apt {
            line: "deb [arch=amd64] https://h/'\"\\ stable main".to_owned(),
            key: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDME'\"\\\n: #{}\n".to_owned(),
        },
    ];
    for package in packages {
        machine.write("root/user-data", of(&package));
        // What says `valid` there; anything else in its words or in its exit code is a failure.
        let checked = machine.chroot("cloud-init schema --config-file /root/user-data").await;
        let said = tests::text(&checked.stdout) + &tests::text(&checked.stderr);
        assert!(checked.status.success(), "{said}");
        assert!(said.contains("Valid") && !said.to_lowercase().contains("warn"), "{said}");
        // What arrives is what was meant.
        let program = "import yaml; [script] = yaml.safe_load(open('/root/user-data'))['bootcmd']; \
                       _, _, program = script.partition(\"PROGRAM'\\n\"); \
                       program, _, _ = program.partition('\\nEND OF PROGRAM\\n'); \
                       line, = [line for line in program.splitlines() if line.startswith('PACKAGE = ')]; \
                       exec(line); compile(program, 'x', 'exec'); import json; print(json.dumps(PACKAGE))";
        machine.write("root/read.py", program.replace("; ", "\n"));
        let read = machine.chroot("python3 /root/read.py").await;
        let read: serde_json::Value = serde_json::from_slice(&read.stdout).unwrap();
        match package {
            PackageForInstance::Download { url, .. } => assert_eq!(read["url"], url),
            PackageForInstance::Apt { key, .. } => assert_eq!(read["key"], key),
            PackageForInstance::InImage => unreachable!(),
        }
    }
}
