"""Runs and Huffman codes are deflate as zlib reads it, whatever the bytes; the C stays inside its memory."""

import ctypes
import hashlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from isal import isal_zlib

from fusebus.convert import rle_deflate
from fusebus.convert.filters import Filter, Strips
from fusebus.convert.rle_deflate import RleDeflater

SOURCES = Path(rle_deflate.__file__).parent
SANITIZED = ["-std=c11", "-O1", "-g", "-fPIC", "-shared", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WITHOUT_SSE2 = ["-U__SSE2__"]
"""As other processors compile it."""


def noise(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def deflated(*blocks: bytes, pixel_bytes: int = 3) -> bytes:
    deflater = RleDeflater(pixel_bytes, max(map(len, blocks)))
    return b"".join([*(deflater.block(np.frombuffer(block, np.uint8)) for block in blocks), deflater.end()])


def inflated(stream: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(stream)
    assert inflater.eof and not inflater.unused_data
    return data


def fibonacci() -> bytes:
    """Each value as often as the two before it together: its code would be 20 bits long."""
    numbers = [1, 1]
    while len(numbers) < 21:
        numbers.append(numbers[-1] + numbers[-2])
    data = np.repeat(np.arange(len(numbers), dtype=np.uint8), numbers)
    return bytes(np.random.default_rng(1).permutation(data))


pieces = some.lists(
    some.one_of(
        some.binary(max_size=60),
        some.builds(lambda byte, count: bytes([byte]) * count, some.integers(0, 255), some.integers(1, 700)),
        some.builds(lambda pixel, count: pixel * count, some.binary(min_size=1, max_size=8), some.integers(1, 200)),
        some.builds(noise, some.integers(0, 99), some.integers(1, 3_000)),
    ),
    max_size=12,
).map(b"".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(blocks=some.lists(pieces, min_size=1, max_size=4), pixel_bytes=some.integers(1, 8))
def test_what_was_deflated_is_inflated(blocks: list[bytes], pixel_bytes: int) -> None:
    assert inflated(deflated(*blocks, pixel_bytes=pixel_bytes)) == b"".join(blocks)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 19, 20, 21, 65_535, 65_536, 65_555, 200_000])
@pytest.mark.parametrize("kind", ["noise", "zeros", "pixels"])
def test_every_length_of_literals_and_runs(size: int, kind: str) -> None:
    data = {"noise": noise(size, size), "zeros": bytes(size), "pixels": (b"\x07\x80\xff" * size)[:size]}[kind]
    made = deflated(data)
    assert inflated(made) == data
    assert len(made) <= 1.01 * size + 400 if kind == "noise" else len(made) <= size / 150 + 60


def test_codes_have_a_longest_length() -> None:
    data = fibonacci()
    assert inflated(deflated(data)) == data
    best = -sum(count * np.log2(count / len(data)) for count in np.unique_counts(np.frombuffer(data, np.uint8)).counts)
    assert len(deflated(data)) < 1.06 * best / 8


def test_every_compiler_s_code_writes_the_same() -> None:
    """GCC's and Clang's, for x86-64 and ARM: there is no number in it but whole ones."""
    data = np.random.default_rng(8).normal(0, 3, 100_000).round().astype(np.int8).tobytes() + bytes(5_000)
    assert hashlib.sha256(deflated(data, data[::-1])).hexdigest()[:16] == "c2db8e1e7021748d"


@pytest.mark.parametrize("wrong", [np.zeros(11, np.uint8), np.zeros((4, 4), np.uint8)[:, ::2]])
def test_what_has_no_room_or_lies_in_pieces_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one piece of at most 10"):
        RleDeflater(3, 10).block(wrong)
    with pytest.raises(ValueError, match="pixels of 9 bytes"):
        RleDeflater(9, 10)
    with pytest.raises(ValueError, match="no strip"):
        Strips(np.zeros((9, 1 << 18), np.uint8), 1).filtered(Filter.AVERAGE, 1, 4)


def test_runs_take_no_more_than_zlibs_own_runs() -> None:
    """What an Up filter leaves of a smooth photograph: small numbers, zeros, pixels that repeat."""
    random = np.random.default_rng(3)
    pixels = random.normal(0, 1.2, (40_000, 3)).round().astype(np.int8)
    data = np.repeat(pixels, random.geometric(0.4, 40_000), axis=0).tobytes()
    runs = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_RLE)
    assert len(deflated(data)) < 0.9 * len(runs.compress(data) + runs.flush())


def test_another_compressor_takes_over_at_a_whole_byte() -> None:
    """Which must not copy from its own strips of before: in the stream others lie between them."""
    search = isal_zlib.compressobj(3, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
    same, other = noise(4, 5_000), noise(5, 5_000)
    deflater, strips, stream = RleDeflater(3, 5_000), [same, other, same, same, other, same], b""
    for number, strip in enumerate(strips):
        if number % 3 == 1:
            stream += deflater.align() + search.compress(strip) + search.flush(isal_zlib.Z_FULL_FLUSH)
        else:
            stream += deflater.block(np.frombuffer(strip, np.uint8))
    assert inflated(stream + deflater.end()) == b"".join(strips)


@pytest.mark.parametrize("pixel_bytes", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("pixels", [1, 2, 5, 33, 700])
def test_the_average_filter_is_the_specification_s(pixel_bytes: int, pixels: int) -> None:
    rows = np.random.default_rng(pixels).integers(0, 256, (401, pixels * pixel_bytes), np.uint8)
    above, left = np.zeros((2, *rows.shape), np.uint16)
    above[1:], left[:, pixel_bytes:] = rows[:-1], rows[:, :-pixel_bytes]
    strips = Strips(rows, pixel_bytes)
    filtered = [strips.filtered(Filter.AVERAGE, *part).copy() for part in strips.ranges()]
    np.testing.assert_array_equal(np.concatenate(filtered)[:, 1:], (rows - (above + left) // 2).astype(np.uint8))
    assert {row[0] for row in np.concatenate(filtered)} == {Filter.AVERAGE}


def sanitizer(folder: Path) -> str | None:
    """What must be loaded before C with checks of every access; None: this compiler has none."""
    (folder / "empty.c").write_text("int nothing;\n")
    try:
        subprocess.run(["cc", *SANITIZED, str(folder / "empty.c"), "-o", str(folder / "empty.so")], check=True)
        found = subprocess.run(["cc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() if Path(found.stdout.strip()).is_file() else None


def test_the_c_stays_inside_its_memory(tmp_path: Path) -> None:
    if (runtime := sanitizer(tmp_path)) is None:
        if os.environ.get("CI"):
            pytest.fail("no C compiler with sanitizers here")
        pytest.skip("no C compiler with sanitizers here")
    sources = [str(SOURCES / name) for name in ("rle_deflate.c", "average.c")]
    environment = os.environ | {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    said = []
    for options in ([], WITHOUT_SSE2):
        library = tmp_path / f"librows.{len(said)}.so.1"
        subprocess.run(["cc", *SANITIZED, *options, *sources, "-o", str(library)], check=True)
        command = [sys.executable, __file__, str(library)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3_000:]
        said.append(done.stdout)
    assert said[0].startswith("inside, ")
    assert said[0] == said[1], "other processors write other bytes"


def stay_inside(library: str) -> str:
    """Exactly as much memory as the C asks for, from an allocator that tells of a byte more; a digest of all blocks."""
    loaded = ctypes.CDLL(library)
    deflate, average = loaded.fusebus_rle_deflate, loaded.fusebus_average
    deflate.restype = ctypes.c_size_t
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    digest = hashlib.sha256()
    number, carry, random = ctypes.c_size_t, (ctypes.c_uint64 * 2)(), np.random.default_rng(6)
    grain = [random.bytes(size) for size in (0, 1, 7, 19, 20, 23, 4_096, 70_001)]
    flat = [bytes(size) for size in (3, 4, 5, 8, 300, 70_000)]
    mixed = [(random.normal(0, spread, 9_001).round().astype(np.int8)).tobytes() for spread in (0.3, 1, 4, 40)]
    for data in (*grain, *flat, *mixed, fibonacci()):
        for pixel in range(1, 9):
            sizes = (len(data), 6 * (len(data) // 4 + len(data) // 65_535 + 2), 2 * len(data) + 1024)
            source, segments, out = (libc.malloc(max(1, size)) for size in sizes)
            ctypes.memmove(source, data, len(data))
            pointers = [ctypes.c_void_p(one) for one in (source, segments, out)]
            written = deflate(pointers[0], number(len(data)), number(pixel), carry, pointers[1], pointers[2])
            digest.update(ctypes.string_at(out, written))
            for one in (source, segments, out):
                libc.free(one)
    for pixels, pixel, rows in ((1, 1, 2), (1, 8, 3), (37, 3, 5), (64, 4, 2)):
        width = pixels * pixel
        source, out = libc.malloc(width * rows), libc.malloc((width + 1) * (rows - 1))
        ctypes.memset(source, 77, width * rows)
        average(ctypes.c_void_p(source + width), number(width), number(rows - 1), number(pixel), ctypes.c_void_p(out))
        libc.free(source)
        libc.free(out)
    return digest.hexdigest()


if __name__ == "__main__":
    print("inside,", stay_inside(sys.argv[1]))
