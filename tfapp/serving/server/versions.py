"""The versions that are served: found, checked, loaded, swapped and let go without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tfapp.errors import ReleaseError, TfappError
from tfapp.release.layout import MANIFEST_FILE
from tfapp.release.serving_files import FOLDER, MODELS_FILE
from tfapp.release.versions import version_number, versions_in
from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.model_files import VersionPolicy, read_policy
from tfapp.serving.server.status import Code, RequestError, invalid

_FIRST_RETRY, _LONGEST_RETRY = 60.0, 3600.0  # seconds
_MOST_DOUBLINGS = 10
_logger = logging.getLogger(__name__)


@dataclass
class VersionState:
    """What became of a version.

    Attributes:
        state: A name of TensorFlow Serving's ``ModelVersionStatus.State``.
        problem: Why it was not loaded; empty otherwise.
        model: The loaded model, while there is one.
        stamp: When the folder changed last, so that a mended one is tried again at once.
        tries: How often it has been loaded since, in vain.
        next_try: When it is tried again, on the clock `time.monotonic`: it may not be the folder's fault.
    """

    state: str
    problem: str = ""
    model: LoadedModel | None = None
    stamp: tuple[int, ...] = ()
    tries: int = 0
    next_try: float = 0.0


@dataclass(frozen=True)
class _Folder:
    path: Path
    stamp: tuple[int, ...]


class Versions:
    """The versions of one release folder.

    All methods but the loading itself run on the event loop.

    Args:
        path: ``saved_models/<name>``, or one version folder of it.
        load: Loads a version folder; called in a thread.

    Raises:
        ReleaseError: When the path is a version without a number.
    """

    def __init__(self, path: Path, load: Callable[[Path, int], LoadedModel]) -> None:
        alone = (path / MANIFEST_FILE).is_file()
        number = version_number(path)
        if alone and number is None:
            raise ReleaseError(f"{path}: its name is no version number; serve saved_models/<name>/<version>.")
        self.base = path.parent if alone else path
        self.name = self.base.name
        self.states: dict[int, VersionState] = {}
        self.labels: dict[str, int] = {}
        self.loads = 0
        self._alone = path if alone else None
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
            except Exception as error:
                # Whatever it is, later versions are to be found.
                expected = isinstance(error, OSError | TfappError)
                _logger.error("%s cannot be looked at: %s", self.base, error, exc_info=not expected)

    async def close(self, seconds: float = 30.0) -> None:
        """Lets every version go.

        Args:
            seconds: How long to wait for computations whose answers were given up. A version that still
                computes then is not closed; it ends with the process, which ends with the computation.
        """
        for number, state in self.states.items():
            if state.state == "AVAILABLE":
                self._let_go(number, state)
        if self._closing:
            _, computing = await asyncio.wait(self._closing, timeout=seconds)
            for task in computing:
                task.cancel()
            if computing:
                _logger.warning("%d versions of %s still compute; not waited for", len(computing), self.name)
        await asyncio.to_thread(self._loader.shutdown)

    def _look(self) -> tuple[VersionPolicy, dict[int, _Folder]]:
        if self._alone is not None:
            number = version_number(self._alone)
            assert number is not None
            return VersionPolicy("all"), {number: _Folder(self._alone, _stamp(self._alone))}
        policy = VersionPolicy()
        models = self.base / FOLDER / MODELS_FILE
        if models.is_file():
            policy = read_policy(models, self.name)
        found = versions_in(self.base)
        return policy, {number: _Folder(path, _stamp(path)) for number, path in found.items()}

    @staticmethod
    def _candidates(policy: VersionPolicy, found: Collection[int]) -> list[int]:
        newest_first = sorted(found, reverse=True)
        if policy.kind == "specific":
            return [number for number in newest_first if number in policy.versions]
        return newest_first

    async def _available(self, number: int, folder: _Folder) -> bool:
        known = self.states.get(number)
        if known is not None and known.state == "AVAILABLE":
            return True
        if known is not None and known.state == "UNLOADING":
            return False
        state = VersionState("LOADING", stamp=folder.stamp)
        if known is not None and known.problem and known.stamp == folder.stamp:
            if time.monotonic() < known.next_try:
                return False
            state.tries = known.tries
        self.states[number] = state
        loading = self._loader.submit(self._load, folder.path, number)
        try:
            model = state.model = await asyncio.wrap_future(loading)
        except asyncio.CancelledError:
            state.state = "END"
            loading.add_done_callback(_close_unused)
            raise
        except Exception as error:
            # Whatever is wrong with a new version must not end the server that runs on the old one.
            state.state, state.problem = "END", str(error)
            state.next_try = time.monotonic() + min(
                _FIRST_RETRY * 2 ** min(state.tries, _MOST_DOUBLINGS), _LONGEST_RETRY
            )
            state.tries += 1
            expected = isinstance(error, OSError | TfappError | RequestError)
            _logger.error(
                "version %d of %s is not served: %s", number, self.name, error, exc_info=not expected
            )
            return False
        state.state = "AVAILABLE"
        self.loads += 1
        _logger.info(
            "version %d of %s is served; its manifest has the sha256 %s",
            number,
            self.name,
            model.manifest_sha256,
        )
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


def _close_unused(loading: Future[LoadedModel]) -> None:
    """Closes a model whose loading nobody awaits any more."""
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()


def _stamp(directory: Path) -> tuple[int, ...]:
    """What changes when a folder is mended: copies may keep the times of contents, but not of changes."""
    changes: list[int] = []
    for path in (directory, *directory.rglob("*")):
        with contextlib.suppress(OSError):
            changes.append(path.lstat().st_ctime_ns)
    return len(changes), max(changes, default=0)
