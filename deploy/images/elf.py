"""Takes from programs and libraries what only a debugger reads. Base images have no `strip`, so this is ours."""

import struct
from pathlib import Path

MAGIC = b"\x7fELF\x02\x01"  # 64 bit, little-endian: amd64 and arm64
PROGRAM_HEADERS = struct.Struct("<32xQ14xHH")  # e_phoff, e_phentsize, e_phnum
SEGMENT = struct.Struct("<8xQ16xQ")  # p_offset, p_filesz
SECTION_HEADERS = slice(0x28, 0x30)  # e_shoff
SECTION_COUNTS = slice(0x3C, 0x40)  # e_shnum, e_shstrndx


def strip(file: Path) -> None:
    """Cut an ELF file after its last segment, the last byte that a loader reads; leaves every other file alone.

    What goes is the symbol table, debug information and the list of sections. Idempotent.
    """
    content = file.read_bytes()
    if not content.startswith(MAGIC):
        return
    table, size, count = PROGRAM_HEADERS.unpack_from(content)
    segments = (SEGMENT.unpack_from(content, table + number * size) for number in range(count))
    end = max(offset + length for offset, length in segments)
    head = bytearray(content[:end])
    head[SECTION_HEADERS] = bytes(8)
    head[SECTION_COUNTS] = bytes(4)
    file.write_bytes(head)


def strip_all(folder: Path) -> None:
    """Strip every shared library in a folder, and below it."""
    for file in folder.rglob("*.so*"):
        if file.is_file() and not file.is_symlink():
            strip(file)
