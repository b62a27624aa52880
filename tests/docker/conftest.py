"""Fixtures: an engine, the images of this working tree, and the federation they make."""

from __future__ import annotations

import contextlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from base import base as find_base
from docker.errors import BuildError, NotFound
from engine import Engine
from engine import engine as lend_engine
from federation import PROJECT, ROOT, Federation
from rucio_trace_sandbox.workspace import workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.models.images import Image

IMAGES = {
    "rucio-trace": "tracetool",
    "rucio-trace-daemons": "daemons",
    "rucio-trace-rucio": "rucio",
    "rucio-trace-fts-standin": "fts-standin",
    "rucio-trace-postgres": "postgres",
    "rucio-trace-xrootd": "xrootd",
    "rucio-trace-activemq": "activemq",
}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine."""
    with lend_engine() as found:
        yield found


@pytest.fixture(scope="session")
def base(engine: Engine) -> Iterator[str]:
    """The image the others are built on."""
    with workspace(Path("/var/tmp")) as folder:
        yield find_base(engine, folder)


@pytest.fixture(scope="session")
def images(engine: Engine, base: str) -> dict[str, Image]:
    """Every image, by name.

    What shares layers is built in turn, so that each layer is made once: of two that were made side by side, a later
    build looks at one only, and not at what stands on the other.
    """

    def build(name: str) -> Image:
        options = {"dockerfile": f"docker/{IMAGES[name]}.Dockerfile", "buildargs": {"BASE": base}}
        try:
            image, _ = engine.client.images.build(
                path=str(ROOT), tag=name, rm=True, forcerm=True, network_mode=engine.build_network, **options
            )
        except BuildError as error:
            said = "".join(str(line.get("stream") or line.get("error") or "") for line in error.build_log)
            raise AssertionError(f"{IMAGES[name]}.Dockerfile: {error.msg}\n{said[-4000:]}") from error
        return image

    tool, daemons, rucio, *others = IMAGES
    built = {name: build(name) for name in (tool, daemons, rucio)}
    with ThreadPoolExecutor(2) as pool:
        built |= zip(others, pool.map(build, others), strict=True)
    return built


@pytest.fixture(scope="session")
def federation(engine: Engine, base: str, images: dict[str, Image]) -> Iterator[Federation]:
    """The federation of `docker/compose.yaml`, up; removed with all it holds afterwards."""
    if shutil.which("docker-compose") is None:
        raise RuntimeError("docker-compose is missing; Debian: docker-compose")
    compose = {"COMPOSE_FILE": str(ROOT / "docker/compose.yaml"), "COMPOSE_PROJECT_NAME": PROJECT, "BASE": base}
    with workspace() as products:
        environment = {**engine.environment, **compose, "PRODUCTS": str(products), "DOCKER_BUILDKIT": "0"}
        found = Federation(engine, environment, products)
        try:
            found.shell("docker-compose up --detach --no-build")
            yield found
        finally:
            found.shell("docker-compose down --volumes --timeout 5")


@pytest.fixture(scope="session", autouse=True)
def _tidy(engine: Engine) -> Iterator[None]:
    """Take away images that were not there before."""
    before = {tag for image in engine.client.images.list() for tag in image.tags}
    yield
    if engine.private:
        return  # they go with its folder
    for name in [*IMAGES, "rucio-trace-test-base"]:
        if f"{name}:latest" not in before:
            with contextlib.suppress(NotFound):
                engine.client.images.remove(f"{name}:latest", noprune=True)
