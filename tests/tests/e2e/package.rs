//! The Debian packages, as a machine that installs them and an administrator who reads them would
//! find them. What their service does when it runs is in other files.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use tests::package::{Package, Unpacked, all, dist, ok, output, package, tool, tree};
use tests::solo::Solo;
use tests::text;

/// The commands of a program whose help lists commands, with the words that lead to each.
async fn commands(program: &Path) -> Vec<Vec<String>> {
    let mut found = vec![vec![]];
    let mut next = 0;
    while next < found.len() {
        let words: Vec<String> = found[next].clone();
        let help = ok(tool(program).args(&words).arg("--help")).await;
        let listed = help.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        for line in listed.lines().take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().unwrap();
            if name != "help" && line.starts_with("  ") && !line.starts_with("   ") {
                found.push([&words[..], &[name.to_owned()]].concat());
            }
        }
        next += 1;
    }
    found
}

/// The long flags that a help text names as its own.
fn flags(help: &str) -> BTreeSet<String> {
    let flag = |line: &str| {
        let start = line.trim_start();
        let start = start
            .strip_prefix("-")
            .filter(|rest| rest.starts_with(|c: char| c != '-'))
            .map_or(start, |short| short.split_once(", ").map_or("", |(_, long)| long));
        let name = start.strip_prefix("--")?;
        let end = name
            .find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '-')
            .unwrap_or(name.len());
        Some(format!("--{}", &name[..end]))
    };
    let options = help.split_once("\nOptions:\n").map_or("", |(_, rest)| rest);
    options.lines().filter_map(flag).collect()
}

/// The amd64 package with the program of this name, unpacked.
async fn unpacked(program: &'static str) -> Unpacked {
    let name = if program == "bootstrap" { "instance-bootstrap" } else { "instance-agent" };
    package(name, "amd64").unpack().await
}

/// A manual page as a terminal shows it, without formatting.
async fn rendered(page: &Path) -> String {
    let command = "set -o pipefail; MANWIDTH=200 man --encoding=UTF-8 --local-file \"$0\" | col -bx";
    ok(tool("bash").args(["-c", command]).arg(page)).await
}

#[test]
fn there_is_one_package_of_each_program_for_each_kind_of_processor() {
    let expected: BTreeSet<_> = all().into_iter().map(|package| package.path).collect();
    let found = std::fs::read_dir(dist()).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeSet<_> = found.filter(|path| path.extension().is_some_and(|end| end == "deb")).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_agents_package_holds_exactly_these_files() {
    for architecture in ["amd64", "arm64"] {
        holds(
            &package("instance-agent", architecture),
            &[
                "-rw-r--r-- /etc/instance-agent/agent.toml",
                "-rwxr-xr-x /usr/bin/instance-agent",
                "-rw-r--r-- /usr/lib/systemd/catalog/instance-agent.catalog",
                "-rw-r--r-- /usr/lib/systemd/system/instance-agent.service",
                "-rw-r--r-- /usr/share/bash-completion/completions/instance-agent",
                "-rw-r--r-- /usr/share/doc/instance-agent/changelog.gz",
                "-rw-r--r-- /usr/share/doc/instance-agent/copyright",
                "-rw-r--r-- /usr/share/doc/instance-agent/examples/iam-policy.json",
                "-rw-r--r-- /usr/share/fish/vendor_completions.d/instance-agent.fish",
                "-rw-r--r-- /usr/share/lintian/overrides/instance-agent",
                "-rw-r--r-- /usr/share/man/man1/instance-agent*.1.gz",
                "-rw-r--r-- /usr/share/man/man5/instance-agent.toml.5.gz",
                "-rw-r--r-- /usr/share/zsh/vendor-completions/_instance-agent",
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn the_launchers_package_holds_exactly_these_files() {
    for architecture in ["amd64", "arm64"] {
        holds(
            &package("instance-bootstrap", architecture),
            &[
                "-rwxr-xr-x /usr/bin/bootstrap",
                "-rw-r--r-- /usr/share/bash-completion/completions/bootstrap",
                "-rw-r--r-- /usr/share/doc/instance-bootstrap/changelog.gz",
                "-rw-r--r-- /usr/share/doc/instance-bootstrap/copyright",
                "-rw-r--r-- /usr/share/fish/vendor_completions.d/bootstrap.fish",
                &carried("amd64"),
                &carried("arm64"),
                "-rw-r--r-- /usr/share/lintian/overrides/instance-bootstrap",
                "-rw-r--r-- /usr/share/man/man1/bootstrap*.1.gz",
                "-rw-r--r-- /usr/share/zsh/vendor-completions/_bootstrap",
            ],
        )
        .await;
    }
}

/// How the launcher's package lists a package of the agent that it brings.
fn carried(architecture: &'static str) -> String {
    let agent = package("instance-agent", architecture).path;
    format!("-rw-r--r-- /usr/share/instance-bootstrap/{}", agent.file_name().unwrap().to_str().unwrap())
}

#[tokio::test]
async fn the_launchers_packages_bring_the_agents_for_both_kinds_of_processor() {
    for architecture in ["amd64", "arm64"] {
        let launcher = package("instance-bootstrap", architecture).unpack().await;
        for agent in ["amd64", "arm64"].map(|of| package("instance-agent", of)) {
            let name = agent.path.file_name().unwrap().to_str().unwrap();
            let carried = launcher.path(&format!("/usr/share/instance-bootstrap/{name}"));
            assert!(std::fs::read(carried).unwrap() == std::fs::read(&agent.path).unwrap(), "{name} differs");
        }
    }
}

/// Which commands have a page is another test's matter: their pages count as one file here.
async fn holds(package: &Package, expected: &[&str]) {
    let listed = ok(tool("dpkg-deb").arg("--contents").arg(&package.path)).await;
    let mut found = BTreeSet::new();
    for line in listed.lines() {
        let [mode, owner, _, _, _, path] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        assert_eq!(owner, "root/root", "{line}");
        let path = path.trim_start_matches('.');
        if mode.starts_with('d') {
            assert_eq!(mode, "drwxr-xr-x", "{line}");
        } else if let Some(page) = path.strip_prefix("/usr/share/man/man1/") {
            assert!(page.starts_with(package.program) && page.ends_with(".1.gz"), "{line}");
            found.insert(format!("{mode} /usr/share/man/man1/{}*.1.gz", package.program));
        } else {
            found.insert(format!("{mode} {path}"));
        }
    }
    assert_eq!(found, expected.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>());
}

#[tokio::test]
async fn the_packages_depend_on_nothing_and_recommend_certificates() {
    for package in all() {
        let empty = ["Depends", "Pre-Depends", "Conflicts", "Breaks"];
        for field in empty {
            assert_eq!(package.field(field).await, "", "{}: {field}", package.path.display());
        }
        assert_eq!(package.field("Recommends").await, "ca-certificates");
        assert_eq!(package.field("Package").await, package.name);
        assert_eq!(package.field("Architecture").await, package.architecture);
        assert_eq!(package.field("Version").await, env!("CARGO_PKG_VERSION"));
    }
}

#[tokio::test]
async fn dpkg_of_2017_and_later_can_unpack_them() {
    for package in all() {
        let members = ok(tool("ar").arg("t").arg(&package.path)).await;
        // zstd is Ubuntu's own; older dpkg refuses it.
        assert_eq!(members, "debian-binary\ncontrol.tar.xz\ndata.tar.xz\n");
    }
}

#[tokio::test]
async fn the_settings_file_alone_is_the_administrators() {
    let agent = unpacked("instance-agent").await;
    assert_eq!(agent.text("DEBIAN/conffiles"), "/etc/instance-agent/agent.toml\n");
    assert_eq!(agent.list("DEBIAN"), ["conffiles", "control", "md5sums", "postinst", "postrm", "prerm"]);
    assert_eq!(unpacked("bootstrap").await.list("DEBIAN"), ["control", "md5sums"]);
}

#[tokio::test]
async fn the_checksums_are_those_of_the_files() {
    for package in all() {
        let unpacked = package.unpack().await;
        let root = unpacked.path("/");
        ok(tool("md5sum").args(["--check", "--quiet", "--strict", "DEBIAN/md5sums"]).current_dir(root)).await;
    }
}

#[tokio::test]
async fn the_agents_package_is_small() {
    for architecture in ["amd64", "arm64"] {
        let package = package("instance-agent", architecture);
        let size = std::fs::metadata(&package.path).unwrap().len();
        assert!(size <= 2_500_000, "{architecture}: {size} bytes");
        let unpacked = package.unpack().await;
        let size = std::fs::metadata(unpacked.path("/usr/bin/instance-agent")).unwrap().len();
        assert!(size <= 6_500_000, "{architecture}: {size} bytes");
    }
}

#[tokio::test]
async fn lintian_has_no_error_and_no_warning() {
    let mut lintian = tool("lintian");
    lintian.args(["--pedantic", "--display-info", "--fail-on=error,warning"]);
    // It warns of running as root, where it has nothing to lose.
    lintian.arg("--allow-root").args(all().iter().map(|package| &package.path));
    let said = output(&mut lintian).await;
    let (hints, errors) = (text(&said.stdout), text(&said.stderr));
    assert!(said.status.success() && errors.is_empty(), "{hints}{errors}");
    let serious = |line: &&str| line.starts_with("E:") || line.starts_with("W:");
    assert_eq!(hints.lines().filter(serious).collect::<Vec<_>>(), Vec::<&str>::new());
    // Every override is needed, and tells its reason.
    assert!(!hints.contains("unused-override") && !hints.contains("mismatched-override"), "{hints}");
    for package in all() {
        let overrides =
            package.unpack().await.text(&format!("/usr/share/lintian/overrides/{}", package.name));
        assert!(overrides.starts_with("# "), "{overrides}");
    }
}

#[tokio::test]
async fn packaging_twice_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut again = tool("packaging/make-deb");
    again.args(["--package-only", "--out"]).arg(folder.path());
    // Another hour of the day, another language, other habits.
    again.env("TZ", "Pacific/Kiritimati").env("LC_ALL", "C").env_remove("HOME").env("HOME", home());
    ok(&mut again).await;
    for package in all() {
        let second = folder.path().join(package.path.file_name().unwrap());
        let same = std::fs::read(&package.path).unwrap() == std::fs::read(&second).unwrap();
        assert!(same, "{} differs", package.path.display());
    }
}

fn home() -> std::ffi::OsString {
    std::env::var_os("HOME").expect("a home")
}

#[tokio::test]
async fn another_version_of_the_same_programs_can_be_packaged() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = tool("packaging/make-deb");
    other.args(["--package-only", "--deb-version", "0.0.9~test1", "amd64", "--out"]).arg(folder.path());
    ok(&mut other).await;
    let path = folder.path().join("instance-agent_0.0.9~test1_amd64.deb");
    let other = Package { path, ..package("instance-agent", "amd64") };
    assert_eq!(other.field("Version").await, "0.0.9~test1");
    let (other, own) = (other.unpack().await, unpacked("instance-agent").await);
    let program = |package: &Unpacked| std::fs::read(package.path("/usr/bin/instance-agent")).unwrap();
    assert!(program(&other) == program(&own));
}

#[tokio::test]
async fn the_programs_name_no_folder_of_the_machine_that_built_them() {
    let sysroot = ok(tool("rustc").args(["--print", "sysroot"])).await;
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", home().display()));
    let target = std::env::current_exe().unwrap();
    let target = target.ancestors().find(|path| path.join("CACHEDIR.TAG").exists()).unwrap();
    let folders = [
        tree().display().to_string(),
        target.display().to_string(),
        sysroot.trim().to_owned(),
        cargo,
        format!("{}/", home().display()),
        "/tmp/".to_owned(),
    ];
    for package in all() {
        let unpacked = package.unpack().await;
        let program = std::fs::read(unpacked.path(&format!("/usr/bin/{}", package.program))).unwrap();
        for folder in &folders {
            let found = program.windows(folder.len()).any(|window| window == folder.as_bytes());
            assert!(!found, "{} {} names {folder}", package.program, package.architecture);
        }
    }
}

#[tokio::test]
async fn every_command_has_a_manual_page_that_names_every_flag() {
    for program in ["instance-agent", "bootstrap"] {
        let package = unpacked(program).await;
        let binary = package.path(&format!("/usr/bin/{program}"));
        let mut expected = Vec::new();
        for words in commands(&binary).await {
            let name = [&[program.to_owned()], &words[..]].concat().join("-");
            let page = package.path(&format!("/usr/share/man/man1/{name}.1.gz"));
            let shown = rendered(&page).await;
            let help = ok(tool(&binary).args(&words).arg("--help")).await;
            let flags = flags(&help);
            assert!(flags.contains("--help"), "{help}");
            for flag in flags {
                let named =
                    shown.lines().any(|line| line.trim_start().split([' ', ',']).any(|word| word == flag));
                assert!(named, "{name}(1) does not name {flag}:\n{shown}");
            }
            expected.push(format!("{name}.1.gz"));
        }
        expected.sort();
        assert_eq!(package.list("/usr/share/man/man1"), expected);
        assert!(expected.len() > 3, "{expected:?}");
    }
}

#[tokio::test]
async fn the_manual_pages_render_without_a_warning() {
    for (program, sections) in [("instance-agent", &["man1", "man5"][..]), ("bootstrap", &["man1"])] {
        let package = unpacked(program).await;
        for section in sections {
            let folder = format!("/usr/share/man/{section}");
            for page in package.list(&folder) {
                let page = package.path(&format!("{folder}/{page}"));
                let mut groff = tool("man");
                groff.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&page);
                let said = output(&mut groff).await;
                assert!(said.status.success() && said.stderr.is_empty(), "{}", text(&said.stderr));
                let said = output(tool("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page)).await;
                assert!(said.status.success() && said.stdout.is_empty(), "{}", text(&said.stdout));
            }
        }
    }
}

/// The agent's settings, as its own help lists them.
async fn settings(agent: &Path) -> BTreeSet<String> {
    let help = ok(tool(agent).args(["serve", "--help"])).await;
    let (_, settings) = help.split_once("\nSettings (").expect("a heading");
    let flags = flags(&format!("\nOptions:\n{settings}"));
    flags.iter().map(|flag| flag.trim_start_matches("--").to_owned()).collect()
}

#[tokio::test]
async fn the_settings_have_a_manual_page() {
    let package = unpacked("instance-agent").await;
    let shown = rendered(&package.path("/usr/share/man/man5/instance-agent.toml.5.gz")).await;
    let settings = settings(&package.path("/usr/bin/instance-agent")).await;
    assert!(settings.len() > 15, "{settings:?}");
    for setting in settings {
        let named = shown.lines().any(|line| line.trim_start().starts_with(&format!("{setting} = ")));
        assert!(named, "no {setting} in:\n{shown}");
    }
}

#[tokio::test]
async fn the_settings_file_explains_every_setting_and_sets_none() {
    let package = unpacked("instance-agent").await;
    let file = package.text("/etc/instance-agent/agent.toml");
    assert!(file.lines().all(|line| line.is_empty() || line.starts_with('#')), "{file}");
    let lines: Vec<&str> = file.lines().collect();
    let mut found = BTreeSet::new();
    for (index, line) in lines.iter().enumerate() {
        let setting =
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        if let Some((key, _)) = setting.and_then(|setting| setting.split_once(" = ")) {
            assert!(lines[index - 1].starts_with("# "), "{key} is not explained");
            found.insert(key.to_owned());
        }
    }
    assert_eq!(found, settings(&package.path("/usr/bin/instance-agent")).await);
}

#[tokio::test]
async fn every_line_of_the_settings_file_can_be_uncommented() {
    let package = unpacked("instance-agent").await;
    let file = package.text("/etc/instance-agent/agent.toml");
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => setting.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = file.lines().map(uncommented).collect();
    let path = package.path("all.toml");
    std::fs::write(&path, all.join("\n")).unwrap();
    let agent = package.path("/usr/bin/instance-agent");
    let check = |path: &Path| {
        let mut check = tool(&agent);
        check.args(["serve", "--check", "--config"]).arg(path);
        check
    };
    ok(&mut check(&path)).await;
    // The check would have found a mistake.
    std::fs::write(&path, format!("{}\nthreads = 0\n", all.join("\n").replace("threads", "#"))).unwrap();
    let refused = output(&mut check(&path)).await;
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("threads"), "{}", text(&refused.stderr));
}

#[tokio::test]
async fn bash_completes_commands_and_flags() {
    for (program, begun, whole) in [
        ("instance-agent", "dra", "drain"),
        ("instance-agent", "--drain-q", "--drain-quiet"),
        ("bootstrap", "lau", "launch"),
    ] {
        let package = unpacked(program).await;
        let file = package.path(&format!("/usr/share/bash-completion/completions/{program}"));
        let script = "source \"$0\"; COMP_WORDS=(\"$1\" \"$2\"); COMP_CWORD=1
            completes=$(complete -p \"$1\") && completes=${completes#* -F } &&
            \"${completes%% *}\" \"$1\" \"$2\" \"$1\" && echo \"${COMPREPLY[@]}\"";
        let mut bash = tool("bash");
        bash.args(["--norc", "-c", script]).arg(&file).args([program, begun]);
        assert_eq!(ok(&mut bash).await.trim(), whole);
    }
}

#[tokio::test]
async fn zsh_completes_commands() {
    for (program, begun, whole) in [("instance-agent", "dra", "drain"), ("bootstrap", "lau", "launch")] {
        let package = unpacked(program).await;
        let folder = package.path("/usr/share/zsh/vendor-completions");
        // zsh completes on a terminal alone: one of its own, in which Tab is pressed.
        let script = "zmodload zsh/zpty
            zpty shell zsh --no-rcs --interactive
            zpty -w shell \"PS1=; fpath=($1 \\$fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\"
            zpty -r shell seen '*ready*' || exit
            zpty -n -w shell \"$2 $3\"$'\\t'
            zpty -r shell seen \"*$2 $4 *\" && print -r -- \"$seen\"
            zpty -d shell";
        let mut zsh = tool("zsh");
        zsh.args(["--no-rcs", "-c", script, "zsh"]).arg(&folder).args([program, begun, whole]);
        zsh.env("TERM", "dumb");
        let seen = ok(&mut zsh).await;
        assert!(seen.contains(&format!("{program} {whole} ")), "{seen}");
    }
}

#[tokio::test]
async fn fish_completes_commands_and_flags() {
    for (program, begun, whole) in [
        ("instance-agent", "dra", "drain"),
        ("instance-agent", "--drain-q", "--drain-quiet"),
        ("bootstrap", "lau", "launch"),
    ] {
        let package = unpacked(program).await;
        let file = package.path(&format!("/usr/share/fish/vendor_completions.d/{program}.fish"));
        let mut fish = tool("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete --do-complete $argv[2]"]);
        fish.arg(&file).arg(format!("{program} {begun}"));
        // Beside each completion is its description.
        let found = ok(&mut fish).await;
        assert_eq!(found.split('\t').next(), Some(whole), "{found}");
    }
}

#[tokio::test]
async fn the_copyright_names_every_crate_that_is_linked_in() {
    for (package, program) in [("instance-agent", "instance-agent"), ("instance-bootstrap", "bootstrap")] {
        let copyright = unpacked(program).await.text(&format!("/usr/share/doc/{package}/copyright"));
        // Without line breaks, as names may stand on both sides of one.
        let copyright = copyright.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut cargo = tool("cargo");
        cargo.args(["tree", "--locked", "--package", program, "--target", "x86_64-unknown-linux-musl"]);
        cargo.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
        let crates = ok(&mut cargo).await;
        let mut count = 0;
        for line in crates.lines().filter(|line| !line.contains('(')) {
            let (name, version) = line.trim().split_once(" v").expect(line);
            assert!(copyright.contains(&format!("{name} {version}")), "{package}: no {name} {version}");
            count += 1;
        }
        assert!(count > 50, "{crates}");
        for other in ["musl", "Rust 1."] {
            assert!(copyright.contains(other), "{package}: no {other}");
        }
    }
}

#[tokio::test]
async fn the_changelog_is_of_this_version() {
    for package in all() {
        let unpacked = package.unpack().await;
        let path = unpacked.path(&format!("/usr/share/doc/{}/changelog.gz", package.name));
        let changelog = ok(tool("zcat").arg(&path)).await;
        let first = format!("{} ({}) ", package.name, env!("CARGO_PKG_VERSION"));
        assert!(changelog.starts_with(&first), "{changelog}");
        assert!(changelog.lines().filter(|line| line.starts_with("  * ")).count() > 0, "{changelog}");
    }
}

#[tokio::test]
async fn the_maintainer_scripts_are_shell_and_stop_nothing_on_an_upgrade() {
    let package = unpacked("instance-agent").await;
    for script in ["postinst", "prerm", "postrm"] {
        let path = package.path(&format!("DEBIAN/{script}"));
        ok(tool("dash").arg("-n").arg(&path)).await;
        let text = package.text(&format!("DEBIAN/{script}"));
        assert!(!text.contains("#DEBHELPER#"), "{text}");
        assert!(!text.contains("restart"), "{text}");
    }
    // Where no init system has left its tools, nothing fails. They find no tool at all here, so that
    // they do nothing to this machine.
    let nothing = tempfile::tempdir().unwrap();
    for (script, arguments) in [
        ("postinst", &["configure"][..]),
        ("postinst", &["configure", "0.0.1"]),
        ("prerm", &["upgrade", "9.9.9"]),
        ("postrm", &["upgrade", "9.9.9"]),
        ("prerm", &["remove"]),
        ("postrm", &["remove"]),
    ] {
        let mut run = tool("/bin/sh");
        run.arg(package.path(&format!("DEBIAN/{script}"))).args(arguments).env("PATH", nothing.path());
        ok(&mut run).await;
    }
}

#[tokio::test]
async fn the_packaged_agents_serve_on_both_kinds_of_processor() {
    for architecture in ["amd64", "arm64"] {
        let package = package("instance-agent", architecture).unpack().await;
        let mut solo = Solo::new();
        solo.binary = package.path("/usr/bin/instance-agent");
        if architecture == "arm64" {
            solo.wrapper = vec!["qemu-aarch64-static".into()];
            let machine = ok(tool("readelf").arg("--file-header").arg(&solo.binary)).await;
            assert!(machine.contains("AArch64"), "{machine}");
        }
        let _running = solo.start().await;
        solo.get("/").await.is(200, "Healthy!");
        solo.post("123456789012345678901234567890").await.is(200, "123456789012345678901234567890");
        let said = solo.command(&solo.wrapper, &["status"]).await;
        assert!(said.status.success(), "{architecture}: {}", text(&said.stderr));
        let version = solo.wrapper.iter().cloned().chain([solo.binary.clone().into(), "--version".into()]);
        let version: Vec<_> = version.collect();
        let version = ok(tool(&version[0]).args(&version[1..])).await;
        assert_eq!(version, concat!("instance-agent ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[tokio::test]
async fn the_packaged_launchers_run_on_both_kinds_of_processor() {
    for (architecture, wrapper) in [("amd64", None), ("arm64", Some("qemu-aarch64-static"))] {
        let package = package("instance-bootstrap", architecture).unpack().await;
        let program = package.path("/usr/bin/bootstrap");
        let mut run = tool(wrapper.map_or(program.clone(), Into::into));
        if wrapper.is_some() {
            run.arg(&program);
        }
        let shown = ok(run.args(["fleets", "list"])).await;
        assert!(shown.contains("clusters") && shown.contains("seed"), "{shown}");
    }
}

#[tokio::test]
async fn the_policy_allows_what_the_operations_page_lists() {
    let policy =
        unpacked("instance-agent").await.text("/usr/share/doc/instance-agent/examples/iam-policy.json");
    let policy: Value = serde_json::from_str(&policy).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    let mut allowed = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        for action in statement["Action"].as_array().unwrap() {
            let action = action.as_str().unwrap();
            // What changes something is limited to target groups; what only looks cannot be.
            let on_all = statement["Resource"] == "*";
            assert_eq!(on_all, action.contains(":Describe"), "{statement}");
            allowed.insert(action.split(':').next_back().unwrap().to_owned());
        }
    }
    let page = std::fs::read_to_string(tree().join("docs/operations.md")).unwrap();
    let (_, table) = page.split_once("## Permissions").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let listed: BTreeSet<String> = rows
        .flat_map(|cell| cell.split(['`', ',', ' ']).map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|word| word.split(':').next_back().map(str::to_owned))
        .filter(|word| !word.is_empty())
        .collect();
    assert_eq!(allowed, listed);
}
