"""Makes `generated/` from the contracts in this folder: `python protos/generate.py [--check | --lint]`.

Without a flag it writes `generated/`. `--check` makes the same in a temporary folder and compares byte for byte;
`--lint` checks style and format of the contracts with buf. Exit code 0 when all is well, 1 when something differs, was
found or cannot be parsed.

Nothing is fetched: google's protos come with googleapis-common-protos, and `buf/validate/validate.proto`, which no
wheel carries as text, is taken from the descriptor inside protovalidate. That is also why buf lints an image here and
not the sources.
"""  # noqa: INP001 - a script beside its sources, not a package

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import grpc_tools
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.rpc import error_details_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GENERATED = ROOT / "generated"
VALIDATE = "buf/validate/validate.proto"
#: From outside, REST lies below this: `/api/v1/jobs` for `/v1/jobs`.
HTTP_PREFIX = "/api"
PACKAGE_TEXT = '"""Made by `make generate`."""\n'


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the flags say; the exit code is the answer."""
    parser = argparse.ArgumentParser(description="Makes generated/ from the contracts in protos/.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="compare with generated/ and change nothing")
    mode.add_argument("--lint", action="store_true", help="check style and format of the contracts with buf")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="whispr-generate-") as folder:
        scratch = Path(folder)
        try:
            if options.lint:
                return lint(scratch)
            fresh = scratch / "generated"
            generate(fresh, scratch)
        except ProtocError as error:
            _say(str(error))
            return 1
        if options.check:
            return check(fresh)
        _replace(fresh)
    _say(f"generated/ holds {len(_files(GENERATED))} files")
    return 0


class ProtocError(Exception):
    """protoc refused; it has said why on standard error."""


def generate(target: Path, scratch: Path) -> None:
    """Writes everything that belongs into `generated/` under `target`, the same bytes for the same contracts.

    Raises ProtocError when a contract cannot be parsed.
    """
    sources = _sources()
    target.mkdir()
    descriptors = target / "whispr" / "descriptors.binpb"
    descriptors.parent.mkdir()
    _protoc(scratch, sources, "--include_imports", f"--descriptor_set_out={descriptors}")
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes()).file
    (target / "whispr" / "transcoder.binpb").write_bytes(transcoder_descriptors(descriptors.read_bytes()))
    services = [file.name for file in files if file.service and file.name in sources]
    _protoc(scratch, [*sources, VALIDATE], f"--python_out={target}", f"--pyi_out={target}")
    _protoc(scratch, services, f"--grpc_python_out={target}")
    for folder in sorted(path for path in target.rglob("*") if path.is_dir()):
        (folder / "__init__.py").write_text(PACKAGE_TEXT, encoding="utf-8")


def transcoder_descriptors(descriptors: bytes) -> bytes:
    """The descriptors with each HTTP path of an annotation below HTTP_PREFIX, for the transcoder in the mesh.

    The details of errors are among them: an error whose details the transcoder does not know has an empty body.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors)
    if error_details_pb2.DESCRIPTOR.name not in [file.name for file in files.file]:
        files.file.add().ParseFromString(error_details_pb2.DESCRIPTOR.serialized_pb)
    for file in files.file:
        for service in file.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    rule = method.options.Extensions[annotations_pb2.http]
                    for each in (rule, *rule.additional_bindings):
                        kind = each.WhichOneof("pattern")
                        setattr(each, kind, HTTP_PREFIX + getattr(each, kind))
    return files.SerializeToString(deterministic=True)


def check(fresh: Path) -> int:
    """Compares `fresh` with `generated/`, names every file that differs and answers 1 if one does."""
    ours, theirs = _files(GENERATED), _files(fresh)
    problems = [f"missing: generated/{name}" for name in sorted(theirs - ours)]
    problems += [f"not made from the contracts: generated/{name}" for name in sorted(ours - theirs)]
    problems += [
        f"differs: generated/{name}"
        for name in sorted(ours & theirs)
        if (GENERATED / name).read_bytes() != (fresh / name).read_bytes()
    ]
    for problem in problems:
        _say(problem)
    if problems:
        _say("run `make generate`")
    return 1 if problems else 0


def lint(scratch: Path) -> int:
    """Runs `buf lint` and `buf format` over the contracts and answers 1 if either finds something.

    Raises ProtocError when a contract cannot be parsed.
    """
    image = scratch / "image.binpb"
    _protoc(scratch, _sources(), "--include_imports", "--include_source_info", f"--descriptor_set_out={image}")
    style = _buf("lint", str(image), "--config", "buf.yaml", "--path", "whispr")
    layout = _buf("format", ".", "--path", "protos", "--diff", "--exit-code")
    return 1 if style or layout else 0


def _sources() -> list[str]:
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))


def _protoc(scratch: Path, sources: Iterable[str], *options: str) -> None:
    validate = scratch / "validate.binpb"
    if not validate.exists():
        validate.write_bytes(_validate_descriptors())
    includes = (PROTOS, Path(grpc_tools.__file__).parent / "_proto", Path(sysconfig.get_path("purelib")))
    paths = [f"--proto_path={include}" for include in includes]
    if protoc.main(["protoc", *paths, f"--descriptor_set_in={validate}", *options, *sources]) != 0:
        raise ProtocError("protoc could not read the contracts")


def _validate_descriptors() -> bytes:
    # The wheel's own module is private, but it is the only place that the rules' definition comes from.
    from protovalidate._gen.buf.validate.validate_pb import FieldRules  # noqa: PLC0415 - dear, and only needed here

    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        files.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    files.file.add().ParseFromString(FieldRules.desc().file.proto.to_binary())
    return files.SerializeToString(deterministic=True)


def _buf(*arguments: str) -> int:
    program = Path(sysconfig.get_path("scripts")) / "buf"
    return subprocess.run([str(program), *arguments], cwd=ROOT, check=False).returncode  # noqa: S603 - our own words


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _replace(fresh: Path) -> None:
    # Unchanged files are left alone, so that whoever is importing them just now finds them whole.
    for name in _files(GENERATED) - _files(fresh):
        (GENERATED / name).unlink()
    for name in sorted(_files(fresh)):
        old, new = GENERATED / name, fresh / name
        if not old.exists() or old.read_bytes() != new.read_bytes():
            old.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(new, old)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
