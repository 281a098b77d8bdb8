//! What the service cannot do, tried from inside the sandbox of the very unit that is shipped, in a
//! booted Debian. Only what it starts is another: a probe.
//!
//! Each probe is also run without the sandbox, where it succeeds: so it is the sandbox that stops it.

use tests::debian::{package, root};
use tests::nspawn::Nspawn;
use tests::solo::{is_root_or_skip, tool};

const WHY: &str = "only root can boot a machine";

/// Where the probe is, which is Python.
const PROBE: &str = "/usr/local/lib/probe.py";

/// What every probe begins with. `tried` tells the error by its name, `ok` where there is none.
const PRELUDE: &str = r#"
import ctypes, errno, mmap, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(action, *arguments):
    try:
        action(*arguments)
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
def call(number, *arguments):
    ctypes.set_errno(0)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_void_p(a) if isinstance(a, int) else a for a in arguments])
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
own = os.environ.get("STATE_DIRECTORY", "/tmp")
"#;

/// A machine with the package's files, whose unit starts the probe.
struct Sandbox {
    machine: Nspawn,
}

impl Sandbox {
    async fn new() -> Self {
        let mut machine = Nspawn::make(&root("bookworm").await).await;
        let package = package("instance-agent");
        let disk = machine.path("/");
        // Only the files: it is the unit that is tested here, and the agent would start.
        let unpacked = tool("dpkg-deb", &["-x", package.to_str().unwrap(), disk.to_str().unwrap()]).await;
        assert!(unpacked.status.success(), "{unpacked:?}");
        // Nothing here restricts or allows anything.
        machine.write(
            "etc/systemd/system/instance-agent.service.d/probe.conf",
            format!(
                "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecReload=\nExecStart=\n\
                 ExecStart=/usr/bin/python3 {PROBE}\n\
                 StandardOutput=truncate:/var/log/probe\nStandardError=truncate:/var/log/probe.error\n"
            ),
        );
        machine.boot().await;
        Self { machine }
    }

    fn write(&self, probe: &str) {
        self.machine.write(PROBE, format!("{PRELUDE}\n{probe}"));
    }

    /// What a probe prints in the sandbox.
    async fn inside(&self, probe: &str) -> String {
        self.write(probe);
        self.machine
            .ok("systemctl start instance-agent || { cat /var/log/probe.error >&2; journalctl -b -u instance-agent >&2; false; }; cat /var/log/probe")
            .await
    }

    /// What it prints when this user runs it, without any sandbox.
    async fn outside(&self, user: &str, probe: &str) -> String {
        self.write(probe);
        self.machine
            .ok(&format!("systemd-run --quiet --wait --pipe --uid={user} /usr/bin/python3 {PROBE}"))
            .await
    }

    /// The probe's answers in the sandbox and out of it.
    async fn differs(&self, user: &str, probe: &str, inside: &str, outside: &str) {
        assert_eq!(self.outside(user, probe).await, outside, "this probe proves nothing");
        assert_eq!(self.inside(probe).await, inside);
    }
}

/// The lines of a probe's output, sorted.
fn sorted(output: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn it_can_write_into_its_own_folders_and_nowhere_else() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    // Places that a careless administrator left open to everyone.
    sandbox.machine.ok("for d in /srv /opt /usr /etc /etc/instance-agent /var /var/lib /boot; do mkdir -p $d/open && chmod 1777 $d/open; done; touch /etc/open/file && chmod 666 /etc/open/file").await;
    // Every folder and every file of the whole system, of what the kernel shows of itself too.
    let probe = r#"
def own_or_process(path):
    return path.startswith("/proc/")
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if not own_or_process(os.path.join(folder, f) + "/")]
    for path in [folder] + [os.path.join(folder, f) for f in files]:
        try:
            special = not os.path.isdir(path) and not os.path.isfile(path)
        except OSError:
            continue
        if not special and not os.path.islink(path) and os.access(path, os.W_OK):
            print(path)
"#;
    let outside = sandbox.outside("nobody", probe).await;
    for open in ["/srv/open", "/etc/instance-agent/open", "/etc/open/file", "/var/lib/open", "/usr/open"] {
        assert!(outside.lines().any(|path| path == open), "{outside}");
    }
    let inside = sandbox.inside(probe).await;
    let expected = ["/run/instance-agent", "/tmp", "/var/lib/private/instance-agent", "/var/tmp"];
    let in_memory = ["/dev/shm", "/dev/mqueue"];
    let writable: Vec<&str> = sorted(&inside).into_iter().filter(|path| !in_memory.contains(path)).collect();
    assert_eq!(writable, expected);
}

#[tokio::test]
async fn it_cannot_run_a_file_from_a_folder_it_can_write_into() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
for folder in dict.fromkeys([own, os.environ.get("RUNTIME_DIRECTORY", "/tmp"), "/tmp", "/var/tmp", "/dev/shm"]):
    path = folder + "/tool"
    open(path, "wb").write(open("/bin/true", "rb").read())
    os.chmod(path, 0o755)
    print(tried(subprocess.run, [path]))
    os.remove(path)
"#;
    let refused = ["EACCES"; 5].join("\n");
    sandbox.differs("nobody", probe, &refused, "ok\nok\nok").await;
}

#[tokio::test]
async fn homes_are_hidden_from_it() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    sandbox.machine.ok("mkdir -p /home/someone /run/user/1 && chmod 755 /root /run/user/1 && for f in /home/someone /root /run/user/1; do echo x > $f/file; chmod 644 $f/file; done").await;
    let probe = r#"
for folder in ["/home/someone", "/root", "/run/user/1"]:
    try: print(open(folder + "/file").read().strip())
    except OSError as error: print("hidden")
"#;
    sandbox.differs("nobody", probe, "hidden\nhidden\nhidden", "x\nx\nx").await;
}

#[tokio::test]
async fn the_temporary_files_of_others_are_hidden_from_it() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    sandbox.machine.ok("for f in /tmp/other /var/tmp/other; do echo x > $f; chmod 644 $f; done").await;
    let probe = "print(os.path.exists('/tmp/other'), os.path.exists('/var/tmp/other'))";
    sandbox.differs("nobody", probe, "False False", "True True").await;
}

#[tokio::test]
async fn the_processes_of_others_are_invisible_to_it() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
print(1 in pids, all(os.stat("/proc/%d" % pid).st_uid == os.getuid() for pid in pids), os.getpid() in pids)
"#;
    sandbox.differs("nobody", probe, "False True True", "True False True").await;
}

#[tokio::test]
async fn it_sees_nothing_of_the_kernel_in_proc() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
print(*[name for name in ["cmdline", "kallsyms", "modules", "sys", "net", "self"] if os.path.lexists("/proc/" + name)])
"#;
    let outside = sandbox.outside("nobody", probe).await;
    assert!(outside.starts_with("cmdline kallsyms") && outside.contains(" sys "), "{outside}");
    assert_eq!(sandbox.inside(probe).await, "self");
}

#[tokio::test]
async fn it_has_the_one_capability_that_opens_port_80_and_can_get_no_other() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
print(*sorted({line.split()[1].lstrip("0") for line in open("/proc/self/status") if line.startswith("Cap")}))
print(tried(socket.create_server, ("127.0.0.1", 81)))
"#;
    assert_eq!(sandbox.inside(probe).await, "400\nok");
    assert_eq!(
        sandbox.outside("nobody", "print(tried(socket.create_server, ('127.0.0.1', 81)))").await,
        "EACCES"
    );
}

#[tokio::test]
async fn what_needs_another_capability_fails() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
print(tried(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
print(tried(os.kill, 1, 0))
print(tried(open, "/etc/shadow"))
print(tried(os.mknod, own + "/zero", 0o20600, os.makedev(1, 5)))
print(tried(os.setuid, 0))
"#;
    let outside = sandbox.outside("root", probe).await;
    assert_eq!(outside, "ok\nok\nok\nok\nok", "this probe proves nothing");
    for line in sandbox.inside(probe).await.lines() {
        assert!(["EPERM", "EACCES", "ESRCH"].contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_setuid_program_gives_it_no_rights() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    sandbox.machine.ok("cp /usr/bin/id /usr/local/bin/root-id && chmod 4755 /usr/local/bin/root-id").await;
    let probe = r#"
print(subprocess.run(["/usr/local/bin/root-id", "-u"], capture_output=True, text=True).stdout.strip() == "0")
"#;
    sandbox.differs("nobody", probe, "False", "True").await;
}

#[tokio::test]
async fn it_cannot_leave_a_setuid_file_behind() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
path = own + "/tool"
open(path, "w").close()
print(tried(os.chmod, path, 0o4755), tried(os.chmod, path, 0o2755))
os.remove(path)
"#;
    sandbox.differs("nobody", probe, "EPERM EPERM", "ok ok").await;
}

#[tokio::test]
async fn it_can_speak_ip_and_unix_sockets_and_no_other_address_family() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
possible = []
for family in range(1, 50):
    for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET]:
        if call(41, family, kind, 0) != "EAFNOSUPPORT":
            possible.append(family)
            break
print(*possible)
"#;
    // 1 is AF_UNIX, 2 AF_INET, 10 AF_INET6, 16 AF_NETLINK, 17 AF_PACKET.
    let outside = sandbox.outside("root", probe).await;
    let outside: Vec<&str> = outside.split(' ').collect();
    assert!(outside.contains(&"16") && outside.contains(&"17"), "{outside:?}");
    assert_eq!(sandbox.inside(probe).await, "1 2 10");
}

#[tokio::test]
async fn it_can_make_no_namespace() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
kinds = {"mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
for name, flag in kinds.items():
    child = os.fork()
    if child == 0:
        os._exit(0 if call(272, flag) == "ok" else 1)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    let all = ["mount", "cgroup", "uts", "ipc", "user", "pid", "net"];
    let expected = |code: i32| all.map(|name| format!("{name} {code}")).join("\n");
    sandbox.differs("root", probe, &expected(1), &expected(0)).await;
}

#[tokio::test]
async fn it_can_have_no_memory_that_is_writable_and_executable() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    let probe = r#"
rwx = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
def map_at_once(): mmap.mmap(-1, 4096, prot=rwx)
print(tried(map_at_once))
def turn(before, after):
    memory = mmap.mmap(-1, 4096, prot=before)
    address = ctypes.c_char.from_buffer(memory)
    return call(10, ctypes.addressof(address), 4096, after)
print(turn(mmap.PROT_READ | mmap.PROT_WRITE, mmap.PROT_READ | mmap.PROT_EXEC))
"#;
    sandbox.differs("nobody", probe, "EPERM\nEPERM", "ok\nok").await;
}

#[tokio::test]
async fn forbidden_system_calls_fail() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    // Each is harmless, and allowed to any user where no filter forbids it.
    let probe = r#"
path = own + "/mine"
open(path, "w").close()
name = ctypes.c_char_p(path.encode())
me = os.getuid()
print("chown", call(92, name, me, os.getgid()))
print("setuid", call(105, me))
print("setresgid", call(119, os.getgid(), os.getgid(), os.getgid()))
print("setpriority", call(141, 0, 0, 10))
print("sched_setscheduler", call(144, 0, 3, ctypes.create_string_buffer(8)))
print("mbind", call(237, 0, 0, 0, 0, 0, 0))
print("personality", call(135, 0x0040000))
os.remove(path)
"#;
    let calls = ["chown", "setuid", "setresgid", "setpriority", "sched_setscheduler", "mbind", "personality"];
    let outside = sandbox.outside("nobody", probe).await;
    assert!(!outside.contains("EPERM"), "{outside}");
    assert_eq!(sandbox.inside(probe).await, calls.map(|name| format!("{name} EPERM")).join("\n"));
}

#[tokio::test]
async fn calls_that_only_root_may_make_fail_too() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    // Where a call is not forbidden, it says that what it was given is no address.
    let probe = r#"
calls = {"sethostname": 170, "chroot": 161, "mount": 165, "umount2": 166, "pivot_root": 155, "setdomainname": 171}
for name, number in calls.items():
    print(name, call(number, 1, 1, 1, 0, 0))
"#;
    let calls = ["sethostname", "chroot", "mount", "umount2", "pivot_root", "setdomainname"];
    let expected = |word: &str| calls.map(|name| format!("{name} {word}")).join("\n");
    sandbox.differs("root", probe, &expected("EPERM"), &expected("EFAULT")).await;
}

#[tokio::test]
async fn a_call_of_another_architecture_ends_it() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    // getpid and exit(0), as a program of 32 bits calls them.
    let source = sandbox.machine.path("usr/local/lib/foreign.s");
    let program = sandbox.machine.path("usr/local/bin/foreign");
    let code =
        ".globl _start\n_start: mov $20, %eax\n int $0x80\n mov $1, %eax\n xor %ebx, %ebx\n int $0x80\n";
    std::fs::create_dir_all(source.parent().unwrap()).unwrap();
    std::fs::write(&source, code).unwrap();
    let words = ["-nostdlib", "-static", "-o", program.to_str().unwrap(), source.to_str().unwrap()];
    let built = tool("cc", &words).await;
    assert!(built.status.success(), "{built:?}");
    let probe = "print(subprocess.run(['/usr/local/bin/foreign']).returncode)";
    assert_eq!(sandbox.outside("nobody", probe).await, "0", "this kernel has no such calls");
    assert_ne!(sandbox.inside(probe).await, "0");
}

#[tokio::test]
async fn it_shares_no_system_v_memory_with_others() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let sandbox = Sandbox::new().await;
    sandbox.machine.ok("ipcmk --shmem 4096 --mode 0666").await;
    // IPC_STAT of what is there, by index.
    let probe = "print(call(31, 0, 13, ctypes.create_string_buffer(512)))";
    sandbox.differs("nobody", probe, "EINVAL", "ok").await;
}

#[tokio::test]
async fn the_running_service_has_no_memory_that_is_writable_and_executable() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = Nspawn::booted(&root("bookworm").await).await;
    machine.install(&package("instance-agent")).await;
    machine.ok("curl -sS --max-time 5 -d '{\"num\": 7}' http://127.0.0.1/seed").await;
    let maps = machine.ok("cat /proc/$(systemctl show -P MainPID instance-agent)/maps").await;
    let rights: Vec<&str> = maps.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(rights.iter().any(|rights| rights.starts_with("r-x")), "{maps}");
    let both: Vec<_> = rights.iter().filter(|rights| rights.contains('w') && rights.contains('x')).collect();
    assert!(both.is_empty(), "{maps}");
}

#[tokio::test]
async fn the_running_service_is_confined_in_each_of_its_threads() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = Nspawn::booted(&root("bookworm").await).await;
    machine.install(&package("instance-agent")).await;
    let line = "cat /proc/$(systemctl show -P MainPID instance-agent)/task/*/status";
    let status = machine.ok(line).await;
    let all = |name: &str, value: &str| {
        let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let mut lines = status.lines().filter(of).peekable();
        assert!(lines.peek().is_some(), "no {name}: {status}");
        assert!(lines.all(|line| line.ends_with(&format!("\t{value}"))), "{name}: {status}");
    };
    all("NoNewPrivs", "1");
    all("Seccomp", "2");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        all(set, "0000000000000400");
    }
}

#[tokio::test]
async fn other_users_can_neither_read_its_seed_nor_give_it_orders() {
    if !is_root_or_skip(WHY) {
        return;
    }
    let machine = Nspawn::booted(&root("bookworm").await).await;
    machine.install(&package("instance-agent")).await;
    machine.ok("curl -sS --max-time 5 -d '{\"num\": 7}' http://127.0.0.1/seed").await;
    let files = "test -e /var/lib/instance-agent/seed && instance-agent status";
    machine.ok(files).await;
    let as_nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups --";
    for line in ["ls /var/lib/instance-agent/", "ls /run/instance-agent/", "instance-agent status"] {
        let output = machine.run(&format!("{as_nobody} {line}")).await;
        assert!(!output.status.success(), "{line}: {output:?}");
    }
}
