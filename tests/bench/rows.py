"""What is measured: a row for each question, with the agent and its peers."""

import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import servers
from servers import Agent, BareEpoll, BareHyper, Failed, Flask, Gunicorn, Nginx, Redis

HERTZ = os.sysconf("SC_CLK_TCK")
MICRO = 1e6
ERRORS = ("lost", "bad", "refused", "ended")

# A figure: its heading, digits, and whether more of it is better.
FIGURES = {
    "cpu": ("CPU µs", 2, False),
    "user": ("user µs", 2, False),
    "system": ("system µs", 2, False),
    "rate": ("per second", 0, True),
    "each": ("bytes each", 0, False),
    "resident": ("MB resident", 2, False),
    "idle_memory": ("MB after start", 2, False),
    "used_memory": ("MB after load", 2, False),
    "start": ("ms", 2, False),
    "lost": ("lost requests", 0, False),
    "ended": ("ended connections", 0, False),
    "program": ("MB program", 2, False),
    "installed": ("MB installed", 2, False),
    "package": ("MB packages", 2, False),
}


class Row:
    """One question. `main` are the figures whose ratios have to be steady."""

    main = ()
    rounds = None
    clients = None  # where a row opens more connections than nginx's configuration in Debian allows

    def __init__(self, name, title, sides):
        self.name, self.title, self.sides = name, title, sides

    def sample(self, bench, side):
        raise NotImplementedError

    def folder(self, bench):
        return tempfile.TemporaryDirectory(dir=bench.folder)


class Running:
    """A side's server for the length of a sample."""

    def __init__(self, row, bench, side):
        self.holder, self.server = row.folder(bench), side(bench)
        self.server.clients = row.clients or self.server.clients

    def __enter__(self):
        self.server.start(Path(self.holder.name) / "server")
        return self.server

    def __exit__(self, *_):
        self.server.stop()
        self.holder.cleanup()


def client(bench, *words):
    return [str(word) for word in (bench.programs / "bench-client", *words)]


def run_client(bench, *words):
    run = subprocess.run(
        client(bench, *words), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        preexec_fn=servers.child(bench.client_core),
    )
    if run.returncode:
        raise Failed(run.stderr.strip())
    return json.loads(run.stdout)


def times(pids):
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(one[11]) for one in fields), sum(int(one[12]) for one in fields)


def wrk(bench, server, connections, fresh):
    """The same load by another program, to see that the client of this bench favours no side."""
    words = [bench.program("wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(bench.seconds))}s"]
    words += ["-H", "Connection: close"] if fresh else []
    before = times(server.pids())
    run = subprocess.run(
        [*words, f"http://127.0.0.1:{server.port}{server.path}"], capture_output=True, text=True,
        preexec_fn=servers.child(bench.client_core),
    )
    after = times(server.pids())
    found = re.search(r"(\d+) requests in ([\d.]+)s", run.stdout)
    if not found:
        raise Failed(f"wrk: {run.stdout}{run.stderr}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", run.stdout)
    return {
        "done": int(found[1]), "seconds": float(found[2]), "user": after[0] - before[0], "system": after[1] - before[1],
        "bad": int(bad[1]) if bad else 0, "lost": 0, "refused": 0, "ended": 0,
    }


class Load(Row):
    """As many requests as one client processor can send, over this many connections."""

    main = ("cpu", "rate")

    def __init__(self, name, title, sides, kind, connections, path="/cluster1", main=None):
        super().__init__(name, title, sides)
        self.kind, self.connections, self.path = kind, connections, path
        self.main = main or self.main
        if connections > 500:
            self.clients = connections * 4 // 3

    def sample(self, bench, side):
        with Running(self, bench, side) as server:
            kind, path = (server.store, server.store_path) if self.kind == "store" else (self.kind, self.path)
            if bench.wrk and self.kind in ("get", "fresh"):
                found = wrk(bench, server, self.connections, self.kind == "fresh")
            else:
                found = run_client(
                    bench, "load", kind, f"127.0.0.1:{server.port}", path, self.connections, bench.seconds, bench.warm_up,
                    *server.pids(),
                )
            pids = server.pids()
            resident = servers.memory(pids, "Pss")
        wrong = {name: found[name] for name in ERRORS if found[name]}
        # Flask's server and a worker of gunicorn end connections as they like. No request may be lost.
        if side in (Gunicorn, Flask):
            wrong.pop("ended", None)
        if wrong or not found["done"]:
            raise Failed(f"{self.name}, {server.name}: {found['done']} answers, and {wrong or 'no other'}")
        each = MICRO / HERTZ / found["done"]
        return {
            "cpu": (found["user"] + found["system"]) * each, "user": found["user"] * each,
            "system": found["system"] * each, "rate": found["done"] / found["seconds"], "resident": resident / 1e6,
            "noise": found["others"] / HERTZ / found["seconds"] / bench.cores if "others" in found else None,
        }

    figures = ("cpu", "user", "system", "rate")


class Python(Load):
    figures = ("cpu", "rate", "resident")
    main = ("rate",)


def settled(pids, quiet=5, limit=20):
    """The resident memory once it has not changed for `quiet` seconds: a server may free what idle connections held."""
    deadline = time.monotonic() + limit
    last, since = servers.memory(pids, "Rss"), time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < quiet:
        time.sleep(0.5)
        now = servers.memory(pids, "Rss")
        if now != last:
            last, since = now, time.monotonic()
    return last


class Idle(Row):
    """Connections that sent one request each and then wait."""

    # nginx closes idle connections when only a sixteenth of its connections is free.
    clients = 12000
    main = ("each",)
    figures = ("each", "resident")

    def sample(self, bench, side):
        with Running(self, bench, side) as server:
            pids = server.pids()
            before = servers.memory(pids, "Rss")
            words = client(bench, "idle", f"127.0.0.1:{server.port}", server.path, bench.idle)
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                preexec_fn=servers.child(bench.client_core),
            )
            with process:
                line = process.stdout.readline()
                after = settled(pids)
                process.stdin.close()
            found = json.loads(line) if line else {"done": 0}
        if found["done"] != bench.idle or any(found[name] for name in ERRORS):
            raise Failed(f"{self.name}, {server.name}: {bench.idle} connections do not stay open: {found}")
        return {"each": (after - before) / bench.idle, "resident": after / 1e6}


class Memory(Row):
    """The share of memory of all its processes, after the start and after a second of load."""

    main = ("used_memory",)
    figures = ("idle_memory", "used_memory")

    def sample(self, bench, side):
        with Running(self, bench, side) as server:
            before = servers.memory(server.pids(), "Pss")
            kind, path = ("set", "seed") if side is Redis else ("get", server.path)
            run_client(bench, "load", kind, f"127.0.0.1:{server.port}", path, 64, 1, 0)
            after = servers.memory(server.pids(), "Pss")
        return {"idle_memory": before / 1e6, "used_memory": after / 1e6}


class Start(Row):
    """From the start of the process to the end of its first answer, on `/`."""

    main = ("start",)
    figures = ("start",)

    def sample(self, bench, side):
        server = side(bench)
        with self.folder(bench) as holder:
            folder, port = Path(holder) / "server", servers.free_port()
            folder.mkdir()
            words = server.prepare(folder, port)
            run = subprocess.run(
                client(bench, "start", f"127.0.0.1:{port}", "/", bench.server_core, *words),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, env=server.environment(folder),
                preexec_fn=servers.child(bench.client_core),
            )
        if run.returncode:
            raise Failed(f"{self.name}, {server.name}: {run.stderr.strip()[-2000:]}")
        return {"start": json.loads(run.stdout)["seconds"] * 1000}


class Reload(Row):
    """Six reloads under load. Lost requests are the result, so a lost one is no failure of the run."""

    rounds = 3
    figures = ("lost", "ended", "rate")

    def sample(self, bench, side):
        length = bench.reload_seconds
        with Running(self, bench, side) as server:
            words = client(bench, "load", "get", f"127.0.0.1:{server.port}", server.path, 64, length, 0)
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                preexec_fn=servers.child(bench.client_core),
            )
            with process:
                for _ in range(6):
                    time.sleep(length / 7)
                    server.reload()
                found = json.loads(process.stdout.read())
        return {
            "lost": found["lost"] + found["bad"] + found["refused"], "ended": found["ended"],
            "rate": found["done"] / found["seconds"],
        }


def debian_packages(names):
    """Bytes of Debian packages, and installed, as far as dpkg and apt know."""
    run = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Installed-Size} ${Package}=${Version}\n", *names], capture_output=True, text=True
    )
    rows = [line.split() for line in run.stdout.splitlines()]
    shown = subprocess.run(["apt-cache", "show", *(row[1] for row in rows)], capture_output=True, text=True).stdout
    sizes = [int(size) for size in re.findall(r"^Size: (\d+)$", shown, re.MULTILINE)]
    return {
        "installed": sum(int(row[0]) for row in rows) * 1024 / 1e6 if rows else None,
        "package": sum(sizes) / 1e6 if rows and len(sizes) == len(rows) else None,
    }


class Sizes(Row):
    """Of a program, of its packages, and of what these install. A library of the system counts for nobody."""

    rounds = 1
    figures = ("program", "package", "installed")

    def sample(self, bench, side):
        if side is Agent:
            sizes = {"program": bench.agent.stat().st_size / 1e6}
            if bench.package:
                field = ["dpkg-deb", "--field", bench.package, "Installed-Size"]
                kilobytes = int(subprocess.run(field, capture_output=True, text=True, check=True).stdout)
                sizes |= {"package": bench.package.stat().st_size / 1e6, "installed": kilobytes * 1024 / 1e6}
            return sizes
        if side is Gunicorn:
            files = [path for path in (bench.venv() / "lib").rglob("*") if path.is_file()]
            # pip and setuptools, which install the rest, are not needed to run it.
            kept = [path for path in files if not re.search(r"/site-packages/(pip|setuptools)[-/]", str(path))]
            return {"installed": sum(path.stat().st_size for path in kept) / 1e6}
        program = Path(bench.program("nginx" if side is Nginx else "redis-check-rdb"))
        names = ["nginx", "nginx-common"] if side is Nginx else ["redis-tools"]
        return {"program": program.stat().st_size / 1e6, **debian_packages(names)}


WEB = (Agent, Nginx, BareHyper, BareEpoll)
PYTHON = (Agent, Gunicorn, Flask)


def rows():
    found = [
        Load("get-64", "`GET /cluster1`, 64 keep-alive connections", WEB, "get", 64),
        Load("get-1000", "`GET /cluster1`, 1,000 keep-alive connections", WEB, "get", 1000),
        Load("fresh", "`GET /cluster1`, a fresh connection for each request", (Agent, Nginx), "fresh", 64),
        Idle("idle", "9,000 idle keep-alive connections", (Agent, Nginx)),
    ]
    for count in (1, 8, 64, 256):
        word = "connection" if count == 1 else "connections"
        title = f"Durable `POST /seed` against `SET`, {count} {word}"
        found.append(Load(f"post-{count}", title, (Agent, Redis), "store", count, main=("rate",)))
    found += [
        Python("python-health", "Python: `GET /`, 64 connections", PYTHON, "get", 64, path="/"),
        Python("python-cluster", "Python: `GET /cluster1`, 64 connections", PYTHON, "get", 64),
        Python("python-post", "Python: durable `POST /seed`, 8 connections", PYTHON, "store", 8),
        Memory("memory", "Resident memory, before and after load (the agent without AWS clients)", (Agent, Nginx, Redis, Gunicorn)),
        Start("start", "From start to the first answer", (Agent, Nginx, Gunicorn)),
        Reload("reload", "Six reloads in 8 seconds under load, 64 connections", (Agent, Nginx)),
        Sizes("size", "Size of program and packages (gunicorn: with Flask, without Python)", (Agent, Nginx, Redis, Gunicorn)),
    ]
    return found
