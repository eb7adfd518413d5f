"""The versions that are served: found, checked, loaded, swapped and let go without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tfapp.errors import TfappError
from tfapp.release.serving_files import FOLDER, MODELS_FILE
from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.model_files import VersionPolicy, read_policy
from tfapp.serving.server.status import Code, RequestError, invalid

_logger = logging.getLogger(__name__)


@dataclass
class VersionState:
    """What became of a version.

    Attributes:
        state: A name of TensorFlow Serving's ``ModelVersionStatus.State``.
        problem: Why it was not loaded; empty otherwise.
        model: The loaded model, while there is one.
        stamp: When the folder changed last, so that a mended one is tried again.
    """

    state: str
    problem: str = ""
    model: LoadedModel | None = None
    stamp: tuple[int, ...] = ()


class Versions:
    """The versions of one release folder.

    All methods but the loading itself run on the event loop.

    Args:
        path: ``saved_models/<name>``, or one version folder of it.
        load: Loads a version folder; called in a thread.
    """

    def __init__(self, path: Path, load: Callable[[Path, int], LoadedModel]) -> None:
        alone = path.name.isdecimal()
        self.base = path.parent if alone else path
        self.name = self.base.name
        self.states: dict[int, VersionState] = {}
        self.labels: dict[str, int] = {}
        self.loads = 0
        self._alone = int(path.name) if alone else None
        self._load = load
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="tfapp-load")
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether a version is served."""
        return any(state.state == "AVAILABLE" for state in self.states.values())

    def newest(self) -> LoadedModel | None:
        """The newest version that is served."""
        served = [number for number, state in self.states.items() if state.state == "AVAILABLE"]
        return self.states[max(served)].model if served else None

    @contextlib.contextmanager
    def lease(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[LoadedModel]:
        """Finds a version and keeps it loaded while it is used.

        Args:
            name: The model's name.
            version: The version, or None for the newest.
            label: A label of `models.config` in place of a version.

        Yields:
            The model.

        Raises:
            RequestError: When it is not served.
        """
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label is not None:
            if name != self.name or label not in self.labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        state = self.states.get(version) if version is not None else None
        model = self.newest() if version is None else state.model if state is not None else None
        if name != self.name or model is None or self.states[model.version].state != "AVAILABLE":
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError(Code.NOT_FOUND, f"Servable not found for request: {asked}")
        model.requests += 1
        try:
            yield model
        finally:
            model.requests -= 1

    async def refresh(self) -> None:
        """Looks at the folder once: loads what is new and wanted, lets go what is no longer wanted."""
        policy, found = await asyncio.to_thread(self._look)
        for number in [number for number in self.states if number not in found]:
            if self.states[number].state == "END":
                del self.states[number]
        wanted: list[int] = []
        for number in self._candidates(policy, found):
            if await self._available(number, found[number]):
                wanted.append(number)
            if policy.kind == "latest" and len(wanted) >= policy.count:
                break
        if not wanted:  # what is served goes on
            return
        self.labels = {label: number for label, number in policy.labels.items() if number in wanted}
        for number, state in self.states.items():
            if state.state == "AVAILABLE" and number not in wanted:
                self._let_go(number, state)

    async def watch(self, seconds: float) -> None:
        """Looks at the folder for ever.

        Args:
            seconds: Between two looks.
        """
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except (OSError, TfappError) as error:
                _logger.warning("%s cannot be looked at: %s", self.base, error)

    async def close(self) -> None:
        """Lets every version go."""
        for number, state in self.states.items():
            if state.state == "AVAILABLE":
                self._let_go(number, state)
        await asyncio.gather(*self._closing)
        self._loader.shutdown()

    def _look(self) -> tuple[VersionPolicy, dict[int, tuple[int, ...]]]:
        if self._alone is not None:
            return VersionPolicy("all"), {self._alone: _stamp(self.base / str(self._alone))}
        policy = VersionPolicy()
        models = self.base / FOLDER / MODELS_FILE
        if models.is_file():
            policy = read_policy(models, self.name)
        folders = [
            path
            for path in self.base.iterdir()
            if path.name.isdecimal() and path.name.isascii() and path.is_dir()
        ]
        return policy, {int(path.name): _stamp(path) for path in folders if str(int(path.name)) == path.name}

    @staticmethod
    def _candidates(policy: VersionPolicy, found: dict[int, tuple[int, ...]]) -> list[int]:
        newest_first = sorted(found, reverse=True)
        if policy.kind == "specific":
            return [number for number in newest_first if number in policy.versions]
        return newest_first

    async def _available(self, number: int, stamp: tuple[int, ...]) -> bool:
        known = self.states.get(number)
        if known is not None and known.state == "AVAILABLE":
            return True
        if known is not None and (known.state == "UNLOADING" or (known.problem and known.stamp == stamp)):
            return False
        state = self.states[number] = VersionState("LOADING", stamp=stamp)
        loop = asyncio.get_running_loop()
        try:
            state.model = await loop.run_in_executor(
                self._loader, self._load, self.base / str(number), number
            )
        except Exception as error:
            # Whatever is wrong with a new version must not end the server that runs on the old one.
            state.state, state.problem = "END", str(error)
            expected = isinstance(error, OSError | TfappError | RequestError)
            _logger.error(
                "version %d of %s is not served: %s", number, self.name, error, exc_info=not expected
            )
            return False
        state.state = "AVAILABLE"
        self.loads += 1
        _logger.info("version %d of %s is served", number, self.name)
        return True

    def _let_go(self, number: int, state: VersionState) -> None:
        state.state = "UNLOADING"
        task = asyncio.get_running_loop().create_task(self._unload(number, state))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _unload(self, number: int, state: VersionState) -> None:
        model = state.model
        assert model is not None
        while model.requests:
            await asyncio.sleep(0.02)
        state.state, state.model = "END", None
        await asyncio.to_thread(model.close)
        _logger.info("version %d of %s was let go", number, self.name)


def _stamp(directory: Path) -> tuple[int, ...]:
    """What changes when a folder is mended: copies may keep the times of contents, but not of changes."""
    changes: list[int] = []
    for path in (directory, *directory.rglob("*")):
        with contextlib.suppress(OSError):
            changes.append(path.lstat().st_ctime_ns)
    return len(changes), max(changes, default=0)
