"""Starts a supervisor with the stub gateway: `run_supervisor.py CONFIG_JSON PARTS_JSON [demo]`."""

import json
import os
import sys
from pathlib import Path

from proxy.config.model import Config
from proxy.server import silence
from proxy.server.contexts import Parts
from proxy.server.supervisor import run

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    silence.SILENT_SECONDS = float(os.environ.get("SILENT_SECONDS", silence.SILENT_SECONDS))
    parts = {"gateway": "stub_gateway:StubGateway", "prepare": "stub_gateway:nothing_wrong", **json.loads(sys.argv[2])}
    sys.exit(run(Config.model_validate(json.loads(sys.argv[1])), "test.yaml", len(sys.argv) > 3, parts=Parts(**parts)))
