"""Reads an archive of mongodump without any of kaleem's code, and prints name, count, digest and CRC of each collection."""

import hashlib
import struct
import sys

import bson

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ 0xC96C5795D7870F42 if byte & 1 else byte >> 1
    TABLE.append(byte)


def crc64(value, data):
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value


def item(file):
    word = file.read(4)
    if word == b"":
        return None
    if word == b"\xff\xff\xff\xff":
        return b""
    return word + file.read(struct.unpack("<i", word)[0] - 4)


with open(sys.argv[1], "rb") as file:
    assert file.read(4) == b"\x6d\xe2\x99\x81"
    assert bson.decode(item(file))["version"] == "0.1"
    found = {}
    while head := item(file):
        head = bson.decode(head)
        found[head["db"] + "." + head["collection"]] = [0, [0] * 4, 0xFFFFFFFFFFFFFFFF, False]
    while (head := item(file)) is not None:
        head = bson.decode(head)
        entry = found[head["db"] + "." + head["collection"]]
        if head["EOF"]:
            assert head["CRC"] & 0xFFFFFFFFFFFFFFFF == entry[2] ^ 0xFFFFFFFFFFFFFFFF, head
            entry[3] = True
        while document := item(file):
            bson.BSON(document).decode()
            entry[0] += 1
            lanes = struct.unpack(">4Q", hashlib.sha256(document).digest())
            entry[1] = [(one + two) % 2**64 for one, two in zip(entry[1], lanes)]
            entry[2] = crc64(entry[2], document)
    assert all(entry[3] for entry in found.values())
    for name, entry in sorted(found.items()):
        print(entry[0], "".join(f"{lane:016x}" for lane in entry[1]), name)
