"""Nothing of the fit can be handed a ground truth: neither by a parameter nor by what it imports."""

import importlib
import inspect
import pkgutil

import grimp

import dipmed.dip

FORBIDDEN = {"reference", "ground_truth", "truth", "gt", "clean", "fully_sampled"}


def modules():
    found = pkgutil.walk_packages(dipmed.dip.__path__, "dipmed.dip.")
    return [dipmed.dip, *(importlib.import_module(info.name) for info in found)]


def signatures():
    for module in modules():
        for name, thing in vars(module).items():
            if (getattr(thing, "__module__", None) or "").startswith("dipmed.dip") and callable(thing):
                yield f"{module.__name__}.{name}", thing
                if inspect.isclass(thing):
                    for method, function in inspect.getmembers(thing, inspect.isfunction):
                        yield f"{module.__name__}.{name}.{method}", function


def test_no_parameter_takes_a_truth():
    seen = 0
    for name, function in signatures():
        parameters = set(inspect.signature(function).parameters)
        assert not parameters & FORBIDDEN, name
        seen += 1
    assert seen > 50


def test_no_import_leads_to_scores_or_files():
    graph = grimp.build_graph("dipmed", cache_dir=None)
    for module in modules():
        found = graph.find_modules_directly_imported_by(module.__name__)
        layers = {name.split(".")[1] for name in found if name.count(".")}
        assert layers <= {"dip", "nets", "config", "scan", "solvers", "calib", "weights"}, module.__name__
        calib = {name for name in found if name.startswith("dipmed.calib")}
        assert calib <= {f"dipmed.calib.{name}" for name in ("scale", "centre", "noise", "ray_noise")}, module.__name__
