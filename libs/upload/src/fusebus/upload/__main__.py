"""`fusebus-upload FOLDER --sas URL`: the command for suppliers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fusebus.upload.command import EXIT_USAGE, upload_folder
from fusebus.upload.sending import PARALLEL_FILES

VARIABLE = "FUSEBUS_UPLOAD_SAS"
MOST_PARALLEL = 64


def main() -> None:
    """Parse the command line, send, and exit."""
    parser = argparse.ArgumentParser(
        prog="fusebus-upload",
        description="Send every file below FOLDER with the link that you were given; nothing is ever overwritten.",
        epilog="example: fusebus-upload photos --sas 'https://…?…&sig=…'\n"
        "exit codes: 0 everything has arrived, 1 some files have not (they are named), 2 usage or an unfit link,\n"
        "            3 storage refuses the link, 130 interrupted; calling again goes on where it was",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--sas", metavar="URL", help=f"the link, in quotes; default: the variable {VARIABLE}")
    parser.add_argument(
        "--prefix", metavar="NAME", default="", help="folder to put everything into, for example 2026-11"
    )
    parser.add_argument("--receipt", metavar="FILE", type=Path, help="default: .fusebus-receipt.jsonl in FOLDER")
    parser.add_argument(
        "--parallel", metavar="N", type=int, default=PARALLEL_FILES, help="files at a time (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of words")
    given = parser.parse_args()
    link = given.sas or os.environ.get(VARIABLE, "")
    if not link:
        parser.error(f"--sas is missing (or {VARIABLE})")
    if not 1 <= given.parallel <= MOST_PARALLEL:
        parser.exit(EXIT_USAGE, f"fusebus-upload: --parallel is 1 to {MOST_PARALLEL}\n")
    sys.exit(
        upload_folder(
            given.folder, link, prefix=given.prefix, receipt=given.receipt, parallel=given.parallel, as_json=given.json
        )
    )


if __name__ == "__main__":
    main()
