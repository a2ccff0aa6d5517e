"""The SFT family: methods that raise the likelihood of a text, an expert's or the model's own right answers."""
