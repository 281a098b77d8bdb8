//! The checks of a Debian package before a launch uploads it.
//!
//! The file's name says what the package is. That the file is whole, an `ar` archive of three members, is all that
//! is read of its contents: the instances compare the sum, and dpkg decides about the rest.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;
/// The format's version, what controls the package, its files.
const MEMBERS: usize = 3;
/// Twenty-five times the agent's package.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// The package that instances install.
pub(super) const NAME: &str = "instance-agent";

/// A Debian package of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deb {
    /// Where it was read.
    pub(crate) file: PathBuf,
    pub(crate) bytes: Bytes,
    /// Their SHA-256 in lower-case hex.
    pub(crate) sha256: String,
    /// The processors it is for, in EC2's words, if the file's name says so.
    pub(crate) architecture: Option<&'static str>,
}

/// Why the instances could not install a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DebError {
    /// It cannot be read.
    #[error(
        "cannot read the package {file}: {error}; give the path of a .deb, or leave --deb out",
        file = .file.display()
    )]
    Unreadable { file: PathBuf, error: std::io::Error },
    /// It is something else.
    #[error("{file} is not a complete Debian package: {why}; download or build it again", file = .file.display())]
    Other {
        file: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is another package.
    #[error(
        "{file} is the package {name}; instances need {NAME}",
        file = .file.display()
    )]
    OtherPackage { file: PathBuf, name: String },
    /// There are two for the same processors.
    #[error(
        "{first} and {second} are both packages of the agent for the same processor: delete one, or name one \
         with --deb FILE",
        first = .first.display(),
        second = .second.display()
    )]
    Several { first: PathBuf, second: PathBuf },
    /// No EC2 instance has this architecture.
    #[error(
        "{file} is for {architecture}; instances are amd64 or arm64",
        file = .file.display()
    )]
    OtherArchitecture {
        file: PathBuf,
        /// What it is for.
        architecture: String,
    },
}

impl Deb {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not there, not a package, or not of the agent.
    pub(crate) async fn read(file: &Path) -> Result<Self, DebError> {
        let unreadable = |error| DebError::Unreadable { file: file.to_owned(), error };
        let other = |why| DebError::Other { file: file.to_owned(), why };
        let found = tokio::fs::metadata(file).await.map_err(unreadable)?;
        // A device may be endless, and a pipe may have no writer.
        if !found.is_file() {
            return Err(other("it is not a regular file"));
        }
        if found.len() > MAX_BYTES {
            return Err(other("it is larger than 64 MiB"));
        }
        let bytes = tokio::fs::read(file).await.map_err(unreadable)?;
        check(&bytes).map_err(other)?;
        let architecture = match words(file) {
            None => None,
            Some((NAME, "amd64")) => Some("x86_64"),
            Some((NAME, "arm64")) => Some("arm64"),
            Some((NAME, other)) => {
                let architecture = other.to_owned();
                return Err(DebError::OtherArchitecture { file: file.to_owned(), architecture });
            }
            Some((name, _)) => {
                return Err(DebError::OtherPackage { file: file.to_owned(), name: name.to_owned() });
            }
        };
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { file: file.to_owned(), bytes: bytes.into(), sha256, architecture })
    }
}

/// The name and the architecture of a file that is called as packages are: `NAME_VERSION_ARCH.deb`.
pub(super) fn words(file: &Path) -> Option<(&str, &str)> {
    let words: Vec<&str> = file.file_name()?.to_str()?.strip_suffix(".deb")?.split('_').collect();
    match words[..] {
        [name, _version, architecture] => Some((name, architecture)),
        _ => None,
    }
}

/// Whether the file is whole. What is in it, dpkg decides on the instances.
fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or("it is not an ar archive")?;
    for _ in 0..MEMBERS {
        rest = after_member(rest).ok_or("it is truncated")?;
    }
    Ok(())
}

/// What comes after the first member, if that is whole.
fn after_member(archive: &[u8]) -> Option<&[u8]> {
    let (header, rest) = archive.split_at_checked(HEADER)?;
    let size: usize = std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok()?;
    let after = rest.get(size..)?;
    // Members begin at even places.
    Some(after.get(size % 2..).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, content) in members {
            let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len());
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content);
            if content.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    pub(in crate::deb) fn package() -> Vec<u8> {
        archive(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", b"data!")])
    }

    async fn read(name: &str, bytes: &[u8]) -> Result<Deb, DebError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        Deb::read(&file).await
    }

    #[tokio::test]
    async fn a_package_is_known_by_its_name_and_its_sum() {
        let deb = read("instance-agent_0.1.0_arm64.deb", &package()).await.unwrap();
        assert_eq!(deb.architecture, Some("arm64"));
        assert_eq!(deb.bytes, package());
        assert_eq!(deb.sha256.len(), 64);
        assert!(deb.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let renamed = read("agent.deb", &package()).await.unwrap();
        assert_eq!((renamed.architecture, &renamed.sha256), (None, &deb.sha256));
    }

    #[tokio::test]
    async fn another_package_or_processor_is_refused_by_name() {
        let error = read("instance-bootstrap_0.1.0_amd64.deb", &package()).await.unwrap_err().to_string();
        assert!(
            error.contains("is the package instance-bootstrap; instances need instance-agent"),
            "{error}"
        );
        let error = read("instance-agent_0.1.0_riscv64.deb", &package()).await.unwrap_err().to_string();
        assert!(error.contains("is for riscv64"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_whole_package_is_refused_before_it_is_uploaded() {
        let whole = package();
        let cases: [(&[u8], &str); 5] = [
            (b"", "not an ar archive"),
            (b"<html>not found</html>", "not an ar archive"),
            (&whole[..whole.len() - 2], "is truncated"),
            (&whole[..MAGIC.len() + 30], "is truncated"),
            (&archive(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd")]), "is truncated"),
        ];
        for (bytes, why) in cases {
            let error = read("instance-agent_1_amd64.deb", bytes).await.unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("download or build it again"), "{error}");
        }
        let error = Deb::read(Path::new("/dev/zero")).await.unwrap_err().to_string();
        assert!(
            error.contains("/dev/zero is not a complete Debian package: it is not a regular file"),
            "{error}"
        );
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large.deb");
        std::fs::File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let error = Deb::read(&large).await.unwrap_err().to_string();
        assert!(error.contains("it is larger than 64 MiB"), "{error}");
        let error = Deb::read(Path::new("/nonexistent/a.deb")).await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/a.deb: No such file"), "{error}");
    }
}
