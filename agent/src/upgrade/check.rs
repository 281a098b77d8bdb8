//! Asks the installed program whether it can take over, before the reload changes anything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::record::{HANDOVER_VERSION, without_record};
use crate::config::Settings;

/// Time limit for the installed program's answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How many bytes of its output are read.
const MOST_SAID: u64 = 16 * 1024;

/// A program's answer to the question whether it can take over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) version: String,
    /// Its values of the settings that only a restart can change.
    pub(crate) pinned: PinnedSettings,
}

/// The settings that only a restart can change, by key: their values are in use or registered.
pub(crate) type PinnedSettings = BTreeMap<String, Option<String>>;

pub(crate) fn pinned(settings: &Settings) -> PinnedSettings {
    let folder = |path: &Path| Some(path.display().to_string());
    [
        ("listen", Some(settings.listen.to_string())),
        ("state-dir", folder(&settings.state_dir)),
        ("runtime-dir", folder(&settings.runtime_dir)),
        ("instance-id", settings.instance_id.clone()),
        ("register-port", settings.register_port.map(|port| port.to_string())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// The answer of this program to an agent that writes records of version `handover`.
pub(crate) fn answer(handover: u32, settings: &Settings) -> Result<String, String> {
    if handover != HANDOVER_VERSION {
        return Err(format!(
            "version {} reads handover records of version {HANDOVER_VERSION}, and the running agent writes \
             version {handover}; restart instead",
            env!("CARGO_PKG_VERSION")
        ));
    }
    let candidate = Candidate { version: env!("CARGO_PKG_VERSION").to_owned(), pinned: pinned(settings) };
    serde_json::to_string(&candidate).map_err(|error| error.to_string())
}

/// The identities of the files that a reload depends on; `None` for a missing one. They show changes during the
/// reload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileStamps(Vec<Option<FileStamp>>);

#[derive(Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

impl FileStamps {
    pub(super) fn of(files: &[&Path]) -> Self {
        let stamp = |file: Metadata| FileStamp {
            device: file.dev(),
            inode: file.ino(),
            changed: (file.ctime(), file.ctime_nsec()),
            size: file.size(),
        };
        Self(files.iter().map(|file| fs::metadata(file).ok().map(stamp)).collect())
    }
}

/// The path where the program is installed, from `argv0`: after an upgrade the new program has the same name, while
/// the kernel's path of the running one may be gone.
pub(super) fn installed_path(argv0: Option<OsString>) -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let called = argv0.map(PathBuf::from).filter(|called| called.components().count() > 1);
    let Some(called) = called.and_then(|called| std::path::absolute(called).ok()) else {
        return Ok(running);
    };
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    Ok(if id(&called).is_some() && id(&called) == id(Path::new("/proc/self/exe")) { called } else { running })
}

/// Asks the program at `path` whether it can take over, with this program's arguments.
pub(super) async fn ask(
    path: &Path,
    arguments: &[OsString],
    own: &PinnedSettings,
) -> Result<Candidate, String> {
    let mut command = tokio::process::Command::new(path);
    without_record(&mut command);
    command
        .args(arguments)
        .args(["--check".to_owned(), format!("--handover={HANDOVER_VERSION}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(DEADLINE, run(command)).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            return Err(format!("cannot run {}: {error}; install it again, then reload", path.display()));
        }
        Err(_) => {
            return Err(format!(
                "{} did not answer within {DEADLINE:?} whether it can take over",
                path.display()
            ));
        }
    };
    let candidate = read_answer(path, &output)?;
    for (key, value) in own {
        let wanted = candidate.pinned.get(key).cloned().flatten();
        if wanted != *value {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
            return Err(format!(
                "a reload cannot change {key} (running: {}; new: {}); restart instead, or undo the change",
                text(value),
                text(&wanted)
            ));
        }
    }
    Ok(candidate)
}

/// Runs a program to its end and keeps the beginning of its output: a broken program may print anything.
async fn run(mut command: tokio::process::Command) -> io::Result<Output> {
    let mut child = command.spawn()?;
    let (stdout, stderr) = tokio::join!(beginning(child.stdout.take()), beginning(child.stderr.take()));
    Ok(Output { status: child.wait().await?, stdout, stderr })
}

async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(pipe) = pipe {
        // The bytes before a failure may still help.
        _ = pipe.take(MOST_SAID).read_to_end(&mut kept).await;
    }
    kept
}

fn read_answer(path: &Path, output: &Output) -> Result<Candidate, String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> =
            said.lines().map(|line| line.trim_start_matches("instance-agent: ").trim()).collect();
        // Our own messages say what is wrong and what to do: in the settings, each mistake in a line.
        if said.starts_with("instance-agent: ") {
            return Err(lines.join("; "));
        }
        let last =
            lines.last().filter(|line| !line.is_empty()).map_or(String::new(), |line| format!(": {line}"));
        return Err(format!("{} cannot take over: it ended with {}{last}", path.display(), output.status));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{} is not an instance-agent that can take over", path.display()))
}
