"""What all tests share: a clean environment, small data sets, and the shared data where they are."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tunelab.data.dataset import Dataset
from tunelab.data.prepared import AS_RECORDED, CacheOptions, prepared_from
from tunelab.data.synthetic import SyntheticSettings, synthesize
from tunelab.sections import DataOptions

# before anything imports Ray or TensorFlow
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
for _name in [n for n in os.environ if n.startswith(("AWS_", "RAY_ADDRESS", "KERAS_")) and n != "AWS_CA_BUNDLE"]:
    del os.environ[_name]

# prepared data sets of tests are no concern of the user's cache
_CACHE = tempfile.TemporaryDirectory(prefix="tunelab-tests-")
os.environ["TUNELAB_CACHE"] = _CACHE.name

# a busy machine is no fault of the code, and a run repeats itself; --hypothesis-profile=explore draws anew each time
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeat", settings.get_profile("explore"), derandomize=True)
settings.load_profile("repeat")

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))  # the modules that tests share


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the long loops in tests/slow; pytest looks for options no deeper than here."""
    group = parser.getgroup("slow", "the long loops (-m slow)")
    group.addoption("--seed", type=int, default=0, help="of what is drawn")
    group.addoption("--count", type=int, default=None, help="rounds of each loop (default: its own number)")
    evidence = ROOT / ".evidence" / "slow.jsonl"
    group.addoption("--evidence", type=Path, default=evidence, help="JSON lines (default: .evidence/slow.jsonl)")
    group.addoption("--minutes", type=float, default=None, help="begin no round after so many, in all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with whole searches come first: they take longest, and none is left for the end of a parallel run."""
    searching = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in searching)


@pytest.fixture(autouse=True)
def _framework_of_a_trial(request: pytest.FixtureRequest) -> None:
    """Tests of models run as trials do: one thread, every operation repeatable, from the same seed."""
    if request.node.get_closest_marker("tf"):
        import keras

        from tunelab.backend import configure

        configure(1, 0)
        keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _young_heap() -> None:
    """Collecting garbage looks at what the file made, not at all that the files before it left in this process."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def small_data() -> Dataset:
    """24 scans of 12 to 20 traces x 64 samples, easy enough that some epochs of a small training improve."""
    easy: Any = {"soils": (1.0, 0.0, 0.0, 0.0, 0.0), "kinds": ("metal",), "direct_db": (-8.0, -8.0)}
    return synthesize(SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3, **easy))


@pytest.fixture
def load_folder(tmp_path: Path) -> Callable[..., Dataset]:
    """A folder as a search reads it, by way of a cache of the test's own."""

    def load(folder: Path, *, seed: int = 0, max_bad: int = 0, **options: object) -> Dataset:
        cache = CacheOptions(cache=tmp_path / "cache", workers=1, max_bad=max_bad)
        read = DataOptions.model_validate(options)
        return prepared_from(folder, options=read, chains=(AS_RECORDED,), seed=seed, cache=cache).open(AS_RECORDED)

    return load


@pytest.fixture(scope="session")
def gprmax_small() -> Path:
    """The simulated scans beside the checkout; tests that need them are left out where they are not."""
    folder = ROOT.parent / "shared" / "data" / "gprmax-small"
    if not folder.is_dir():
        pytest.skip("the simulated scans are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """Port of an S3 server; all tests share its buckets, so each takes a name of its own."""
    from moto.server import ThreadedMotoServer  # takes seconds, and most tests need none

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def aws_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Lets the environment lead boto3 to a server, with keys that are none, and to no file of the user's."""

    def lead(url: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret-0123456789")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "none"))

    return lead


@pytest.fixture
def fault_proxy(s3_port: int, aws_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A proxy before the S3 server, see tests/fault_proxy.py; the environment leads boto3 to it."""
    spec = importlib.util.spec_from_file_location("fault_proxy", Path(__file__).with_name("fault_proxy.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fault_proxy"] = module  # dataclasses look for the module of their annotations
    spec.loader.exec_module(module)
    proxy = module.FaultProxy(s3_port)
    proxy.start()
    aws_at(proxy.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield proxy
    proxy.close()
