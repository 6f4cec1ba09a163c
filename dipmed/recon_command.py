"""One scan to reconstruct as a user asks for it: the work of `dipmed recon`, and of each row of `dipmed batch`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dipmed.cli_common import GO_ON, check_json, check_settings, console, end_store, kept, write_json

if TYPE_CHECKING:
    import torch

    from dipmed.cluster import Cluster
    from dipmed.io.dicom_study import Study
    from dipmed.mode import Choice
    from dipmed.recon import ScanResult
    from dipmed.scan import Scan
    from dipmed.settings import ReconSettings


@dataclass(frozen=True)
class ReconRequest:
    """A scan, what is to be made of it, and where that goes; the fields are options of `dipmed recon`.

    ``how_to_go_on`` is said when a run does not end and leaves finished images.
    """

    file: Path
    out: list[Path]
    settings: ReconSettings
    json_file: str | None = None
    complex_image: bool = False
    like: Path | None = None
    series: str | None = None
    patient_id: str | None = None
    report: Path | None = None
    identify: bool = False
    log_to: tuple[str, ...] = ()
    workers: int | None = None
    scheduler: str | None = None
    resume: bool = False
    force: bool = False
    how_to_go_on: str = GO_ON

    @property
    def has_store(self) -> bool:
        """Whether a run that did not end has left finished images, or an output that is none."""
        from dipmed.io.image_store import store_path

        return store_path(self.out[0]).exists()

    @property
    def targets(self) -> list[Path]:
        """All files and folders that are written."""
        from dipmed.io.images import std_path

        maps = [] if self.settings.uncertainty is None else list(map(std_path, self.out))
        record = [] if self.json_file in (None, "-") else [Path(str(self.json_file))]
        page = [] if self.report is None else [self.report]
        return [*self.out, *maps, *record, *page]

    @property
    def replaces(self) -> bool:
        """Whether existing files make way."""
        return self.force or (self.resume and self.has_store)

    def where(self) -> torch.device:
        """Where the fits run; of the machines of a scheduler nothing is known before they are asked.

        Raises
        ------
        DipmedError
            When that is not there.
        """
        from dipmed.devices import resolve_device

        return resolve_device("cpu" if self.scheduler is not None else self.settings.device)

    def check(self) -> Study | None:
        """Refuse what can be refused before the work starts; return the study of DICOM outputs.

        Raises
        ------
        DipmedError
            Saying what is wrong.
        """
        from dipmed.io.image_store import check_unfinished
        from dipmed.outputs import check_outputs, find_study
        from dipmed.report import check_page
        from dipmed.settings import check_weights
        from dipmed.tracking import check_targets

        check_settings(self.settings)
        self.settings.check_warm_start()
        check_weights(self.settings, [self.settings.method])
        self.where()
        # before an output that is there, too, is said to be in the way
        check_unfinished(self.out[0], resume=self.resume, force=self.force)
        check_outputs(self.out, with_std=self.settings.uncertainty is not None, force=self.replaces)
        check_json(self.json_file, force=self.replaces)
        check_targets(self.log_to)
        check_page(self.report, identify=self.identify, force=self.replaces)
        return find_study(self.out, like=self.like, series=self.series, patient_id=self.patient_id)

    def run(self, workers: AbstractContextManager[Cluster | None]) -> tuple[ScanResult, list[Path]]:
        """Write the image and its record; what is finished of it is kept until then.

        Parameters
        ----------
        workers
            Entered once the scan has been read.

        Raises
        ------
        DipmedError
            When something is wrong with the scan, a setting or an output.
        """
        from dipmed.fit_progress import FitProgress
        from dipmed.io import load
        from dipmed.io.image_store import open_store
        from dipmed.mode import choose_mode
        from dipmed.outputs import dicom_details, save_outputs
        from dipmed.recon import reconstruct
        from dipmed.record import recon_record
        from dipmed.report import Follower, identity_of, recon_page, save_page
        from dipmed.tracking import open_trackers

        study, replaces = self.check(), self.replaces
        with open_store(self.out[0], resume=self.resume, force=self.force) as store, kept(store, self.how_to_go_on):
            scan = load(self.file)
            choice = choose_mode(scan, self.settings, self.where())
            dicom = None if study is None else dicom_details(scan, choice.settings, study, self.out)
            with workers as cluster:
                console.print(escape(choice.reason), soft_wrap=True)
                console.print(
                    f"fitting with {self.settings.method}; Ctrl-C keeps the best image so far", soft_wrap=True
                )
                self._advise(scan, choice, cluster)
                follower = None if self.report is None else Follower()
                opened = open_trackers(self.log_to, self.settings.method, _warn)
                with opened as trackers, FitProgress(console) as progress:
                    listeners = [progress, *trackers, *([] if follower is None else [follower])]
                    result = reconstruct(
                        scan, self.settings, choice=choice, listeners=listeners, store=store, cluster=cluster
                    )
            written = save_outputs(result, self.out, complex=self.complex_image, dicom=dicom, force=replaces)
            record = recon_record(result, self.settings)
            if self.json_file is not None:
                write_json(self.json_file, {**record, "asked": self.asked(scan)}, force=replaces)
            end_store(store, self.how_to_go_on, was_interrupted=result.was_interrupted)
        if self.report is not None and follower is not None:
            page = recon_page(result, record, follower, identity=identity_of(self.file, study) if self.identify else ())
            save_page(page, self.report, force=replaces)
            written.append(self.report)
        return result, written

    def _advise(self, scan: Scan, choice: Choice, cluster: Cluster | None) -> None:
        """Say that workers would save time, where they can be had, or that one has all the work."""
        from dipmed.mode import workers_worth

        if cluster is not None:
            if choice.settings.stacks_slices(scan) and self.settings.mode == "auto":
                console.print("one network for many slices stays in one process; --mode slice would share them")
        elif find_spec("distributed") is not None and self.where().type == "cpu":
            n_workers = workers_worth(scan, choice.settings)
            if n_workers > 1:
                console.print(f"--workers {n_workers} would fit so many slices at a time, and take less time")

    def asked(self, scan: Scan) -> dict[str, Any]:
        """Describe what decides the image, without a name or a path, and without where and by which version."""
        import torch

        from dipmed.manifest import make_manifest
        from dipmed.mode import with_mode
        from dipmed.settings import with_preset

        manifest = make_manifest(scan, with_preset(scan, with_mode(scan, self.settings)), torch.device("cpu"))
        chosen = {name: value for name, value in manifest["settings"].items() if name != "device"}
        return {
            "settings": {**chosen, "complex": self.complex_image},
            **{group: manifest[group] for group in ("fit", "options", "input")},
        }


def _warn(words: str) -> None:
    console.print(f"[bold yellow]warning:[/] {escape(words)}", soft_wrap=True)
