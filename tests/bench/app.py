"""The agent's routes as a Flask app, for gunicorn and for Flask's own server.

A stored number is as durable as the agent's: both the file and its name are on the disk before the answer.
"""

import os

from flask import Flask, request

FOLDER = os.environ["BENCH_STATE"]
BODY = "Instance i-0123456789abcdef0 is responding now!"

app = Flask(__name__)


@app.get("/")
def health():
    return "Healthy!"


@app.get("/cluster1")
def cluster():
    return BODY


@app.post("/seed")
def store():
    number = request.get_json(force=True)["num"]
    new = f"{FOLDER}/seed.{os.getpid()}.{os.urandom(4).hex()}"
    with open(new, "x", encoding="ascii") as file:
        file.write(str(int(number)))
        file.flush()
        os.fdatasync(file.fileno())
    os.replace(new, f"{FOLDER}/seed")
    folder = os.open(FOLDER, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return str(number)
