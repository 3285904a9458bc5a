"""The image the figures of registries and archives are taken with, made the same way each time.

Three layers, about 197 MB unpacked and 66 MB as gzip: larger files as of a distribution, 20,000 small ones, and a third
layer with a few large ones, whiteouts and an opaque directory. Text like a dictionary's with random bytes between, so that
it compresses three to one as programs and their documents do.

    tests/bench/sample.py DIRECTORY [--compression gzip|zstd|none]     write it as an OCI layout tagged `sample`
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
from pathlib import Path

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Text:
    """Compressible bytes without an end."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        words = ["".join(self.random.choices("etaoinshrdlucmfw", k=self.random.randint(2, 11))) for _ in range(2000)]
        weights = [1 / (rank + 1) for rank in range(len(words))]
        self.pool = " ".join(self.random.choices(words, weights, k=2_600_000)).encode()

    def take(self, size):
        parts, left = [], size
        while left > 0:
            length = min(left, 6000)
            start = self.random.randrange(len(self.pool) - length)
            noise = length // 40
            parts += [self.random.randbytes(noise), self.pool[start:start + length - noise]]
            left -= length
        return b"".join(parts)


def layer(entries):
    """A plain tar of (name, type, content or link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mtime = kind, 1_700_000_000
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o777 if kind == tarfile.SYMTYPE else 0o644
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content or ""
                tar.addfile(info)
    return out.getvalue()


def layers():
    text = Text(1)
    chance = text.random

    def base():
        yield from ((name, tarfile.DIRTYPE, None) for name in ("bin", "etc", "usr", "usr/lib", "usr/bin", "gone", "hidden"))
        yield "gone/file", tarfile.REGTYPE, b"x"
        yield "hidden/file", tarfile.REGTYPE, b"x"
        for number in range(1500):
            yield f"usr/lib/lib{number}.so.1.0", tarfile.REGTYPE, text.take(chance.randrange(4000, 116_000))
            yield f"usr/lib/lib{number}.so.1", tarfile.SYMTYPE, f"lib{number}.so.1.0"

    def small():
        yield from ((f"usr/share{end}", tarfile.DIRTYPE, None) for end in ("", "/doc"))
        for number in range(20_000):
            if number % 20 == 0:
                yield f"usr/share/doc/package{number // 20}", tarfile.DIRTYPE, None
            yield f"usr/share/doc/package{number // 20}/file{number}", tarfile.REGTYPE, text.take(chance.randrange(100, 6500))

    def large():
        yield "opt", tarfile.DIRTYPE, None
        yield ".wh.gone", tarfile.REGTYPE, b""
        yield "hidden", tarfile.DIRTYPE, None
        yield "hidden/.wh..wh..opq", tarfile.REGTYPE, b""
        for number in range(5):
            yield f"opt/data{number}", tarfile.REGTYPE, text.take(8_000_000)

    return [layer(base()), layer(small()), layer(large())]


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def compressed(plain, how):
    if how == "gzip":
        return gzip.compress(plain, 6, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-3", "-q", "-c"], input=plain, stdout=subprocess.PIPE, check=True).stdout
    return plain


class Layout:
    """An OCI layout being written."""

    def __init__(self, path):
        self.path = Path(path)
        self.blobs = self.path / "blobs/sha256"
        self.blobs.mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.manifests = []

    def blob(self, content, media_type):
        name = digest(content)
        (self.blobs / name[7:]).write_bytes(content)
        return {"mediaType": media_type, "digest": name, "size": len(content)}

    def image(self, tag, blobs, diff_ids, extra=None):
        """An image of (content, how it is compressed) layers."""
        config = {"architecture": MACHINE.get(os.uname().machine, os.uname().machine), "os": "linux", "config": extra or {},
                  "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        end = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(content, LAYER + end[how]) for content, how in blobs],
        }
        entry = self.blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
        self.manifests.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})

    def close(self):
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": self.manifests}
        (self.path / "index.json").write_text(json.dumps(index))


def write(path, plain, how):
    """The sample as an OCI layout."""
    layout = Layout(path)
    layout.image("sample", [(compressed(content, how), how) for content in plain], [digest(content) for content in plain])
    layout.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--compression", choices=["gzip", "zstd", "none"], default="gzip")
    options = parser.parse_args()
    write(options.directory, layers(), options.compression)
