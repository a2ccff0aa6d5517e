"""`retain gate`: may this model take the place of its base? ALLOW, REJECT or INCONCLUSIVE against a margin."""
