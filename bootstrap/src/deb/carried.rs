//! The agent's packages that come with this program, one for each architecture.
//!
//! Searches beside the program and nowhere else, and skips a folder that another user could have written: the instances
//! install the package as root.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::package::{Deb, DebError, NAME, words};

/// Debian's and EC2's words for the processors that the agent is built for.
const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "arm64")];

/// The folder with the packages, if this program has come with one.
#[derive(Clone, Debug)]
pub(crate) struct CarriedPackages(Option<PathBuf>);

impl CarriedPackages {
    /// Those of this program.
    pub(crate) fn find() -> Self {
        let program = std::env::current_exe().ok();
        let folder = program.and_then(|program| {
            folders(&program).into_iter().find(|folder| belongs_to_owner_of(&program, folder))
        });
        Self(folder)
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.files().next().is_none()
    }

    /// The package for these processors, in EC2's words; `None` if there is none.
    ///
    /// # Errors
    /// There are several, or it cannot be read.
    pub(crate) async fn read(&self, architecture: &str) -> Result<Option<Deb>, DebError> {
        let mut files: Vec<_> = self.files().filter(|(_, of)| *of == architecture).collect();
        files.sort();
        match files.as_slice() {
            [] => Ok(None),
            [(file, _)] => Deb::read(file).await.map(Some),
            [(first, _), (second, _), ..] => {
                Err(DebError::Several { first: first.clone(), second: second.clone() })
            }
        }
    }

    /// The package with this SHA-256, if it is one of them.
    pub(crate) async fn with_sum(&self, sha256: &str) -> Option<Deb> {
        for (file, _) in self.files() {
            if let Ok(deb) = Deb::read(&file).await
                && deb.sha256 == sha256
            {
                return Some(deb);
            }
        }
        None
    }

    /// The packages by name, and the processors they are for.
    fn files(&self) -> impl Iterator<Item = (PathBuf, &'static str)> {
        let entries = self.0.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        entries.filter_map(|entry| {
            let file = entry.ok()?.path();
            let (name, debian) = words(&file)?;
            let (_, architecture) = ARCHITECTURES.iter().find(|(known, _)| *known == debian)?;
            (name == NAME).then_some((file, *architecture))
        })
    }
}

/// Where packages of the agent can be, by where the program is.
fn folders(program: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let Some(folder) = program.parent() else {
        return folders;
    };
    // As the package instance-bootstrap has them, also under another prefix.
    if let Some(prefix) = folder.parent().filter(|_| folder.ends_with("bin")) {
        folders.push(prefix.join("share/instance-bootstrap"));
    }
    // Built from source: in TREE/target/TRIPLE/PROFILE, and `make deb` writes to TREE/dist.
    if let Some(target) = folder.ancestors().nth(2).filter(|target| target.ends_with("target")) {
        folders.extend(target.parent().map(|tree| tree.join("dist")));
    }
    folders
}

/// Whether a folder is the program's owner's, and nobody else may write to it.
fn belongs_to_owner_of(program: &Path, folder: &Path) -> bool {
    const WRITABLE_BY_ALL: u32 = 0o002;
    let (Ok(program), Ok(found)) = (program.metadata(), folder.symlink_metadata()) else {
        return false;
    };
    found.is_dir() && found.uid() == program.uid() && found.mode() & WRITABLE_BY_ALL == 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn packages_are_looked_for_beside_the_program_alone() {
        let folders = |program: &str| folders(Path::new(program));
        assert_eq!(folders("/usr/bin/bootstrap"), [Path::new("/usr/share/instance-bootstrap")]);
        assert_eq!(
            folders("/home/me/tree/target/x86_64-unknown-linux-musl/debug/bootstrap"),
            [Path::new("/home/me/tree/dist")]
        );
        assert!(folders("/tmp/x86_64-unknown-linux-musl/debug/bootstrap").is_empty());
        assert!(folders("/bootstrap").is_empty());
    }

    #[test]
    fn a_folder_that_others_could_have_filled_is_not_looked_into() {
        let place = tempfile::tempdir().unwrap();
        let (program, folder) = (place.path().join("bootstrap"), place.path().join("dist"));
        std::fs::write(&program, "").unwrap();
        assert!(!belongs_to_owner_of(&program, &folder));
        std::fs::create_dir(&folder).unwrap();
        assert!(belongs_to_owner_of(&program, &folder));
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(!belongs_to_owner_of(&program, &folder));
        let link = place.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        assert!(
            !belongs_to_owner_of(&program, &link),
            "who owns a link may be another than who owns its target"
        );
    }

    #[tokio::test]
    async fn the_package_for_the_processors_is_taken_and_two_for_the_same_are_told() {
        let place = tempfile::tempdir().unwrap();
        let carried = CarriedPackages(Some(place.path().to_owned()));
        assert!(carried.is_empty());
        for name in ["instance-bootstrap_1_amd64.deb", "instance-agent_1_riscv64.deb", "notes.txt"] {
            std::fs::write(place.path().join(name), "other").unwrap();
        }
        assert!(carried.is_empty());
        let package = super::super::package::tests::package();
        std::fs::write(place.path().join("instance-agent_1_amd64.deb"), &package).unwrap();
        assert!(!carried.is_empty());
        let read = carried.read("x86_64").await.unwrap().unwrap();
        assert_eq!((read.architecture, carried.read("arm64").await.unwrap()), (Some("x86_64"), None));
        assert_eq!(carried.with_sum(&read.sha256).await, Some(read));
        assert_eq!(carried.with_sum(&"0".repeat(64)).await, None);
        std::fs::write(place.path().join("instance-agent_2_amd64.deb"), &package).unwrap();
        let error = carried.read("x86_64").await.unwrap_err().to_string();
        assert!(error.contains("instance-agent_1_amd64.deb") && error.contains("--deb"), "{error}");
    }
}
