"""What the page says in Python, to be run as it stands there."""

import re
from pathlib import Path

_PAGE = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```python\n(.*?)^```", _PAGE, re.DOTALL | re.MULTILINE)


def run(having, **names):
    """Run the block that has this text in it with these names defined, and return all its names."""
    (block,) = (block for block in _BLOCKS if having in block)
    exec(block, names)
    return names
