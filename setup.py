"""Map the top-level folders to packages below ``convergedon``; all metadata is in setup.cfg."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
FOLDERS = ("openapi", "core", "handlers", "mediation", "adapters", "policies", "demo")
found = (init.parent.relative_to(ROOT) for top in FOLDERS for init in (ROOT / top).rglob("__init__.py"))
folders = sorted(folder.as_posix() for folder in found)

setup(
    packages=["convergedon." + folder.replace("/", ".") for folder in folders],
    package_dir={"convergedon." + folder.replace("/", "."): folder for folder in folders},
)
