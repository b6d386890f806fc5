"""Prints a Compose file as JSON, its anchors and merges resolved: compose.py FILE."""

import json
import sys

import yaml

with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps(yaml.safe_load(file)))
