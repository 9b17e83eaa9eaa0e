"""The one event loop in which all targets run what is asynchronous."""

import asyncio
import atexit

EVENTS = asyncio.new_event_loop()
"""A loop for each input would cost more than most targets do."""

atexit.register(EVENTS.close)
