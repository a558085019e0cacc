"""Answers of one DNS process: how many a second, and how long one waits.

A thousand services in one network; one name is asked for over UDP on loopback, with one query or 16
always under way. Aims: 50,000 answers a second with 16, and 24 MB of memory. The peer is dnsmasq
with the same thousand names, where it is installed; it is written in C. The asker is a process of
its own, written in C too where there is a compiler: one in Python is slower than what it asks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from bench.report import Row, at_most, run
from tests.unit.netproxy.dns.support import (
    LOOPBACK,
    bound_pair,
    dns_process,
    eventually,
    query,
    record,
    scope,
    zone,
)

SERVICES = 1000
NAME = "s500"
ROUNDS = 3
WARM_UP = 2000
AIM_PER_S = 50_000.0
# What 50,000 answers a second leave for each: this holds on a busy machine too.
AIM_CPU_US = 20.0
AIM_RSS_MB = 24.0
ASKER = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
int main(int count, char **words) {
    int outstanding = atoi(words[2]), wanted = atoi(words[3]);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = {.tv_sec = 5};
    unsigned char question[512], answer[4096];
    size_t length = fread(question, 1, sizeof question, stdin);
    int asking = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(asking, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(asking, (void *)&to, sizeof to)) return 1;
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int n = 0; n < outstanding; n++) send(asking, question, length, 0);
    for (int n = 0; n < wanted; n++) {
        ssize_t size = recv(asking, answer, sizeof answer, 0);
        if (size < (ssize_t)length + 16 || answer[3] & 15) return 2;
        if (n + outstanding < wanted) send(asking, question, length, 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.6f\n", ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9);
    return 0;
}
"""


def main() -> None:
    """Measure and print."""
    run("dns", "answers of one DNS process", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """Skep and, where it is installed, dnsmasq: in turns, so that both see the same machine."""
    answers = 20_000 if is_quick else 100_000
    with tempfile.TemporaryDirectory() as folder, dns_process() as dns, _dnsmasq() as peer_port:
        asker = _asker(Path(folder))
        records = (record(f"s{n}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(SERVICES))
        dns.set_networks(zone("net", *records))
        port = dns.listen(scope("bench", "net"))
        for outstanding, count in ((1, answers // 4), (16, answers)):
            ours, peers = [], []
            before_s = _cpu_s(dns.process.pid)
            for _ in range(ROUNDS):
                ours.append(_rate(asker, port, outstanding, count))
                if peer_port is not None:
                    peers.append(_rate(asker, peer_port, outstanding, count))
            cpu_s = _cpu_s(dns.process.pid) - before_s
            yield from _rows(outstanding, statistics.median(ours), peers)
            cpu_us = 1e6 * cpu_s / (ROUNDS * (count + WARM_UP))
            name = f"CPU per answer, {outstanding} outstanding"
            is_busy = outstanding > 1
            yield at_most(name, "us", cpu_us, AIM_CPU_US) if is_busy else Row(name, "us", cpu_us)
        yield at_most("memory (RSS) after it", "MB", _rss_mb(dns.process.pid), AIM_RSS_MB)


def _rows(outstanding: int, per_s: float, peers: list[float]) -> Iterator[Row]:
    row = Row(f"answers, {outstanding} outstanding", "1/s", per_s)
    if outstanding > 1:
        row = replace(row, aim=f">= {AIM_PER_S:g}", is_ok=per_s >= AIM_PER_S)
    if peers:
        row = replace(row, peer_name="dnsmasq", peer=statistics.median(peers))
    yield row
    if outstanding == 1:
        yield Row("one answer, mean", "us", 1e6 / per_s)


def _asker(folder: Path) -> list[str]:
    """The command that asks: port, outstanding, answers; the question on its input."""
    compiler = shutil.which("cc")
    if compiler is None:
        return [sys.executable, "-m", "bench.dns", "ask"]
    source, program = folder / "ask.c", folder / "ask"
    source.write_text(ASKER)
    subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    return [str(program)]


def _rate(asker: list[str], port: int, outstanding: int, answers: int) -> float:
    """Answers per second, after some that don't count."""
    times = []
    for count in (WARM_UP, answers):
        done = subprocess.run(
            [*asker, str(port), str(outstanding), str(count)],
            input=query(NAME),
            capture_output=True,
            check=True,
        )
        times.append(float(done.stdout))
    return answers / times[-1]


def _ask_from_python(port: int, outstanding: int, answers: int) -> float:
    """Seconds; what the program in C does."""
    question = sys.stdin.buffer.read()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5.0)
        asking.connect((LOOPBACK, port))
        began = time.perf_counter()
        for _ in range(outstanding):
            asking.send(question)
        for number in range(answers):
            answer = asking.recv(4096)
            assert not answer[3] & 15, answer
            if number + outstanding < answers:
                asking.send(question)
        return time.perf_counter() - began


@contextlib.contextmanager
def _dnsmasq() -> Iterator[int | None]:
    """Its port; None where it is not installed."""
    program = shutil.which("dnsmasq")
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts"
        hosts.write_text("".join(f"10.0.{n // 250}.{n % 250 + 1} s{n}\n" for n in range(SERVICES)))
        udp, tcp = bound_pair()
        port = udp.getsockname()[1]
        udp.close()
        tcp.close()
        process = subprocess.Popen(
            [
                *(program, "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file"),
                *(f"--port={port}", f"--listen-address={LOOPBACK}", "--bind-interfaces"),
                *(f"--addn-hosts={hosts}", "--pid-file=", "--user=", "--local-ttl=0"),
            ]
        )
        try:
            eventually(lambda: _is_answered(port))
            yield port
        finally:
            process.terminate()
            process.wait()


def _is_answered(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.1)
        asking.connect((LOOPBACK, port))
        with contextlib.suppress(OSError):
            asking.send(query(NAME))
            return len(asking.recv(512)) > 12
    return False


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, of the user's and the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no VmRSS")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(_ask_from_python(*map(int, sys.argv[2:5])))
    else:
        main()
