"""A client of Belfry with nothing but the package `websockets`: docs/protocol.md in a hundred lines.

It resumes where it was, drops duplicates, goes back when a position is missing, says when something cannot be had any
more, and waits with full jitter between attempts.

    pip install websockets
    python client.py ws://localhost:10000/ws TOKEN [channel …]
"""

import asyncio
import json
import random
import sys

import websockets

# Before there is a connection: a network that fails, a server that answers 429 or 503 (it drains) or hangs up, one that
# takes too long. EOFError comes from websockets 14.0, the TimeoutError of asyncio is one of its own before Python 3.11.
NOT_CONNECTED = (OSError, websockets.InvalidHandshake, EOFError, asyncio.TimeoutError)


def is_final(code):
    """Whether another attempt would end the same way. 4401 is not: the next attempt brings a new token."""
    return code == 1009 or 4400 <= code < 4500 and code not in (4401, 4429)


class Client:
    def __init__(self, url, token, channels=(), on_event=print):
        self.url = url
        self.token = token  # a function, so that it can give a new one
        self.channels = {channel: None for channel in channels}  # channel → last offset handled, and its epoch
        self.on_event = on_event
        self.since = None  # last seq handled
        self.epoch = None
        self.last_id = 0

    async def run(self):
        """Until a close code that another attempt would not change; returns it."""
        failures = 0
        while True:
            loop = asyncio.get_running_loop()
            began, code = loop.time(), 1006
            try:
                async with websockets.connect(self.url, subprotocols=["belfry.v1"], max_size=2**20) as ws:
                    try:
                        await self.session(ws)
                    except websockets.ConnectionClosed:
                        pass
                    # Ours, where we left because of a hole; otherwise the server's.
                    code = ws.close_code or 1006
            except NOT_CONNECTED as error:
                print(f"not connected: {error}", file=sys.stderr)
            if is_final(code):
                return code
            failures = 0 if loop.time() - began > 30 else failures + 1
            await asyncio.sleep(random.uniform(0, min(30, 2 ** min(failures, 5))))

    async def session(self, ws):
        auth = {"op": "auth", "token": self.token()}
        if self.since is not None:
            auth.update(since=self.since, epoch=self.epoch)
        asked = {await self.send(ws, auth): "auth"}
        live = False
        joined = set()  # channels that have been answered for
        async for text in ws:
            frame = json.loads(text)
            if "id" in frame:
                what = asked.pop(frame["id"], None)
                if "error" in frame:
                    print(f"{what}: {frame['error']['message']}", file=sys.stderr)
                elif what == "auth":
                    self.authenticated(frame["ok"])
                    for channel, held in self.channels.items():
                        request = {"op": "subscribe", "channel": channel}
                        if held is not None:
                            request.update(offset=held[0], epoch=held[1])
                        asked[await self.send(ws, request)] = channel
                elif what is not None:
                    self.subscribed(frame["ok"])
                    joined.add(what)
                continue
            event, channel = frame["event"], frame.get("channel")
            if event == "synced" and channel is None:
                self.since, live = max(self.since, frame["seq"]), True
            elif event == "resync":
                self.gap(frame["data"].get("channel"))
            elif channel is None and "seq" in frame:
                if frame["seq"] <= self.since:
                    continue  # a duplicate
                if live and frame["seq"] > self.since + 1:
                    return  # a push was lost: come again from the last one held
                self.since = frame["seq"]
                self.on_event(frame)
            elif "offset" in frame and channel in joined:
                held, epoch = self.channels[channel]
                if frame["offset"] <= held:
                    continue
                if frame["offset"] > held + 1:
                    return
                self.channels[channel] = (frame["offset"], epoch)
                self.on_event(frame)
            else:
                self.on_event(frame)  # badges, counters, announcements

    def authenticated(self, ok):
        if self.since is None:
            self.since = ok["seq"]
        elif not ok["recovered"]:
            self.since = ok["seq"]
            self.gap(None)
        self.epoch = ok["epoch"]

    def subscribed(self, ok):
        channel = ok["channel"]
        if self.channels[channel] is None or not ok["recovered"]:
            if self.channels[channel] is not None:
                self.gap(channel)
            self.channels[channel] = (ok["offset"], ok["epoch"])
        self.on_event({"event": "counters", "channel": channel, "data": ok["state"]})

    def gap(self, channel):
        """What is held cannot be continued: fetch GET /api/notifications, or the channel's content."""
        self.on_event({"event": "gap", "channel": channel})

    async def send(self, ws, request):
        self.last_id += 1
        await ws.send(json.dumps({"id": self.last_id, **request}))
        return self.last_id


def main():
    url, token, *channels = sys.argv[1:]
    # A real application fetches a new token whenever it is asked; this one has only the one of the command line.
    client = Client(url, lambda: token, channels, lambda event: print(json.dumps(event), flush=True))
    try:
        print(f"closed with {asyncio.run(client.run())}", file=sys.stderr)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
