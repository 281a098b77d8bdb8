//! What `bootstrap` says where AWS does not answer: which address, why, and what to do; and meanwhile what it waits for.

use std::net::TcpListener;

use tests::account::{Account, Options, Ran};
use tests::terminal;

/// A place where connections are taken and closed at once.
fn closes() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    format!("http://{address}")
}

fn is_one_line_of_ours(ran: Ran, words: &[&str]) {
    let mut ran = ran.exits(1);
    for word in words {
        ran = ran.says(word);
    }
    let of_libraries = ["dispatch failure", "client error", "SdkBody", "panicked", "interceptor"];
    assert!(!of_libraries.iter().any(|words| ran.stderr.contains(words)), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[tokio::test]
async fn an_endpoint_that_gives_no_answer_is_named_with_the_reason_and_the_cure() {
    let account = Account::start(Options::prompt()).await;
    let closes = closes();
    let speaks_no_tls = account.endpoint().replace("http://", "https://");
    let cases: [(&str, &[&str]); 5] = [
        (
            "http://127.0.0.1:1",
            &["cannot ", ": http://127.0.0.1:1 refuses the connection; check the endpoint"],
        ),
        (
            "127.0.0.1:5000",
            &["the endpoint \"127.0.0.1:5000\" is no URL; write it as https://HOST or http://"],
        ),
        (
            "http://nowhere.invalid",
            &["the name in http://nowhere.invalid does not resolve; check the region's"],
        ),
        (&closes, &[&closes, " closed the connection without an answer; try again"]),
        (
            &speaks_no_tls,
            &[&speaks_no_tls, " does not speak TLS; check the endpoint's port, or write http://"],
        ),
    ];
    let run =
        async |endpoint: &str| account.bootstrap(&["list"]).env("AWS_ENDPOINT_URL", endpoint).run().await;
    let [a, b, c, d, e] = cases;
    let ran = tokio::join!(run(a.0), run(b.0), run(c.0), run(d.0), run(e.0));
    for (ran, (_, words)) in [ran.0, ran.1, ran.2, ran.3, ran.4].into_iter().zip(cases) {
        is_one_line_of_ours(ran, words);
    }
}

#[tokio::test]
async fn a_command_for_credentials_that_fails_is_told_in_its_own_words() {
    let account = Account::start(Options::prompt()).await;
    let script = account.file("vault", "echo 'the vault is sealed' >&2\nexit 3\n");
    let config = account.file("config", format!("[default]\ncredential_process = sh {script}\n"));
    let command = account.bootstrap(&["list"]).env("AWS_CONFIG_FILE", &config).env("PATH", "/usr/bin:/bin");
    let ran = command.without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY").run().await;
    is_one_line_of_ours(
        ran,
        &[
            "credential_process of the profile failed with status 3: the vault is sealed; run that command by hand",
        ],
    );
}

#[tokio::test]
async fn a_terminal_shows_what_is_waited_for() {
    let account = Account::start(Options::prompt()).await;
    // Connections wait in its queue for ever.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    for command in ["list", "plan", "status", "destroy"] {
        let (person, program) = terminal();
        let command = account.bootstrap(&[command, "--region", "us-east-1"]);
        let command = command.env("AWS_ENDPOINT_URL", &endpoint).env("TERM", "xterm").stderr(program);
        let running = command.start();
        let shown = endpoint.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let (mut all, mut buffer) = (String::new(), [0; 4096]);
            while !(all.contains("waiting ") && all.contains(&format!("for {shown}, to "))) {
                let Ok(count @ 1..) = rustix::io::read(&person, &mut buffer) else { return Err(all) };
                all.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            Ok(())
        });
        reading.await.unwrap().unwrap();
        running.signal(rustix::process::Signal::KILL);
        running.end().await;
    }
}
