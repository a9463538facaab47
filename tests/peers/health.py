"""Answers the HTTP and gRPC probes of a kubelet, whatever they ask about: health.py PORT."""

import socket
import sys
import threading

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, ACK, END_HEADERS = 1, 1, 4
SERVING = b"\x08\x01"


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def field(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def answer(stream):
    head = b"\x88" + field(b"content-type", b"application/grpc")
    message = b"\x00" + len(SERVING).to_bytes(4, "big") + SERVING
    return (
        frame(HEADERS, END_HEADERS, stream, head)
        + frame(DATA, 0, stream, message)
        + frame(HEADERS, END_HEADERS | END_STREAM, stream, field(b"grpc-status", b"0"))
    )


def grpc(connection, stream):
    """`stream` is the file that the preface was read from."""
    connection.sendall(frame(SETTINGS, 0, 0))
    while head := stream.read(9):
        kind, flags = head[3], head[4]
        number = int.from_bytes(head[5:9], "big")
        stream.read(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        if kind == DATA and flags & END_STREAM:
            connection.sendall(answer(number))


def serve(connection):
    with connection, connection.makefile("rb") as stream:
        begin = stream.readline()
        if PREFACE.startswith(begin) and begin:
            stream.read(len(PREFACE) - len(begin))
            grpc(connection, stream)
        elif begin:
            while stream.readline().strip():
                pass
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
