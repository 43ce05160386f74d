"""Writers of every format, apart from the readers: bytes are packed here by the published layouts."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from tunelab.data.formats import read_header, read_traces
from tunelab.errors import DataError

# a header of pulseEKKO 1.8.1423, 200 MHz, as it stands in the tests of github.com/erikmannerfelt/ridal
HD = """1234
200MHz_lines - pulseEKKO v1.8.1423
2025-Apr-04
NUMBER OF TRACES   = {traces}
NUMBER OF PTS/TRC  = {samples}
TIMEZERO AT POINT  = 163.5
TOTAL TIME WINDOW  = {window}
STARTING POSITION  = 0
FINAL POSITION     = 9895
STEP SIZE USED     = 1
POSITION UNITS     = m
NOMINAL FREQUENCY  = 200
STACKING TYPE      = F1, P1024, DynaQ OFF
{kind}AMPLITUDE WINDOW (mV)= 104.12
"""
RAD = """SAMPLES:{samples}
FREQUENCY:{frequency}
FREQUENCY STEPS:20
TIME INTERVAL:0.100000
COMMENT:
ANTENNAS:500 MHz shielded
TIMEWINDOW:{window}
LAST TRACE:{traces}
STOP POSITION:12.000000
"""


def out(path: Path, data, dt=2e-11, **options) -> Path:
    """gprMax; ``data`` is (sample, trace), or a table from component to that."""
    with h5py.File(path, "w") as file:
        file.attrs["dt"] = dt
        for word, values in (data if isinstance(data, dict) else {"rx1/Ez": data}).items():
            file.create_dataset(f"rxs/{word}", data=values, **options)
    return path


def dt1(path: Path, rows, kind="h", window=650, word="", beside=".HD", **said) -> Path:
    data = b""
    for i, trace in enumerate(rows):
        numbers = [0.0] * 25
        numbers[0], numbers[2], numbers[5], numbers[8] = i + 1, len(trace), struct.calcsize(kind), window
        data += struct.pack("<25f28s", *numbers, b"none") + struct.pack(f"<{len(trace)}{kind}", *trace)
    path.write_bytes(data)
    said = {"traces": len(rows), "samples": len(rows[0]), "window": window} | said
    text = HD.format(**said, kind=f"DATA TYPE          = {word}\n" if word else "")
    path.with_suffix(beside).write_bytes(text.replace("\n", "\r\n").encode())
    return path


def mala(path: Path, rows, frequency=10000, window=50, beside=".rad", **said) -> Path:
    kind = {".rd3": "h", ".rd7": "i"}[path.suffix.lower()]
    path.write_bytes(b"".join(struct.pack(f"<{len(trace)}{kind}", *trace) for trace in rows))
    said = {"traces": len(rows), "samples": len(rows[0]), "frequency": frequency, "window": window} | said
    path.with_suffix(beside).write_text(RAD.format(**said))
    return path


def dzt(path: Path, traces, bits=16, range_ns=100.0, channels=1, data=None, blocks=None, tag=0x07FF) -> Path:
    """``traces`` hold stored numbers, the channels of a trace after each other."""
    samples = len(traces[0]) // channels
    data = 1024 * channels if data is None else data
    head = bytearray(1024 * (blocks or channels))
    struct.pack_into("<HHHHh5fH", head, 0, tag, data, samples, bits, 1, 100.0, 50.0, 0.0, 0.0, range_ns, 0)
    struct.pack_into("<H", head, 52, channels)
    kind = {8: "B", 16: "H", 32: "i"}.get(bits, "H")
    path.write_bytes(bytes(head) + b"".join(struct.pack(f"<{len(trace)}{kind}", *trace) for trace in traces))
    return path


def segy(path: Path, traces, code=5, order=">", samples=None, long_samples=0, extended=0) -> Path:
    kind = {2: "i", 3: "h", 5: "f", 8: "b"}[code]
    samples = len(traces[0]) if samples is None else samples
    binary = bytearray(400)
    struct.pack_into(f"{order}H", binary, 16, 100)
    struct.pack_into(f"{order}H", binary, 20, samples)
    struct.pack_into(f"{order}h", binary, 24, code)
    struct.pack_into(f"{order}i", binary, 68, long_samples)
    struct.pack_into(f"{order}h", binary, 304, extended)
    data = b"C" * 3200 + bytes(binary) + b"E" * 3200 * max(extended, 0)
    for i, trace in enumerate(traces):
        head = bytearray(240)
        struct.pack_into(f"{order}i", head, 0, i + 1)
        struct.pack_into(f"{order}H", head, 114, samples)
        data += bytes(head) + struct.pack(f"{order}{len(trace)}{kind}", *trace)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="session")
def write() -> SimpleNamespace:
    return SimpleNamespace(out=out, dt1=dt1, mala=mala, dzt=dzt, segy=segy)


@pytest.fixture(scope="session")
def refuse():
    """Both verbs are tried, whichever notices; the file has to be named."""

    def check(path: Path, message: str, components: tuple[str, ...] = (), names: Path | None = None) -> None:
        with pytest.raises(DataError, match=message) as caught:
            read_header(path, components), read_traces(path, components)
        assert str(names or path) in str(caught.value)

    return check
