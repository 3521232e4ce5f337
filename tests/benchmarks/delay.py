"""A network of so many milliseconds a round trip, between a port here and another: a TCP proxy that holds bytes back.

`python -m tests.benchmarks.delay PORT TARGET-PORT MILLISECONDS`. What comes in leaves half a round trip later, however
much is under way. A connection reaches the target one and a half round trips after it was made, as if the handshake's
packets had crossed the network too.
"""

import asyncio
import sys
from collections.abc import Sequence


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float, earliest: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(65536):
        loop.call_at(max(loop.time() + seconds, earliest), _write, writer, data)
    loop.call_at(max(loop.time() + seconds, earliest), writer.close)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int, way: float) -> None:
    begun = asyncio.get_running_loop().time()
    await asyncio.sleep(3 * way)
    try:
        there, back = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.close()
        return
    await asyncio.gather(
        _carry(reader, back, way, begun + 3 * way), _carry(there, writer, way, begun), return_exceptions=True
    )


async def _serve(port: int, target: int, milliseconds: float) -> None:
    way = milliseconds / 2000
    server = await asyncio.start_server(
        lambda reader, writer: _connect(reader, writer, target, way), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    asyncio.run(_serve(int(arguments[0]), int(arguments[1]), float(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
