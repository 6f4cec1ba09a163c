"""The images of a scan on several processes or machines, by Dask distributed.

Whoever reaches a scheduler can run code on its workers: use one on a network that you trust, or with Dask's TLS.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch

import dipmed
from dipmed.allocation import keep_freed_memory
from dipmed.devices import resolve_device
from dipmed.dip import Progress, ProgressCallback
from dipmed.jobs import Job
from dipmed.run_job import run_direct, run_or_fill
from dipmed.scan import DipmedError, Reconstruction
from dipmed.settings import ReconSettings
from operators import LinearOperator, SliceProjector, VolumeProjector

GPU = "GPU"
"""Name of the resource that workers with a GPU announce: ``dask worker ADDRESS --resources GPU=1``."""

Report = Callable[[Job], ProgressCallback | None]
"""Says what takes the progress of a job; None for nothing."""

_TOPIC = "dipmed-progress"
_PATIENCE_S = 20
_WAITING = 2  # jobs for each worker: one that it works on, one that lies ready


class Cluster:
    """Runs jobs on the workers of a scheduler; `local_cluster` and `connect` make one."""

    def __init__(self, client: Any, threads: int | None = None) -> None:
        self._client = client
        self._threads = threads
        self._check()

    @property
    def n_workers(self) -> int:
        """How many workers there are now."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return str(self._client.scheduler.address)

    def processes(self) -> set[int]:
        """Numbers of the workers' processes, on their machines."""
        return set(self._client.run(os.getpid).values())

    def run(
        self,
        todo: Iterable[Job],
        settings: ReconSettings,
        report: Report,
    ) -> Iterator[tuple[Job, Reconstruction]]:
        """Yield each job with its result, as they come; the images are those of a run without workers.

        A job whose worker is lost is given to another. After Ctrl-C, what has not come yet takes no time, as
        `dipmed.run_job.run_direct` makes it.

        Parameters
        ----------
        todo
            With data on the CPU; taken as workers become free.
        report
            What takes the progress of a job; None for nothing.

        Raises
        ------
        DipmedError
            When the same job has brought down several workers.
        """
        from distributed import as_completed

        todo = iter(todo)
        running: dict[Any, Job] = {}
        shared: dict[int, tuple[LinearOperator, Any]] = {}
        self._client.subscribe_topic(_TOPIC, lambda event: _tell(event, running.values(), report))
        try:
            futures = as_completed()
            for job in _some(todo, max(1, _WAITING * self.n_workers)):
                self._submit(job, settings, running, shared, futures)
            for future in futures:
                job = running.pop(future)
                yield job, _result(future, job)
                for following in _some(todo, 1):
                    self._submit(following, settings, running, shared, futures)
        except KeyboardInterrupt:
            self._client.cancel(list(running))
            for job in (*running.values(), *todo):
                yield job, replace(run_direct(job, settings), status="interrupted")
        finally:
            self._client.unsubscribe_topic(_TOPIC)

    def _submit(
        self,
        job: Job,
        settings: ReconSettings,
        running: dict[Any, Job],
        shared: dict[int, tuple[LinearOperator, Any]],
        futures: Any,
    ) -> None:
        A: Any = job.A
        if isinstance(A, SliceProjector | VolumeProjector):  # large, and the same for all slices: sent once
            if id(A) not in shared:
                shared[id(A)] = A, self._client.scatter(A, broadcast=True)
            A = shared[id(A)][1]
        device = self.device_for(settings).type
        with warnings.catch_warnings():
            # a job goes whole: data that had been sent before would be lost with the worker that holds them
            warnings.filterwarnings("ignore", message="Sending large graph")
            future = self._client.submit(
                _work,
                replace(job, A=None),  # type: ignore[arg-type]  # the worker puts it back
                A,
                replace(settings, device=device),
                self._threads,
                pure=False,
                resources={GPU: 1} if device == "cuda" else {},
            )
        running[future] = job
        futures.add(future)

    def device_for(self, settings: ReconSettings) -> torch.device:
        """Where the workers compute: on their GPUs, where some announce one and none is forbidden.

        Raises
        ------
        DipmedError
            When CUDA is asked for and no worker announces a GPU.
        """
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        has_gpu = any(GPU in worker["resources"] for worker in workers)
        if settings.device == "cuda" and not has_gpu:
            raise DipmedError(f"no worker announces a GPU; start them with --resources {GPU}=1, or use --device cpu")
        return torch.device("cuda" if has_gpu and settings.device != "cpu" else "cpu")

    def _check(self) -> None:
        """Make sure that there are workers, and that they run what runs here."""
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE_S)
        except TimeoutError:
            raise DipmedError(
                f"the scheduler has no worker after {_PATIENCE_S} s; start some with `dask worker`"
            ) from None
        try:
            found = set(self._client.run(_versions).values())
        except ModuleNotFoundError as error:
            raise DipmedError(f"the workers need what is installed here: {error}") from error
        if found != {_versions()}:
            raise DipmedError(
                f"the workers run {sorted(found)}, and this is {_versions()}; install the same everywhere"
            )


@contextmanager
def local_cluster(n_workers: int) -> Iterator[Cluster]:
    """Start so many processes here, which share the cores, and end them afterwards.

    Raises
    ------
    DipmedError
        When Dask is missing, or no worker is asked for.
    """
    distributed = _distributed()
    if n_workers < 1:
        raise DipmedError(f"--workers needs at least one, got {n_workers}")
    threads = max(1, torch.get_num_threads() // n_workers)
    with (
        distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # or a second run would be warned of the first
            memory_limit=0,  # what does not fit was refused before
        ) as processes,
        distributed.Client(processes) as client,
    ):
        yield Cluster(client, threads)


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Use the workers of a scheduler that runs, such as ``tcp://10.0.0.1:8786``.

    Raises
    ------
    DipmedError
        When Dask is missing, nobody answers, or the workers are of another version.
    """
    distributed = _distributed()
    try:
        client = distributed.Client(address, timeout=_PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise DipmedError(
            f"no scheduler answers at {address}: {' '.join(str(error).split())[:200]}; start one with `dask scheduler`"
        ) from error
    with client:
        yield Cluster(client)


@contextmanager
def find_cluster(n_workers: int | None, address: str | None) -> Iterator[Cluster | None]:
    """Give the workers that a user asks for by either way; None where none is asked for.

    Raises
    ------
    DipmedError
        When both are asked for, and as `local_cluster` and `connect` do.
    """
    if n_workers is not None and address is not None:
        raise DipmedError("--workers starts processes here, --scheduler uses those of another; give one of them")
    if n_workers is not None:
        with local_cluster(n_workers) as cluster:
            yield cluster
    elif address is not None:
        with connect(address) as cluster:
            yield cluster
    else:
        yield None


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise DipmedError("workers need Dask; install it with: pip install 'dipmed[cluster]'") from error
    return distributed


def _work(job: Job, A: LinearOperator, settings: ReconSettings, threads: int | None) -> Reconstruction:
    """Run one job on a worker, on the device that it has."""
    from distributed import get_worker

    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    worker = get_worker()
    here = replace(job, A=A).to(resolve_device(settings.device))

    def report(state: Progress) -> None:
        worker.log_event(_TOPIC, {"place": list(job.place), **asdict(replace(state, image=None))})

    part = run_or_fill(here, settings, progress=report)
    return replace(part, image=part.image.cpu(), std=None if part.std is None else part.std.cpu())


def _tell(event: Any, running: Iterable[Job], report: Report) -> None:
    _, message = event
    place = tuple(message.pop("place"))
    for job in list(running):
        if job.place == place:
            listener = report(job)
            if listener is not None:
                listener(Progress(**{name: message[name] for name in Progress.__dataclass_fields__}))


def _result(future: Any, job: Job) -> Reconstruction:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise DipmedError(
            f"frame {job.frame}, slice {job.slice} brought down every worker that took it, most likely for want of "
            "memory; use fewer --workers, or --coils"
        ) from error


def _some(jobs: Iterator[Job], n: int) -> Iterator[Job]:
    for _, job in zip(range(n), jobs, strict=False):
        yield job


def _versions() -> tuple[str, str]:
    return dipmed.__version__, torch.__version__


__all__ = ["GPU", "Cluster", "Report", "connect", "find_cluster", "local_cluster"]
