"""How long a launch takes where each call to AWS takes 100 ms: `bootstrap` beside a script with waiters.

AWS is moto. A front before it adds the time. Nothing runs on moto's instances, so a thread registers those of
`bootstrap`, as their agents would.
"""

import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import servers
from rows import FIGURES, Row

HERE = Path(__file__).resolve().parent
DELAY = 0.1
FIGURES["launch"] = ("seconds", 2, False)
FIGURES["calls"] = ("calls", 0, False)

REGISTER = """
import boto3, time
ec2, elb = boto3.client("ec2"), boto3.client("elbv2")
known = set()
while True:
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
            name = tags.get("instance-agent:target-group")
            if name and instance["InstanceId"] not in known:
                try:
                    group = elb.describe_target_groups(Names=[name])["TargetGroups"][0]["TargetGroupArn"]
                except elb.exceptions.TargetGroupNotFoundException:
                    continue
                elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance["InstanceId"]}])
                known.add(instance["InstanceId"])
    time.sleep(0.05)
"""


class Bootstrap:
    name = "bootstrap"


class Script:
    name = "boto3 script"


def front(moto):
    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        calls = 0

        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            Front.calls += 1
            time.sleep(DELAY)
            # A disk without a size gets one, which AWS takes from the image.
            if b"Action=RunInstances" in body and b"BlockDeviceMapping" in body and b"Ebs.VolumeSize" not in body:
                body += b"&BlockDeviceMapping.1.Ebs.VolumeSize=8"
            headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
            request = urllib.request.Request(moto + self.path, body or None, headers, method=self.command)
            try:
                answer = urllib.request.urlopen(request)
            except urllib.error.HTTPError as error:
                answer = error
            read = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(read)))
            self.end_headers()
            self.wfile.write(read)

        do_GET = do_POST = do_PUT = do_DELETE = forward

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    server.daemon_threads = True
    return server


class Launch(Row):
    """From the start of the command until all nine targets are healthy. moto's are so at once."""

    main = ("launch",)
    figures = ("launch", "calls")

    def sample(self, bench, side):
        venv = bench.venv(None)
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            moto = subprocess.Popen(
                [HERE.parent / "moto-fixture", "--bare"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "TESTS_VENV": str(venv)}, preexec_fn=servers.child(bench.server_core),
            )
            endpoint = json.loads(moto.stdout.readline())["endpoint"]
            server = front(endpoint)

            def serve():
                # Its threads inherit the processor: the command has the other one for itself.
                os.sched_setaffinity(0, {bench.server_core})
                server.serve_forever()

            threading.Thread(target=serve, daemon=True).start()
            environment = {
                **servers.NOWHERE, "PATH": os.environ["PATH"], "HOME": folder, "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            }
            agents = None
            if side is Bootstrap:
                agents = subprocess.Popen(
                    [venv / "bin/python", "-c", REGISTER], stderr=subprocess.DEVNULL,
                    env={**environment, "AWS_ENDPOINT_URL": endpoint}, preexec_fn=servers.child(bench.server_core),
                )
                words = [bench.bootstrap, "launch", "clusters", "--in-image", "--yes"]
            else:
                words = [venv / "bin/python", HERE / "launch_script.py"]
            environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{server.server_port}"
            try:
                began = time.monotonic()
                run = subprocess.run(
                    words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                    preexec_fn=servers.child(bench.client_core),
                )
                took = time.monotonic() - began
            finally:
                if agents:
                    agents.kill()
                    agents.wait()
                server.shutdown()
                server.server_close()
                moto.stdin.close()
                moto.stdout.close()
                moto.wait()
        if run.returncode:
            raise servers.Failed(f"launch, {side.name}: {run.stdout[-1000:]}{run.stderr[-2000:]}")
        return {"launch": took, "calls": server.RequestHandlerClass.calls}


def row():
    title = "`bootstrap launch clusters` at 100 ms a call, to nine healthy targets"
    return Launch("launch", title, (Bootstrap, Script))
