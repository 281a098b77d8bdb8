//! What one user may do to the agent of another. Only root can be two users.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::solo::{Solo, as_nobody, is_root_or_skip, output, program, refuses};
use tests::text;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn others_are_refused_and_told_what_to_do() {
    if !is_root_or_skip("being two users needs it") {
        return;
    }
    let mut solo = Solo::new().for_nobody();
    solo.wrapper.clear();
    std::os::unix::fs::chown(&solo.runtime_dir, Some(0), Some(0)).unwrap();
    let mut agent = solo.start().await;
    for command in ["status", "drain", "resume"] {
        refuses(&solo.command(&as_nobody(), &[command]).await, 1, &["admin.sock", "use sudo"]);
    }
    // Opened up by hand: the kernel still tells who asks.
    let socket = solo.runtime_dir.join("admin.sock");
    set_mode(&solo.runtime_dir, 0o755);
    set_mode(&socket, 0o666);
    for command in ["status", "drain", "resume"] {
        refuses(&solo.command(&as_nobody(), &[command]).await, 1, &["only root and the agent's user"]);
    }
    let curl = ["--silent", "--write-out", "%{http_code}", "--unix-socket", socket.to_str().unwrap()];
    for (method, path) in [("GET", "status"), ("GET", "metrics"), ("POST", "drain")] {
        let url = format!("http://agent/{path}");
        let arguments = [&curl[..], &["--request", method, &url]].concat();
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let answer = text(&output(program(&as_nobody(), "curl".as_ref(), &arguments, &[])).await.stdout);
        assert!(answer.ends_with("403") && answer.contains("use sudo"), "{path}: {answer}");
    }
    let status = solo.status().await.expect("root may");
    assert_eq!(status["phase"], "serving", "nobody's drain was not obeyed");
    agent.stop(&solo).await;

    // An agent of nobody's own answers nobody, and root.
    let solo = Solo::new().for_nobody();
    let _agent = solo.start().await;
    for user in [as_nobody(), Vec::new()] {
        let shown = solo.command(&user, &["status"]).await;
        assert!(shown.status.success(), "{}", text(&shown.stderr));
    }
}
