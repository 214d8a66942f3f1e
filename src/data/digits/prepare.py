#!/usr/bin/env python3
"""Prepares digits.bin, the data set that is embedded in gradmark, from scikit-learn's digits.csv.gz.

    python3 -m pip download --no-deps scikit-learn
    unzip -p scikit_learn-*.whl sklearn/datasets/data/digits.csv.gz > digits.csv.gz
    python3 prepare.py digits.csv.gz digits.bin

Each line of the CSV holds 64 pixels (0 to 16, row by row) and the label. digits.bin holds the same
bytes without the commas: 1797 records of 64 pixels and one label.
"""

import gzip
import hashlib
import sys

CSV_GZ_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def main(source, target):
    with open(source, "rb") as file:
        packed = file.read()
    found = hashlib.sha256(packed).hexdigest()
    if found != CSV_GZ_SHA256:
        sys.exit(f"{source}: SHA-256 is {found}, expected {CSV_GZ_SHA256}")
    rows = [[int(cell) for cell in line.split(",")] for line in gzip.decompress(packed).decode().split()]
    assert len(rows) == 1797 and all(len(row) == 65 for row in rows)
    assert all(0 <= pixel <= 16 for row in rows for pixel in row[:64]) and all(0 <= row[64] <= 9 for row in rows)
    content = b"".join(bytes(row) for row in rows)
    with open(target, "wb") as file:
        file.write(content)
    print(f"{target}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


main(*sys.argv[1:])
