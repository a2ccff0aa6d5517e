"""A detector that detect-secrets lacks: access tokens of the Hugging Face hub."""

import re

from detect_secrets.plugins.base import RegexBasedDetector


class HuggingFaceDetector(RegexBasedDetector):
    """`hf_` and at least 30 letters or digits."""

    secret_type = "Hugging Face token"
    denylist = [re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")]
