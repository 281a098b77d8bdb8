//! `packaging/check-release`, in a repository of its own: what it refuses, and what it prints.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::package::{ok, output, tool, tree};
use tests::text;

const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-01-31\n\n### Added\n\n- One thing,\n  in \
    two lines.\n\n## [0.1.0] - 2026-01-01\n\n- Older.\n";

/// A repository with the script, which can be released as 0.2.0.
struct Repository(TempDir);

impl Repository {
    async fn new() -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        fs::create_dir(repository.path("packaging")).unwrap();
        let script = "packaging/check-release";
        fs::copy(tree().join(script), repository.path(script)).unwrap();
        repository.git(&["init", "--quiet"]).await;
        repository.write("Cargo.toml", "[workspace.package]\nversion = \"0.2.0\"\n");
        repository.write("CHANGELOG.md", CHANGELOG);
        repository.commit().await;
        repository
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    async fn git(&self, arguments: &[&str]) {
        let identity =
            ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"];
        let mut git = tool("git");
        // Neither this machine's settings nor the repository that the tests are in.
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null").env_remove("GIT_DIR");
        ok(git.args(identity).args(arguments).current_dir(self.0.path())).await;
    }

    async fn commit(&self) {
        self.git(&["add", "--all"]).await;
        self.git(&["commit", "--quiet", "--message=state"]).await;
    }

    /// The exit status, and what it says on stdout and on stderr.
    async fn check(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut check = tool(self.path("packaging/check-release"));
        let output = output(check.env_remove("GIT_DIR").args(arguments)).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    async fn refuses(&self, arguments: &[&str], reasons: &[&str]) {
        let (code, section, said) = self.check(arguments).await;
        let lines: Vec<String> = reasons.iter().map(|reason| format!("check-release: {reason}\n")).collect();
        assert_eq!((code, section, said), (Some(1), String::new(), lines.concat()));
    }

    async fn accepts(&self, arguments: &[&str]) {
        let section = "### Added\n\n- One thing,\n  in two lines.\n\n".to_owned();
        assert_eq!(self.check(arguments).await, (Some(0), section, String::new()));
    }
}

#[tokio::test]
async fn a_version_with_its_section_is_accepted_before_and_after_it_is_tagged() {
    let repository = Repository::new().await;
    repository.accepts(&[]).await;
    repository.refuses(&["v0.2.0"], &["no tag v0.2.0: create it with git tag --annotate v0.2.0"]).await;
    repository.git(&["tag", "--annotate", "v0.2.0", "--message=0.2.0"]).await;
    repository.accepts(&[]).await;
    repository.accepts(&["v0.2.0"]).await;
}

#[tokio::test]
async fn a_version_that_the_changelog_does_not_have_is_refused() {
    let repository = Repository::new().await;
    repository.write("Cargo.toml", "[workspace.package]\nversion = \"0.3.0\"\n");
    repository.commit().await;
    let reason = "CHANGELOG.md: the newest version is '[0.2.0] - 2026-01-31': expected [0.3.0] - YYYY-MM-DD";
    repository.refuses(&[], &[reason]).await;

    // Nor is a section without a date, or without an entry.
    repository.write("CHANGELOG.md", "## [Unreleased]\n\n## [0.3.0]\n\n- New.\n");
    repository.commit().await;
    repository
        .refuses(&[], &["CHANGELOG.md: the newest version is '[0.3.0]': expected [0.3.0] - YYYY-MM-DD"])
        .await;
    repository.write("CHANGELOG.md", "## [0.3.0] - 2026-02-01\n\n## [0.2.0] - 2026-01-31\n\n- Older.\n");
    repository.commit().await;
    repository.refuses(&[], &["CHANGELOG.md: no entries under [0.3.0]"]).await;
}

#[tokio::test]
async fn entries_that_are_left_under_unreleased_are_refused() {
    let repository = Repository::new().await;
    repository
        .write("CHANGELOG.md", &CHANGELOG.replace("## [Unreleased]\n", "## [Unreleased]\n\n- Later.\n"));
    repository.commit().await;
    let reason = "CHANGELOG.md: entries under [Unreleased]: move them to [0.2.0]";
    repository.refuses(&[], &[reason]).await;
}

#[tokio::test]
async fn a_tag_of_another_version_or_another_commit_is_refused() {
    let repository = Repository::new().await;
    repository.git(&["tag", "v0.3.0"]).await;
    repository.refuses(&["v0.3.0"], &["the tag is v0.3.0 and the version 0.2.0: expected v0.2.0"]).await;
    repository.git(&["tag", "v0.2.0"]).await;
    repository.git(&["commit", "--quiet", "--allow-empty", "--message=later"]).await;
    let reason = "the tag v0.2.0 names another commit: raise the version in Cargo.toml";
    repository.refuses(&["v0.2.0"], &[reason]).await;
    repository.refuses(&[], &[reason]).await;
}

#[tokio::test]
async fn a_tree_with_changes_or_new_files_is_refused() {
    let reason = "the tree has uncommitted changes or new files: commit or remove them";
    let repository = Repository::new().await;
    repository.write("new", "");
    repository.refuses(&[], &[reason]).await;
    fs::remove_file(repository.path("new")).unwrap();
    repository.accepts(&[]).await;
    repository.write("Cargo.toml", "# changed\n[workspace.package]\nversion = \"0.2.0\"\n");
    repository.refuses(&[], &[reason]).await;
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    let repository = Repository::new().await;
    repository.write("Cargo.toml", "[workspace.package]\nversion = \"0.3\"\n");
    let reasons = [
        "Cargo.toml: the version is '0.3': expected three numbers",
        "CHANGELOG.md: the newest version is '[0.2.0] - 2026-01-31': expected [0.3] - YYYY-MM-DD",
        "the tree has uncommitted changes or new files: commit or remove them",
        "the tag is v0.2.0 and the version 0.3: expected v0.3",
    ];
    repository.refuses(&["v0.2.0"], &reasons).await;
}
