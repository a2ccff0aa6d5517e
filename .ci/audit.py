"""`make audit`: known vulnerabilities of the installed packages, or one sentence that says why nobody could look."""

import json
import subprocess
import sys

UNREACHABLE = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "NameResolutionError", "SSLError", "ProxyError")


def verdict(report: str, errors: str) -> tuple[int, str]:
    """Exit code and what to print, from what pip-audit wrote on its two streams. 2: nothing was audited."""
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError):
        last = (errors.strip().splitlines() or ["pip-audit said nothing"])[-1]
        if any(name in errors for name in UNREACHABLE):
            return 2, f"audit: the list of known vulnerabilities cannot be reached, so nothing was audited ({last[:160]})"
        return 2, f"audit: pip-audit failed, so nothing was audited: {last}"
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return 2, f"audit: pypi.org answered for none of the {len(packages)} packages, so nothing was audited"
    found = [(package, each) for package in packages for each in package.get("vulns", [])]
    lines = [
        f"{package['name']} {package['version']}: {each['id']}, fixed in {', '.join(each['fix_versions']) or 'no version yet'}"
        for package, each in found
    ]
    lines.append(f"audit: {len(packages) - len(skipped)} packages, {len(found)} known vulnerabilities")
    if skipped:
        lines.append(f"not known to pypi.org, so not audited: {', '.join(skipped)}")
    return (1 if found else 0), "\n".join(lines)


def main() -> int:
    """Run pip-audit on this environment."""
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    code, text = verdict(done.stdout, done.stderr)
    print(text, file=sys.stderr if code else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
