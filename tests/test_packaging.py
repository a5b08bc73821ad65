"""What is shipped is what is here: every room in wheel and sdist, every public name importable, nothing twice."""

import importlib
import pkgutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import stepscope

ROOT = Path(__file__).parents[1]
ROOMS = ("diagnostics", "synthetic", "remedies", "reports")
DATA = (".py", ".html", ".js", ".json", ".typed")


def test_declared_packages_are_the_folders_with_an_init():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"stepscope"} | {f"stepscope.{p.parent.name}" for room in ROOMS for p in (ROOT / room).rglob("__init__.py")}
    assert set(declared) == found


def test_every_public_name_is_importable():
    assert set(stepscope.__all__) <= set(stepscope._HOME)
    for name in stepscope._HOME:
        assert getattr(stepscope, name).__module__.startswith("stepscope.")
    with pytest.raises(AttributeError, match="no attribute"):
        stepscope.nothing_of_the_kind  # noqa: B018


def test_every_module_imports_under_one_name():
    for room in ROOMS:
        package = importlib.import_module(f"stepscope.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"stepscope.{room}.{module.name}")
    assert not set(ROOMS) & set(sys.modules)


def test_importing_stepscope_loads_nothing_heavy():
    loggers = ("lightning", "pytorch_lightning", "transformers", "accelerate", "tensorboard", "wandb", "mlflow")
    for code, unwanted in (
        ("import stepscope", ("torch", "numba", "matplotlib", "scipy", *loggers)),
        ("from stepscope import *; import stepscope.reports.cli, stepscope.reports.writers", loggers),
    ):
        tell = f"{code}; import sys; print([m for m in {unwanted} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_wheel_and_sdist_hold_every_file_and_the_wheel_works_elsewhere(tmp_path):
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    files = [p for room in ROOMS for p in (ROOT / room).iterdir() if p.suffix in DATA]
    files += [ROOT / "stepscope" / name for name in ("__init__.py", "__main__.py", "py.typed")]
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        str(f.relative_to(ROOT)) if f.parent.name == "stepscope" else f"stepscope/{f.relative_to(ROOT)}" for f in files
    }
    assert expected <= names
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {str(f.relative_to(ROOT)) for f in files} <= packed

    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--quiet",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True)
    code = (
        "import torch, stepscope; from stepscope import Monitor; p = torch.nn.Parameter(torch.ones(3));"
        "o = torch.optim.Adam([p]); m = Monitor(o, 'run'); p.grad = torch.ones(3); o.step(); m.close();"
        "m.report('report.html'); print(stepscope.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(site))
    assert (tmp_path / "report.html").stat().st_size > 10_000
