"""A small trace written by hand: one device, one remapping, one fault."""

from __future__ import annotations

from harness.trace import Header, UnitInfo
from tests.writers.platform import unit_config
from tests.writers.replays import Script


def head() -> tuple[str, str]:
    """Return the first two lines of a text trace."""
    config = unit_config()
    unit = UnitInfo(
        version=config.version,
        capability=config.capability,
        extended_capability=config.extended_capability,
        host_address_width=config.host_address_width,
    )
    return "dmarewind-text 1", "header " + Header(units=(unit,)).to_json()


TABLES = """
snapshot 0x1000 root 0 0=0x2001
snapshot 0x2000 context 0 30=0x3001 31=0x502
snapshot 0x3000 second-stage 4 0=0x4003
snapshot 0x4000 second-stage 3 0=0x5003
snapshot 0x5000 second-stage 2 0=0x6003
snapshot 0x6000 second-stage 1 1=0x10003 2=0x11003
"""
SETUP = """
# The event, the root table, the queue at 0x8000, translation.
reg.write 0x03c 4 0x4021
reg.write 0x040 4 0xfee01004
reg.write 0x038 4 0x0
reg.write 0x020 8 0x1000
reg.write 0x018 4 0x40000000
reg.write 0x090 8 0x8000
reg.write 0x018 4 0x4000000
reg.write 0x018 4 0x84000000
reg.read 0x01c 4 0xc4000000
"""
USE = "access 00:03.0 - 0x1000 read = 0x10000 0xfff"
REMAP = "store 0x6008 8 0x12003"
FLUSH = """
# Forget page 0x1000 of domain 5, then write 1 to 0x9000.
store 0x8000 8 0x50032
store 0x8008 8 0x1000
store 0x8010 8 0x100000025
store 0x8018 8 0x9000
reg.write 0x088 8 0x20
descriptor 0x0000000000050032 0x1000
descriptor 0x0000000100000025 0x9000
status 0x9000 0x1
"""
USE_AGAIN = "access 00:03.0 - 0x1000 read = 0x12000 0xfff"
OTHER_PAGE = "access 00:03.0 - 0x2abc write = 0x11000 0xfff"
FAULT = """
access 00:03.0 - 0x3000 read ! 0x06
fault-record 0 0x3000 0x4000000600000018
interrupt 0xfee01004 0x4021
reg.read 0x034 4 0x2
reg.write 0x22c 4 0x80000000
reg.write 0x034 4 0x2
reg.read 0x034 4 0x0
"""
BELL = "reg.write 0x088 8 0x20"
INVALIDATION = "descriptor 0x0000000000050032 0x1000"
WAIT = "descriptor 0x0000000100000025 0x9000"
STATUS = "status 0x9000 0x1"
FAULTING = "access 00:03.0 - 0x3000 read ! 0x06"
RECORD = "fault-record 0 0x3000 0x4000000600000018"
INTERRUPT = "interrupt 0xfee01004 0x4021"


def script(*parts: str) -> Script:
    """Make a script of parts behind tables and setup."""
    lines = "\n".join((TABLES, SETUP, *parts)).splitlines()
    return Script([*head(), *lines])


STORY = script(USE, REMAP, FLUSH, USE_AGAIN, OTHER_PAGE, FAULT)
"""Everything in its order, and nothing wrong with it."""
