"""Networks for tests/bench/run: starts, throughput, names, and an ordinary user's forwarder.

As root everything happens in a network namespace of the bench's own, which plays a host with a way out that leads nowhere.
"""
import ctypes
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
PORT = 5201


def own_host():
    """Leave the machine's network: bridges, rules and ports of the bench are nobody else's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise SystemExit(f"bench: unshare the network: {os.strerror(ctypes.get_errno())}")
    for line in ("link set lo up", "link add out0 type bridge", "addr add 192.0.2.2/24 dev out0", "link set out0 up",
                 "route add default via 192.0.2.1"):
        subprocess.run(["ip", *line.split()], check=True)


def tool(bench):
    """The traffic program, and the option that shows it to a container."""
    path = bench.scratch / "net"
    if not path.exists():
        subprocess.run(["gcc", "-O2", "-static", "-o", path, Path(__file__).with_name("net.c")], check=True)
        path.chmod(0o755)
    return path


class Container:
    """A running container of an engine, with the traffic program in it."""

    def __init__(self, bench, engine, name, *options, words=("sleep", "100000")):
        self.bench, self.engine, self.name = bench, engine, name
        volume = ["-v", f"{tool(bench)}:/net:ro"]
        bench.must(*engine, "run", "-d", "--name", name, *volume, *options, bench.image, *words)

    def exec(self, *words):
        return self.bench.must(*self.engine, "exec", self.name, *words).strip()

    def behind(self, *words):
        self.bench.must(*self.engine, "exec", "-d", self.name, *words)

    def address(self):
        text = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return self.bench.must(*self.engine, "inspect", self.name, "--format", text).split()[0]

    def pid(self):
        return int(self.bench.must(*self.engine, "inspect", self.name, "--format", "{{.State.Pid}}"))

    def remove(self):
        subprocess.run([str(word) for word in [*self.engine, "rm", "-f", "-t", "0", self.name]], env=self.bench.environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def starts(bench):
    """`run --rm` with a network beside `--network none`, and with other containers and ports around."""
    run = lambda engine, *options: [*engine, "run", "--rm", *options, bench.image, "/bin/true"]
    contenders = {"coracle, none": run(bench.coracle, "--network", "none"), "coracle": run(bench.coracle),
                  "coracle, a port": run(bench.coracle, "-p", "18080:80")}
    if bench.has_podman:
        # podman has no cgroup here that it likes: the same word as for its other runs.
        contenders["podman"] = run(bench.podman)
    for name, argv in list(contenders.items()):
        if bench.first_that_works(name, [argv]) is None:
            del contenders[name]
    bench.report("run --rm, default network", bench.interleave(contenders), "coracle, none")
    if bench.rootless:
        return
    results, names = {}, []
    for count in (0, 100, 500):
        while len(names) < count:
            names.append(f"idle{len(names)}")
            bench.must(*bench.coracle, "run", "-d", "--name", names[-1], bench.image, "sleep", "100000")
        results[f"{count} running"] = alone(bench, contenders["coracle"])
    bench.must(*bench.coracle, "run", "-d", "--name", "ports", "-p", "20000-20999:20000-20999", bench.image, "sleep", "100000")
    results["500 running, 1000 ports"] = alone(bench, contenders["coracle"])
    results["the same, one more port"] = alone(bench, contenders["coracle, a port"])
    bench.report("run --rm beside others", results, "0 running")
    bench.must(*bench.coracle, "rm", "-f", "-t", "0", *names, "ports")


def alone(bench, argv):
    """One contender's times."""
    return bench.interleave({"it": argv})["it"]


def flood(bench, within, target, port, seconds=2):
    """Gbit/s from a namespace (of that process; None: ours) to a sink."""
    prefix = [] if within is None else ["nsenter", f"--net=/proc/{within}/ns/net"]
    return float(bench.must("timeout", "30", *prefix, tool(bench), "flood", target, port, seconds))


def by_hand(bench):
    """Two namespaces on a bridge and a port by DNAT, made with ip and nft: what the kernel can do. Pids and addresses."""
    holders = []
    lines = ["link add hand0 type bridge", "addr add 10.250.0.1/24 dev hand0", "link set hand0 up"]
    for number in (2, 3):
        holder = subprocess.Popen(["unshare", "-n", "sleep", "100000"])
        time.sleep(0.2)
        holders.append(holder)
        lines += [f"link add hand{number} type veth peer name eth0 netns {holder.pid}", f"link set hand{number} master hand0 up"]
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)
    for number, holder in zip((2, 3), holders):
        for line in ("link set lo up", f"addr add 10.250.0.{number}/24 dev eth0", "link set eth0 up", "route add default via 10.250.0.1"):
            subprocess.run(["nsenter", f"--net=/proc/{holder.pid}/ns/net", "ip", *line.split()], check=True)
    rules = "table ip hand { chain out { type nat hook output priority -100; fib daddr type local tcp dport 5301 dnat to 10.250.0.2:5201; }; }"
    subprocess.run(["nft", rules], check=True)
    return holders


def throughput(bench):
    if bench.rootless:
        return
    first = Container(bench, bench.coracle, "one", "-p", f"{PORT}:{PORT}")
    second = Container(bench, bench.coracle, "two")
    hand = by_hand(bench)
    servers = []
    try:
        for pid in (first.pid(), hand[0].pid):
            servers.append(subprocess.Popen(["nsenter", f"--net=/proc/{pid}/ns/net", tool(bench), "sink", str(PORT)]))
        results = {}
        for _ in range(5):
            for name, within, target, port in (
                    ("host to container, by hand", None, "192.0.2.2", 5301), ("host to container, coracle", None, "192.0.2.2", PORT),
                    ("container to container, by hand", hand[1].pid, "10.250.0.2", PORT),
                    ("container to container, coracle", second.pid(), first.address(), PORT)):
                results.setdefault(name, []).append(flood(bench, within, target, port))
        print("\nthroughput, Gbit/s, medians of 5")
        for name, found in results.items():
            print(f"  {name:34} {statistics.median(found):8.2f}")
        for pair in ("host to container", "container to container"):
            floor, own = (statistics.median(results[f"{pair}, {who}"]) for who in ("by hand", "coracle"))
            print(f"  {pair}: {own / floor:.3f} of what is made by hand")
    finally:
        for process in [*servers, *hand]:
            process.kill()
            process.wait()
        first.remove()
        second.remove()


def bench_network(bench):
    starts(bench)
    throughput(bench)


def supervisor_of(container):
    """The parent of a container's first process."""
    text = Path(f"/proc/{container.pid()}/status").read_text()
    return int(re.search(r"PPid:\s*(\d+)", text).group(1))


def memory_kb(pid):
    return int(re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))


def bench_dns(bench):
    """Answers a second for a local name, from one container."""
    network = [*bench.coracle, "network"]
    bench.must(*network, "create", "names")
    web = Container(bench, bench.coracle, "web", "--network", "names")
    asker = Container(bench, bench.coracle, "asker", "--network", "names")
    try:
        pid = supervisor_of(asker)
        asker.exec("/net", "dns", "127.0.0.11", "web", "1")
        before = memory_kb(pid)
        found = [float(asker.exec("/net", "dns", "127.0.0.11", "web", "2")) for _ in range(5)]
        print(f"\nnames: {statistics.median(found):.0f} answers/s; supervisor {before} KB, after {sum(found) * 2:.0f} more {memory_kb(pid)} KB")
    finally:
        web.remove()
        asker.remove()
        bench.must(*network, "rm", "names")


def forwarder():
    """Our forwarder's pid."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"coracle: [forward]") and process.stat().st_uid == os.getuid():
                return int(process.name)
        except OSError:
            continue
    return None


def peers(bench):
    """Throughput of pasta and slirp4netns by themselves, in and out, as podman would use them."""
    results = {}
    sink = subprocess.Popen([tool(bench), "sink", "5401"])
    try:
        if shutil.which("pasta"):
            words = ["timeout", "-k", "1", "25", "pasta", "--foreground", "--config-net", "-t", "5402:5402", "-u", "none", "-T", "none", "-U", "none", "--"]
            inner = f"{tool(bench)} sink 5402 & {tool(bench)} flood 192.0.2.2 5401 2; sleep 8"
            results["pasta"] = both_ways(bench, [*words, "sh", "-c", inner], 5402)
        if shutil.which("slirp4netns"):
            inner = f"echo $$; while ! ip addr show tap0 >/dev/null 2>&1; do sleep 0.1; done; {tool(bench)} sink 5403 & {tool(bench)} flood 192.0.2.2 5401 2; sleep 8"
            results["slirp4netns"] = slirp(bench, inner)
    finally:
        sink.kill()
        sink.wait()
    return results


def number_from(process):
    """The next line of a process as a number; none within some seconds: not a number."""
    ready, _, _ = select.select([process.stdout], [], [], 15)
    line = process.stdout.readline().strip() if ready else b""
    return float(line) if line else float("nan")


def both_ways(bench, argv, port):
    process = subprocess.Popen([str(word) for word in argv], env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, bufsize=0, start_new_session=True)
    try:
        out = number_from(process)
        time.sleep(0.3)
        return out, flood(bench, None, "127.0.0.1", port)
    except (SystemExit, ValueError):
        return float("nan"), float("nan")
    finally:
        # pasta leaves its command to itself when it is killed.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def slirp(bench, inner):
    holder = subprocess.Popen(["unshare", "-Urn", "sh", "-c", inner], env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              bufsize=0)
    pid = int(number_from(holder))
    socket = bench.scratch / "slirp.sock"
    process = subprocess.Popen(["slirp4netns", "--configure", "--mtu=65520", "--api-socket", str(socket), str(pid), "tap0"],
                               env=bench.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        out = number_from(holder)
        request = '{"execute": "add_hostfwd", "arguments": {"proto": "tcp", "host_addr": "127.0.0.1", "host_port": 5403, "guest_port": 5403}}'
        import socket as sockets
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.connect(str(socket))
            connection.sendall(request.encode())
            connection.shutdown(sockets.SHUT_WR)
            connection.recv(1000)
        return out, flood(bench, None, "127.0.0.1", 5403)
    except (OSError, SystemExit, ValueError):
        return float("nan"), float("nan")
    finally:
        for one in (process, holder):
            one.kill()
            one.wait()


def bench_forward(bench):
    """An ordinary user's forwarder: throughput, round trips, and what idle connections cost."""
    if not bench.rootless:
        print("\nforward: as an ordinary user only (--who user)")
        return
    container = Container(bench, bench.coracle, "fwd", "-p", "5501:5501", "-p", "5502:5502")
    container.behind("/net", "sink", "5501")
    container.behind("/net", "echo", "5502")
    sink = subprocess.Popen([tool(bench), "sink", "5504"])
    try:
        into = [flood(bench, None, "127.0.0.1", 5501) for _ in range(3)]
        out = [float(container.exec("/net", "flood", "192.0.2.2", "5504", "2")) for _ in range(3)]
        print("\nforwarding, Gbit/s")
        print(f"  {'coracle':14} out {statistics.median(out):7.2f}   in {statistics.median(into):7.2f}")
        for name, (away, back) in peers(bench).items():
            works = away == away
            print(f"  {name:14} out {away:7.2f}   in {back:7.2f}" if works else f"  {name:14} does not run here")
        trips = [float(bench.must(tool(bench), "rtt", "127.0.0.1", "5502", "2000")) for _ in range(3)]
        inside = [float(container.exec("/net", "rtt", "127.0.0.1", "5502", "2000")) for _ in range(3)]
        print(f"round trip by a published port: {statistics.median(trips):.1f} us; within the container {statistics.median(inside):.1f} us")
        pid = forwarder()
        before = memory_kb(pid)
        idle = subprocess.Popen([tool(bench), "idle", "127.0.0.1", "5502", "1000"], stdout=subprocess.PIPE)
        idle.stdout.readline()
        time.sleep(3)
        print(f"forwarder with 1000 idle connections: {memory_kb(pid)} KB resident (with none {before} KB)")
        idle.kill()
        idle.wait()
    finally:
        sink.kill()
        sink.wait()
        container.remove()


WHAT = {"network": bench_network, "dns": bench_dns, "forward": bench_forward}
