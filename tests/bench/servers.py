"""The agent and its peers: how each is started on one processor, and what its processes use."""

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BODY = "Instance i-0123456789abcdef0 is responding now!"
DEADLINE = 60  # seconds for a server to start or to stop

# No program may reach AWS.
NOWHERE = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A server or the client did not do its part."""


def child(core):
    """What a child does before it becomes its program: takes its processor, and ends with this one."""

    def prepare():
        os.sched_setaffinity(0, {core})
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


def tree(pid):
    """A process and its descendants."""
    found = [pid]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += [int(one) for one in task.read_text().split()]
            except OSError:
                continue  # That thread has ended.
    return found


def memory(pids, field):
    """The sum of one field of smaps_rollup, in bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                total += int(line.split()[1]) * 1024
    return total


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A peer or the agent, in a folder of its own, from `start` to `stop`."""

    path = "/cluster1"
    store = "post"  # the client's word for a durable store
    store_path = "/seed"
    clients = 768  # connections that its configuration allows, where it needs to know

    def __init__(self, bench):
        self.bench = bench

    def prepare(self, folder, port):
        """Writes configuration; gives the command."""
        raise NotImplementedError

    def environment(self, folder):
        return {"PATH": os.environ["PATH"], "HOME": str(folder), **NOWHERE}

    def start(self, folder):
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        self.log = open(folder / "log", "wb")
        command, self.executable = self.prepare(folder, self.port), None
        if isinstance(command, tuple):
            command, self.executable = command
        self.process = subprocess.Popen(
            [str(word) for word in command], executable=self.executable, cwd=folder, env=self.environment(folder),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=child(self.bench.server_core),
        )
        until = time.monotonic() + DEADLINE
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise Failed(f"{self.name} does not answer: {self.log_text()}")
            time.sleep(0.01)

    def log_text(self):
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def answers(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", self.path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def reload(self):
        raise NotImplementedError

    def pids(self):
        return tree(self.process.pid)

    def stop(self):
        pids = self.pids() if self.process.poll() is None else []
        if pids:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                print(f"bench: {self.name} does not stop; killing it", file=sys.stderr)
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                self.process.wait()
        self.log.close()


class Agent(Server):
    name = "agent"

    def prepare(self, folder, port):
        for own in ("run", "state"):
            (folder / own).mkdir(mode=0o700)
        return [
            self.bench.agent, "serve", "--config", "/dev/null", "--listen", f"127.0.0.1:{port}",
            "--runtime-dir", folder / "run", "--state-dir", folder / "state", "--cluster", "cluster1",
            "--instance-id", "i-0123456789abcdef0", "--threads", "1",
        ]

    def reload(self):
        run = subprocess.run(
            [self.bench.agent, "reload", "--runtime-dir", self.folder / "run"], env=self.environment(self.folder),
            capture_output=True, text=True, timeout=DEADLINE,
        )
        if run.returncode:
            raise Failed(f"{run.stderr.strip()}; the agent's log: {self.log_text()}")

    def version(self):
        return subprocess.run([self.bench.agent, "--version"], capture_output=True, text=True).stdout.strip()


class Nginx(Server):
    name = "nginx"
    # One worker, as the agent has one thread. Connections live as long as the agent's: 75 s, any number of requests.
    # Debian's number of connections, and more only where a row opens more: nginx reserves memory for them at its start.
    CONFIGURATION = """
daemon off;
user root root;
pid {folder}/pid;
error_log stderr warn;
worker_processes 1;
worker_rlimit_nofile {files};
events {{ worker_connections {clients}; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = / {{ return 200 "Healthy!"; }}
        location = /cluster1 {{ return 200 "{body}"; }}
    }}
}}
"""

    def prepare(self, folder, port):
        text = self.CONFIGURATION.format(folder=folder, port=port, body=BODY, clients=self.clients, files=self.bench.files)
        (folder / "nginx.conf").write_text(text)
        return [self.bench.program("nginx"), "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]

    def reload(self):
        # What `nginx -s reload` sends.
        os.kill(self.process.pid, signal.SIGHUP)

    def version(self):
        return subprocess.run([self.bench.program("nginx"), "-v"], capture_output=True, text=True).stderr.strip()


class Redis(Server):
    name = "Redis"
    store = "set"
    store_path = "seed"

    def prepare(self, folder, port):
        # No rewrite of its file during a run; nothing else than the appended file is written.
        words = [
            "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes",
            "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0", "--maxclients", "2000",
        ]
        # redis-tools brings the program; its first word says what it is. The package redis-server would start one.
        return words, self.bench.program("redis-check-rdb")

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def version(self):
        run = subprocess.run(
            ["redis-server", "--version"], executable=self.bench.program("redis-check-rdb"), capture_output=True, text=True
        )
        return " ".join(run.stdout.split()[:3])


class Bare(Server):
    def prepare(self, folder, port):
        return [self.bench.programs / self.program, f"127.0.0.1:{port}"]


class BareHyper(Bare):
    name = "bare hyper"
    program = "bare-hyper"


class BareEpoll(Bare):
    name = "bare epoll loop"
    program = "bare-epoll"


class Python(Server):
    def environment(self, folder):
        return {**super().environment(folder), "BENCH_STATE": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def python(self):
        return self.bench.venv() / "bin/python"

    def versions(self, *names):
        code = f"from importlib.metadata import version as v; print(*(n + ' ' + v(n) for n in {names!r}))"
        return subprocess.run([self.python(), "-c", code], capture_output=True, text=True).stdout.strip()


class Gunicorn(Python):
    name = "gunicorn"

    def prepare(self, folder, port):
        return [
            self.python(), "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "8",
            "--chdir", HERE, "app:app",
        ]

    def version(self):
        return self.versions("gunicorn", "Flask")


class Flask(Python):
    name = "Flask's server"

    def prepare(self, folder, port):
        return [self.python(), "-m", "flask", "--app", HERE / "app.py", "run", "--port", port]

    def version(self):
        return self.versions("Flask", "Werkzeug")
