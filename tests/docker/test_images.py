"""The images by themselves: small, nobody's root, content with a file system that cannot be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from docker.errors import ContainerError
from rucio_trace_sandbox.pki import SandboxAuthority
from rucio_trace_sandbox.workspace import workspace

from rucio_trace.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from docker.models.images import Image
    from engine import Engine

TOOL_BYTES = 150 * 10**6
NOTHING = {"read_only": True, "network_mode": "none", "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}


@pytest.fixture(scope="module")
def products() -> Iterator[Path]:
    """A folder with a product, its trace, and the federation file that believes its producer."""
    with workspace() as folder:
        authority = SandboxAuthority(folder / "trust")
        member = authority.admit("PRODUCER", create=["eo"], outside=True)
        product = folder / "product.bin"
        product.write_bytes(bytes(range(256)) * 1000)
        signed = folder / "product.trace.json"
        argv = ["sign", str(product), "--key", str(member.key), "--cert", str(member.certificate)]
        ended = CliRunner().invoke(cli, argv)
        assert ended.exit_code == 0, ended.output
        signed.write_text(ended.stdout)
        yield folder


def run(engine: Engine, folder: Path, *argv: str, **options: Any) -> tuple[int, str]:
    """Run the tool on what *folder* holds, with nothing but that."""
    volumes = {str(folder): {"bind": "/data", "mode": "ro"}}
    container = engine.client.containers.create("rucio-trace", list(argv), volumes=volumes, **NOTHING, **options)
    try:
        container.start()
        status = container.wait(timeout=60)["StatusCode"]
        return status, container.logs().decode()
    finally:
        container.remove(force=True)


def verify(engine: Engine, folder: Path) -> tuple[int, str]:
    options = ["--trace", "product.trace.json", "--federation", "trust/federation.toml"]
    return run(engine, folder, "verify", "product.bin", *options)


def test_the_tool_alone_tells_genuine_from_tampered(engine: Engine, images: dict[str, Image], products: Path) -> None:
    status, said = verify(engine, products)
    assert (status, "GENUINE" in said) == (0, True), said
    product = products / "product.bin"
    content = product.read_bytes()
    product.write_bytes(content[:77] + b"!" + content[78:])
    status, said = verify(engine, products)
    assert (status, "TAMPERED" in said) == (1, True), said


def test_the_tool_knows_every_command_of_producers_and_consumers(
    engine: Engine, images: dict[str, Image], products: Path
) -> None:
    for command in ("upload", "download", "sign", "hash", "history", "search", "import", "export", "lineage", "check"):
        status, said = run(engine, products, command, "--help", tmpfs={"/tmp": ""})
        assert (status, "Example:" in said) == (0, True), said


def test_the_tool_is_small(engine: Engine, images: dict[str, Image], base: str) -> None:
    below = engine.client.images.get(base).attrs["Size"]
    sizes = {name: image.attrs["Size"] - below for name, image in images.items()}
    for name, size in sizes.items():
        print(f"{name}: {size / 10**6:.0f} MB over its base")
    assert sizes["rucio-trace"] <= TOOL_BYTES


def test_no_image_runs_as_root_or_is_without_a_health_check(images: dict[str, Image]) -> None:
    for name, image in images.items():
        assert image.attrs["Config"]["User"] == "10001:10001", name
        assert name == "rucio-trace" or image.attrs["Config"].get("Healthcheck"), name


def test_no_image_holds_a_secret_or_the_builders_tools(engine: Engine, images: dict[str, Image]) -> None:
    for name in images:
        script = (
            "command -v gcc pip; find / -xdev -name '*.key*' -size +0 -o -xdev -name 'ssl-cert-snakeoil.key' | head"
        )
        everywhere = {**NOTHING, "user": "0", "cap_add": ["DAC_READ_SEARCH"]}
        found = engine.client.containers.run(
            name, ["-c", f"({script}) 2>/dev/null; true"], entrypoint="sh", remove=True, **everywhere
        )
        assert found.decode() == "", name


def test_images_say_what_is_wrong_where_they_lack_their_configuration(engine: Engine, images: dict[str, Image]) -> None:
    with pytest.raises(ContainerError) as refused:
        engine.client.containers.run("rucio-trace-daemons", [], remove=True, tmpfs={"/tmp": ""}, **NOTHING)
    assert b"rucio.cfg" in refused.value.stderr
    assert b"Traceback" not in refused.value.stderr
