"""A nameserver whose questions say how they are to be answered: dns.py ADDRESS, on port 53 by UDP.

ip-192-0-2-1.*       A 192.0.2.1, no other records
alias-192-0-2-1.*    an alias of ip-192-0-2-1.target.test, with its address
nx.*                 NXDOMAIN
fail.*               SERVFAIL
garbage.*            bytes that are no DNS
silent.*             nothing
anything else        REFUSED

Says on its output whom it was asked by and for what."""

import socket
import sys

A, CNAME = 1, 5
NAME = b"\xc0\x0c"  # where the question's name stands
LIVES = 2


def labels(message):
    at, found = 12, []
    while length := message[at]:
        found.append(message[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return found, at + 1


def record(owner, kind, data):
    head = kind.to_bytes(2, "big") + b"\x00\x01" + LIVES.to_bytes(4, "big")
    return owner + head + len(data).to_bytes(2, "big") + data


def name(*words):
    return b"".join(bytes([len(word)]) + word.encode("ascii") for word in words) + b"\x00"


def reply(message):
    words, end = labels(message)
    kind = int.from_bytes(message[end : end + 2], "big")
    verb, *parts = words[0].lower().split("-")
    records, code = [], 0
    if verb in ("ip", "alias") and len(parts) == 4:
        address = bytes(int(part) for part in parts)
        owner = NAME
        if verb == "alias":
            owner = name("ip-" + "-".join(parts), "target", "test")
            records.append(record(NAME, CNAME, owner))
        if kind == A:
            records.append(record(owner, A, address))
    elif verb == "garbage":
        return b"HTTP/1.1 400 Bad Request\r\n\r\n"
    elif verb == "silent":
        return None
    else:
        code = {"nx": 3, "fail": 2}.get(verb, 5)
    counts = b"\x00\x01" + len(records).to_bytes(2, "big") + b"\x00\x00\x00\x00"
    return message[:2] + b"\x81" + bytes([0x80 | code]) + counts + message[12 : end + 4] + b"".join(records)


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    question, client = server.recvfrom(512)
    print("asked by", client[0], "for", ".".join(labels(question)[0]), flush=True)
    answer = reply(question)
    if answer is not None:
        server.sendto(answer, client)
