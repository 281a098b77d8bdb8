//! User data: an instance's first boot installs the agent, and prints the result on the console.

use std::fmt;

use instance_contract::one_line;
use serde_json::json;

use crate::fleet::Package;

/// The user data, but for where the package comes from.
const TEMPLATE: &str = include_str!("../../packaging/cloud-init.yaml");
const PLACEHOLDER: &str = "@PACKAGE@";
/// EC2's limit, before base64.
const MAX_BYTES: usize = 16 * 1024;
/// Where the user data puts the repository's key.
const KEYRING: &str = "/etc/apt/keyrings/instance-agent.asc";
/// What begins each line that the user data writes to the console.
const MARKER: &str = "instance-agent-bootstrap: ";
/// What begins the rest of that line when the agent could not be installed.
const FAILED: &str = "FAILED: ";
/// What a console says is shown to this length, in characters.
const LONGEST_REASON: usize = 500;

/// Where an instance gets the agent from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageForInstance {
    /// Its image has it.
    InImage,
    /// A Debian package.
    Download {
        /// `http` or `https`; it may hold a signature, which no message shows.
        url: String,
        /// SHA-256 in lower-case hex.
        sha256: String,
    },
    /// An apt repository.
    Apt {
        /// The line for `sources.list.d`, one-line style.
        line: String,
        /// The repository's public key, ASCII-armoured.
        key: String,
    },
}

impl PackageForInstance {
    /// What a fleet's package is for its instances; `None` for a file, whose address is made at launch.
    pub(crate) fn of(package: Option<&Package>) -> Option<Self> {
        match package {
            None | Some(Package::InImage) => Some(Self::InImage),
            Some(Package::Url { url, sha256 }) => {
                Some(Self::Download { url: url.clone(), sha256: sha256.clone() })
            }
            Some(Package::Apt { line, key }) => Some(Self::Apt { line: line.clone(), key: key.clone() }),
            Some(Package::Deb { .. }) => None,
        }
    }
}

/// Why there can be no user data for a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// YAML or Python could misread it.
    #[error("the package's {0} contains characters other than printable ASCII; remove them")]
    NotPlain(&'static str),
    /// No source of apt's.
    #[error("{0:?} is not an apt source such as `deb https://packages.example.com stable main`")]
    Line(String),
    /// More than EC2 takes.
    #[error(
        "the user data is {0} bytes, and EC2 allows {MAX_BYTES}: give a shorter address, or a smaller key (`gpg \
         --armor --export-options export-minimal --export KEY`)"
    )]
    TooLong(usize),
}

/// The user data, before base64; `None` where there is nothing to do at boot. What the fleet file says
/// was validated there; here only what could break out of its place is refused.
///
/// # Errors
/// What no user data can hold.
pub fn user_data(package: &PackageForInstance) -> Result<Option<String>, UserDataError> {
    let package = match package {
        PackageForInstance::InImage => return Ok(None),
        PackageForInstance::Download { url, sha256 } => {
            json!({ "url": plain("address", url)?, "sha256": plain("checksum", sha256)? })
        }
        PackageForInstance::Apt { line, key } => {
            let key = key.trim().replace("\r\n", "\n") + "\n";
            for line in key.lines() {
                plain("key", line)?;
            }
            json!({ "line": signed(plain("line for apt", line.trim())?)?, "key": key })
        }
    };
    // JSON's strings, of which all is ASCII, are Python's too, and their line breaks are escaped: what
    // is in them can end neither the string nor YAML's block.
    let text = TEMPLATE.replacen(PLACEHOLDER, &package.to_string(), 1);
    match text.len() {
        length if length > MAX_BYTES => Err(UserDataError::TooLong(length)),
        _ => Ok(Some(text)),
    }
}

fn plain<'a>(what: &'static str, text: &'a str) -> Result<&'a str, UserDataError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_plain { Ok(text) } else { Err(UserDataError::NotPlain(what)) }
}

/// The line, limited to the key that comes with it.
fn signed(line: &str) -> Result<String, UserDataError> {
    let wrong = || UserDataError::Line(line.to_owned());
    let rest = line.strip_prefix("deb ").ok_or_else(wrong)?.trim_start();
    let (options, place) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
        None => ("", rest),
    };
    let by = format!("signed-by={KEYRING}");
    let options: Vec<&str> = options.split_whitespace().chain([by.as_str()]).collect();
    Ok(format!("deb [{}] {}", options.join(" "), place.trim()))
}

/// The result of the first boot, as the console shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBoot {
    /// The agent is installed and runs.
    Installed {
        /// Its version.
        version: String,
    },
    /// It could not be installed.
    Failed {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for FirstBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed { version } => write!(f, "instance-agent {version} was installed"),
            Self::Failed { reason } => write!(f, "instance-agent could not be installed: {reason}"),
        }
    }
}

/// The last result on a console; `None` if there is none yet.
pub fn first_boot_in_console(output: &str) -> Option<FirstBoot> {
    let (_, said) = output.lines().filter_map(|line| line.split_once(MARKER)).next_back()?;
    let said = said.trim_end();
    match said.strip_prefix(FAILED) {
        Some(reason) => Some(FirstBoot::Failed { reason: one_line(reason, LONGEST_REASON) }),
        // What comes after the version is for people.
        None => said.strip_prefix("installed ").map(|said| FirstBoot::Installed {
            version: said.split(';').next().unwrap_or_default().to_owned(),
        }),
    }
}

/// Why the agent could not be installed, if that is what a console says last.
pub fn failure_in_console(output: &str) -> Option<String> {
    match first_boot_in_console(output)? {
        FirstBoot::Failed { reason } => Some(reason),
        FirstBoot::Installed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const KEY: &str =
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";

    fn download(url: &str) -> PackageForInstance {
        PackageForInstance::Download { url: url.to_owned(), sha256: SHA256.to_owned() }
    }

    fn apt(line: &str, key: &str) -> PackageForInstance {
        PackageForInstance::Apt { line: line.to_owned(), key: key.to_owned() }
    }

    /// The one line in which the user data differs from the form.
    fn filled_in(package: &PackageForInstance) -> String {
        let text = user_data(package).unwrap().unwrap();
        assert_eq!(text.lines().count(), TEMPLATE.lines().count());
        let mut differing = text.lines().zip(TEMPLATE.lines()).filter(|(ours, form)| ours != form);
        let (ours, form) = differing.next().unwrap();
        assert_eq!(differing.next(), None);
        let (before, _) = form.split_once(PLACEHOLDER).unwrap();
        ours.strip_prefix(before).unwrap().to_owned()
    }

    #[test]
    fn an_image_that_has_the_agent_needs_no_user_data() {
        assert_eq!(user_data(&PackageForInstance::InImage), Ok(None));
    }

    #[test]
    fn the_form_has_one_blank_and_room_for_a_long_address() {
        assert_eq!(TEMPLATE.matches(PLACEHOLDER).count(), 1);
        assert!(TEMPLATE.starts_with("#cloud-config\n"));
        let address = format!("https://bucket.s3.amazonaws.com/x.deb?{}", "a=%2F&".repeat(500));
        assert!(user_data(&download(&address)).is_ok());
    }

    #[test]
    fn hostile_values_stay_inside_their_string() {
        let hostile =
            r#"https://h/';touch${IFS}/x;"\"+__import__('os').system('x')#{%raw%}&a=$(x)`x`:-@PACKAGE@"#;
        let literal = filled_in(&download(hostile));
        let value: serde_json::Value = serde_json::from_str(&literal).unwrap();
        assert_eq!(value, json!({ "url": hostile, "sha256": SHA256 }));

        let line = r#"deb [arch=amd64 trusted=no] https://h/'$(x)"\ stable main"#;
        let literal = filled_in(&apt(line, KEY));
        let value: serde_json::Value = serde_json::from_str(&literal).unwrap();
        let signed =
            format!(r#"deb [arch=amd64 trusted=no signed-by={KEYRING}] https://h/'$(x)"\ stable main"#);
        assert_eq!(value, json!({ "line": signed, "key": KEY }));
    }

    #[test]
    fn what_could_break_out_of_its_place_is_refused() {
        for hostile in ["a\nruncmd:", "a\u{2028}b", "a\u{85}b", "\u{e9}", "\u{7f}", "\t", "\0"] {
            let url = format!("https://h/{hostile}");
            assert_eq!(user_data(&download(&url)), Err(UserDataError::NotPlain("address")));
            let line = format!("deb https://h {hostile} main");
            assert_eq!(user_data(&apt(&line, KEY)), Err(UserDataError::NotPlain("line for apt")));
        }
        let key = KEY.replace("mDMEZ", "Comment: \u{e9}");
        assert_eq!(user_data(&apt("deb https://h s m", &key)), Err(UserDataError::NotPlain("key")));
    }

    #[test]
    fn an_apt_source_is_limited_to_its_key() {
        for (line, expected) in [
            ("deb https://h stable main", "deb [signed-by=KEYRING] https://h stable main"),
            ("deb  [ arch=amd64 ]  https://h ./", "deb [arch=amd64 signed-by=KEYRING] https://h ./"),
        ] {
            assert_eq!(signed(line).unwrap(), expected.replace("KEYRING", KEYRING));
        }
        for line in ["", "deb", "deb-src https://h s", "deb [arch=a https://h s"] {
            assert_eq!(user_data(&apt(line, KEY)), Err(UserDataError::Line(line.to_owned())));
        }
        assert!(TEMPLATE.contains(&format!("KEYRING = {KEYRING:?}")));
    }

    #[test]
    fn what_does_not_fit_says_how_to_make_it_fit() {
        let large = KEY.replace("mDMEZ", &"mDMEZ\n".repeat(2000));
        let error = user_data(&apt("deb https://h stable main", &large)).unwrap_err();
        assert!(error.to_string().contains("export-minimal"), "{error}");
    }

    #[test]
    fn a_console_tells_how_the_first_boot_went_last() {
        let noise = "[   12.3] cloud-init[612]: Cloud-init v. 22.4.2 running\r\n";
        assert_eq!(first_boot_in_console(noise), None);
        let failed = format!(
            "{noise}[   40.1] cloud-init[612]: {MARKER}FAILED: cannot download x: HTTP 404 Not Found\r\n"
        );
        assert_eq!(failure_in_console(&failed).as_deref(), Some("cannot download x: HTTP 404 Not Found"));
        let mended = format!("{failed}\n{MARKER}installed 1.2.3\r\nubuntu login: ");
        assert_eq!(
            first_boot_in_console(&mended),
            Some(FirstBoot::Installed { version: "1.2.3".to_owned() })
        );
        assert_eq!(failure_in_console(&mended), None);
    }
}
