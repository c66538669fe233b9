"""A dlt source as a connector's program: `python -I main.py read|describe ORDER`.

ORDER is a JSON file. Each line of the output is a JSON object: SCHEMA, RECORD (one row), TABLE (an Arrow table), FAILED, STATE, or ERROR. What the source
prints goes to the log.
"""

import json
import os
import sys
from pathlib import Path

# In isolated mode Python does not look beside the program. The source's own modules come first.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from dlt_program.output import Output, Refused
from dlt_program.reading import read
from dlt_program.sources import describe


def main() -> int:
    """Do what the arguments say."""
    output = Output()
    # dlt looks for its own files here, and for settings in variables: there are none.
    os.environ |= {"DLT_PROJECT_DIR": os.environ["HOME"], "DLT_DATA_DIR": os.environ["HOME"], "RUNTIME__DLTHUB_TELEMETRY": "false", "DO_NOT_TRACK": "1"}
    order = json.loads(Path(sys.argv[2]).read_bytes())
    sys.path[:0] = order["path"]
    try:
        if sys.argv[1] == "describe":
            output.send("SPEC", **describe(order))
        else:
            read(order, output)
    except Refused as error:
        output.send("ERROR", message=str(error))
        return 2
    finally:
        output.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
