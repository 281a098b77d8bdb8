//! Outside checks: someone else's EC2 and ELBv2 (moto) and someone else's client (awscli).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::within;

/// Python programs take their time to start, more so on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python venv of the tests, made if it is missing.
pub async fn venv() -> PathBuf {
    if let Some(venv) = std::env::var_os("TESTS_VENV") {
        return venv.into();
    }
    let output = Command::new(folder().join("bin/venv")).arg("--make").output().await.expect("it starts");
    assert!(output.status.success(), "{output:?}");
    crate::text(&output.stdout).trim().into()
}

/// awscli against one endpoint.
pub struct AwsCli {
    program: PathBuf,
    endpoint: String,
    access_key: String,
    secret_key: String,
}

impl AwsCli {
    /// For this endpoint, with these long-term credentials.
    pub async fn new(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        Self {
            program: venv().await.join("bin/aws"),
            endpoint: endpoint.to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
        }
    }

    /// What a command answered, as awscli understood it; `Null` if it printed nothing.
    pub async fn ok(&self, arguments: &[&str]) -> Value {
        let (status, out, error) = self.run(arguments).await;
        assert_eq!(status, Some(0), "{arguments:?}: {error}");
        match out.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).expect("JSON"),
        }
    }

    /// The message of a command that has to fail.
    pub async fn error(&self, arguments: &[&str]) -> String {
        let (status, out, error) = self.run(arguments).await;
        assert_ne!(status, Some(0), "{arguments:?}: {out}");
        error
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let arguments = [&["--endpoint-url", &self.endpoint, "--output", "json"], arguments].concat();
        // Nothing of the user's: neither credentials nor files could reach AWS.
        let environment = [
            ("AWS_ACCESS_KEY_ID", self.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_MAX_ATTEMPTS", "1"),
        ];
        let run = async {
            match std::env::var_os("TESTS_AWSCLI").filter(|_| reaches_what_run_tests_reaches()) {
                Some(socket) => run_loaded(socket.as_ref(), &arguments, &environment).await,
                None => run_anew(&self.program, &arguments, &environment).await,
            }
        };
        tokio::time::timeout(PATIENCE, run).await.expect("awscli ends")
    }
}

/// Whether this thread is in the network of `tests/bin/run-tests`: a region with machines has one of its own, in which
/// the same addresses are other programs'.
fn reaches_what_run_tests_reaches() -> bool {
    let here = std::fs::read_link("/proc/thread-self/ns/net").expect("a network");
    std::env::var_os("TESTS_NETWORK").is_some_and(|network| here.as_os_str() == network)
}

/// By `tests/awscli-server`, where `tests/bin/run-tests` has started that.
async fn run_loaded(
    socket: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let environment: BTreeMap<_, _> = environment.iter().copied().collect();
    let asked = serde_json::json!({ "arguments": arguments, "environment": environment });
    let found = within(PATIENCE, async || UnixStream::connect(socket).await.ok()).await;
    let mut stream = found.unwrap_or_else(|| panic!("nothing listens on {}", socket.display()));
    stream.write_all(format!("{asked}\n").as_bytes()).await.expect("it listens");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.expect("an answer");
    let ended: Value = serde_json::from_str(&line).expect("how it ended");
    let said = |stream: &str| ended[stream].as_str().expect("a text").to_owned();
    let status = ended["status"].as_i64().and_then(|status| i32::try_from(status).ok());
    (status, said("stdout"), said("stderr"))
}

async fn run_anew(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("it starts");
    (output.status.code(), crate::text(&output.stdout), crate::text(&output.stderr))
}

/// moto, with or without a fleet's surroundings in it.
pub struct Moto {
    /// What was made: endpoint, instances, target groups.
    pub made: Value,
    /// moto ends when this is dropped, however the test ends.
    lifeline: Lifeline,
    folder: tempfile::TempDir,
}

enum Lifeline {
    /// To `tests/moto-accounts`.
    Connection { _stream: UnixStream },
    /// `tests/moto-fixture`.
    Fixture(Child),
}

impl Moto {
    /// By way of `tests/moto-fixture`, with these arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("moto.log");
        let mut child = Command::new(self::folder().join("moto-fixture"))
            .args(arguments)
            .arg("--log")
            .arg(&log)
            .env("TESTS_VENV", venv().await)
            .env("MOTO_ENABLE_RECORDING", "true")
            .env("MOTO_RECORDER_FILEPATH", folder.path().join("requests"))
            // Ends with this pipe, however the test ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let made = said(child.stdout.take().expect("a pipe"), &log).await;
        Self { made, lifeline: Lifeline::Fixture(child), folder }
    }

    /// An account as AWS gives it, with nothing made in it. From `tests/moto-accounts`, where
    /// `tests/bin/run-tests` has started that.
    pub async fn account() -> Self {
        let Some(socket) = std::env::var_os("TESTS_MOTO_ACCOUNTS") else {
            return Self::start(&["--bare"]).await;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("moto.log");
        let found = within(PATIENCE, async || UnixStream::connect(&socket).await.ok()).await;
        let mut stream = found.unwrap_or_else(|| panic!("nothing listens on {}", socket.display()));
        let line = format!("{}\n", log.display());
        stream.write_all(line.as_bytes()).await.expect("it listens");
        let made = said(&mut stream, &log).await;
        Self { made, lifeline: Lifeline::Connection { _stream: stream }, folder }
    }

    /// The endpoint of all services.
    pub fn endpoint(&self) -> &str {
        self.made["endpoint"].as_str().expect("a URL")
    }

    /// The id of one of its instances.
    pub fn instance(&self, number: usize) -> &str {
        self.made["instances"][number]["id"].as_str().expect("an id")
    }

    /// A target group's ARN.
    pub fn arn(&self, group: &str) -> &str {
        self.made["target_groups"][group].as_str().expect("an ARN")
    }

    /// awscli, as the owner of moto's account.
    pub async fn cli(&self) -> AwsCli {
        AwsCli::new(self.endpoint(), "testing", "testing").await
    }

    /// The parameters of each call of one action that a Rust SDK has made, as moto recorded it.
    pub fn calls(&self, action: &str) -> Vec<BTreeMap<String, String>> {
        let recorded = std::fs::read_to_string(self.folder.path().join("requests")).unwrap_or_default();
        let mut calls = Vec::new();
        for line in recorded.lines() {
            let call: Value = serde_json::from_str(line).expect("JSON");
            let agent = call["headers"]["User-Agent"].as_str().unwrap_or_default();
            if !agent.starts_with("aws-sdk-rust") {
                continue;
            }
            let body = STANDARD.decode(call["body"].as_str().unwrap_or_default()).expect("base64");
            let body: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
            if body.get("Action").is_some_and(|found| found == action) {
                calls.push(body);
            }
        }
        calls
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) {
        let Lifeline::Fixture(mut child) = self.lifeline else {
            panic!("only the fixture can be waited for");
        };
        drop(child.stdin.take());
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        assert!(ended.expect("the fixture ends").expect("a status").success());
    }
}

/// The line of JSON by which moto's starter says that all is there.
async fn said(from: impl AsyncRead + Unpin, log: &Path) -> Value {
    let mut lines = BufReader::new(from).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("moto starts");
    let line = line.expect("a line").unwrap_or_else(|| {
        panic!("moto did not start: {}", std::fs::read_to_string(log).unwrap_or_default())
    });
    serde_json::from_str(&line).expect("JSON")
}
