//! `bootstrap ssh` and `logs`. OpenSSH itself reads the arguments (`ssh -G`); the command then runs on this machine, since
//! the account's addresses lead nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::account::{Account, Bootstrap, Options, SMALL};

/// Notes how OpenSSH understands its arguments, and runs the command as a login shell would.
const SSH: &str = r#"#!/bin/sh
folder=$(dirname "$0")
shown=$(/usr/bin/ssh -G "$@") || exit 255
id=$(echo "$shown" | sed -n 's/^hostkeyalias //p')
echo "$shown" >"$folder/$id"
while [ "${1#-}" != "$1" ]; do shift 2; done
shift
[ $# -gt 0 ] || { echo "a shell on $id"; exit 3; }
INSTANCE=$id exec sh -c "$*"
"#;

struct Bed {
    account: Account,
    file: String,
    ids: Vec<String>,
}

impl Bed {
    async fn launched() -> Self {
        let account = Account::start(Options::prompt()).await;
        let cli = account.cli().await;
        cli.ok(&["ec2", "create-key-pair", "--key-name", "ops"]).await;
        let file = account.file("small.toml", SMALL);
        let launched = account.ok(&["launch", &file, "--in-image", "--key-pair", "ops"]).await;
        launched.says("log in to an instance:\n  bootstrap ssh small --region us-east-1\n");
        let script = account.file("ssh", SSH);
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
        let status = account.ok(&["status", "small", "--output", "json"]).await.json();
        let ids = status["instances"].as_array().unwrap().iter();
        let ids = ids.map(|instance| instance["id"].as_str().unwrap().to_owned()).collect();
        Self { account, file, ids }
    }

    fn folder(&self) -> &Path {
        Path::new(&self.file).parent().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Bootstrap {
        let path = format!("{}:/usr/bin:/bin", self.folder().display());
        self.account.bootstrap(arguments).env("PATH", &path)
    }

    /// What OpenSSH read for this instance.
    fn read(&self, id: &str) -> String {
        fs::read_to_string(self.folder().join(id)).unwrap()
    }
}

#[tokio::test]
async fn ssh_gets_address_user_and_key_and_gives_the_exit_status() {
    let bed = Bed::launched().await;
    let ran = bed.command(&["ssh", "small"]).run().await.exits(3);
    let id = bed.ids.iter().find(|id| ran.stdout == format!("a shell on {id}\n")).expect("one of them");
    let read = bed.read(id);
    let address = bed.account.ok(&["status", "small", "--output", "json"]).await.json();
    let address = address["instances"].as_array().unwrap().iter().find(|it| it["id"] == **id).unwrap();
    let address = address["address"].as_str().unwrap();
    for line in [&format!("hostname {address}\n"), "user ubuntu\n", "stricthostkeychecking accept-new\n"] {
        assert!(read.contains(line), "{line}: {read}");
    }
    let last = bed.ids.last().unwrap();
    let named = bed.command(&["ssh", "small", last, "--user", "admin", "--", "echo $INSTANCE; exit 7"]);
    assert_eq!(named.run().await.exits(7).stdout, format!("{last}\n"));
    assert!(bed.read(last).contains("user admin\n"), "{}", bed.read(last));

    // The key pair's file, where keys lie; another where it is named.
    fs::create_dir(bed.folder().join(".ssh")).unwrap();
    fs::write(bed.folder().join(".ssh/ops.pem"), "").unwrap();
    bed.command(&["ssh", &bed.file, "red", "--", "true"]).run().await.success();
    let key =
        |id: &str| bed.read(id).contains(&format!("identityfile {}/.ssh/ops.pem\n", bed.folder().display()));
    assert!(bed.ids.iter().any(|id| bed.folder().join(id).exists() && key(id)));
    let mine = bed.account.file("mine", "");
    bed.command(&["ssh", "small", last, "--identity", &mine, "--", "true"]).run().await.success();
    assert!(bed.read(last).contains(&format!("identityfile {mine}\n")), "{}", bed.read(last));
}

#[tokio::test]
async fn on_all_each_line_has_its_instance_and_the_worst_exit_status_is_that_of_all() {
    let bed = Bed::launched().await;
    let ran = bed
        .command(&["ssh", "small", "--all", "--", "echo to $INSTANCE; echo wrong >&2"])
        .run()
        .await
        .success();
    let mut lines: Vec<_> = ran.stdout.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<_> = bed.ids.iter().map(|id| format!("{id}: to {id}")).collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    for id in &bed.ids {
        assert!(ran.stderr.contains(&format!("{id}: wrong\n")), "{}", ran.stderr);
        let read = bed.read(id);
        assert!(read.contains("batchmode yes\n") && read.contains("connecttimeout 10\n"), "{read}");
    }
    let (first, second) = (&bed.ids[0], &bed.ids[1]);
    let fails = format!("case $INSTANCE in {first}) exit 4;; {second}) exit 9;; esac");
    let ran = bed.command(&["ssh", "small", "--all", "--", &fails]).run().await.exits(9);
    assert!(ran.stderr.contains("2 of 4 instances failed: "), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("{second} (9)")), "{}", ran.stderr);
}

#[tokio::test]
async fn logs_asks_for_the_services_journal() {
    let bed = Bed::launched().await;
    let sudo = bed.account.file("sudo", "#!/bin/sh\nprintf '%s\\n' \"$*\"\n");
    fs::set_permissions(sudo, fs::Permissions::from_mode(0o755)).unwrap();
    let journal = "-n journalctl -u instance-agent -o short-iso --no-hostname -n";
    let ran = bed.command(&["logs", "small"]).run().await.success();
    for id in &bed.ids {
        assert!(ran.stdout.contains(&format!("{id}: {journal} 100 --no-pager\n")), "{}", ran.stdout);
    }
    let one = ["logs", "small", &bed.ids[0], "--follow", "--lines", "5"];
    assert_eq!(bed.command(&one).run().await.success().stdout, format!("{journal} 5 --follow\n"));
}

#[tokio::test]
async fn what_is_wrong_is_said_before_anything_runs() {
    let bed = Bed::launched().await;
    let wrong: [(&[&str], i32, &str); 6] = [
        (&["ssh", "small", "green"], 1, "fleet small has no green; name one of its instances"),
        (&["ssh", "small", "--all"], 2, "--all needs a command"),
        (&["ssh", "small", "--user=-oProxyCommand=x"], 2, "expected a user's name"),
        (&["ssh", "small", "--output", "json"], 2, "omit --output json"),
        (&["logs", "small", "--output", "json"], 2, "-o json` shows JSON"),
        (&["ssh", "other"], 1, "there is no fleet other in us-east-1"),
    ];
    for (command, code, told) in wrong {
        let ran = bed.command(command).run().await.exits(code);
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    // Nobody to ask: it stands still.
    let cli = bed.account.cli().await;
    cli.ok(&["ec2", "stop-instances", "--instance-ids", &bed.ids[0]]).await;
    let ran = bed.command(&["ssh", "small", &bed.ids[0]]).run().await.exits(1);
    assert!(ran.stderr.contains("ssh needs an instance that runs"), "{}", ran.stderr);
    let ran = bed.command(&["ssh", "small", "--all", "--", "echo here"]).run().await.success();
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    assert!(ran.stderr.contains(": left out\n"), "{}", ran.stderr);
    let without = bed.account.bootstrap(&["ssh", "small", "--", "true"]).env("PATH", "/nowhere");
    let ran = without.run().await.exits(1);
    assert!(
        ran.stderr.contains("cannot run ssh: ") && ran.stderr.contains("openssh-client"),
        "{}",
        ran.stderr
    );
}
