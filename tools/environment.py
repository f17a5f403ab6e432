"""Builds the environment in .venv exactly as constraints.txt says, or sees that it is there.

Run by `tools/environment.sh` with whatever Python the machine has, so this file needs nothing but
the standard library. `--check` only answers, by its exit code, whether .venv is as it should be.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "built-from"
APT_TIMEOUT_S = 300


class CannotBuildError(Exception):
    """No environment can be had here; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to make .venv and to fill it."""

    name: str
    possible: Callable[[], bool]
    build: Callable[[], None]


def main() -> int:
    if "--check" in sys.argv[1:]:
        return 0 if is_built() else 1
    # Two makes at the same time would build into each other's files.
    with (ROOT / "pyproject.toml").open() as shared:
        fcntl.flock(shared, fcntl.LOCK_EX)
        if not is_built():
            build()
    return 0


def is_built() -> bool:
    return STAMP.is_file() and VENV_PYTHON.exists() and STAMP.read_text() == fingerprint()


def fingerprint() -> str:
    """Names all that the environment is made from: other versions, metadata, place or Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = (
        (ROOT / "constraints.txt").read_text(encoding="utf-8"),
        json.dumps([project["build-system"], project["project"], project["tool"]["hatch"]]),
        str(ROOT),  # scripts and the editable install hold absolute paths
        python_xy(),
        str(Path(sys.base_prefix).resolve()),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def build() -> None:
    """Tries one way after the other; the stamp comes last, so that half a build is built again."""
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"building .venv with Python {version}; this is done once")
    tried = False
    for way in WAYS:
        remove_venv()
        if not way.possible():
            continue
        tried = True
        try:
            way.build()
        except (subprocess.SubprocessError, OSError):
            say(f"{way.name} could not build .venv; trying another way")
        else:
            STAMP.write_text(fingerprint())
            return
    remove_venv()
    if tried:
        message = "the environment could not be built; the messages above say why"
    else:
        message = (
            f"{base_python()} has no ensurepip: install python{python_xy()}-venv (Debian, Ubuntu), "
            "virtualenv or uv, then run make again"
        )
    raise CannotBuildError(message)


def remove_venv() -> None:
    try:
        STAMP.unlink(missing_ok=True)
        if VENV.exists():
            shutil.rmtree(VENV)
    except OSError as error:
        message = f"cannot remove the old .venv ({error}): remove it as the user who made it"
        raise CannotBuildError(message) from error


def build_with_uv() -> None:
    run("uv", "venv", "--quiet", "--no-project", "--python", base_python(), str(VENV))
    pip = ("uv", "pip", "install", "--quiet", "--python", str(VENV_PYTHON))
    fill(*pip)


def build_with_venv() -> None:
    run(base_python(), "-m", "venv", str(VENV))
    fill_with_pip()


def build_with_virtualenv() -> None:
    run("virtualenv", "--quiet", "--python", base_python(), str(VENV))
    fill_with_pip()


def build_with_apt() -> None:
    apt = ("apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=60")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(*apt, "update", env=environment, timeout_s=APT_TIMEOUT_S)
    package = f"python{python_xy()}-venv"
    install = ("install", "--no-install-recommends", package)
    run(*apt, *install, env=environment, timeout_s=APT_TIMEOUT_S)
    build_with_venv()


def fill_with_pip() -> None:
    options = ("--quiet", "--disable-pip-version-check", "--no-input")
    fill(str(VENV_PYTHON), "-m", "pip", "install", *options)


def fill(*install: str) -> None:
    run(*install, "--require-hashes", "--requirement", "constraints.txt")
    run(*install, "--no-deps", "--no-build-isolation", "--editable", ".")


def run(*command: str, env: dict[str, str] | None = None, timeout_s: float | None = None) -> None:
    subprocess.run(
        command, cwd=ROOT, env=env, timeout=timeout_s, check=True, stdin=subprocess.DEVNULL
    )


def base_python() -> str:
    """The interpreter outside every environment: the one that runs this may lie in .venv."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return str(Path(sys.base_prefix) / "bin" / f"python{python_xy()}")


def python_xy() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def has_ensurepip() -> bool:
    spec = importlib.util.find_spec("ensurepip")
    return spec is not None and spec.origin is not None  # a folder left behind has no origin


def apt_can_help() -> bool:
    # Only the distribution's own Python gains from the distribution's package.
    is_debian = base_python().startswith("/usr/bin/") and shutil.which("apt-get") is not None
    return is_debian and os.geteuid() == 0 and not has_ensurepip()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


WAYS = (
    Way(name="uv", possible=lambda: shutil.which("uv") is not None, build=build_with_uv),
    Way(name="venv", possible=has_ensurepip, build=build_with_venv),
    Way(
        name="virtualenv",
        possible=lambda: shutil.which("virtualenv") is not None,
        build=build_with_virtualenv,
    ),
    Way(name="apt-get", possible=apt_can_help, build=build_with_apt),
)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotBuildError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
