"""A publisher whose entries are binary, and a reader that knows every byte of them. As binary.js.

binary.py publish URL STREAM FIRST COUNT: envelopes, and three entries that nobody can read.
binary.py checkouts URL STREAM: two checkouts that nobody can read, of which one says its type.
binary.py dead URL STREAM DEAD: what of STREAM lies in DEAD, field by field; prints how many.
binary.py again URL STREAM OUT: every envelope of STREAM lies in OUT.
"""

import sys

import redis


def envelope(n):
    return b"\x08\x96\x01\xff\xfe" + n.to_bytes(4, "big") + "Посылка 🌙".encode("utf-16-le")


# A name that is no UTF-8, a field that is there twice, no body at all.
MALFORMED = [
    [b"malformed", b"1", b"type", b"parcel.packed", b"\xff\xfe", b"x"],
    [b"malformed", b"2", b"type", b"parcel.packed", b"data", b"1", b"data", b"2"],
    [b"malformed", b"3", b"event_id", b"7", b"timestamp", b"now"],
]


def entries(client, stream):
    """Fields in their order, however often a name is there."""
    client.response_callbacks.pop("XRANGE", None)
    return client.execute_command("XRANGE", stream, "-", "+")


def pairs(flat):
    return list(zip(flat[::2], flat[1::2]))


def publish(client, stream, first, count):
    for n in range(int(first), int(first) + int(count)):
        client.xadd(stream, {"envelope": envelope(n), "schema": "parcel.v1"})
    for fields in MALFORMED:
        client.execute_command("XADD", stream, "*", *fields)


def checkouts(client, stream):
    client.xadd(stream, {"type": "CheckoutInitiated", "payload": b"\xff\xd8\x00", "ts": "1764000000.5"})
    client.xadd(stream, {"payload": b"\xff\xd8\x01", "ts": "1764000000.5"})


def dead(client, stream, letters):
    binary = {entry: flat for entry, flat in entries(client, stream) if flat[0] in (b"envelope", b"malformed")}
    found = {}
    for _, flat in entries(client, letters):
        known = dict(pairs(flat))
        original = known[b"original_id"]
        assert original in binary and original not in found, known
        assert known[b"stream"] == stream.encode() and known[b"reason"] == b"undecodable" and known[b"error"], known
        lay = pairs(binary[original])
        assert [pair for pair in pairs(flat) if pair in lay] == lay, (flat, lay)
        found[original] = flat
    print(len(found))


def again(client, stream, out):
    def envelopes(name):
        return sorted(dict(pairs(flat)).get(b"envelope", b"") for _, flat in entries(client, name))

    sent = [data for data in envelopes(stream) if data]
    assert envelopes(out) == sent, out
    # Node's are the same bytes.
    assert all(data == envelope(int.from_bytes(data[5:9], "big")) for data in sent), sent


if __name__ == "__main__":
    does, url, *arguments = sys.argv[1:]
    {"publish": publish, "checkouts": checkouts, "dead": dead, "again": again}[does](redis.Redis.from_url(url, protocol=2), *arguments)
