"""Another service that changes what handlers change, until the key `stop` is there: counter.py URL. Prints how often it did.

`compteurs:ligne` is read, changed and written by whoever finds it as it was read; `compteurs:total` is just raised.
"""

import json
import sys
import time

import redis

ROW, TOTAL = "compteurs:ligne", "compteurs:total"


def change(pipe):
    """One change of ours; false: somebody was faster."""
    pipe.watch(ROW)
    row = json.loads(pipe.get(ROW) or '{"moontide": 0, "python": 0}')
    row["python"] += 1
    pipe.multi()
    pipe.set(ROW, json.dumps(row))
    pipe.incr(TOTAL)
    try:
        pipe.execute()
    except redis.WatchError:
        return False
    return True


if __name__ == "__main__":
    client = redis.Redis.from_url(sys.argv[1], decode_responses=True)
    changes = 0
    while not client.exists("stop"):
        with client.pipeline() as pipe:
            changes += change(pipe)
        # A service that writes all the time would leave nobody else a turn.
        time.sleep(0.004)
    print(changes)
