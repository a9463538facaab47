"""WebSocket echo (RFC 6455) on the standard library: websocket.py serve PORT | call HOST PORT.

A request that is no WebSocket handshake is read to its end, then answered with how many bytes it had.
"""

import base64
import hashlib
import os
import socket
import struct
import sys
import threading

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Of a frame's first byte: the flag of a message's last part, and kinds.
WHOLE = 0x80
BINARY = 2
CLOSE = 8


def exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def read_head(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part:
            break
        head += part
    return head


def read_frame(connection):
    """Its first byte, which is kind and flags, and its data, unmasked."""
    first, second = exactly(connection, 2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", exactly(connection, 2))
    elif length == 127:
        (length,) = struct.unpack(">Q", exactly(connection, 8))
    mask = exactly(connection, 4) if second & 0x80 else bytes(4)
    data = exactly(connection, length)
    return first, masked(data, mask)


def masked(data, mask):
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


def frame(first, data, mask=None):
    head = bytes([first])
    flag = 0x80 if mask else 0
    if len(data) < 126:
        head += bytes([flag | len(data)])
    elif len(data) < 1 << 16:
        head += bytes([flag | 126]) + struct.pack(">H", len(data))
    else:
        head += bytes([flag | 127]) + struct.pack(">Q", len(data))
    if mask:
        return head + mask + masked(data, mask)
    return head + data


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def serve(connection):
    with connection:
        head = read_head(connection)
        keys = [line.split(b":", 1)[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")]
        if not keys:
            connection.sendall(b"HTTP/1.1 400 Bad Request: %d bytes\r\n\r\n" % len(head))
            return
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        connection.sendall(answer + accept_of(keys[0]) + b"\r\n\r\n")
        converse(connection)


def converse(connection):
    """Sends back every frame, a part of a message as that part, until the client closes."""
    while True:
        first, data = read_frame(connection)
        connection.sendall(frame(first, data))
        if first & 0x0F == CLOSE:
            return


def call(host, port):
    connection = socket.create_connection((host, port), 10)
    key = base64.b64encode(os.urandom(16))
    ask = "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" % host
    connection.sendall(ask.encode() + b"Sec-WebSocket-Key: " + key + b"\r\n\r\n")
    assert accept_of(key) in read_head(connection), "the handshake was not accepted"
    for number in range(200):
        message = os.urandom(1 + number * 37 % 4000)
        connection.sendall(frame(WHOLE | BINARY, message, os.urandom(4)))
        assert read_frame(connection) == (WHOLE | BINARY, message), "message %d came back changed" % number
    connection.sendall(frame(WHOLE | CLOSE, b"", os.urandom(4)))
    assert read_frame(connection)[0] == WHOLE | CLOSE
    print("200 messages came back")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        listener = socket.create_server(("::", int(sys.argv[2])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=serve, args=(peer,), daemon=True).start()
    else:
        call(sys.argv[2], int(sys.argv[3]))
