"""Unpacks the members of a wheel whose names start with one of the prefixes: WHEEL FOLDER PREFIX..."""

import os
import sys
import zipfile

wheel, folder, prefixes = sys.argv[1], sys.argv[2], tuple(sys.argv[3:])
with zipfile.ZipFile(wheel) as archive:
    for member in archive.infolist():
        if member.filename.startswith(prefixes) and not member.is_dir():
            path = archive.extract(member, folder)
            mode = (member.external_attr >> 16) & 0o777
            os.chmod(path, mode | 0o644)
