"""Load on `gcnet serve`: many clients that send images of several sizes without a pause.

    python benchmarks/serve_load.py MODEL [--clients 200] [--seconds 60]

Starts the service, warms it up, then reports answers by status, the times of those that were 200, images a
second, and the memory of the service before, in the middle and after. Who is answered 429 comes again after a
second, as Retry-After says. Exit code 1 where an answer is neither 200 nor 429.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
from PIL import Image

WARM = 3  # bursts that fill the queue
SIZES = ((192, 192), (256, 192), (192, 256), (320, 240))


def main() -> int:
    """Starts the service and loads it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    words = [sys.executable, "-m", "gcnet", "serve", options.model, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(re.findall(r":(\d+) ", process.stdout.readline())[0])
            return asyncio.run(load(port, options.clients, options.seconds))
        finally:
            process.terminate()


async def load(port: int, clients: int, seconds: float) -> int:
    """Runs the clients and prints what came of it."""
    requests = [as_request(image) for image in images()]
    for _ in range(WARM):  # until it has had batches of every size
        await asyncio.gather(*(ask(port, request) for request in requests * 8))
    statuses: Counter[int] = Counter()
    times: list[float] = []
    memory = [await resident(port)]
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            status = await ask(port, requests[number % len(requests)])
            statuses[status] += 1
            if status == 200:
                times.append(time.perf_counter() - started)
            else:
                await asyncio.sleep(1)
            number += 1

    running = [asyncio.create_task(client(number)) for number in range(clients)]
    await asyncio.sleep(seconds / 2)
    memory.append(await resident(port))
    await asyncio.gather(*running)
    memory.append(await resident(port))
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    print(f"{clients} clients, {seconds:g} s: answers {dict(statuses)}")
    print(f"200: {len(times) / seconds:.1f} images/s, p50 {p50:.2f} s, p95 {p95:.2f} s, p99 {p99:.2f} s")
    print(f"resident memory {', '.join(f'{mb:.0f}' for mb in memory)} MB before, in the middle, after")
    return 0 if set(statuses) <= {200, 429} else 1


def images() -> list[bytes]:
    """JPEGs of noise in blocks, two of each size."""
    files = []
    for seed, (width, height) in enumerate(SIZES * 2):
        blocks = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def as_request(data: bytes) -> bytes:
    """A POST of the file, as bytes."""
    head = "POST /predict?score_threshold=0.3 HTTP/1.1\r\nHost: load\r\nConnection: close\r\n"
    return f"{head}Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def ask(port: int, request: bytes) -> int:
    """The status of the answer; 0 for none."""
    return int((await answer(port, request))[9:12] or 0)


async def answer(port: int, request: bytes) -> bytes:
    """All that the service answers, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def resident(port: int) -> float:
    """Megabytes of memory that the service holds, as it says itself."""
    text = await answer(port, b"GET /metrics HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")
    return float(re.findall(rb"process_resident_memory_bytes (\d\S+)", text)[0]) / 1e6


if __name__ == "__main__":
    sys.exit(main())
