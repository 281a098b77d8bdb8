"""Opens connections to the agent and sends each of them all of a large request but its end, so that
the server has to keep it; or asks for the seed again and again and reads no answer. Usage: flood.py HOST PORT
CONNECTIONS head|body|unread BYTES; says when all is sent, or no more is taken, holds on to the connections until a line comes on standard input, then says how many of them
the server has closed or reset meanwhile."""

import resource
import select
import socket
import sys

host, port, count, what, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 64, count + 64))
if what == "body":
    request = b"POST /seed HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (size + 1) + b" " * size
elif what == "unread":
    request = b"GET /seed HTTP/1.1\r\nHost: x\r\n\r\n" * (size // 31 + 1)
else:
    request = b"GET /seed HTTP/1.1\r\nX: " + b"x" * size

sent = 0
open_connections = {}
waiting = select.poll()
lost = 0


def send_on(timeout):
    """Sends as much as the server takes now."""
    global lost, sent
    for descriptor, event in waiting.poll(timeout):
        connection, left = open_connections[descriptor]
        try:
            left = left[connection.send(left):]
        except (BlockingIOError, InterruptedError):
            continue
        except OSError:
            lost += 1
            left = b""
        else:
            sent += not left
        open_connections[descriptor] = connection, left
        if not left:
            waiting.unregister(descriptor)


for number in range(count):
    connection = socket.socket()
    if what == "unread":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    connection.connect_ex((host, port))
    open_connections[connection.fileno()] = connection, request
    waiting.register(connection, select.POLLOUT)
    if number % 64 == 63:
        send_on(0)
while sent + lost < count:
    before = sent + lost
    send_on(3000)
    if sent + lost == before:
        break
print("sent", sent, "lost", lost, flush=True)
sys.stdin.readline()
