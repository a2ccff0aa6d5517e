"""An installed retain has every file that it reads: the builder takes all of its packages but what git ignores."""

import subprocess
import tomllib

from tests.conftest import ROOT


def of_git(*arguments: str, given: str | None = None) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, input=given, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.split("\n")[:-1]


def test_every_package_and_data_file_is_in_the_wheel():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert wheel.keys() == {"targets"}
    assert wheel["targets"].keys() == {"wheel"}
    assert wheel["targets"]["wheel"].keys() == {"packages"}, "an include or exclude: build the wheel and see what is missing"
    packages = wheel["targets"]["wheel"]["packages"]
    data = [file for file in of_git("ls-files", *packages) if not file.endswith(".py")]
    assert {file.rsplit(".", 1)[1] for file in data} >= {"sql", "css", "js", "j2", "yaml", "csv"}
    assert of_git("check-ignore", "--no-index", "--stdin", given="\n".join(data)) == []
    written = {file.split("/")[0] for file in of_git("ls-files", "*/__init__.py")} - {"tests", "benchmarks"}
    assert set(packages) == written
