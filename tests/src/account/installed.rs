//! A `bootstrap` in a folder of its own, with packages of the agent beside it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Account;
use crate::binary;

/// The smallest archive that is a Debian package, with this in it.
pub(super) fn archive(content: &str) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", "2.0\n"), ("control.tar", "x"), ("data.tar", content)] {
        let size = content.len();
        archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).bytes());
        archive.extend(content.bytes());
        // Members begin at even places.
        archive.extend("\n".repeat(size % 2).bytes());
    }
    archive
}

impl Account {
    /// A `bootstrap` below this folder: as built from source where that is of the shape TREE/target/…, else as its
    /// package installs it. Packages of the agent for these processors come with it, others in each folder.
    pub fn installed(&self, folder: &str, architectures: &[&str]) -> PathBuf {
        let (program, packages) = self.places(folder);
        std::fs::create_dir_all(program.parent().expect("a folder")).expect("it is made");
        std::fs::create_dir_all(&packages).expect("it is made");
        if std::fs::hard_link(binary("bootstrap"), &program).is_err() {
            std::fs::copy(binary("bootstrap"), &program).expect("it is copied");
        }
        for architecture in architectures {
            let content = archive(&format!("{folder} {architecture}"));
            std::fs::write(self.carried_file(folder, architecture), content).expect("it is written");
        }
        program
    }

    /// A package that comes with the `bootstrap` below this folder.
    pub fn carried_file(&self, folder: &str, architecture: &str) -> String {
        let file = self.places(folder).1.join(format!("instance-agent_0.1.0_{architecture}.deb"));
        file.to_str().expect("a plain path").to_owned()
    }

    /// Its SHA-256.
    pub fn carried_sum(&self, folder: &str, architecture: &str) -> String {
        let file = self.carried_file(folder, architecture);
        let output = Command::new("sha256sum").arg(file).output().expect("it starts");
        crate::text(&output.stdout).split(' ').next().expect("a sum").to_owned()
    }

    /// Lets everybody write to the folder of these packages.
    pub fn let_all_write(&self, folder: &str) {
        let mode = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(self.places(folder).1, mode).expect("it is ours");
    }

    /// Where the program is, and its packages.
    fn places(&self, folder: &str) -> (PathBuf, PathBuf) {
        let base = self.folder.path().join(folder);
        match folder.split_once("/target/") {
            Some((tree, _)) => {
                (base.join("bootstrap"), self.folder.path().join(Path::new(tree)).join("dist"))
            }
            None => (base.join("bin/bootstrap"), base.join("share/instance-bootstrap")),
        }
    }
}
