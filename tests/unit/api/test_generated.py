"""The generated code is what the proto files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.mark.process
def test_generated_code_is_what_the_proto_files_say(tmp_path: Path) -> None:
    """`make api` would change nothing."""
    sources = sorted((ROOT / "proto/skep/v1").glob("*.proto"))
    assert sources
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            "--proto_path=skep/api=proto/skep/v1",
            *(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"),
            *(str(source.relative_to(ROOT)) for source in sources),
        ],
        cwd=ROOT,
        check=True,
        timeout=60.0,
    )
    made = {path.name: path.read_text() for path in (tmp_path / "skep" / "api").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "skep" / "api").glob("*_pb2*.py*")}
    assert sorted(kept) == sorted(made)
    assert kept == made
