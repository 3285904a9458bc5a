"""The figures of images: pull, load, save, push, commit, and listing, beside podman and docker.

A registry (docker-registry) on loopback, the sample image of sample.py in gzip and in zstd. Each round every contender
starts without the image; what restores that stands outside the clock. Beside each time stand the processor's seconds of the
command itself, which a busy machine stretches less.
"""
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path

import sample


class Registry:
    """docker-registry on a free port of loopback."""

    def __init__(self, bench):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = bench.scratch / "registry.yml"
        config.write_text(json.dumps({
            "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(bench.scratch / "registry")}, "delete": {"enabled": True}},
            "http": {"addr": self.address}}))
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, env=bench.environment)
        wait_for(lambda: self.ask("GET", "/v2/"))

    def ask(self, method, path, data=None, media_type="application/octet-stream"):
        url = path if path.startswith("http") else f"http://{self.address}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": media_type})
        return urllib.request.urlopen(request)

    def put(self, layout, repository):
        """The first image of an OCI layout, as `latest`."""
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        read = lambda digest: (layout / "blobs/sha256" / digest[7:]).read_bytes()
        manifest = read(entry["digest"])
        parsed = json.loads(manifest)
        for blob in [parsed["config"], *parsed["layers"]]:
            place = self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"").headers["Location"]
            self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={blob['digest']}", read(blob["digest"]))
        self.ask("PUT", f"/v2/{repository}/manifests/latest", manifest, entry["mediaType"])
        return f"{self.address}/{repository}:latest"

    def close(self):
        self.process.kill()
        self.process.wait()


class Docker:
    """A dockerd of our own, where one can run: root's only."""

    def __init__(self, bench):
        self.engine, self.process = None, None
        if bench.rootless or not shutil.which("dockerd"):
            return
        place = bench.scratch / "docker"
        endpoint = f"unix://{place}/docker.sock"
        place.mkdir()
        words = ["dockerd", "--data-root", place / "data", "--exec-root", place / "exec", "--pidfile", place / "pid",
                 "-H", endpoint, "--bridge=none", "--iptables=false", "--ip6tables=false"]
        log = (place / "log").open("w")
        self.process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, env=bench.environment)
        engine = ["docker", "-H", endpoint]
        try:
            wait_for(lambda: subprocess.run([*engine, "version"], env=bench.environment, capture_output=True, check=True))
            self.engine = engine
        except TimeoutError:
            print(f"  docker does not run here and is left out: {(place / 'log').read_text().strip()[-200:]}")

    def close(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


def wait_for(attempt, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except (OSError, subprocess.CalledProcessError) as error:
            if time.monotonic() > end:
                raise TimeoutError from error
            time.sleep(0.1)


class Images:
    """Registry, samples and engines; one for all modes of a run."""

    def __init__(self, bench):
        self.bench = bench
        print("  making the sample image", flush=True)
        plain = sample.layers()
        self.layouts, self.names = {}, {}
        self.registry = Registry(bench)
        self.docker = Docker(bench)
        for how in ("gzip", "zstd"):
            if how == "zstd" and not shutil.which("zstd"):
                continue
            self.layouts[how] = bench.scratch / f"sample-{how}"
            sample.write(self.layouts[how], plain, how)
            self.names[how] = self.registry.put(self.layouts[how], f"bench/{how}")
        self.tars = []
        for number, content in enumerate(plain):
            self.tars.append(bench.scratch / f"plain{number}.tar")
            self.tars[-1].write_bytes(content)
        self.archive = bench.scratch / "sample.tar"
        with tarfile.open(self.archive, "w") as tar:
            for path in sorted(self.layouts["gzip"].rglob("*")):
                tar.add(path, path.relative_to(self.layouts["gzip"]))
        self.engines = {"coracle": bench.coracle}
        if bench.has_podman:
            self.engines["podman"] = bench.podman
        if self.docker.engine:
            self.engines["docker"] = self.docker.engine

    def verb(self, name, verb):
        """podman must be told that the registry speaks plainly; docker takes loopback as such."""
        engine = self.engines[name]
        return [*engine, verb, "-q", *([] if name == "docker" else ["--tls-verify=false"])]

    def can_pull(self, engine, name):
        """Old engines know no zstd."""
        works = self.bench.first_that_works(f"{engine}, {name},", [[*self.verb(engine, "pull"), name]]) is not None
        if works:
            self.remove(self.engines[engine], name)()
        return works

    def remove(self, engine, name):
        return lambda: self.bench.must(*engine, "rmi", "-f", name)

    def close(self):
        self.docker.close()
        self.registry.close()


def images(bench):
    if not hasattr(bench, "images"):
        bench.images = Images(bench)
        bench.closers.append(bench.images.close)
    return bench.images


def unpacking(bench, tars):
    """`tar -x` of the plain layers, one after the other into one directory."""
    target = bench.scratch / "unpacked"
    commands = " && ".join(f"tar -xf {tar} -C {target}" for tar in tars)

    def make(_):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return ["sh", "-c", commands], lambda: shutil.rmtree(target)
    return make


def hashing(layout, how):
    """Inflating and hashing the compressed layers, and hashing them as they are: all at once, as the cores allow."""
    program = {"gzip": "gzip -dc", "zstd": "zstd -dcq"}[how]
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"][7:]
    blobs = [layout / "blobs/sha256" / entry["digest"][7:]
             for entry in json.loads((layout / "blobs/sha256" / manifest).read_text())["layers"]]
    return ["sh", "-c", "".join(f"({program} {blob} | sha256sum) & sha256sum {blob} & " for blob in blobs) + "wait"]


def peak_memory(bench, argv):
    """The most memory of a command, in MB: its high-water mark as seen last before it ends."""
    process = subprocess.Popen([str(word) for word in argv], env=bench.environment, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        # Before its exec the child is a copy of this program.
        if "VmHWM:" in status and not status.startswith("Name:\tpython"):
            peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
        time.sleep(0.002)
    if process.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, argv))}: status {process.returncode}")
    return peak / 1024


def bench_pull(bench):
    have = images(bench)
    for how, name in have.names.items():
        contenders = {"tar -x": unpacking(bench, have.tars), "inflate+hash": hashing(have.layouts[how], how)}
        able = {engine: words for engine, words in have.engines.items() if have.can_pull(engine, name)}
        for engine, words in able.items():
            argv = [*have.verb(engine, "pull"), name]
            contenders[engine] = lambda _, argv=argv, words=words: (argv, have.remove(words, name))
        bench.report(f"pull, {how}", bench.interleave(contenders), "tar -x")
        for engine, words in able.items():
            if engine != "docker":
                peak = peak_memory(bench, [*have.verb(engine, "pull"), name])
                print(f"  {engine:10} peak memory {peak:6.1f} MB")
                have.remove(words, name)()
    contenders = {"fork+exec": [bench.true]}
    contenders |= {engine: [*have.verb(engine, "pull"), have.names["gzip"]] for engine in have.engines}
    for engine in have.engines:
        bench.must(*contenders[engine])
    bench.report("pull of what is there", bench.interleave(contenders), "fork+exec")
    contenders = {}
    for engine, words in have.engines.items():
        def make(_, engine=engine, words=words):
            bench.must(*have.verb(engine, "pull"), have.names["gzip"])
            return [*words, "rmi", "-f", have.names["gzip"]], None
        contenders[engine] = make
    bench.report("rmi", bench.interleave(contenders), "coracle")
    huge(bench, have)


def huge(bench, have):
    """One layer of 2 GB: memory must not grow with it."""
    content = bytes(1 << 20) + os.urandom(1 << 20)
    path = bench.scratch / "huge.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(2):
            info = tarfile.TarInfo(f"huge{number}")
            info.size = 1 << 30
            tar.addfile(info, Repeated(content))
    plain = "sha256:" + subprocess.run(["sha256sum", path], capture_output=True, check=True).stdout.decode().split()[0]
    packed = bench.scratch / "huge.tar.zst"
    with packed.open("wb") as target:
        subprocess.run(["zstd", "-1", "-q", "-c", path], stdout=target, check=True)
    path.unlink()
    layout = sample.Layout(bench.scratch / "sample-huge")
    layout.image("sample", [(packed.read_bytes(), "zstd")], [plain])
    layout.close()
    name = have.registry.put(layout.path, "bench/huge")
    for engine, words in have.engines.items():
        if engine != "docker":
            peak = peak_memory(bench, [*have.verb(engine, "pull"), name])
            print(f"  {engine:10} peak memory {peak:6.1f} MB for a layer of 2 GB")
            bench.must(*words, "rmi", "-f", name)


class Repeated(io.RawIOBase):
    """The same bytes again and again."""

    def __init__(self, content):
        self.content, self.at = content, 0

    def read(self, size=-1):
        part = self.content[self.at:self.at + size]
        self.at = (self.at + len(part)) % len(self.content)
        return part


def bench_load(bench):
    have = images(bench)
    contenders = {"tar -x": unpacking(bench, have.tars)}
    for engine, words in have.engines.items():
        if engine == "docker":
            continue

        def make(_, words=words):
            return [*words, "load", "-q", "-i", have.archive], lambda: bench.must(*words, "rmi", "-f", "localhost/sample:latest")
        contenders[engine] = make
    bench.report("load of an OCI archive", bench.interleave(contenders), "tar -x")


def bench_save(bench):
    have = images(bench)
    name = have.names["gzip"]
    target = bench.scratch / "saved.tar"
    for form in ("docker-archive", "oci-archive"):
        contenders = {}
        for engine, words in have.engines.items():
            bench.must(*have.verb(engine, "pull"), name)
            if engine == "docker" and form != "docker-archive":
                continue
            words = [*words, "save", "-o", target, *([] if engine == "docker" else ["-q", "--format", form]), name]
            contenders[engine] = lambda _, words=words: (words, target.unlink)
        bench.report(f"save as {form}", bench.interleave(contenders), "coracle")


def bench_push(bench):
    have = images(bench)
    contenders = {}
    for engine, words in have.engines.items():
        bench.must(*have.verb(engine, "pull"), have.names["gzip"])

        def make(number, engine=engine, words=words):
            # A registry forgets nothing: each push needs blobs it has not seen, so it is emptied.
            shutil.rmtree(bench.scratch / "registry", ignore_errors=True)
            target = f"{have.registry.address}/pushed/{engine}:{number}"
            bench.must(*words, "tag", have.names["gzip"], target)
            return [*have.verb(engine, "push"), target], have.remove(words, target)
        contenders[engine] = make
    bench.report("push", bench.interleave(contenders), "coracle")
    for how, layout in have.layouts.items():
        have.registry.put(layout, f"bench/{how}")


def bench_commit(bench):
    have = images(bench)
    name = "localhost/bench:latest"
    fill = "i=0; while [ $i -lt 200 ]; do mkdir /d$i; j=0; while [ $j -lt 100 ]; do echo $i $j >/d$i/$j; j=$((j+1)); done; i=$((i+1)); done"
    contenders = {}
    for engine, words in have.engines.items():
        if engine == "docker":
            bench.must(*words, "load", "-q", "-i", bench.scratch / "image.tar")
        bench.must(*words, "run", "--name", "changed", "--network", "none", name, "sh", "-c", fill)
        quiet = [] if engine == "docker" else ["-q"]

        def make(number, words=words, quiet=quiet):
            target = f"localhost/committed:{number}"
            return [*words, "commit", *quiet, "changed", target], have.remove(words, target)
        contenders[engine] = make
    bench.report("commit of 20,000 new files", bench.interleave(contenders), "coracle")
    for words in have.engines.values():
        bench.must(*words, "rm", "-f", "changed")


def small_images(path, count, base):
    """A docker-archive of images that share a base: one file each on top."""
    members, documents = {}, []
    for number in range(count):
        layers = [base, sample.layer([("number", tarfile.REGTYPE, str(number).encode())])]
        names = [hashlib.sha256(layer).hexdigest() for layer in layers]
        config = json.dumps({"architecture": sample.MACHINE.get(os.uname().machine, os.uname().machine), "os": "linux",
                             "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + name for name in names]}}).encode()
        name = hashlib.sha256(config).hexdigest() + ".json"
        members |= {f"{name}.tar": layer for name, layer in zip(names, layers)} | {name: config}
        documents.append({"Config": name, "RepoTags": [f"localhost/many:{number}"], "Layers": [f"{name}.tar" for name in names]})
    members["manifest.json"] = json.dumps(documents).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def allocated(bench, path):
    """Bytes on disk, as `du` counts."""
    return int(bench.must(*bench.coracle, "unshare", "du", "-s", "-B1", path).split()[0]) if bench.rootless else \
        int(bench.must("du", "-s", "-B1", path).split()[0])


def bench_images(bench):
    base = sample.layer([(f"file{number}", tarfile.REGTYPE, os.urandom(1000)) for number in range(5000)])
    archive = bench.scratch / "many.tar"
    data = bench.scratch / "share"
    engine = [bench.binary, "--root", data, "--runroot", bench.scratch / "share-run"]
    sizes = {}
    for count in (1, 10):
        small_images(archive, count, base)
        bench.must(*engine, "load", "-q", "-i", archive)
        sizes[count] = allocated(bench, data)
    each = (sizes[10] - sizes[1]) / 9
    print(f"\nten images that share a base: {sizes[10]} bytes on disk, {sizes[10] / sizes[1]:.4f} of one; {each:.0f} more for each")
    small_images(archive, 1000, sample.layer([("file", tarfile.REGTYPE, b"x")]))
    engines = {"coracle": bench.coracle}
    if bench.has_podman:
        engines["podman"] = bench.podman
    for words in engines.values():
        bench.must(*words, "load", "-q", "-i", archive)
    contenders = {"fork+exec": [bench.true]} | {name: [*words, "images"] for name, words in engines.items()}
    bench.report("images, with 1000 of them", bench.interleave(contenders), "fork+exec")
    (archive).unlink()


WHAT = {"pull": bench_pull, "load": bench_load, "save": bench_save, "push": bench_push, "commit": bench_commit,
        "images": bench_images}
