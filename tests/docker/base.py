"""The image that all others are built on: pulled, or a stand-in that debootstrap makes.

Where this machine reaches the package registries in a way of its own (another index, a proxy, an authority of its
own), the images' builds must do so too: that goes into a layer over the base, and so into nothing that is measured.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import APIError, ImageNotFound
from rucio_trace_sandbox.processes import program

if TYPE_CHECKING:
    from engine import Engine

NAME, TAG, SUITE = "debian", "bookworm-slim", "bookworm"
CONFIGURED = "rucio-trace-test-base:latest"
_AUTHORITIES = "/etc/registries.pem"
_PIP = ("index-url", "extra-index-url", "trusted-host", "proxy")
# As in the real image, so that sizes are alike.
_SLIM = ("doc/*", "man/*", "info/*", "groff/*", "linda/*", "lintian/*", "locale/*")
_EXCLUDES = "".join(f"path-exclude /usr/share/{path}\n" for path in _SLIM)


def base(engine: Engine, folder: Path) -> str:
    """The name of the image to build on; *folder* is for what debootstrap makes."""
    name = f"{NAME}:{TAG}"
    try:
        engine.client.images.get(name)
    except ImageNotFound:
        try:
            engine.client.images.pull(NAME, TAG)
        except (APIError, ImageNotFound):
            _stand_in(engine, folder)
    files = _registries()
    if not files:
        return name
    _add(engine, name, files)
    return CONFIGURED


def _stand_in(engine: Engine, folder: Path) -> None:
    root, packed = folder / "root", folder / "root.tar"
    mirror = [uri for uri, suite, _ in _apt_sources() if suite == SUITE][:1]
    debootstrap = program("debootstrap", "debootstrap", Path("/usr/sbin"))
    _run(debootstrap, "--variant=minbase", SUITE, str(root), *mirror)
    for path in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / path)
        (root / path).mkdir(mode=0o755)
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(_EXCLUDES)
    _run("tar", "-C", str(root), "-cf", str(packed), ".")
    shutil.rmtree(root)
    engine.client.api.import_image_from_file(str(packed), repository=NAME, tag=TAG)
    packed.unlink()


def _add(engine: Engine, name: str, files: dict[str, bytes]) -> None:
    context = io.BytesIO()
    recipe = f"FROM {name}\n" + "".join(f"COPY {number} {path}\n" for number, path in enumerate(files))
    with tarfile.open(fileobj=context, mode="w") as archive:
        for member, content in [("Dockerfile", recipe.encode()), *((str(n), c) for n, c in enumerate(files.values()))]:
            entry = tarfile.TarInfo(member)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    context.seek(0)
    engine.client.images.build(fileobj=context, custom_context=True, tag=CONFIGURED, rm=True)


def _registries() -> dict[str, bytes]:
    """The files by which a build reaches what this machine reaches; none where nothing is special."""
    files = {}
    told = _pip_configuration()
    options = {key: value for key in _PIP if (value := _remote(key, told.get(key, "")))}
    authorities = told.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    if authorities:
        files[_AUTHORITIES] = Path(authorities).read_bytes()
        options["cert"] = _AUTHORITIES
    if options:
        lines = ["[global]", *(f"{key} = {value}" for key, value in options.items())]
        files["/etc/pip.conf"] = ("\n".join(lines) + "\n").encode()
    sources = [(uri, suite, part) for uri, suite, part in _apt_sources() if suite.startswith(SUITE)]
    if sources:
        lines = [f"deb {uri} {suite} {part}" for uri, suite, part in sources]
        files["/etc/apt/sources.list"] = ("\n".join(lines) + "\n").encode()
        files["/etc/apt/sources.list.d/debian.sources"] = b""
    return files | _apt_configuration(bool(authorities))


def _pip_configuration() -> dict[str, str]:
    told = {}
    for line in _run(sys.executable, "-m", "pip", "config", "list").splitlines():
        key, _, value = line.partition("=")
        told[key.rpartition(".")[2]] = value.strip("'\"")
    return told


def _remote(key: str, value: str) -> str:
    """What a build can follow of it: there are no folders of this machine."""
    return " ".join(url for url in value.split() if url.startswith("http")) if key.endswith("index-url") else value


def _apt_sources() -> list[tuple[str, str, str]]:
    if shutil.which("apt-get") is None:
        return []
    told = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    return sorted({(uri, suite, part) for uri, suite, part in map(str.split, told.splitlines()) if "debian" in uri})


def _apt_configuration(authorities: bool) -> dict[str, bytes]:
    if shutil.which("apt-config") is None:
        return {}
    wanted = ("Acquire::http::Proxy ", "Acquire::https::Proxy ")
    lines = [line for line in _run("apt-config", "dump").splitlines() if line.startswith(wanted)]
    if lines and authorities:
        lines.append(f'Acquire::https::CAInfo "{_AUTHORITIES}";')
    return {"/etc/apt/apt.conf.d/99registries": ("\n".join(lines) + "\n").encode()} if lines else {}


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout
