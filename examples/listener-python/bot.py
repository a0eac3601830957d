#!/usr/bin/env python3
"""A websocket listener to copy: what `baton-agent exec` runs, one process for each listener, with no Baton library.

The same as `examples/listener/main.rs`. It reads one feed of numbered messages, works on each, says so, and goes on where
the one before it stopped:

    connect   ws://…/feeds/NAME?after=41&token=…      within its time-out, else `ConnectTimeout`
    receive   {"seq": 42}
    answer    {"done": 42}                            the exchange stores it
    receive   {"stored": 42}                          only now is it certain that 42 was not in vain
    fd 3      {"resume": {"seq": 42}}                 the last of these is what its successor gets as BATON_RESUME

Being told to end (SIGTERM) it finishes the message at hand, hears that all it did is stored, says where it is, and exits
with 0: that is the whole hand-over. After a crash the last words may be missing; then the feed, which stored the position with the work itself,
knows better, and the later of the two counts.

    FEED_URL     where the feeds are, such as ws://10.0.0.1:9100
    FEED_FAIL    `connect`: behave as a release that cannot connect
    HTTP_PROXY   (HTTPS_PROXY for wss://) the proxy, used where USE_PROXY is `true`
    BATON_LISTENER, BATON_FENCE_TOKEN, BATON_RESUME, BATON_CONNECT_TIMEOUT_SECONDS, USE_PROXY    set by the agent
"""

import asyncio
import json
import os
import signal
import sys
import time
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

FAREWELL = 2  # seconds that the feed may take to hear the last word


class Agent:
    """Reads lines of JSON from file descriptor 3; without an agent nobody listens."""

    def __init__(self):
        try:
            self.lines = os.fdopen(3, "w", buffering=1)
        except OSError:
            self.lines = None

    def say(self, **line):
        if self.lines:
            print(json.dumps(line), file=self.lines)

    def note_stored(self, message):
        """Told earlier, what is on its way to the feed would be lost if it did not get there."""
        if "stored" in message:
            self.say(resume={"seq": message["stored"]})


class Failed(Exception):
    """Its text is `Reason: why`, as the agent wants it."""


async def run(agent, stop):
    url = where(began=now())
    # The default of the library is to use the environment's proxy whenever there is one.
    proxy = True if os.environ.get("USE_PROXY") == "true" else None
    patience = float(os.environ.get("BATON_CONNECT_TIMEOUT_SECONDS") or 30)
    if os.environ.get("FEED_FAIL") == "connect":
        raise Failed(f"ConnectTimeout: {url} did not answer within {patience:.0f} s")
    try:
        socket = await until(stop, opened(url, proxy, patience))
    except TimeoutError:
        raise Failed(f"ConnectTimeout: no connection within {patience:.0f} s") from None
    except Exception as error:  # no name, no route, no proxy, no websocket …
        raise Failed(f"ConnectFailed: {error}") from error
    if socket is None:
        return
    agent.say(tick=True)
    try:
        while (text := await until(stop, socket.recv())) is not None:
            message = json.loads(text)
            if "seq" in message:
                # Here is where a bot works.
                await socket.send(json.dumps({"done": message["seq"], "at": now()}))
            agent.note_stored(message)
    except ConnectionClosed as error:
        raise Failed(f"Disconnected: {error}") from error
    # Whoever measures the gap counts from here.
    try:
        await socket.send(json.dumps({"bye": True, "at": now()}))
        # The feed closes the connection once it has read this, and has told what of ours it has stored.
        await asyncio.wait_for(farewell(agent, socket), FAREWELL)
    except (ConnectionClosed, asyncio.TimeoutError):
        pass


async def farewell(agent, socket):
    async for text in socket:
        agent.note_stored(json.loads(text))


def where(began):
    resume = json.loads(os.environ.get("BATON_RESUME") or "{}")  # empty: nobody has said
    query = {
        "after": resume.get("seq", 0),
        "token": os.environ.get("BATON_FENCE_TOKEN", ""),
        "pod": os.environ.get("BATON_POD_NAME", ""),
        "began": began,
    }
    return f"{os.environ['FEED_URL']}/feeds/{os.environ['BATON_LISTENER']}?{urlencode(query)}"


async def opened(url, proxy, patience):
    return await connect(url, proxy=proxy, open_timeout=patience, close_timeout=1)


async def until(stop, work):
    """What `work` comes to, or None once it is to stop: then nothing more is taken."""
    work, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        work.cancel()  # what has come and was not looked at is the successor's
        await asyncio.wait([work])
        return None
    stopped.cancel()
    return work.result()


def now():
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


async def main():
    agent, stop = AGENT, asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await run(agent, stop)
    except Failed as why:
        print(f"bot: {why}", file=sys.stderr)
        agent.say(failed=str(why))
        return 1
    return 0


if __name__ == "__main__":
    AGENT = Agent()  # first of all: the event loop takes the lowest free descriptors
    sys.exit(asyncio.run(main()))
