"""A server of photos that waits before each answer, as a far one does, for `benchmarks.download --delay`.

python3 -m benchmarks.slow_server FOLDER SECONDS     prints its port
"""

import asyncio
import sys
from functools import cache
from pathlib import Path


@cache
def answer(path: Path) -> bytes:
    data = path.read_bytes()
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )


async def main(folder: Path, delay: float) -> None:
    first = {
        path.stat().st_ino: path for path in sorted(folder.iterdir(), reverse=True)
    }  # links share a copy

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                name = head.split(b" ", 2)[1].decode().lstrip("/")
                await asyncio.sleep(delay)
                writer.write(answer(first[(folder / name).stat().st_ino]))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
