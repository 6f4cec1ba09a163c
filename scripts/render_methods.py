"""Tables and plots of the benchmark of methods, from its rows.

Run as ``python scripts/render_methods.py ROWS.jsonl --page docs/benchmark-methods.md --images docs/img``. What stands
between comments ``<!-- NAME -->`` and ``<!-- /NAME -->`` of the page is replaced, where there are rows for it; the
words around it stay.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from benchmark_methods import SWEPT_CASES

from dipmed.config import FitConfig
from dipmed.methods import METHODS

Row = dict[str, Any]
NAMED = ("dip", "dip-vanilla", "dip-tv", "aseqdip", "self-guided", "tada", "conv-decoder", "edip", "self-diffusion")
COLOURS = {name: f"C{number}" for name, number in zip(NAMED, (0, 1, 2, 3, 4, 5, 6, 9, 8), strict=True)}
"""Without the seventh, a grey: those without a name are grey."""


def main() -> None:
    """Read the rows, write tables into the page and plots beside it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    chosen = parser.parse_args()
    # the clock's where a row has no others, as the first ones had
    rows = [
        {"cpu_seconds": row.get("seconds_fit"), **row} for row in map(json.loads, chosen.rows.read_text().splitlines())
    ]
    as_preset = [row for row in rows if is_fit(row) and not row["task"]["iterations"]]
    presets = [row for row in as_preset if row["task"]["method"] == "dip"]
    published = [row for row in as_preset if row not in presets]
    in_parts = [row for row in rows if subpixels(row) > 1 and row not in published]
    rows = [row for row in rows if row not in as_preset and row not in in_parts]
    table, swept = final_rows(rows), swept_rows(rows)
    page = chosen.page.read_text()
    parts = {}
    if presets:
        parts["presets"] = preset_table(presets, [*table, *in_parts, *presets])
        parts["preset-rules"] = rule_table(presets)
    if published:
        parts["published"] = "\n\n".join(case_table(case, group) for case, group in by_case(published).items())
        parts["published-rules"] = rule_table(published)
    if any(map(is_fit, table)):
        parts["summary"] = summary(table)
        parts["cases"] = "\n\n".join(case_table(case, group) for case, group in by_case(table).items())
        parts["rules"] = rule_table(table)
        parts["optimizers"] = optimizer_table(swept, table)
        plot_curves(table, chosen.images / "methods-curves.png")
        plot_seconds(table, chosen.images / "methods-seconds.png")
    for name, part in parts.items():
        page, n = re.subn(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\g<1>\n{part}\n\n\g<2>", page, flags=re.S)
        if n != 1:
            raise SystemExit(f"{chosen.page} has no place for {name}: a comment <!-- {name} --> and its end")
    chosen.page.write_text(page)


def final_rows(rows: list[Row]) -> list[Row]:
    """Rows of the table: of those that differ in the optimizer alone, the one with the highest PSNR."""
    best: dict[tuple[str, str, int], Row] = {}
    for row in rows:
        key = (row["task"]["case"], row["task"]["method"], row["task"]["seed"])
        if key not in best or (row["psnr"] or -1e9) > (best[key]["psnr"] or -1e9):
            best[key] = row
    return list(best.values())


def swept_rows(rows: list[Row]) -> list[Row]:
    """Rows of the sweep: fits to a scan with more than one optimizer, all with the one seed that each of them had."""
    rows = [row for row in rows if row["task"]["seed"] == 0 and row["task"]["case"] in SWEPT_CASES.values()]
    optimizers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        optimizers[row["task"]["case"], row["task"]["method"]].add(row["task"]["optimizer"])
    return [row for row in rows if len(optimizers[row["task"]["case"], row["task"]["method"]]) > 1]


def by_case(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of each scan that some method was fitted to, in order of their first appearance."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["task"]["case"]].append(row)
    return {case: group for case, group in groups.items() if any(map(is_fit, group))}


def mean(group: list[Row], key: str) -> float | None:
    """Mean over seeds; None where no row has it."""
    values = [row[key] for row in group if row.get(key) is not None]
    return statistics.fmean(values) if values else None


def by_method(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of each method, the best mean PSNR first."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["task"]["method"]].append(row)
    return dict(sorted(groups.items(), key=lambda item: -(mean(item[1], "psnr") or -1e9)))


def best_of(row: Row) -> float | None:
    """Best PSNR of a snapshot of a fit."""
    return max((psnr for _, psnr, _ in row.get("snapshots") or []), default=None)


def is_fit(row: Row) -> bool:
    """Whether a row is that of a fit and no failure."""
    return bool(row.get("snapshots"))


def text(value: float | None, digits: int = 2) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def case_table(case: str, rows: list[Row]) -> str:
    """All methods on one scan."""
    lines = [f"### {case}", "", "| method | rates | PSNR dB | SSIM | best PSNR dB | regret dB | s | MiB | n |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for name, group in by_method(rows).items():
        if mean(group, "psnr") is None:
            lines.append(f"| {name} | | {group[0]['error']} | | | | | | |")
            continue
        oracles = [value for value in map(best_of, group) if value is not None]
        optimizer = _rates(group[0]) if is_fit(group[0]) else ""
        spread = statistics.pstdev([row["psnr"] for row in group]) if len(group) > 1 else None
        psnr = text(mean(group, "psnr")) + (f" ± {spread:.2f}" if spread is not None else "")
        cells = (
            f"**{name}**" if name == "dip" else name,
            optimizer,
            psnr,
            text(mean(group, "ssim"), 3),
            text(statistics.fmean(oracles)) if oracles else "",
            text(mean(group, "regret")),
            text(mean(group, "cpu_seconds"), 1),
            text(mean(group, "peak_memory_mib"), 0),
            str(len(group)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """The default against the best of the other fits and of the classical methods, at equal iterations and seconds."""
    lines = [
        "| scan | `dip` PSNR, SSIM | best other fit | at equal seconds | best classical | gain over classical |",
        "|---|---|---|---|---|---|",
    ]
    for case, group in by_case(rows).items():
        methods = {name: rows for name, rows in by_method(group).items() if mean(rows, "psnr") is not None}
        own = methods.pop("dip", None)
        if own is None:
            continue
        fits = {name: rows for name, rows in methods.items() if is_fit(rows[0])}
        classical = {name: rows for name, rows in methods.items() if not is_fit(rows[0])}
        seconds = mean(own, "cpu_seconds") or 0.0
        psnr, ssim = mean(own, "psnr") or 0.0, mean(own, "ssim") or 0.0
        at = {name: psnr_at(rows, seconds) for name, rows in fits.items()}
        fastest = max(at, key=lambda name: at[name], default=None)
        other = next(iter(fits), None)
        lines.append(
            f"| {case} | {psnr:.2f}, {ssim:.3f} | {_named(fits, other)} | "
            + (f"{fastest} {at[fastest]:.2f}" if fastest else "")
            + f" | {_named(classical, next(iter(classical), None))} | {gain_over(own, classical)} |"
        )
    return "\n".join(lines)


def subpixels(row: Row) -> int:
    """Parts of the pixels of slices, along each axis."""
    return int(row["task"].get("subpixels", 1))


def preset_table(presets: list[Row], table: list[Row]) -> str:
    """Fits in the size of their presets, of all seeds, against the classical methods."""
    lines = ["| scan | `dip` PSNR dB | SSIM | regret dB | iterations | s | n | best classical | gain over classical |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    rivals = by_case(table)
    for case, group in by_case([row for row in presets if row["task"]["method"] == "dip"]).items():
        methods = by_method(rivals.get(case, []))
        classical = {
            name: rows for name, rows in methods.items() if not is_fit(rows[0]) and mean(rows, "psnr") is not None
        }
        cells = (
            case,
            f"{text(mean(group, 'psnr'))} ± {statistics.pstdev([row['psnr'] for row in group]):.2f}",
            text(mean(group, "ssim"), 3),
            text(mean(group, "regret")),
            text(mean(group, "iterations"), 0),
            text(mean(group, "cpu_seconds"), 0),
            str(len(group)),
            _named(classical, next(iter(classical), None)),
            gain_over(group, classical),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gain_over(own: list[Row], classical: dict[str, list[Row]]) -> str:
    """How far the mean over seeds lies above the best classical PSNR and the best classical SSIM."""
    if not classical:
        return ""
    gains = {
        key: (mean(own, key) or 0.0) - max(mean(rows, key) or 0.0 for rows in classical.values())
        for key in ("psnr", "ssim")
    }
    return f"{gains['psnr']:+.2f} dB, {gains['ssim']:+.3f}"


def _named(groups: dict[str, list[Row]], name: str | None) -> str:
    return "" if name is None else f"{name} {_scores(groups[name])}"


def _scores(group: list[Row]) -> str:
    return f"{text(mean(group, 'psnr'))}, {text(mean(group, 'ssim'), 3)}"


def psnr_at(group: list[Row], seconds: float) -> float:
    """Mean over seeds of the last snapshot's PSNR within so many seconds of the fit."""
    found = []
    for row in group:
        per_iteration = row["cpu_seconds"] / row["iterations"]
        within = [psnr for step, psnr, _ in row["snapshots"] if step * per_iteration <= seconds * 1.02]
        found.append(within[-1] if within else 0.0)
    return statistics.fmean(found)


def rule_table(rows: list[Row]) -> str:
    """How much every rule that watched would have lost against the best image of the run."""
    lost: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if not is_fit(row):
            continue
        lost[f"{row['stop']['rule']} (decided)"].append(row["regret"])
        for rule, iteration in (row.get("choices") or {}).items():
            nearest = min(row["snapshots"], key=lambda snapshot: abs(snapshot[0] - iteration))
            lost[rule].append((best_of(row) or 0.0) - nearest[1])
    lines = ["| rule | fits | mean regret dB | worst dB | within 0.1 dB |", "|---|---|---|---|---|"]
    for rule, values in sorted(lost.items(), key=lambda item: statistics.fmean(item[1])):
        within = sum(value <= 0.1 for value in values) / len(values)
        lines.append(f"| {rule} | {len(values)} | {statistics.fmean(values):.2f} | {max(values):.2f} | {within:.0%} |")
    return "\n".join(lines)


def optimizer_table(swept: list[Row], table: list[Row]) -> str:
    """Muon against Adam, each at the best of its rates."""
    lines = [
        "| scan | method | Muon: rate, PSNR dB | Adam: rate, PSNR dB | Muon less Adam dB | "
        "iterations to the classical: Muon | Adam |",
        "|---|---|---|---|---|---|---|",
    ]
    targets = {case: _classical_best(group) for case, group in by_case(table).items()}
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in swept:
        if row["psnr"] is not None:
            groups[row["task"]["case"], row["task"]["method"]].append(row)
    for (case, method), tried in groups.items():
        best = {}
        for kind in ("muon", "adam"):
            of_kind = [row for row in tried if _rates(row).startswith(kind)]
            best[kind] = max(of_kind, key=lambda row: row["psnr"], default=None)
        muon, adam = best["muon"], best["adam"]
        if muon is None or adam is None:
            continue
        rates = [f"{_rates(row).split('-', 1)[1]}, {row['psnr']:.2f}" for row in (muon, adam)]
        reached = [_reached(row, targets.get(case)) for row in (muon, adam)]
        cells = (case, method, *rates, f"{muon['psnr'] - adam['psnr']:+.2f}", *reached)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rates(row: Row) -> str:
    """Optimizer and rate of a fit, by the sweep or the method's own."""
    if row["task"]["optimizer"]:
        return str(row["task"]["optimizer"])
    fit = METHODS[row["task"]["method"]].fit
    assert fit is not None  # noqa: S101  # a classical method has no rates
    config = fit.configure(FitConfig(), "mri")
    return f"{config.optimizer}-{config.rate if config.optimizer == 'muon' else config.adam_rate:g}"


def _classical_best(rows: list[Row]) -> float | None:
    """PSNR of the compressed-sensing image that fits are measured against: wavelets for MRI, variation for CT."""
    found = [row["psnr"] for row in rows if row["task"]["method"] in ("l1-wavelet", "cg-tv")]
    return max(found, default=None)


def _reached(row: Row, target: float | None) -> str:
    if target is None:
        return ""
    step = next((step for step, psnr, _ in row["snapshots"] if psnr >= target), None)
    return "never" if step is None else str(step)


def _panels(n: int) -> tuple[Any, Any]:
    """A figure with a panel for each scan, two beside each other."""
    n_rows = (n + 1) // 2
    return plt.subplots(n_rows, 2, figsize=(9, 0.8 + 3.4 * n_rows), squeeze=False)


def plot_curves(rows: list[Row], path: Path) -> None:
    """PSNR against iteration, with the stop of each rule that chose one marked on its curve."""
    cases = [case for case, group in by_case(rows).items() if any(map(is_fit, group))]
    figure, axes = _panels(len(cases))
    markers = {
        "held-out": "o",
        "windowed-variance": "s",
        "exponential-variance": "^",
        "discrepancy": "D",
        "budget": "x",
    }
    for axis, case in zip(axes.flat, cases, strict=False):
        for name, group in by_method(by_case(rows)[case]).items():
            row = group[0]
            if not is_fit(row):
                if row["psnr"] is not None and name in ("l1-wavelet", "cg-tv"):
                    axis.axhline(row["psnr"], color="0.5", linestyle="--", linewidth=1)
                continue
            steps, curve = zip(*[(step, psnr) for step, psnr, _ in row["snapshots"]], strict=True)
            if name not in NAMED:
                axis.plot(steps, curve, color="0.85", linewidth=0.8, zorder=0)
                continue
            (line,) = axis.plot(steps, curve, COLOURS[name], label=name, linewidth=2 if name == "dip" else 1)
            chosen = {row["stop"]["rule"]: row["stop"]["iteration"], **(row.get("choices") or {})}
            for rule, iteration in chosen.items():
                index = min(range(len(steps)), key=lambda i, at=iteration: abs(steps[i] - at))
                marker = markers.get(rule, "*")
                axis.plot(steps[index], curve[index], marker, color=line.get_color(), markersize=4)
        axis.set_title(case, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(cases) :]:
        axis.axis("off")
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=5, fontsize=8, frameon=False)
    inch = 1 / figure.get_figheight()
    figure.supxlabel("iteration", fontsize=9, y=0.55 * inch)
    figure.supylabel("PSNR in dB", fontsize=9)
    figure.tight_layout(rect=(0.02, 0.65 * inch, 1, 1))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def plot_seconds(rows: list[Row], path: Path) -> None:
    """Quality against seconds, a point a method."""
    cases = [case for case, group in by_case(rows).items() if any(map(is_fit, group))]
    figure, axes = _panels(len(cases))
    for axis, case in zip(axes.flat, cases, strict=False):
        for name, group in by_method(by_case(rows)[case]).items():
            psnr, seconds = mean(group, "psnr"), mean(group, "cpu_seconds")
            if psnr is None or seconds is None:
                continue
            axis.semilogx(
                max(seconds, 0.02), psnr, "o" if is_fit(group[0]) else "s", color="C3" if name == "dip" else "0.5"
            )
            axis.annotate(name, (max(seconds, 0.02), psnr), fontsize=5, xytext=(2, 2), textcoords="offset points")
        axis.set_title(case, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(cases) :]:
        axis.axis("off")
    figure.supxlabel("seconds of one core", fontsize=9)
    figure.supylabel("PSNR in dB", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
